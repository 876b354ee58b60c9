"""Locust, the eager baseline and the closing table against a real, tiny server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from contract.errors import ServerAnswerError, ServerError, ServerUnavailableError
from embedded_triton.environment import SERVER_VENV
from embedded_triton.server import EmbeddedServer, ServerSettings
from export.candidate import Candidate
from export.gate import export_files
from export.version_folder import stage
from loadtest.command import main
from loadtest.eager_process import EagerCaller, EagerProcess
from loadtest.load.command import exit_code
from loadtest.load.figures import RunFigures
from loadtest.load.locust_run import (
    LoadSettings,
    asked_models,
    make_plan,
    measure_plan,
    prepare_answers,
    run_locust,
)
from loadtest.load.page import load_page
from loadtest.load.plan import Flow, LoadPlan
from loadtest.load.shapes import stages_of
from loadtest.load.slo import Objectives, Slo, read_slo, verdicts
from loadtest.load.table import load_table
from loadtest.served import Questions, served_models
from loadtest.services.gateway_speed import gateway
from training.artifact import Artifact
from training.command import main as train
from training.registry import get_spec

MODELS = {"log_anomaly", "metric_forecast_next"}


@dataclass(frozen=True)
class Served:
    repository: Path
    artifacts: Path
    server: EmbeddedServer

    @property
    def arguments(self) -> list[str]:
        return [
            *("--url", f"grpc://{self.server.grpc_url}"),
            *("--http-url", f"http://{self.server.http_url}"),
            *("--repository", str(self.repository), "--artifacts", str(self.artifacts)),
            "--quiet",
        ]


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory, repository_root: Path, toy_model: ModuleType
) -> Iterator[Served]:
    """A tiny forecaster and a tiny text model with its front, on a real tritonserver."""
    if not (repository_root / SERVER_VENV).is_dir():
        pytest.skip("no server environment: python -m embedded_triton install")
    folder = tmp_path_factory.mktemp("load")
    artifacts, repository = folder / "artifacts", folder / "repository"
    series = folder / "daily.csv"
    values = np.sin(np.arange(2000) * 2 * np.pi / 288) + np.random.default_rng(0).normal(
        0, 0.1, 2000
    )
    rows = "".join(f"{1_700_000_000 + 300 * i},{v:.4f}\n" for i, v in enumerate(values))
    series.write_text("timestamp,value\n" + rows)
    words = ["train", "metric_forecast", "--preset", "next", "--epochs", "0.02", "--quiet"]
    assert train([*words, "--data", str(series), "--artifacts", str(artifacts)]) == 0
    text = toy_model.make_tiny_log_anomaly(artifacts)
    forecast = Artifact.latest("metric_forecast", "next", artifacts)
    for artifact in (text, forecast):
        candidate = Candidate(get_spec(artifact.manifest.model), artifact)
        export_files(candidate)
        stage(candidate, repository)
    settings = ServerSettings(repository, 0, 0, 0, run_folder=folder / "run")
    with EmbeddedServer(settings) as server:
        yield Served(repository, artifacts, server)


@pytest.fixture(scope="session")
def prepared(served: Served, tmp_path_factory: pytest.TempPathFactory) -> LoadPlan:
    """A closed loop of two seconds over gRPC and HTTP, with eager's answers."""
    settings = LoadSettings(
        grpc_address=served.server.grpc_url,
        http_address=served.server.http_url,
        repository=served.repository,
        artifacts=served.artifacts,
        users=4,
        seconds=2,
    )
    folder = str(tmp_path_factory.mktemp("plan"))
    plan = make_plan(settings, asked_models(settings), read_slo(), folder)
    plan.write()
    prepare_answers(plan, progress=False)
    return plan


def measured(served: Served, plan: LoadPlan) -> RunFigures:
    plan.write()
    models = served_models(served.repository, served.artifacts)
    return measure_plan(plan, models, {}, progress=False)


def test_every_model_answers_over_both_protocols_as_eager_does(
    served: Served, prepared: LoadPlan
) -> None:
    run = measured(served, prepared)
    assert {(own.channel, own.model) for own in run.flows} == {
        (channel, model) for channel in ("gRPC", "HTTP") for model in MODELS
    }
    for own in run.flows:
        assert own.failures == 0, run.first_messages
        assert own.answered > 0
        p50, p95, p99 = own.milliseconds
        assert 0 < p50 <= p95 <= p99


def test_an_open_loop_through_the_gateway_too_accounts_for_all_that_was_due(
    served: Served, prepared: LoadPlan
) -> None:
    with gateway(f"grpc://{served.server.grpc_url}", served.repository) as ports:
        flows = (*prepared.flows, *(Flow(model, "gateway", 1.0) for model in sorted(MODELS)))
        run = measured(
            served,
            replace(
                prepared,
                flows=tuple(replace(flow, rate_per_second=4.0) for flow in flows),
                stages=stages_of("step", 5.0),
                loop="open",
                gateway_ports=ports,
            ),
        )
    assert {own.channel for own in run.all_flows if own.answered} == {"gRPC", "HTTP", "gateway"}
    assert run.wrong == 0, run.first_messages
    assert [stage.stage.factor for stage in run.stages] == [0.25, 0.5, 0.75, 1.0, 1.25]
    for own in run.all_flows:
        assert own.requests == own.answered + own.errors + own.wrong + own.not_sent > 0
    counted = [stage.counts["log_anomaly"] for stage in run.stages]
    assert sum(counts.requests for counts in counted) > 0
    for counts in counted:
        assert sum(size * count for size, count in counts.batches.items()) == counts.rows
    # No server answers within a microsecond: the miss is named, and fails the run.
    slo = Slo(Objectives(1.0, p99_milliseconds=0.001))
    found = verdicts(slo, run)
    missed = [str(verdict) for verdict in found if not verdict.kept]
    assert any(told.startswith("log_anomaly: p99: expected ≤ 0.001 ms, got") for told in missed)
    assert exit_code([run], found) == ServerError.exit_code
    page = load_page([run], found, slo)
    assert "log_anomaly_classifier" in page
    assert "Plotly.newPlot" in page


def test_a_swapped_answer_fails_the_run(
    served: Served, sabotaging_proxy: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some answers are those of other requests: each by itself is one that the model gives."""
    words = ["--seconds", "2", "--users", "4", "--channel", "http", "--model", "log_anomaly"]
    with sabotaging_proxy.sabotaging_proxy(served.server.http_url, "swap") as proxy:
        arguments = [*served.arguments, "--http-url", f"http://{proxy.address}", *words]
        assert main(["run", *arguments]) == ServerAnswerError.exit_code
        assert proxy.spoilt > 0
    said = capsys.readouterr().out
    assert "wrong answer: " in said
    assert "missed log_anomaly HTTP: answers as eager PyTorch gives them: expected all" in said


def test_failures_are_counted_and_the_exit_code_tells(
    served: Served, prepared: LoadPlan, sabotaging_proxy: ModuleType
) -> None:
    flows = tuple(flow for flow in prepared.flows if flow.channel == "HTTP")
    with sabotaging_proxy.sabotaging_proxy(served.server.http_url, "refuse") as proxy:
        run = measured(served, replace(prepared, http_address=proxy.address, flows=flows))
        assert run.failures == proxy.spoilt > 0
    assert run.wrong == 0
    assert any("HTTP 503" in told[0] for told in run.first_messages.values())
    assert "spoilt on purpose" in load_table(run)
    assert exit_code([run], []) == ServerError.exit_code


def test_the_closing_table_measures_and_asks(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "deep" / "demo.md"
    arguments = [*served.arguments, "--seconds", "3", "--markdown", str(page)]
    assert main(["demo-table", *arguments]) == 0
    said = capsys.readouterr().out
    for model in MODELS:
        (row,) = [line for line in said.splitlines() if line.startswith(f"{model} v1")]
        assert row.count("×") == 2
        assert f"**{model}**" in page.read_text()
    assert "threshold" in said
    assert "where is it in 5 min?" in said


def test_eager_answers_as_triton_does(served: Served) -> None:
    """A ratio means something only when both sides answer the same."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(served.server.grpc_url)
    with EagerProcess(served.repository, served.artifacts) as eager:
        for model in served_models(served.repository, served.artifacts):
            inputs = next(Questions(model, fresh=True))
            caller = eager.caller(model.name)
            body = caller.body(inputs)
            got = json.loads(caller.send("POST", f"/predict/{model.name}", body))
            caller.close()
            tensors = []
            for tensor in model.inputs:
                array = inputs[tensor.name]
                asked = triton.InferInput(tensor.name, list(array.shape), tensor.dtype)
                tensors.append(asked)
                asked.set_data_from_numpy(array)
            answer = client.infer(model.name, tensors)
            for name in model.outputs:
                expected = answer.as_numpy(name)
                if expected.dtype == object:
                    assert got[name] == [[cell.decode() for cell in row] for row in expected]
                else:
                    np.testing.assert_allclose(got[name], expected, rtol=1e-3, atol=1e-3)
        with EagerCaller(eager.port) as caller:
            with pytest.raises(Exception, match="HTTP 404"):
                caller.send("POST", "/predict/nobody", b"{}")
            with pytest.raises(Exception, match=r"HTTP 422.*missing"):
                caller.send("POST", "/predict/log_anomaly", b"{}")
    client.close()


def test_the_eager_process_ends_with_its_parent(served: Served) -> None:
    """Killed without a chance to clean up, the parent leaves nobody behind."""
    code = (
        "import sys, time; from pathlib import Path;"
        "from loadtest.eager_process import EagerProcess;"
        f"e = EagerProcess(Path({str(served.repository)!r}), Path({str(served.artifacts)!r}));"
        "e.start(); e.wait(); print(e._process.pid, flush=True); time.sleep(60)"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, env=os.environ
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        stat = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
        if stat[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()


def test_without_a_server_it_says_so(served: Served) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = LoadSettings(address, address, served.repository, served.artifacts)
    with pytest.raises(ServerUnavailableError, match="python -m embedded_triton up"):
        run_locust(settings, progress=False)


def test_fresh_questions_never_come_twice(served: Served) -> None:
    for model in served_models(served.repository, served.artifacts):
        for fresh in (True, False):
            questions = Questions(model, fresh=fresh)
            count = 3 * len(model.questions)
            asked = [next(questions) for _ in range(count)]
            for inputs in asked:
                assert set(inputs) == {tensor.name for tensor in model.inputs}
                assert all(len(array) == 1 for array in inputs.values())
            if model.reads_text:
                texts = {inputs["text"][0, 0] for inputs in asked}
                assert len(texts) == (count if fresh else len(set(model.questions)))
