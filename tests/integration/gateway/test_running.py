"""The gateway as an operator runs it: tokens, TLS, draining, no Triton, in the background."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from embedded_triton import EmbeddedServer
from services.web.tokens import add_token, remove_token
from tests.fixtures.endpoints import free_port, wait_until
from tests.fixtures.gateway_process import APIS, ROOT, free_ports, gateway_process

LINE = {"text": "generating core.2275"}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_tokens_are_for_their_apis_on_any_port_and_can_be_taken_back(
    triton: EmbeddedServer, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    logs, every = add_token(tokens, "logs", ["log_anomaly"]), add_token(tokens, "all", ["all"])
    words = ("all", "--tokens-file", str(tokens), *free_ports())
    with gateway_process(tmp_path / "run", f"grpc://{triton.grpc_url}", *words) as gateway:
        own, other = gateway.urls["log_anomaly"], gateway.urls["metric_forecast"]
        assert httpx.post(f"{own}/predict", json=LINE).status_code == 401
        assert httpx.post(f"{own}/predict", json=LINE, headers=bearer(logs)).status_code == 200
        body = {"series": [1.0] * 30}
        answer = httpx.post(f"{other}/predict", json=body, headers=bearer(logs))
        assert answer.status_code == 403
        assert httpx.post(f"{other}/predict", json=body, headers=bearer(every)).status_code == 200
        lines = {"lines": [LINE["text"]]}
        answer = httpx.post(f"{other}/v1/logs", json=lines, headers=bearer(logs))
        assert answer.status_code == 200
        assert httpx.get(f"{other}/v1/models", headers=bearer(logs)).status_code == 200
        assert httpx.get(f"{other}/v1/models").status_code == 401
        assert httpx.get(f"{other}/docs").status_code == 200
        remove_token(tokens, "logs")
        wait_until(
            lambda: (
                httpx.post(f"{own}/predict", json=LINE, headers=bearer(logs)).status_code == 401
            ),
            what="the token is gone",
        )
        late = add_token(tokens, "late", ["log_anomaly"])
        wait_until(
            lambda: (
                httpx.post(f"{own}/predict", json=LINE, headers=bearer(late)).status_code == 200
            ),
            what="the new token is known",
        )
        for secret in (logs, every, late):
            assert secret.encode() not in gateway.access_log
            assert secret not in gateway.problems
        assert LINE["text"].encode() not in gateway.access_log


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "no tokens file"),
        (("--no-tokens", "--host", "0.0.0.0"), "only this machine"),
        (("--tokens-file", "x.toml", "--tls-key-file", "k.pem"), "half of a TLS identity"),
    ],
)
def test_it_does_not_start_unprotected(words: tuple[str, ...], match: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "services", "gateway", "log_anomaly", "--port=0", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert match in ended.stderr


def test_tls(triton: EmbeddedServer, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    words = ("log_anomaly", "--no-tokens", "--port=0", f"--tls-certificate-file={certificate}")
    words += (f"--tls-key-file={key}",)
    with gateway_process(tmp_path / "run", f"grpc://{triton.grpc_url}", *words) as gateway:
        url = gateway.urls["log_anomaly"]
        assert url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        answer = httpx.post(f"{url}/predict", json=LINE, verify=context, trust_env=False)
        assert answer.json()["result"] in ("异常", "正常")
        assert "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises(httpx.ConnectError):
            httpx.post(f"{url}/predict", json=LINE, trust_env=False)


def test_sigterm_lets_what_is_being_answered_end(triton: EmbeddedServer, tmp_path: Path) -> None:
    words = ("log_anomaly", "--no-tokens", "--port=0")
    with gateway_process(tmp_path, f"grpc://{triton.grpc_url}", *words) as gateway:
        address = gateway.urls["log_anomaly"].removeprefix("http://").split(":")
        body = b'{"text": "generating core.2275"}'
        head = (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        idle = httpx.Client(base_url=gateway.urls["log_anomaly"])
        assert idle.get("/readyz").status_code == 200
        with socket.create_connection((address[0], int(address[1])), timeout=30) as busy:
            busy.sendall(head + body[:10])
            metrics = "presage_web_in_flight{"
            wait_until(
                lambda: f'{metrics}api="log_anomaly"}} 1.0' in idle.get("/metrics").text,
                what="the request is in flight",
            )
            gateway.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "SIGTERM: draining" in gateway.problems, what="it drains")
            assert gateway.process.poll() is None
            busy.sendall(body[10:])
            told = b""
            while part := busy.recv(65_536):
                told += part
        assert told.startswith(b"HTTP/1.1 200 OK")
        assert gateway.process.wait(20) == 0
        with pytest.raises(httpx.TransportError):
            idle.get("/healthz")


def test_no_triton_is_said_in_time_and_it_recovers_nothing_by_itself(tmp_path: Path) -> None:
    words = ("all", "--no-tokens", *free_ports())
    with gateway_process(tmp_path, f"grpc://127.0.0.1:{free_port()}", *words) as gateway:
        for api, body in (
            ("metric_forecast", {"series": [1.0] * 30}),
            ("log_anomaly", LINE),
            ("train_failure_rca", LINE),
        ):
            url = gateway.urls[api]
            assert httpx.get(f"{url}/healthz").status_code == 200
            assert httpx.get(f"{url}/readyz", timeout=30).status_code == 503
            answer = httpx.post(f"{url}/predict", json=body, timeout=30)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert "127.0.0.1" not in answer.text
            assert answer.json()["code"] == "unavailable"
        assert httpx.get(f"{url}/v1/models", timeout=30).status_code == 503
        refused = 'presage_web_refused_total{api="train_failure_rca",reason="unavailable"}'
        assert refused in httpx.get(f"{url}/metrics").text
        assert "Traceback" not in gateway.problems


def test_the_callers_deadline_reaches_triton(triton: EmbeddedServer, tmp_path: Path) -> None:
    words = ("train_failure_rca", "--no-tokens", "--port=0")
    with gateway_process(tmp_path, f"grpc://{triton.grpc_url}", *words) as gateway:
        url = f"{gateway.urls['train_failure_rca']}/v1/diagnose"
        log = {"texts": ["\n".join(f"error {i} {j}" for i in range(3000)) for j in range(8)]}
        # Known labels and config first: what is timed is the diagnosis.
        httpx.post(url, json={"text": "x"}, timeout=30)
        started = time.monotonic()
        answer = httpx.post(url, json=log, headers={"x-request-timeout": "0.05"}, timeout=60)
        assert answer.status_code == 504
        assert answer.json()["code"] == "deadline"
        assert time.monotonic() - started < 20


def test_many_callers_at_once_get_their_own_answers(triton: EmbeddedServer, tmp_path: Path) -> None:
    """Requests share calls; each gets the answer it gets alone."""
    words = ("metric_forecast", "--no-tokens", "--port=0")
    with gateway_process(tmp_path, f"grpc://{triton.grpc_url}", *words) as gateway:
        url = f"{gateway.urls['metric_forecast']}/predict"
        wrong: list[object] = []

        def ask(caller: int) -> None:
            with httpx.Client(timeout=60) as client:
                for turn in range(20):
                    value = float(caller * 100 + turn)
                    answer = client.post(url, json={"series": [1.0] * 29 + [value]})
                    if answer.status_code != 200 or answer.json()["next_value"] != value:
                        wrong.append((caller, turn, answer.text))

        callers = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert wrong == []
        metrics = httpx.get(f"{gateway.urls['metric_forecast']}/metrics").text
        [calls] = [
            float(line.split()[-1])
            for line in metrics.splitlines()
            if line.startswith("presage_web_model_calls_total{")
        ]
        assert calls < 320


def test_up_in_the_background_and_down_again(triton: EmbeddedServer, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")

    def gateway(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services", "gateway", *words, "--run-folder", folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            env={k: v for k, v in os.environ.items() if not k.startswith("PRESAGE_")},
        )

    url = ("--url", f"grpc://{triton.grpc_url}")
    up = gateway("all", "--no-tokens", "--detach", *url, *free_ports())
    try:
        assert up.returncode == 0, up.stderr
        found = [word.rstrip(",;") for word in up.stdout.split() if word.startswith("http://")]
        assert len(found) == len(APIS)
        for address in found:
            assert httpx.get(f"{address}/readyz", timeout=30).status_code == 200
        again = gateway("all", "--no-tokens", "--detach", *url, *free_ports())
        assert again.returncode == 11
        assert "up already" in again.stderr
    finally:
        down = gateway("down")
    assert down.stdout == "gateway is down\n"
    with pytest.raises(httpx.ConnectError):
        httpx.get(found[0])
    assert gateway("down").stdout == "no gateway is up\n"
