"""``score``, ``tail`` and ``top`` as commands, and a swap under a running classifier."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clients import LogAnomalyClient
from embedded_triton import EmbeddedServer
from export.gate import Ascent
from services.log_pipeline.classifier import LineClassifier
from tests.fixtures.endpoints import wait_until
from tests.fixtures.toy_model import LINES
from tests.integration.log_pipeline.test_front_metrics import stage_second


def command(triton: EmbeddedServer, *words: str) -> list[str]:
    url = ["--url", f"grpc://{triton.grpc_url}"]
    return [sys.executable, "-m", "services", "log_pipeline", words[0], *url, *words[1:]]


@pytest.fixture
def lines() -> list[str]:
    """Each with numbers of its own, one blank, one Chinese."""
    draw = random.Random(5)
    made = [
        f"{draw.choice(LINES)} {draw.randrange(10**6)} 0x{draw.randrange(99):02x}"
        for _ in range(300)
    ]
    return [*made, "", "节点 7 掉卡", "1,2345", "1,2346"]


def test_score_answers_each_line_as_if_it_were_alone(
    triton: EmbeddedServer, repository_root: Path, lines: list[str]
) -> None:
    result = subprocess.run(
        command(triton, "score", "--output", "all", "-"),
        cwd=repository_root,
        input="\n".join(lines).encode(),
        capture_output=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr.decode()
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["line"] for record in told] == list(range(1, len(lines) + 1))
    with LogAnomalyClient(f"grpc://{triton.grpc_url}") as client:
        for line, record in zip(lines, told, strict=True):
            if not line:
                assert record["label"] is None
                continue
            (verdict,) = client.classify([line])
            assert record["label"] == verdict.label
            assert record["score"] == pytest.approx(verdict.score, abs=1e-6)
    assert b"1 blank" not in result.stdout
    assert b"blank 1" in result.stderr


def test_joined_lines_share_their_event_s_answer(
    triton: EmbeddedServer, repository_root: Path, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    log.write_text("x\nTraceback (most recent call last):\n  File a\nValueError: y\nz\n")
    result = subprocess.run(
        command(triton, "score", "--output", "all", "--join", str(log)),
        cwd=repository_root,
        capture_output=True,
        timeout=120,
    )
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["line"] for record in told] == [1, 2, 3, 4, 5]
    assert told[1]["score"] == told[2]["score"] == told[3]["score"]


def test_nobody_there_is_an_exit_code(repository_root: Path) -> None:
    words = ["-m", "services", "log_pipeline", "score", "--url", "grpc://127.0.0.1:9", "-"]
    result = subprocess.run(
        [sys.executable, *words],
        cwd=repository_root,
        input=b"a\n",
        capture_output=True,
        timeout=60,
    )
    assert result.returncode == 12
    assert result.stderr.startswith(b"error: ")


def test_tail_follows_across_rotation(
    triton: EmbeddedServer, repository_root: Path, tmp_path: Path
) -> None:
    with LogAnomalyClient(f"grpc://{triton.grpc_url}") as client:
        mark = next(
            t for t, v in zip(LINES, client.classify(LINES), strict=True) if v.label == "anomaly"
        )
    log, out = tmp_path / "app.log", tmp_path / "anomalies.jsonl"
    log.write_text(f"{mark}\n")
    words = ["tail", "--from-start", "--json-lines", str(out), str(log)]
    process = subprocess.Popen(
        command(triton, *words),
        cwd=repository_root,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:

        def told() -> int:
            return len(out.read_text().splitlines()) if out.is_file() else 0

        wait_until(lambda: told() == 1, seconds=40, what="the first line")
        for number in range(3):
            log.rename(tmp_path / f"app.log.{number}")
            log.write_text(f"{mark}\n" * 10)
            wait_until(lambda number=number: told() == 11 + 10 * number, what="ten more")
        with log.open("a") as file:
            file.write(mark)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert told() == 32
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    result = subprocess.run(
        [sys.executable, "-m", "services", "log_pipeline", "top", str(out)],
        cwd=repository_root,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert "32" in result.stdout
    assert mark[:40] in result.stdout


def test_a_swap_is_seen_by_a_running_classifier(
    own_triton: EmbeddedServer, ascents: tuple[Ascent, Ascent]
) -> None:
    now = [0.0]
    with LogAnomalyClient(f"grpc://{own_triton.grpc_url}") as client:
        classifier = LineClassifier(client, clock=lambda: now[0])
        lines = [line.encode() for line in LINES]
        before = classifier.classify(lines)
        stage_second(ascents[1], own_triton.settings.repository)
        own_triton.load("log_anomaly_classifier")
        own_triton.load("log_anomaly")
        now[0] += 10
        after = classifier.classify(lines)
        alone = [client.classify([line])[0] for line in lines]
    assert classifier.look_ups.swaps == 1
    assert {form.model_version for form in after.forms} == {"2"}
    got = [after.forms[code].score for code in after.codes]
    assert got == pytest.approx([verdict.score for verdict in alone], abs=1e-6)
    assert got != [before.forms[code].score for code in before.codes]
