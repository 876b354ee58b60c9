"""Ten minutes at 80% of what ``serve`` can take: flat memory, and every line accounted for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from export.candidate import Candidate
from export.gate import export_files
from export.version_folder import stage
from tests.fixtures.pipeline_process import PipelineProcess
from training.registry import get_spec

SECONDS = float(os.environ.get("PRESAGE_SOAK_SECONDS", "600"))
SHARE_OF_PEAK = 0.8
PEAK_SECONDS = 15.0
LARGEST_MB = 600.0
LINES_A_REQUEST = 2_000


@pytest.fixture
def triton(toy_model: ModuleType, tmp_path: Path) -> Iterator[EmbeddedServer]:
    artifact = toy_model.make_tiny_log_anomaly(tmp_path / "run")
    ascent = export_files(Candidate(get_spec("log_anomaly"), artifact))
    stage(ascent.candidate, tmp_path / "repository")
    settings = ServerSettings(
        tmp_path / "repository",
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        run_folder=tmp_path / "server",
    )
    with EmbeddedServer(settings) as server:
        yield server


class Shipper:
    """Bulk requests of lines whose numbers are new every time."""

    def __init__(self, pipeline: PipelineProcess, lines: tuple[str, ...]) -> None:
        self._pipeline = pipeline
        self._lines = lines
        self.acknowledged = 0
        self.refused = 0

    def ship(self) -> None:
        start = self.acknowledged
        body = "".join(
            f'{{"index":{{}}}}\n{{"message":{json.dumps(text)}}}\n'
            for text in (
                f"{self._lines[(start + n) % len(self._lines)]} {start + n}"
                for n in range(LINES_A_REQUEST)
            )
        )
        answer = self._pipeline.bulk(body.encode())
        if answer.status_code == 200:
            assert answer.json()["errors"] is False
            self.acknowledged += LINES_A_REQUEST
        else:
            assert answer.status_code == 429
            self.refused += 1
            time.sleep(0.5)

    def at(self, rate: float, seconds: float, memory: list[float]) -> None:
        process = psutil.Process(self._pipeline.pid)
        started, sampled = time.monotonic(), 0.0
        first = self.acknowledged
        while (now := time.monotonic() - started) < seconds:
            if (self.acknowledged - first) / rate > now:
                time.sleep(0.005)
                continue
            self.ship()
            if now - sampled > 1.0:
                sampled = now
                memory.append(process.memory_info().rss / 1e6)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_ten_minutes_at_four_fifths_of_peak(
    triton: EmbeddedServer, toy_model: ModuleType, tmp_path: Path
) -> None:
    with PipelineProcess(tmp_path / "pipeline", triton.grpc_url) as pipeline:
        shipper = Shipper(pipeline, toy_model.LINES)
        # Peak: what is delivered while requests follow one another as fast as they are answered.
        started = time.monotonic()
        while time.monotonic() - started < PEAK_SECONDS:
            shipper.ship()
        pipeline.wait_delivered(shipper.acknowledged, seconds=120)
        peak = shipper.acknowledged / (time.monotonic() - started)

        memory: list[float] = []
        shipper.at(SHARE_OF_PEAK * peak, SECONDS, memory)
        pipeline.wait_delivered(shipper.acknowledged, seconds=120)
        assert pipeline.delivered() == shipper.acknowledged
        assert pipeline.stop() == 0
    print(
        f"peak {peak:,.0f} lines/s; {shipper.acknowledged:,} lines, "
        f"memory {memory[len(memory) // 4]:.0f} → {memory[-1]:.0f} MB"
    )
    quarter = len(memory) // 4
    # Caches fill in the first quarter; after it nothing may grow.
    early, late = max(memory[quarter : 2 * quarter]), max(memory[-quarter:])
    assert late < early * 1.05 + 10, f"memory grew from {early:.0f} to {late:.0f} MB"
    assert max(memory) < LARGEST_MB
    told = sum(1 for _ in pipeline.anomalies.open("rb"))
    assert told > 0
    names = {json.loads(line)["id"] for line in pipeline.anomalies.open("rb")}
    assert len(names) == told, "told twice without a crash"
