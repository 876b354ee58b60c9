"""One bounded, headless Locust run: payloads and eager's answers before it, figures after it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from contract.errors import (
    InputError,
    PresageError,
    ServerError,
    ServerUnavailableError,
    UnknownModelError,
)
from loadtest.load.figures import RunFigures, make_figures
from loadtest.load.plan import GATEWAY_MODELS, PLAN_VARIABLE, Channel, Flow, LoadPlan
from loadtest.load.recorder import Records
from loadtest.load.reference import read_answers
from loadtest.load.shapes import DEFAULT_SECONDS, Process, stages_of
from loadtest.load.slo import Slo, read_slo
from loadtest.load.triton_statistics import StatisticsSampler, read_counts
from loadtest.measure import TritonCaller
from loadtest.served import ServedModel, ready_models, served_models

LOCUST_FILE = Path(__file__).parent.parent / "locustfile.py"
CHANNELS: tuple[Channel, ...] = ("gRPC", "HTTP", "gateway")
_ROOT = Path(__file__).parent.parent.parent
# Importing, spawning, waiting for the last answers.
_GRACE_SECONDS = 60
_ANSWERS_SECONDS = 900
# A ramp ends where p99 is so many times what the objective allows.
_BREAK_TIMES_P99 = 5.0
_FLEET_ROWS = 32


@dataclass(frozen=True)
class LoadSettings:
    """Where, and what. ``seconds`` None: the shape's own. ``models``: empty asks all.

    rates: requests a second by model, "" for all others; what is missing stands in the objectives
    users: of a closed loop; senders: at most so many requests of a flow on their way, open loop
    times: all rates at once. fleet_rows: {model: rows of the minute}, else the objectives'
    pool_rows: as in LoadPlan. ready_requests: {model: requests it had answered when it was ready},
    so that its first one can be told
    """

    grpc_address: str
    http_address: str
    repository: Path
    artifacts: Path
    users: int = 8
    seconds: float | None = 10
    fresh: bool = False
    shape: str | None = None
    models: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = ("gRPC", "HTTP")
    gateway_ports: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    times: float = 1.0
    process: Process = "poisson"
    senders: int = 32
    give_up_seconds: float = 10.0
    fleet_rows: Mapping[str, int] = field(default_factory=dict)
    data: Path | None = None
    seed: int = 0
    pool_rows: int | None = None
    ready_requests: Mapping[str, int] = field(default_factory=dict)

    @property
    def loop(self) -> Literal["open", "closed"]:
        return "closed" if self.shape is None else "open"


def run_locust(
    settings: LoadSettings, *, slo: Slo | None = None, progress: bool = True
) -> RunFigures:
    """Run the Locust file against a server and wait for its end.

    Raises:
        ServerUnavailableError: no server, or it serves none of the models.
        ArtifactMissingError: nothing published. ServerError: Locust itself failed.
        InputError, UnknownModelError: a setting makes no sense.
    """
    with tempfile.TemporaryDirectory(prefix="presage-loadtest-") as folder:
        models = asked_models(settings)
        plan = make_plan(settings, models, slo or read_slo(), folder)
        plan.write()
        prepare_answers(plan, progress=progress)
        first = first_requests(plan, models, settings.ready_requests)
        return measure_plan(plan, models, first, progress=progress)


def measure_plan(
    plan: LoadPlan,
    models: Sequence[ServedModel],
    first: Mapping[str, float | str],
    *,
    progress: bool = True,
) -> RunFigures:
    """One run of a plan whose answers are prepared. Raises ServerError: Locust itself failed.

    first: what ``first_requests`` told
    """
    sampler = StatisticsSampler(plan.http_address)
    sampler.start()
    plan.summary_file.unlink(missing_ok=True)
    try:
        _run(plan, progress=progress)
    finally:
        sampler.stop()
    summary = json.loads(plan.summary_file.read_text(encoding="utf-8"))
    if summary["requests"] == 0:
        raise ServerError(
            "the run asked nothing",
            where=str(LOCUST_FILE),
            expected=f"requests in {plan.seconds:g} s",
            got=_last_line(Path(plan.folder, "locust.log")),
        )
    messages = {int(flow): told for flow, told in summary["first_messages"].items()}
    return make_figures(
        plan,
        Records.read(plan.records_file, messages),
        sampler,
        begin=summary["begin"],
        seconds=summary["seconds"],
        told=summary["told"],
        behind={
            model.name: model.manifest.graph.triton_name
            for model in models
            if model.manifest.front is not None
        },
        first_milliseconds=dict(first),
    )


def asked_models(settings: LoadSettings) -> list[ServedModel]:
    """The published models that the server has ready, or those of them that were named.

    Raises ServerUnavailableError, ArtifactMissingError, UnknownModelError.
    """
    ready = ready_models(settings.http_address)
    published = served_models(settings.repository, settings.artifacts)
    names = [model.name for model in published]
    unknown = [name for name in settings.models if name not in names]
    if unknown:
        raise UnknownModelError(
            f"unknown model {unknown[0]!r}", where="--model", expected=f"of {', '.join(names)}"
        )
    wanted = [m for m in published if not settings.models or m.name in settings.models]
    models = [model for model in wanted if model.name in ready]
    if not models:
        raise ServerUnavailableError(
            "the server serves none of the published models",
            where=settings.http_address,
            expected=", ".join(sorted(model.name for model in wanted)),
            got=", ".join(sorted(ready)) or "none",
        )
    return models


def make_plan(
    settings: LoadSettings, models: Sequence[ServedModel], slo: Slo, folder: str
) -> LoadPlan:
    """Raises InputError."""
    shape = settings.shape or "constant"
    seconds = settings.seconds or DEFAULT_SECONDS[shape]
    if shape == "fleet":
        flows = _fleet_flows(settings, models, slo, seconds)
    else:
        flows = _flows(settings, models, slo)
    if not flows:
        raise InputError(
            "nothing to ask",
            expected="a model over gRPC or HTTP, or a gateway",
            got=f"{', '.join(m.name for m in models)} by {', '.join(settings.channels)}",
        )
    slowest = min(flow.rate_per_second for flow in flows)
    limits = [slo.of(flow.model).p99_milliseconds or 0.0 for flow in flows]
    return LoadPlan(
        grpc_address=settings.grpc_address,
        http_address=settings.http_address,
        gateway_ports=dict(settings.gateway_ports),
        repository=str(settings.repository.absolute()),
        artifacts=str(settings.artifacts.absolute()),
        flows=flows,
        stages=stages_of(shape, seconds, slowest),
        loop=settings.loop,
        folder=folder,
        shape=shape,
        # A minute's work is so and so much, not about as much.
        process="constant" if shape == "fleet" else settings.process,
        # In a closed loop nobody may be left out.
        senders=settings.senders if settings.loop == "open" else max(settings.users, len(flows)),
        give_up_seconds=settings.give_up_seconds,
        fresh=settings.fresh,
        seed=settings.seed,
        pool_rows=settings.pool_rows,
        data=None if settings.data is None else str(settings.data),
        break_milliseconds=_BREAK_TIMES_P99 * max(limits),
    )


def _flows(settings: LoadSettings, models: Sequence[ServedModel], slo: Slo) -> tuple[Flow, ...]:
    """Every model by every channel it has; a model's rate is shared evenly among gRPC and HTTP."""
    direct = [channel for channel in settings.channels if channel != "gateway"]
    flows = []
    for model in models:
        rate = settings.rates.get(model.name, settings.rates.get(""))
        own = slo.of(model.name).rate_per_second if rate is None else rate
        flows += [
            Flow(model.name, channel, settings.times * own / len(direct)) for channel in direct
        ]
        if "gateway" in settings.channels and _by_gateway(settings, model.name):
            own = slo.of_gateway(model.name).rate_per_second if rate is None else rate
            flows.append(Flow(model.name, "gateway", settings.times * own))
    return tuple(flows)


def _by_gateway(settings: LoadSettings, model: str) -> bool:
    return model in GATEWAY_MODELS and GATEWAY_MODELS[model][0] in settings.gateway_ports


def _fleet_flows(
    settings: LoadSettings, models: Sequence[ServedModel], slo: Slo, seconds: float
) -> tuple[Flow, ...]:
    """A cluster's minute: each model's rows in requests as its services send them, over gRPC."""
    flows = []
    for model in models:
        rows = settings.fleet_rows.get(model.name, slo.fleet.get(model.name, 0))
        if not rows:
            continue
        manifest = model.manifest
        largest = (manifest.front or manifest.graph).max_batch_size
        # A job fails alone; series and lines are asked in batches.
        together = 1 if manifest.model == "train_failure_rca" else min(_FLEET_ROWS, largest, rows)
        # Whole requests, at least as many rows as were asked for.
        rate = math.ceil(settings.times * rows / together) / seconds
        flows.append(Flow(model.name, "gRPC", rate, together))
    return tuple(flows)


def prepare_answers(plan: LoadPlan, *, progress: bool = True) -> None:
    """Payloads and eager's answers to them, by a process that has torch. Raises PresageError."""
    command = [sys.executable, "-m", "loadtest", "reference", str(plan.file)]
    if not progress:
        command.append("--quiet")
    done = subprocess.run(
        command,
        cwd=_ROOT,
        stderr=None if progress else subprocess.PIPE,
        timeout=_ANSWERS_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = (done.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        raise ServerError(
            "eager PyTorch's answers could not be made",
            where="python -m loadtest reference",
            got=lines[-1] if lines else f"exit code {done.returncode}",
        )


def first_requests(
    plan: LoadPlan, models: Sequence[ServedModel], ready_requests: Mapping[str, int]
) -> dict[str, float | str]:
    """Milliseconds of each model's first request since it was ready, or why it was not one."""
    answered = read_answers(plan.answers_file)
    counts = read_counts(plan.http_address)
    found: dict[str, float | str] = {}
    for model in models:
        if model.name not in answered:
            continue
        if model.name not in ready_requests:
            found[model.name] = "the server was not started by this run (--own-server)"
            continue
        before = counts[model.name].requests - ready_requests[model.name]
        if before:
            found[model.name] = f"the model had answered {before:,} requests before"
            continue
        mix = answered[model.name].mix
        caller = TritonCaller(plan.grpc_address, model)
        try:
            caller.connect()
            begun = time.perf_counter()
            caller(mix.items[int(mix.order[0])])
            found[model.name] = (time.perf_counter() - begun) * 1000
        except PresageError as error:
            found[model.name] = str(error)
        finally:
            caller.close()
    return found


def _run(plan: LoadPlan, *, progress: bool) -> None:
    log = Path(plan.folder, "locust.log")
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            locust_command(plan, "--headless", "--only-summary", "--loglevel", "WARNING"),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=locust_environment(plan),
        )
    try:
        _wait(process, plan, progress)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if not plan.summary_file.is_file():
        raise ServerError(
            "Locust ended without figures",
            where=str(LOCUST_FILE),
            expected="exit code 0 or 1 and a summary",
            got=f"exit code {process.returncode}: {_last_line(log)}",
        )


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def locust_command(plan: LoadPlan, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "locust", "--locustfile", str(LOCUST_FILE)),
        *("--host", f"http://{plan.http_address}", "--stop-timeout", "10"),
        *flags,
    ]


def locust_environment(plan: LoadPlan) -> dict[str, str]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        PLAN_VARIABLE: str(plan.file),
        # One process waits for many: threads of numpy would only take the server's cores.
        "OMP_NUM_THREADS": "1",
    }


def _wait(process: subprocess.Popen[bytes], plan: LoadPlan, progress: bool) -> None:
    longest = plan.seconds + plan.give_up_seconds + plan.deadline_seconds + _GRACE_SECONDS
    deadline = time.monotonic() + longest
    with tqdm(
        total=round(plan.seconds),
        unit="s",
        desc="locust",
        disable=not progress,
        bar_format="{l_bar}{bar}",
    ) as bar:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            bar.update(min(0.2, max(0.0, plan.seconds - bar.n)))
    if process.poll() is None:
        raise ServerError(
            "Locust did not end", where=str(LOCUST_FILE), expected=f"within {longest:.0f} s"
        )
