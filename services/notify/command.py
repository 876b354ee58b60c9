"""``python -m services notify test|outbox --config FILE``"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.notify.config import ChannelSettings, NotifyConfig

_TEST_ALERT_SECONDS = 60.0


def add_parser(commands: Any) -> None:
    """Add ``notify`` to the services' subparsers."""
    notify = commands.add_parser("notify", help="channels of notifications: test them, look in")
    words = notify.add_subparsers(dest="command", required=True)

    test = words.add_parser("test", help="a test message to each channel, and a table")
    _add_config(test)
    test.add_argument("--channel", action="append", metavar="NAME", help="only this one; several")
    test.add_argument("--user", default="", help="recipient for channels with {user}")
    test.set_defaults(run=_test)

    outbox = words.add_parser("outbox", help="what waits, what failed and why")
    _add_config(outbox)
    outbox.add_argument("--retry", action="store_true", help="try again what was given up")
    outbox.set_defaults(run=_outbox)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings, TOML")


def _test(arguments: argparse.Namespace) -> int:
    from clients.table import render
    from contract.errors import ConfigError
    from services.notify.config import load_notify_config

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    config = load_notify_config(arguments.config)
    wanted = set(arguments.channel or ())
    names = {channel.name for channel in config.channel}
    if wanted - names:
        raise ConfigError(
            "no such channel",
            where=str(arguments.config),
            expected=", ".join(sorted(names)) or "a [[channel]]",
            got=", ".join(sorted(wanted - names)),
        )
    rows = [
        _test_channel(config, channel, arguments.user)
        for channel in config.channel
        if not wanted or channel.name in wanted
    ]
    if config.alertmanager is not None and not wanted:
        rows.append(_test_alertmanager(config))
    if not rows:
        raise ConfigError(
            "nobody to tell", where=str(arguments.config), expected="at least one [[channel]]"
        )
    print(render(["channel", "kind", "audience", "form", "seconds", "result"], rows, widest=200))
    for cause in _unknown_causes(config):
        print(f"note: no cause of the table fits {cause}; right for an alert's name")
    return 0 if all(row[-1] == "sent" for row in rows) else 12


def _test_channel(config: NotifyConfig, channel: ChannelSettings, user: str) -> list[str]:
    from contract.errors import PresageError
    from services.notify.notification import Notification
    from services.notify.rendering import Renderer
    from services.notify.sender import AppriseSender, recipient_of

    kind = form = "-"
    started = time.monotonic()
    try:
        sender = AppriseSender(channel)
        kind, form = sender.kind, sender.form
        renderer = Renderer(
            sender.form,
            channel.languages,
            channel.audience,
            config.table(),
            largest_bytes=sender.largest_bytes,
            templates=config.templates,
        )
        recipient = recipient_of(user) or ""
        if sender.is_personal and not recipient:
            result = "skipped: its URL names {user}; say --user NAME"
        else:
            notification = Notification(
                cause="test",
                subject=channel.name,
                kind="test",
                created_at=time.time(),
                severities={"user": "info", "sre": "info"},
                summary={
                    "zh": "Presage 的测试消息：通道可用。",
                    "en": "A test message of Presage: the channel works.",
                },
            )
            sender.send(renderer.message(notification), recipient)
            result = "sent"
    except PresageError as error:
        result = str(error)
    seconds = f"{time.monotonic() - started:.2f}"
    return [channel.name, kind, channel.audience, form, seconds, result]


def _test_alertmanager(config: NotifyConfig) -> list[str]:
    from contract.errors import PresageError
    from services.alertmanager import Alertmanager, alert

    assert config.alertmanager is not None
    alertmanager = Alertmanager(config.alertmanager.url.get_secret_value())
    now = time.time()
    try:
        alertmanager.post(
            [
                alert(
                    {"alertname": "PresageNotifyTest", "severity": "info"},
                    {"summary": "A test alert of Presage; it ends in a minute."},
                    starts_at=now,
                    ends_at=now + _TEST_ALERT_SECONDS,
                )
            ]
        )
        result = "sent"
    except PresageError as error:
        result = str(error)
    finally:
        alertmanager.close()
    return [alertmanager.name, "Alertmanager", "-", "alert", f"{time.time() - now:.2f}", result]


def _unknown_causes(config: NotifyConfig) -> list[str]:
    from fnmatch import fnmatchcase

    table = list(config.table())
    named = {pattern for channel in config.channel for pattern in channel.causes}
    return sorted(p for p in named if not any(fnmatchcase(cause, p) for cause in table))


def _outbox(arguments: argparse.Namespace) -> int:
    from clients.table import render
    from services.notify.config import load_notify_config
    from services.notify.outbox import Outbox

    config = load_notify_config(arguments.config)
    outbox = Outbox(config.outbox, limit=config.outbox_limit)
    try:
        if arguments.retry:
            print(f"{outbox.retry_failed(time.time())} given up before are tried again")
        rows = [
            [channel, state, str(count)]
            for (channel, state), count in sorted(outbox.counts().items())
        ]
        print(render(["channel", "state", "count"], rows) if rows else "the outbox is empty")
        if problems := outbox.problems():
            print()
            print(
                render(
                    ["channel", "state", "attempts", "last error"],
                    [[c, state, str(attempts), why] for c, state, attempts, why in problems],
                    widest=120,
                )
            )
    finally:
        outbox.close()
    return 0
