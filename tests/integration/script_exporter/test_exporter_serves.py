"""Two hundred scripts at once, reload, tokens, and a quick and clean end."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.fixtures.endpoints import wait_until
from tests.fixtures.exporter_process import ScriptExporter
from tests.fixtures.prometheus_stack import Prometheus


def shell(folder: Path, name: str, text: str, **more: object) -> dict[str, object]:
    file = folder / f"{name}.sh"
    file.write_text(text + "\n")
    return {"script_path": str(file), "script_type": "shell", **more}


def test_two_hundred_collectors_at_once(tmp_path: Path) -> None:
    script = (
        'for n in 0 1 2 3 4 5 6 7 8 9; do echo "busy{of=\\"$0\\",n=\\"$n\\"} $n"; done; sleep 0.1'
    )
    collectors = {f"s{n:03}": shell(tmp_path, f"s{n:03}", script, interval=30) for n in range(200)}
    with ScriptExporter(tmp_path / "exporter", collectors, max_concurrent=16) as exporter:
        began = time.monotonic()
        running = []

        def all_good() -> bool:
            text = exporter.get().text
            running.append(_value(text, "script_exporter_running"))
            return text.count("\nscript_success{") == 200

        wait_until(all_good, seconds=90, what="each of them has run")
        seconds = time.monotonic() - began
        assert max(running) <= 16
        with Prometheus(tmp_path / "prometheus", scrape={"scripts": exporter.target}) as server:
            server.wait_for("count(busy) == 2000")
            assert server.value("sum(script_success)") == 200
            assert server.value("collector_count") == 200
            duration = server.value('scrape_duration_seconds{job="scripts"}')
        print(f"200 scripts of 0.1 s, 16 at a time: {seconds:.1f} s; a scrape: {duration:.3f} s")
        assert exporter.health()["status"] == "ok"
        assert _resident_mb(exporter.pid) < 200


def test_reload_by_signal_and_by_request(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("reload-me\n")
    first = shell(tmp_path, "first", 'echo "first $(date +%s%N)"', interval=3600)
    exporter = ScriptExporter(
        tmp_path / "exporter",
        {"first": first, "goes": shell(tmp_path, "goes", "echo goes 1", interval=3600)},
        web={"reload_token_file": str(tmp_path / "tokens")},
    )
    with exporter:
        wait_until(lambda: exporter.get().text.count("\nscript_success{") == 2)
        assert "goes 1" in exporter.get().text
        printed = _value(exporter.get().text, "first")

        exporter.collectors = {"first": first, "new": shell(tmp_path, "new", "echo new 1")}
        exporter.write_config()
        exporter.send(signal.SIGHUP)
        wait_until(lambda: "new 1" in exporter.get().text)
        assert "goes 1" not in exporter.get().text
        assert _value(exporter.get().text, "first") == printed, "it has not run again"

        exporter.collectors = {"newer": shell(tmp_path, "newer", "echo newer 1")}
        exporter.write_config()
        assert exporter.post("/-/reload").status_code == 401
        assert exporter.post("/-/reload", "wrong").status_code == 401
        assert exporter.get("/-/reload", "reload-me").status_code == 405
        assert exporter.post("/-/reload", "reload-me").text == "reloaded\n"
        wait_until(lambda: "newer 1" in exporter.get().text)

        # A configuration that is refused changes nothing, and is told.
        exporter.file.write_text("clusters: {c: {enabled: true, collectors: {x: {interval: -1}}}}")
        answer = exporter.post("/-/reload", "reload-me")
        assert answer.status_code == 500
        assert "x.interval" in answer.text
        text = exporter.get().text
        assert "newer 1" in text
        assert _value(text, "script_exporter_config_last_reload_successful") == 0
        assert _value(text, "script_exporter_config_reload_failures_total") == 1
        exporter.write_config()
        exporter.send(signal.SIGHUP)
        series = "script_exporter_config_last_reload_successful"
        wait_until(lambda: _value(exporter.get().text, series) == 1)


def test_without_a_token_file_a_request_reloads_nothing(tmp_path: Path) -> None:
    collectors = {"a": shell(tmp_path, "a", "echo a 1")}
    with ScriptExporter(tmp_path / "exporter", collectors) as exporter:
        answer = exporter.post("/-/reload", "anything")
        assert answer.status_code == 403
        assert "SIGHUP" in answer.text


def test_pages_want_the_token_and_prometheus_has_it(tmp_path: Path) -> None:
    token = tmp_path / "tokens"
    token.write_text("scrape-me\n")
    collectors = {"a": shell(tmp_path, "a", "echo a 1")}
    web = {"token_file": str(token)}
    with ScriptExporter(tmp_path / "exporter", collectors, web=web) as exporter:
        for path in ("/metrics", "/health", "/"):
            assert exporter.get(path).status_code == 401
            assert exporter.get(path, "wrong").status_code == 401
            assert exporter.get(path, "scrape-me").status_code == 200
        assert exporter.get("/-/healthy").status_code == 200
        targets = [{"targets": [exporter.target]}]
        scrape = {
            "with": {"authorization": {"credentials": "scrape-me"}, "static_configs": targets},
            "without": {"static_configs": targets},
        }
        with Prometheus(tmp_path / "prometheus", scrape=scrape) as server:
            server.wait_for('up{job="with"} == 1')
            server.wait_for('up{job="without"} == 0')
            server.wait_for('a{job="with"} == 1')


def test_an_end_leaves_nobody_behind(tmp_path: Path) -> None:
    word = f"8{time.time_ns() % 10**9}"
    script = f"trap '' TERM; sleep {word} & setsid sleep {word} & sleep {word}"
    with ScriptExporter(tmp_path / "exporter", {"hangs": shell(tmp_path, "h", script)}) as exporter:
        wait_until(lambda: len(_commands(word)) >= 3)
        began = time.monotonic()
        exporter.send(signal.SIGTERM)
        assert exporter.wait() == 0
        assert time.monotonic() - began < 10
        wait_until(lambda: not _commands(word))


def test_readers_that_dawdle_are_no_trouble(tmp_path: Path) -> None:
    collectors = {"a": shell(tmp_path, "a", "echo a 1")}
    with ScriptExporter(tmp_path / "exporter", collectors, http_timeout=2) as exporter:
        slow = []
        for _ in range(70):
            connection = socket.create_connection(("127.0.0.1", exporter.port), timeout=5)
            connection.sendall(b"GET /metrics HTTP/1.1\r\n")
            slow.append(connection)
        wait_until(lambda: _answers(exporter), seconds=20, what="the slow ones are let go")
        for connection in slow:
            connection.close()
        answer = exporter.get()
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        for path, status in (("/nothing", 404), ("/../etc/passwd", 404), ("/metrics?x=1", 200)):
            assert exporter.get(path).status_code == status
        assert exporter.post("/metrics").status_code == 405


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_user_of_its_own_may_keep_a_state(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    text = 'echo x > "$SCRIPT_EXPORTER_STATE_DIR/mine" && echo "as{user=\\"$(id -un)\\"} 1"'
    collectors = {"a": shell(tmp_path, "a", text, user="nobody")}
    with ScriptExporter(tmp_path / "exporter", collectors) as exporter:
        wait_until(lambda: exporter.health()["collectors"]["c:a"] != "pending")
        assert 'as{user="nobody"} 1' in exporter.get().text, exporter.health()


def _answers(exporter: ScriptExporter) -> bool:
    try:
        return exporter.get().status_code == 200
    except httpx.HTTPError:
        return False


def _value(text: str, name: str) -> float:
    for line in text.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    return math.nan


def _commands(word: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().split(b"\0")[1:2] == [
                word.encode()
            ]:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _resident_mb(pid: int | None) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return math.inf
