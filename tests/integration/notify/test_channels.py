"""Notifications that really arrive: a webhook, a mail server, Alertmanager; and after a kill -9."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from contract.errors import ConfigError, ServerUnavailableError
from services.command import main
from services.notify.config import ChannelSettings, NotifyConfig
from services.notify.notification import Notification
from services.notify.notifier import Notifier
from services.notify.rendering import Message
from services.notify.sender import AppriseSender
from tests.fixtures.endpoints import HOST, Endpoint, Webhook, free_port, wait_until
from tests.fixtures.prometheus_stack import Alertmanager

HOSTILE = '<!channel> <at user_id="all">x</at> [a](http://b) @all <script>alert(1)</script>'


class Inbox(Endpoint):
    """Keeps the JSON it is sent; ``answer`` is given back."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.answer: tuple[int, bytes] = (200, b"{}")
        super().__init__(self._received, port)

    def _received(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self.answer[0] == 200:
            self.requests.append((path, json.loads(body)))
        return self.answer


class Mails:
    def __init__(self) -> None:
        self.received: list[tuple[list[str], EmailMessage]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.received.append((list(envelope.rcpt_tos), message))
        return "250 OK"


@contextlib.contextmanager
def mail_server() -> Iterator[tuple[Mails, int]]:
    mails = Mails()
    controller = Controller(mails, hostname=HOST, port=free_port())
    controller.start()
    try:
        yield mails, controller.port
    finally:
        controller.stop()


def config(folder: Path, *channels: dict[str, Any], **settings: Any) -> NotifyConfig:
    return NotifyConfig.model_validate(
        {"outbox": folder / "outbox.sqlite", "channel": channels, **settings}
    )


def failure(subject: str = "job-7", **more: Any) -> Notification:
    values = {
        "cause": "GPU_Hardware_Fault",
        "node": "gpu-node-3",
        "user": "ann",
        "evidence": ("12: NVRM: Xid (PCI:0000:3b:00): 79", HOSTILE),
        "action": {"zh": "请换节点重新提交", "en": "Resubmit on other nodes"},
    }
    return Notification(subject=subject, created_at=time.time(), **(values | more))


def test_a_webhook_and_a_mail_server_are_told(tmp_path: Path) -> None:
    with Inbox() as inbox, mail_server() as (mails, port):
        url_file = tmp_path / "mail.url"
        url_file.write_text(
            f"mailto://{HOST}:{port}?from=presage@example.org&to={{user}}@example.org\n"
        )
        settings = config(
            tmp_path,
            {"name": "hook", "url": f"json://{inbox.target}/alerts", "audience": "sre"},
            {"name": "mail", "url_file": url_file, "audience": "user"},
        )
        with Notifier(settings) as notifier:
            assert notifier.notify(failure()) == ["hook", "mail"]
            assert notifier.notify(failure("job-8", user="bo; rm")) == ["hook"]
            wait_until(lambda: mails.received and inbox.requests, what="both are told")
    path, told = inbox.requests[0]
    assert path == "/alerts"
    assert told["title"].startswith("[Presage] 严重 critical · 加速卡硬件故障 / GPU hardware fault")
    assert "节点 node: gpu-node-3" in told["message"]
    assert "@" not in told["message"]
    recipients, message = mails.received[0]
    assert recipients == ["ann@example.org"]
    assert message["Subject"].startswith("[Presage]")
    html = message.get_body(("html",))
    assert html is not None
    text = html.get_content()
    assert "Xid (PCI:0000:3b:00): 79" in text
    assert "请换节点重新提交" in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    """The webhook is away while 40 notifications are taken; then the process is killed."""
    port = free_port()
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from services.notify.config import load_notify_config\n"
        "from services.notify.notifier import Notifier\n"
        "from services.notify.notification import Notification\n"
        "notifier = Notifier(load_notify_config(Path(sys.argv[1])))\n"
        "for n in range(40):\n"
        "    notifier.notify(Notification(cause='GPU_Hardware_Fault', subject=f'job-{n}',\n"
        "        node=f'n{n}', created_at=time.time()))\n"
        "print('taken', flush=True)\n"
        "time.sleep(60)\n"
    )
    path = tmp_path / "notify.toml"
    path.write_text(
        f'outbox = "{tmp_path}/outbox.sqlite"\n[[channel]]\nname = "hook"\naudience = "sre"\n'
        f'url = "json://{HOST}:{port}"\nburst = 1000\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    from services.notify.config import load_notify_config

    with Inbox(port) as inbox, Notifier(load_notify_config(path)):
        wait_until(lambda: len(inbox.requests) >= 40, what="all are told after the kill")
    subjects = [told["title"].rsplit(" ", 1)[-1] for _, told in inbox.requests]
    assert sorted(subjects) == sorted(f"job-{n}" for n in range(40))


def test_a_webhook_that_was_away_is_told_later(tmp_path: Path) -> None:
    with Inbox() as inbox:
        inbox.answer = (503, b"no")
        settings = config(
            tmp_path,
            {"name": "hook", "url": f"json://{inbox.target}/secret-token", "audience": "sre"},
        )
        with Notifier(settings) as notifier:
            notifier.notify(failure())
            wait_until(
                lambda: notifier.telemetry.registry.get_sample_value(
                    "presage_notify_failures_total", {"channel": "hook", "reason": "unavailable"}
                ),
                what="a failure is counted",
            )
            inbox.answer = (200, b"{}")
            wait_until(lambda: inbox.requests, what="it is told again")


def test_a_hardware_alert_reaches_alertmanager(tmp_path: Path) -> None:
    with (
        Webhook() as webhook,
        Alertmanager(tmp_path / "alertmanager", webhook=webhook.url) as alertmanager,
    ):
        settings = config(tmp_path, alertmanager={"url": alertmanager.url})
        labels = {"alertname": "TrainingNodeFault", "node": "gpu-node-3", "device": "0000:3b:00"}
        long_ago = time.time() - 86_400
        with Notifier(settings) as notifier:
            for _ in range(2):
                assert notifier.raise_alert(
                    labels, {"summary": "x"}, starts_at=long_ago, key="job-7"
                )
            told = webhook.wait_for("TrainingNodeFault")
            assert told["labels"] == labels
            taken = {"channel": "alertmanager", "outcome": "duplicate"}
            assert notifier.telemetry.registry.get_sample_value(
                "presage_notify_notifications_total", taken
            )
            # Away, and back: nothing is lost.
            alertmanager.kill()
            other = {**labels, "node": "n4"}
            notifier.raise_alert(other, {}, starts_at=time.time(), key="job-8")
            wait_until(
                lambda: notifier.telemetry.registry.get_sample_value(
                    "presage_notify_failures_total",
                    {"channel": "alertmanager", "reason": "unavailable"},
                ),
                what="a failure is counted",
            )
            alertmanager.start()
            webhook.wait_for("TrainingNodeFault", node="n4")


def sender(url: str, **settings: Any) -> AppriseSender:
    return AppriseSender(
        ChannelSettings.model_validate({"name": "c", "url": url, "audience": "sre", **settings})
    )


TOKENS = {
    "dingtalk": ("dingtalk://SECabcdef123456@0123456789abcdef0123456789abcdef", "notify_url"),
    "feishu": ("feishu://aaaabbbb-cccc-dddd-eeee-ffff00001111", "notify_url"),
    "lark": ("lark://aaaabbbb-cccc-dddd-eeee-ffff00001111", "webhook_url"),
    "wecom": ("wecombot://693a91f6-7xxx-4bc4-97a0-0ec2sifa5aaa", "api_url"),
    "slack": ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "webhook_url"),
}


@pytest.mark.parametrize("service", TOKENS)
@pytest.mark.parametrize("form", ["text", "markdown"])
def test_the_request_that_apprise_would_send_at_a_local_server(service: str, form: str) -> None:
    if service == "wecom" and form == "markdown":
        with pytest.raises(ConfigError, match="format"):
            sender(TOKENS[service][0], format="markdown")
        return
    url, attribute = TOKENS[service]
    with Inbox() as inbox:
        if service == "slack":
            inbox.answer = (200, b"ok")
        channel = sender(url, format=form)
        # The plugin's own address in place of the service's: all else is what it would send.
        setattr(channel._service, attribute, inbox.url + "/hook/{token}")
        renderer_body = _body(channel)
        channel.send(Message("[Presage] job", renderer_body, channel.form, "critical"), "")
    sent = json.dumps(inbox.requests[0][1], ensure_ascii=False)
    assert "Xid (PCI:0000:3b:00): 79" in sent
    assert "@" not in sent.replace('"at"', "").replace("isAtAll", "").replace("atMobiles", "")
    assert '"isAtAll": true' not in sent
    for mark in ("<!", "<at", "<script", "github.com", *(["](http"] * (form == "markdown"))):
        assert mark not in sent
    if service == "dingtalk":
        assert "timestamp=" in inbox.requests[0][0]
        assert "sign=" in inbox.requests[0][0]


def _body(channel: AppriseSender) -> str:
    from services.notify.causes import CauseTable
    from services.notify.rendering import Renderer

    return Renderer(channel.form, ("zh", "en"), "sre", CauseTable()).message(failure()).body


@pytest.mark.parametrize(
    ("service", "answer"),
    [
        ("dingtalk", b'{"errcode": 130101, "errmsg": "send too fast"}'),
        ("dingtalk", b'{"errcode": 310000, "errmsg": "keywords not in content"}'),
        ("wecom", b'{"errcode": 45009, "errmsg": "api freq out of limit"}'),
        ("feishu", b'{"code": 9499, "msg": "Bad Request"}'),
        ("lark", b'{"code": 9499, "msg": "Bad Request"}'),
    ],
)
def test_a_refusal_with_status_200_is_one_at_a_local_server(service: str, answer: bytes) -> None:
    url, attribute = TOKENS[service]
    with Inbox() as inbox:
        inbox.answer = (200, answer)
        channel = sender(url)
        setattr(channel._service, attribute, inbox.url + "/hook/{token}")
        with pytest.raises(ServerUnavailableError) as raised:
            channel.send(Message("t", "b", channel.form, "info"), "")
    assert len(inbox.requests) == 1
    for piece in url.split("://")[1].replace("@", "/").split("/"):
        assert piece not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "dingtalk://not_a_token!hunter22",
        "nonsense://hunter22",
        "hunter22",
        "slack://hunter22",
        "json://user:hunter22@127.0.0.1:9/hunter22?format=html",
        "json://user:hunter22@127.0.0.1:9/path-hunter22",
        "mailto://user:hunter22@127.0.0.1:9/?to=a@example.org",
    ],
)
def test_a_secret_is_nowhere_to_be_read(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    path = tmp_path / "notify.toml"
    path.write_text(
        f'outbox = "{tmp_path}/outbox.sqlite"\n[[channel]]\nname = "c"\naudience = "sre"\n'
        f'url = "{url}"\n'
    )
    told = ""
    try:
        assert main(["notify", "test", "--config", str(path)]) != 0
        try:
            with Notifier(config(tmp_path, {"name": "c", "audience": "sre", "url": url})) as desk:
                desk.notify(failure())
                wait_until(
                    lambda: desk.telemetry.registry.get_sample_value(
                        "presage_notify_failures_total",
                        {"channel": "c", "reason": "unavailable"},
                    ),
                    what="a failure is counted",
                )
                told = repr(desk.config)
        except ConfigError as error:
            told = str(error)
        main(["notify", "outbox", "--config", str(path)])
    finally:
        logging.getLogger().setLevel(logging.WARNING)
    output = capfd.readouterr()
    assert "channel" in output.out
    for text in (output.out, output.err, caplog.text, told):
        assert "hunter22" not in text
    outbox = tmp_path / "outbox.sqlite"
    for file in tmp_path.glob("outbox.sqlite*"):
        assert b"hunter22" not in file.read_bytes()
    assert not outbox.exists() or outbox.stat().st_mode & 0o77 == 0


def test_the_test_command_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Inbox() as inbox:
        path = tmp_path / "notify.toml"
        path.write_text(
            f'outbox = "{tmp_path}/o"\n[[channel]]\nname = "hook"\naudience = "sre"\n'
            f'url = "json://{inbox.target}"\n[[channel]]\nname = "mine"\naudience = "user"\n'
            f'url = "json://{inbox.target}/{{user}}"\n'
        )
        assert main(["notify", "test", "--config", str(path), "--user", "ann"]) == 0
        assert main(["notify", "test", "--config", str(path)]) == 12
        assert main(["notify", "test", "--config", str(path), "--channel", "none"]) == 2
    assert [path for path, _ in inbox.requests] == ["/", "/ann", "/"]
    output = capsys.readouterr().out
    assert "sent" in output
    assert "say --user NAME" in output
