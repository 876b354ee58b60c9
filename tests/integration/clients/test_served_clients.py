"""Every client, sync and async, over gRPC and HTTP, against a real tritonserver of stand-ins."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import (
    AsyncLogAnomalyClient,
    AsyncMetricForecastClient,
    AsyncTrainFailureRCAClient,
    CallPolicy,
    LogAnomalyClient,
    MetricForecastClient,
    TrainFailureRCAClient,
)
from contract.errors import (
    DeadlineExceededError,
    InputError,
    OverloadedError,
    ServerUnavailableError,
    TextError,
    UnknownModelError,
)
from embedded_triton import EmbeddedServer, ServerSettings
from tests.fixtures.stand_in_forecaster import FACTORS, write_forecaster

MANY = 10_000
KINDS = [(kind, scheme) for kind in ("sync", "async") for scheme in ("grpc", "http")]
SERIES = [np.arange(40.0), [5.0, None, 7.0, 8.0], np.full(3000, 2.5)]
LOG = "step 1\nstep 2 显存\nRuntimeError: OOM\nENOSPC"


def classify(kind: str, url: str, texts: Any, policy: CallPolicy | None = None) -> Any:
    """Verdicts of either twin."""
    if kind == "sync":
        with LogAnomalyClient(url, policy) as client:
            return client.classify(texts)

    async def ask() -> Any:
        async with AsyncLogAnomalyClient(url, policy) as client:
            return await client.classify(texts)

    return asyncio.run(ask())


@pytest.mark.parametrize(("kind", "scheme"), KINDS)
def test_ten_thousand_lines_come_back_in_order(
    urls: dict[str, str], kind: str, scheme: str
) -> None:
    verdicts = classify(kind, urls[scheme], [f"line {i} of many" for i in range(MANY)])
    scores = np.array([verdict.score for verdict in verdicts])
    np.testing.assert_allclose(scores, np.arange(MANY) / 100_000, rtol=1e-6)
    assert [v.label for v in verdicts] == ["normal"] * 5_000 + ["anomaly"] * 5_000
    assert {round(v.threshold, 6) for v in verdicts} == {0.05}


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_ten_thousand_series_come_back_in_order(urls: dict[str, str], scheme: str) -> None:
    series = np.tile(np.arange(MANY, dtype=np.float64)[:, None], (1, 5))
    with MetricForecastClient(urls[scheme]) as client:
        forecast = client.forecast(series, step_seconds=300, preset="next")
    np.testing.assert_array_equal(forecast.median[:, 0], np.arange(MANY, dtype=np.float32))
    assert forecast.source == ["seasonal"] * MANY


def test_sync_and_async_grpc_and_http_agree(urls: dict[str, str]) -> None:
    def sync_answers(url: str) -> tuple[Any, ...]:
        with (
            MetricForecastClient(url) as metrics,
            LogAnomalyClient(url) as logs,
            TrainFailureRCAClient(url) as jobs,
        ):
            return (
                metrics.describe("next"),
                metrics.forecast(SERIES, step_seconds=60),
                logs.classify(["line 1", "line 9000"]),
                logs.describe(),
                jobs.diagnose([LOG, "fine", "exit code 1"]),
                jobs.diagnose([LOG], threshold=0.95),
                jobs.describe(),
            )

    async def async_answers(url: str) -> tuple[Any, ...]:
        async with (
            AsyncMetricForecastClient(url) as metrics,
            AsyncLogAnomalyClient(url) as logs,
            AsyncTrainFailureRCAClient(url) as jobs,
        ):
            return (
                await metrics.describe("next"),
                await metrics.forecast(SERIES, step_seconds=60),
                await logs.classify(["line 1", "line 9000"]),
                await logs.describe(),
                await jobs.diagnose([LOG, "fine", "exit code 1"]),
                await jobs.diagnose([LOG], threshold=0.95),
                await jobs.describe(),
            )

    answers = [sync_answers(url) for url in urls.values()]
    answers += [asyncio.run(async_answers(url)) for url in urls.values()]
    first = answers[0]
    for other in answers[1:]:
        assert (other[0], *other[2:]) == (first[0], *first[2:])
        for quantile, values in first[1].quantiles.items():
            np.testing.assert_array_equal(values, other[1].quantiles[quantile])
        assert other[1].source == first[1].source
    signature, forecast, verdicts, manifest, diagnoses, above, rca_manifest = first
    assert (signature.context_length, signature.horizon, signature.max_batch_size) == (30, 1, 64)
    assert forecast.median.shape == (3, 144)
    assert forecast.step_seconds == 300
    # Minutes became 5-minute means: of 35..39, of all four points, of one value.
    for quantile, factor in zip((0.1, 0.5, 0.9), FACTORS, strict=True):
        newest = np.array([37.0, 20 / 3, 2.5])[:, None] * factor
        np.testing.assert_allclose(
            forecast.quantiles[quantile], np.tile(newest, (1, 144)), rtol=1e-5
        )
    assert [v.label for v in verdicts] == ["normal", "anomaly"]
    assert manifest["labels"] == ["normal", "anomaly"]
    assert [d.root for d in diagnoses] == ["OOM", None, None]
    assert [d.unknown for d in diagnoses] == [False, False, True]
    assert [c.label for c in diagnoses[0].causes] == ["OOM", "Disk_Full"]
    assert diagnoses[0].causes[0].evidence[0].line_number == 3
    assert diagnoses[0].causes[0].evidence[0].text == "RuntimeError: OOM"
    assert diagnoses[0].causes[0].action["zh"] == "减小批量"
    assert diagnoses[0].probabilities == {
        "OOM": pytest.approx(0.9),
        "Disk_Full": pytest.approx(0.9),
    }
    assert above[0].causes == []
    assert rca_manifest["model_version"] == "1"


@pytest.mark.parametrize(("kind", "scheme"), KINDS)
def test_a_deadline_ends_the_call(urls: dict[str, str], kind: str, scheme: str) -> None:
    with pytest.raises(DeadlineExceededError):
        classify(kind, urls[scheme], ["wait 2 s"], CallPolicy(deadline_seconds=0.5))
    with pytest.raises(DeadlineExceededError):
        classify(kind, urls[scheme], ["a"], CallPolicy(deadline_seconds=1e-9))


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_after_a_deadline_the_client_still_answers_its_own_question(
    urls: dict[str, str], scheme: str
) -> None:
    """The late answer of the first request must not be taken for the second one's."""
    with LogAnomalyClient(urls[scheme], CallPolicy(deadline_seconds=1.0)) as client:
        client.classify(["1"])
        with pytest.raises(DeadlineExceededError):
            client.classify(["wait 1.2 s"])
        assert client.classify(["line 7000"])[0].score == pytest.approx(0.07)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_client_serves_several_threads(urls: dict[str, str], scheme: str) -> None:
    with LogAnomalyClient(urls[scheme]) as client, ThreadPoolExecutor(4) as pool:
        answers = pool.map(
            lambda start: client.classify([f"{start + i}" for i in range(600)]),
            range(0, 4_000, 1_000),
        )
        scores = [[round(v.score * 100_000) for v in verdicts] for verdicts in answers]
    assert scores == [list(range(start, start + 600)) for start in range(0, 4_000, 1_000)]


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_full_queue_is_overload(urls: dict[str, str], scheme: str) -> None:
    with (
        TrainFailureRCAClient(urls[scheme]) as client,
        pytest.raises(OverloadedError, match="queue is full"),
    ):
        # Eight requests at once of four logs each; one runs, one or two wait, the rest is refused.
        client.diagnose(["wait 0.1 s"] * 32)
    _wait_until_idle(urls[scheme])


def _wait_until_idle(url: str) -> None:
    with TrainFailureRCAClient(url) as client:
        for _ in range(100):
            try:
                client.diagnose(["idle?"])
                return
            except OverloadedError:
                time.sleep(0.1)
    raise AssertionError("the queue stays full")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_an_unknown_model_is_named(urls: dict[str, str], scheme: str) -> None:
    async def ask() -> None:
        async with AsyncMetricForecastClient(urls[scheme]) as client:
            await client.forecast([[1, 2, 3]], step_seconds=300, preset="9h")

    with pytest.raises(UnknownModelError, match="metric_forecast_9h"):
        asyncio.run(ask())
    with (
        MetricForecastClient(urls[scheme]) as client,
        pytest.raises(UnknownModelError, match="metric_forecast_9h"),
    ):
        client.forecast([[1, 2, 3]], step_seconds=300, preset="9h")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_what_the_server_refuses_is_an_input_error(urls: dict[str, str], scheme: str) -> None:
    with (
        TrainFailureRCAClient(urls[scheme]) as client,
        pytest.raises(InputError, match="refused, as asked"),
    ):
        client.diagnose(["please refuse me"])


@pytest.mark.parametrize(("kind", "scheme"), KINDS)
def test_odd_texts_arrive_whole(urls: dict[str, str], kind: str, scheme: str) -> None:
    odd = [
        "nul\0 inside 100",
        b"\xff\xfe not UTF 200",
        "emoji 😀👩‍🚀 300",
        "x" * 1_000_000 + " 400",
        "lone surrogate \udcff 500",
        "中文日志 600",
    ]
    scores = [verdict.score for verdict in classify(kind, urls[scheme], odd)]
    np.testing.assert_allclose(scores, np.arange(100, 700, 100) / 100_000, rtol=1e-6)


def test_odd_logs_keep_their_line_numbers(urls: dict[str, str]) -> None:
    for url in urls.values():
        with TrainFailureRCAClient(url) as client:
            [diagnosis] = client.diagnose(
                [b"nul \0\n\xff\xfe\n" + b"x" * 1_000_000 + b"\n\xf0 OOM"]
            )
        [line] = diagnosis.causes[0].evidence
        assert (line.line_number, line.text) == (4, "� OOM")


@pytest.mark.parametrize("blank", ["", " \t", "\0", "\u3000", "\x1c", b"\xe3\x80\x80"])
def test_a_blank_log_loses_no_other(urls: dict[str, str], blank: str | bytes) -> None:
    with TrainFailureRCAClient(urls["grpc"]) as client:
        with pytest.raises(TextError, match="text 1"):
            client.diagnose(["OOM", blank])
        answers = client.diagnose(["OOM", blank, "all is well"], on_error="skip")
    assert "empty" in str(answers[1].error)
    assert [bool(answer.causes) for answer in answers] == [True, False, False]


def test_a_blank_line_is_a_normal_one(urls: dict[str, str]) -> None:
    with LogAnomalyClient(urls["grpc"]) as client:
        verdicts = client.classify(["line 1000", "", " \0", "line 9000"])
    assert [v.label for v in verdicts] == ["normal", "normal", "normal", "anomaly"]


def test_a_server_that_starts_late_is_waited_for(tmp_path: Path, repository_root: Path) -> None:
    write_forecaster(tmp_path / "repository/metric_forecast_next", 30, 1)
    with socket.socket() as http_probe, socket.socket() as grpc_probe:
        http_probe.bind(("127.0.0.1", 0))
        grpc_probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in (http_probe, grpc_probe)]
    addresses = [f"http://127.0.0.1:{ports[0]}", f"grpc://127.0.0.1:{ports[1]}"]
    patient = CallPolicy(deadline_seconds=60, attempts=1_000, largest_delay_seconds=0.2)

    def ask(url: str, policy: CallPolicy) -> float:
        with MetricForecastClient(url, policy) as client:
            forecast = client.forecast([[1, 2, 3]], step_seconds=300, preset="next")
        return float(forecast.median[0, 0])

    def ask_async(url: str) -> float:
        async def run() -> float:
            async with AsyncMetricForecastClient(url, patient) as client:
                forecast = await client.forecast([[1, 2, 3]], step_seconds=300, preset="next")
            return float(forecast.median[0, 0])

        return asyncio.run(run())

    for url in addresses:
        with pytest.raises(ServerUnavailableError, match=re.escape("embedded_triton up")):
            ask(url, CallPolicy(attempts=1))
    started = threading.Barrier(5)
    with ThreadPoolExecutor(4) as pool:
        jobs = []
        for url in addresses:
            jobs.append(pool.submit(lambda u=url: (started.wait(30), ask(u, patient))[1]))
            jobs.append(pool.submit(lambda u=url: (started.wait(30), ask_async(u))[1]))
        started.wait(30)
        settings = ServerSettings(
            tmp_path / "repository",
            http_port=ports[0],
            grpc_port=ports[1],
            metrics_port=0,
            venv=repository_root / ".venv-triton",
            run_folder=tmp_path / "run",
        )
        with EmbeddedServer(settings):
            assert [job.result(60) for job in jobs] == [3.0] * 4
