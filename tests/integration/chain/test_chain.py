"""From training to answers over the wire, on the real tritonserver."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clients import (
    AsyncLogAnomalyClient,
    AsyncMetricForecastClient,
    AsyncTrainFailureRCAClient,
    LogAnomalyClient,
    MetricForecastClient,
    TrainFailureRCAClient,
)
from contract.errors import SeriesError, TextError, UnknownModelError
from embedded_triton import EmbeddedServer
from tests.integration.conftest import Chain, run_module
from training.artifact import Artifact

MODELS = {
    "log_anomaly",
    "log_anomaly_classifier",
    "metric_forecast_12h",
    "metric_forecast_fleet",
    "metric_forecast_next",
    "train_failure_rca",
    "train_failure_rca_classifier",
}
LINES = [
    "kernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus",
    "INFO dfs.DataNode: Receiving block from 10.0.0.1",
    "磁盘空间满，写入失败",
    "😀 a line with emoji",
]
JOB = "\n".join(
    [
        "step 1 loss 2.1",
        "Traceback (most recent call last):",
        '  File "train.py", line 3, in <module>',
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x8 and 16x4)",
    ]
)


def grpc(server: EmbeddedServer) -> str:
    return f"grpc://{server.grpc_url}"


def http(server: EmbeddedServer) -> str:
    return f"http://{server.http_url}"


def test_everything_is_published_proven_and_served(chain: Chain, served: EmbeddedServer) -> None:
    assert {model.name for model in served.models} == MODELS
    for name in MODELS:
        version = chain.repository / name / "1"
        assert (version / "manifest.json").is_file()
    report = json.loads(
        (chain.repository / "log_anomaly_classifier/1/parity_report.json").read_text()
    )
    assert report["passed"]
    assert report["flipped"] == 0
    assert "published" in chain.export_output


def test_forecasts_over_the_wire_are_what_predict_says(
    chain: Chain, served: EmbeddedServer, tmp_path: Path
) -> None:
    """The same CSV through the server's client and through training's own predict."""
    values = 50 + 10 * np.sin(np.arange(2200) / 288 * 2 * np.pi)
    values[100:110] = np.nan
    path = tmp_path / "cpu.csv"
    rows = (f"{1_700_000_000 + 300 * i},{'' if math.isnan(v) else v}" for i, v in enumerate(values))
    path.write_text("timestamp,value\n" + "\n".join(rows) + "\n")
    predicted = run_module(
        chain.root,
        *("training", "predict", "metric_forecast", "--artifacts", str(chain.artifacts)),
        *("--preset", "12h", str(path)),
    )
    record = json.loads(predicted.stdout)
    with MetricForecastClient(grpc(served)) as client:
        forecast = client.forecast([values], step_seconds=300, preset="12h")
    assert forecast.median.shape == (1, 144)
    assert forecast.median.dtype == np.float32
    np.testing.assert_allclose(forecast.median[0], record["median"], rtol=1e-4)
    assert forecast.source == [record["source"]]
    low, high = forecast.quantiles[0.1], forecast.quantiles[0.9]
    assert (low <= forecast.median).all()
    assert (forecast.median <= high).all()


def test_grpc_http_sync_and_async_agree(served: EmbeddedServer) -> None:
    series = [np.arange(40.0), np.full(500, 3.0), [1.0, None, 2.0, 5.0]]

    async def ask(url: str) -> tuple[np.ndarray, list[str], str | None]:
        async with (
            AsyncMetricForecastClient(url) as metrics,
            AsyncLogAnomalyClient(url) as logs,
            AsyncTrainFailureRCAClient(url) as jobs,
        ):
            forecast = await metrics.forecast(series, step_seconds=300, preset="next")
            verdicts = await logs.classify(LINES)
            [diagnosis] = await jobs.diagnose([JOB])
            return forecast.median, [str(v.label) for v in verdicts], diagnosis.root

    answers = []
    for url in (grpc(served), http(served)):
        with (
            MetricForecastClient(url) as metrics,
            LogAnomalyClient(url) as logs,
            TrainFailureRCAClient(url) as jobs,
        ):
            median = metrics.forecast(series, step_seconds=300, preset="next").median
            labels = [str(v.label) for v in logs.classify(LINES)]
            answers.append((median, labels, jobs.diagnose([JOB])[0].root))
        answers.append(asyncio.run(ask(url)))
    for median, labels, root in answers[1:]:
        np.testing.assert_allclose(median, answers[0][0], rtol=1e-6)
        assert (labels, root) == answers[0][1:]


def test_a_bad_line_is_named_and_loses_no_other(served: EmbeddedServer) -> None:
    awkward = [*LINES, "", "  ", "x" * 1_000_000, "nul\0inside", b"\xff\xfe bytes"]
    with LogAnomalyClient(grpc(served)) as client:
        with pytest.raises(TextError, match="text 9"):
            client.classify([*awkward, 7])  # type: ignore[list-item]
        verdicts = client.classify([*awkward, 7], on_error="skip")  # type: ignore[list-item]
        alone = [client.classify([line])[0] for line in LINES]
    assert [v.label is None for v in verdicts] == [False] * 9 + [True]
    # A blank line says nothing.
    assert [(v.label, v.score) for v in verdicts[4:6]] == [("normal", 0)] * 2
    for together, single in zip(verdicts, alone, strict=False):
        assert together.score == pytest.approx(single.score, abs=1e-5)


def test_ten_thousand_lines_come_back_in_order(served: EmbeddedServer) -> None:
    lines = [LINES[i % 4] + f" {i % 7}{'a' * (i % 3)}" for i in range(10_000)]
    with LogAnomalyClient(grpc(served)) as client:
        verdicts = client.classify(lines)
        few = [0, 1, 4_999, 9_998, 9_999]
        alone = client.classify([lines[i] for i in few])
    assert len(verdicts) == 10_000
    for index, single in zip(few, alone, strict=True):
        assert verdicts[index].score == pytest.approx(single.score, abs=1e-5)


def test_diagnosis_carries_actions_in_both_languages(served: EmbeddedServer) -> None:
    with TrainFailureRCAClient(grpc(served)) as client:
        # So low a threshold that even a hardly trained model names causes.
        [diagnosis] = client.diagnose([JOB], threshold=0.01)
        manifest = client.describe()
        healthy = client.diagnose(["all is well\ntraining finished"], threshold=0.99)[0]
    assert set(diagnosis.probabilities) == set(manifest["labels"])
    assert len(manifest["labels"]) == 14
    assert diagnosis.causes
    assert diagnosis.root == diagnosis.causes[0].label
    for cause in diagnosis.causes:
        assert cause.action["zh"]
        assert cause.action["en"]
        for line in cause.evidence:
            assert line.text == JOB.split("\n")[line.line_number - 1]
    assert healthy.causes == []
    assert not healthy.unknown


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ([[]], "empty series"),
        ([[1.0, float("inf"), 2.0, 3.0]], "infinite value at series 0, point 1"),
        ([[1.0, 2.0, 3.0], ["a", 2.0, 3.0]], "not a number at series 1"),
        ([[float("nan")] * 5], "too short"),
        ([np.ones((5, 2))], "wrong number of channels"),
        ([], "no series"),
    ],
)
def test_bad_series_are_named(served: EmbeddedServer, series: object, words: str) -> None:
    with MetricForecastClient(grpc(served)) as client, pytest.raises(SeriesError, match=words):
        client.forecast(series, step_seconds=300)


def test_an_unknown_preset_is_an_unknown_model(served: EmbeddedServer) -> None:
    with MetricForecastClient(grpc(served)) as client, pytest.raises(UnknownModelError):
        client.forecast([[1.0, 2.0, 3.0]], step_seconds=300, preset="9h")


def test_the_command_line_reads_stdin_and_files(
    chain: Chain, served: EmbeddedServer, tmp_path: Path
) -> None:
    log = tmp_path / "job.log"
    log.write_text(JOB)
    url = ["--url", grpc(served)]
    health = run_module(chain.root, "clients", "health", *url)
    assert all(name in health.stdout for name in MODELS)
    story = run_module(
        chain.root, "clients", "diagnose", str(log), str(tmp_path / "none.log"), *url, check=False
    )
    assert story.returncode == 2, "one of two files is missing"
    assert "job.log" in story.stdout
    assert "none.log" in story.stderr
    lines = subprocess.run(
        [sys.executable, "-m", "clients", "logs", "--json", *url],
        input="\n".join(LINES),
        cwd=chain.root,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [json.loads(line)["text"] for line in lines.stdout.splitlines()] == LINES


def test_a_second_version_is_published_beside_the_first(chain: Chain) -> None:
    again = run_module(
        chain.root,
        *("export", "metric_forecast", "--preset", "next", "--quiet"),
        *("--artifacts", str(chain.artifacts), "--repository", str(chain.repository)),
    )
    assert "metric_forecast_next/2" in again.stdout
    assert (chain.repository / "metric_forecast_next/1/model.onnx").is_file()
    assert (chain.repository / "metric_forecast_next/2/model.onnx").is_file()


def test_a_changed_artifact_is_not_exported(chain: Chain) -> None:
    run = Artifact.latest("log_anomaly", "line", chain.artifacts).path
    weights = run / "model.safetensors"
    original = weights.read_bytes()
    try:
        weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        refused = run_module(
            chain.root,
            *("export", "log_anomaly", "--quiet", "--artifacts", str(chain.artifacts)),
            *("--repository", str(chain.repository)),
            check=False,
        )
    finally:
        weights.write_bytes(original)
    assert refused.returncode != 0
    assert "model.safetensors" in refused.stderr
    assert not (chain.repository / "log_anomaly/2").exists()


def test_torchscript_is_proven_over_the_wire_and_published_on_request(
    chain: Chain, tmp_path: Path
) -> None:
    answer = run_module(
        chain.root,
        *("export", "metric_forecast", "--preset", "next", "--format", "torchscript", "--quiet"),
        *("--artifacts", str(chain.artifacts), "--repository", str(tmp_path)),
    )
    assert "metric_forecast_next_torchscript/1" in answer.stdout
    report = json.loads(
        (tmp_path / "metric_forecast_next_torchscript/1/parity_report.json").read_text()
    )
    assert report["passed"]
    config = (tmp_path / "metric_forecast_next_torchscript/config.pbtxt").read_text()
    assert 'backend: "pytorch"' in config
    assert '"forecast__0"' in config
