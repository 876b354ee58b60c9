"""Trains one preset of the forecaster and writes its run folder."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contract.errors import InputError
from contract.manifest import Quality
from training.artifact import Artifact, finish_run, write_golden
from training.data.row_report import RowReport
from training.loop import Batch, LoopSettings, fit, seed_everything
from training.metric_forecast.arguments import PARTS, WINDOWS_PER_EPOCH
from training.metric_forecast.calibrate import calibrate
from training.metric_forecast.companions import Companions
from training.metric_forecast.data import WindowSampler, hold_out, read_series
from training.metric_forecast.evaluate import describe_families, evaluate, relative_error
from training.metric_forecast.evidence import Evidence
from training.metric_forecast.golden import golden_questions, golden_rows
from training.metric_forecast.graph import DEFAULT_QUANTILES, PRESETS, graph_of, sources_of
from training.metric_forecast.network import LSTMForecast
from training.metric_forecast.pool import EvidencePool, evidence_of
from training.metric_forecast.settings import ForecastSettings
from training.metric_forecast.settings import settings_for as architecture_for
from training.run import TrainRun

WEIGHTS_FILE = "forecast.pt"
METADATA_FILE = "metadata.json"
BATCH_SIZE = 256
_MEDIAN_WEIGHT = 4.0
_EASE = 0.5
_VISITS = 16


def train(run: TrainRun) -> Artifact:
    """Read, train, judge, write. Raises InputError for impossible arguments, DataFileError."""
    arguments = run.arguments
    name, settings = settings_from(run.preset, arguments)
    report = RowReport(strict=run.strict)
    show = run.progress and run.rank == 0
    series, files = read_series(run.data, report, progress=show)
    held = [one for one in arguments.hold_out.split(",") if one]
    kept, apart = hold_out(series, held)
    if run.rank == 0:
        print(f"  {len(kept)} series to learn from; {report.describe()}", flush=True)

    # One thread: the steps are too small to share (a second one saves a fifth on an idle machine
    # and costs tenfold on a busy one), and weights then do not depend on the number of cores.
    torch.set_num_threads(1)
    seed_everything(run.seed)
    network = LSTMForecast(settings)
    plan = make_plan(settings, arguments.epochs, run.world_size)
    sampler = WindowSampler(kept, settings.context_length, settings.horizon)
    beside = Companions(series, settings.companions) if settings.companions else None
    learn(network, sampler, plan, run, f"metric_forecast {name}", beside)
    network.cpu()
    calibrate(network, kept, beside)

    limit = arguments.origins
    results = evaluate(network, kept, beside, origins_per_series=limit, progress=show)
    quality = relative_error(results, "chronological: last 20% of each series")
    if apart:
        of_apart = evaluate(network, apart, beside, origins_per_series=limit, progress=show)
        quality += relative_error(of_apart, f"held out: {', '.join(held)}")
        results += of_apart
    if run.rank == 0:
        print(describe_families(results), flush=True)
    golden = golden_rows(series, settings, beside)
    write_golden(run.path, golden, golden_questions(series, settings))
    return write_run(run, name, network, quality, files, report)


def learn(
    network: LSTMForecast,
    sampler: WindowSampler,
    plan: Plan,
    run: TrainRun,
    description: str,
    companions: Companions | None = None,
) -> list[float]:
    """Train the core on a pool of windows; returns the loss of every step."""
    core = network.core
    show = run.progress and run.rank == 0
    seed = (run.seed, run.rank)
    pool = EvidencePool(
        core.settings, sampler, plan.windows, seed, companions=companions, progress=show
    )

    def draw(random: np.random.Generator) -> Batch:
        return pool.draw(random, plan.batch_size)

    def loss_of(module: nn.Module, batch: Batch) -> Tensor:
        evidence = evidence_of(batch)
        quantiles, _, _ = module(evidence)
        return scaled_pinball(
            core.settings.quantiles, quantiles, batch["truth"], batch["weight"], evidence
        )

    return fit(core, draw, loss_of, plan.loop, run, description)


def scaled_pinball(
    levels: tuple[float, ...],
    quantiles: Tensor,
    truth: Tensor,
    weight: Tensor,
    evidence: Evidence,
) -> Tensor:
    """Mean pinball loss of quantiles (batch, steps, levels) over the difficulty of each step.

    The difficulty is half (geometrically) the error of the window's best expert: quality is judged
    by ratios, and an easy window's small errors count as much as a wild one's large ones.
    """
    scale = evidence.scale
    difficulty = torch.maximum(evidence.best, 0.03 * scale) ** _EASE * scale ** (1 - _EASE)
    # A flat window teaches nothing: the forecast is exact there by construction.
    usable = (evidence.moves > 0.5) & torch.isfinite(truth)
    weight = weight * usable.to(weight.dtype)
    truth = torch.where(usable, truth, torch.zeros_like(truth))
    total = torch.zeros_like(truth)
    for i, level in enumerate(levels):
        error = (truth - quantiles[..., i]) / difficulty
        pinball = torch.maximum(level * error, (level - 1) * error)
        total = total + (_MEDIAN_WEIGHT if level == 0.5 else 1.0) * pinball
    # A window that leaves every scale behind must not own the step.
    return (total.clamp(max=40.0) * weight).sum() / weight.sum().clamp(min=1.0)


@dataclass(frozen=True)
class Plan:
    """How many windows are looked at, and how they are learned from."""

    windows: int
    batch_size: int
    loop: LoopSettings


def make_plan(settings: ForecastSettings, epochs: float | None, world_size: int) -> Plan:
    """An epoch is WINDOWS_PER_EPOCH new windows; each is seen about ``_VISITS`` times."""
    if epochs is None:
        epochs = 8 if settings.segment_length == 1 else 4
    if epochs <= 0:
        raise InputError("nothing to train", where="--epochs", expected="> 0", got=str(epochs))
    windows = max(64, round(epochs * WINDOWS_PER_EPOCH / world_size))
    steps = max(2, round(windows * _VISITS / BATCH_SIZE))
    return Plan(
        windows,
        BATCH_SIZE * settings.members,
        LoopSettings(steps=steps, learning_rate=3e-3, ema_decay=0.995),
    )


def settings_from(preset: str, arguments: Namespace) -> tuple[str, ForecastSettings]:
    """Run name and architecture; overrides that change the tensors make a custom preset."""
    context_length, horizon = PRESETS[preset]
    context_length = arguments.seq_len or context_length
    horizon = arguments.horizon or horizon
    quantiles = DEFAULT_QUANTILES
    try:
        if arguments.quantiles:
            quantiles = tuple(float(word) for word in arguments.quantiles.split(","))
        if not all(0 < quantile < 1 for quantile in quantiles):
            raise ValueError("quantiles lie between 0 and 1")
        if context_length < 8 or horizon < 1:
            raise ValueError(f"got context {context_length}, horizon {horizon}")
        settings = architecture_for(context_length, horizon, quantiles)
        missing = {word for word in arguments.without.split(",") if word}
        if unknown := missing - set(PARTS):
            raise ValueError(f"no part {', '.join(sorted(unknown))}")
        settings = replace(
            settings,
            has_lstm="lstm" not in missing,
            patches=() if "analogs" in missing else settings.patches,
            members=1 if "ensemble" in missing else settings.members,
            companions=arguments.companions,
        )
    except ValueError as error:
        raise InputError(
            "impossible forecast settings",
            where="--seq-len, --horizon, --quantiles, --without, --companions",
            expected="at least 8 steps of context, 1 ahead; rising quantiles with 0.5;"
            f" without {', '.join(PARTS)} at most; no companions or more",
            got=str(error),
        ) from error
    sizes = (context_length, horizon)
    changed = sizes != PRESETS[preset] or quantiles != DEFAULT_QUANTILES or bool(missing)
    name = f"custom_{context_length}_{horizon}" if changed else preset
    if settings.companions:
        name, changed = f"{name}_companions", True
    if arguments.name and changed and arguments.name in PRESETS:
        raise InputError("a custom run cannot have a preset's name", where="--name")
    return arguments.name or name, settings


def write_run(
    run: TrainRun,
    name: str,
    network: LSTMForecast,
    quality: list[Quality],
    files: list[Any],
    report: RowReport,
) -> Artifact:
    settings = network.settings
    torch.save(network.state_dict(), run.path / WEIGHTS_FILE)
    metadata = {
        "architecture": settings.to_json(),
        "unit": "input",
        "step": "any; season_length is the number of steps a day, 0 for none",
        "missing": "NaN, contexts shorter than context_length are padded on the left",
        "sources": list(sources_of(settings.companions)),
        "parameters": sum(p.numel() for p in network.parameters()),
        "skipped_rows": len(report.skipped),
    }
    (run.path / METADATA_FILE).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    return finish_run(
        run.path,
        model=run.model,
        preset=name,
        seed=run.seed,
        device=run.device,
        graph=graph_of(name, settings),
        front=None,
        labels=(),
        thresholds={},
        settings=settings.to_json(),
        data=files,
        quality=quality,
    )
