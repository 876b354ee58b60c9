"""Trains one preset of the forecaster and writes its run folder."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contract.errors import InputError
from contract.manifest import Quality
from training.artifact import Artifact, finish_run, write_golden
from training.data.row_report import RowReport
from training.loop import Batch, LoopSettings, fit, seed_everything
from training.metric_forecast.arguments import WINDOWS_PER_EPOCH
from training.metric_forecast.data import Series, WindowSampler, hold_out, read_series
from training.metric_forecast.evaluate import describe_families, evaluate, relative_error
from training.metric_forecast.golden import golden_questions, golden_rows
from training.metric_forecast.graph import DEFAULT_QUANTILES, PRESETS, graph_of
from training.metric_forecast.network import ForecastCore, ForecastSettings, LSTMForecast
from training.metric_forecast.network import settings_for as architecture_for
from training.run import TrainRun

WEIGHTS_FILE = "forecast.pt"
METADATA_FILE = "metadata.json"
BATCH_SIZE = 64
_MEDIAN_WEIGHT = 4.0


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
    loop = loop_settings(settings, arguments.epochs, run.world_size)
    sampler = WindowSampler(kept, settings.context_length, settings.horizon)
    learn(network, sampler, loop, run, f"metric_forecast {name}")
    network.cpu()

    results = evaluate(network, kept, origins_per_series=arguments.origins, progress=show)
    quality = relative_error(results, "chronological: last 20% of each series")
    if apart:
        of_apart = evaluate(network, apart, origins_per_series=arguments.origins, progress=show)
        quality += relative_error(of_apart, f"held out: {', '.join(held)}")
        results += of_apart
    if run.rank == 0:
        print(describe_families(results), flush=True)
    return write_run(run, name, network, series, quality, files, report)


def learn(
    network: LSTMForecast,
    sampler: WindowSampler,
    loop: LoopSettings,
    run: TrainRun,
    description: str,
) -> list[float]:
    """Train the core on many origins of each window; returns the loss of every step."""
    settings, core = network.settings, network.core

    def draw(random: np.random.Generator) -> Batch:
        series, target, season = sampler.draw(random, BATCH_SIZE)
        return {
            "series": torch.from_numpy(series),
            "target": torch.from_numpy(target),
            "season_length": torch.from_numpy(season),
        }

    core.origins = settings.origins(20 if settings.segment_length == 1 else 7)
    try:
        return fit_core(core, draw, loop, run, description)
    finally:
        core.origins = settings.origins(settings.backtests)


def fit_core(
    core: ForecastCore,
    draw: Callable[[np.random.Generator], Batch],
    loop: LoopSettings,
    run: TrainRun,
    description: str,
) -> list[float]:
    def loss_of(module: nn.Module, batch: Batch) -> Tensor:
        lstm, seasonal, last, scale = module(batch["series"], batch["season_length"])
        filled, mask = core.clean(batch["series"])
        ahead_mask = torch.isfinite(batch["target"])
        filled = torch.cat([filled, batch["target"].nan_to_num(0.0)], 1)
        mask = torch.cat([mask, ahead_mask.to(mask.dtype)], 1)
        horizon = core.settings.horizon
        truth = torch.stack([filled[:, o : o + horizon] for o in core.origins], 1)
        there = torch.stack([mask[:, o : o + horizon] for o in core.origins], 1)
        return scaled_pinball(
            core.settings.quantiles, lstm, truth, there, seasonal, last.unsqueeze(-1), scale
        )

    return fit(core, draw, loss_of, loop, run, description)


def scaled_pinball(
    quantiles: tuple[float, ...],
    forecast: Tensor,
    truth: Tensor,
    there: Tensor,
    seasonal: Tensor,
    last: Tensor,
    scale: Tensor,
) -> Tensor:
    """Pinball loss (batch, origins, horizon) over the difficulty of each window.

    The difficulty is mostly the error of the better simple expert: quality is judged by ratios to
    simple forecasts, and an easy window's small errors count as much as a wild one's large ones.
    """
    # Over all origins of the window: one step's own error says more about luck than difficulty,
    # and weighting by it would teach that nothing ever moves.
    number = there.sum((1, 2)).clamp(min=1.0)
    easiest = torch.minimum(
        ((truth - seasonal).abs() * there).sum((1, 2)) / number,
        ((truth - last).abs() * there).sum((1, 2)) / number,
    ).unsqueeze(-1)
    # A flat window teaches nothing: the forecast is exact there by construction.
    usable = (scale > 1e-6 * last.squeeze(-1).abs() + 1e-20).to(scale.dtype)
    safe = torch.where(usable > 0, scale, torch.ones_like(scale))
    difficulty = safe * ((easiest / safe).clamp(max=100.0) ** 0.75 + 0.05)
    total = torch.zeros_like(truth)
    for i, quantile in enumerate(quantiles):
        error = (truth - forecast[..., i]) / difficulty.unsqueeze(-1)
        pinball = torch.maximum(quantile * error, (quantile - 1) * error)
        total = total + (_MEDIAN_WEIGHT if quantile == 0.5 else 1.0) * pinball
    weight = there * usable.unsqueeze(-1)
    # A window that leaves every scale behind must not own the step.
    return (total.clamp(max=50.0) * weight).sum() / weight.sum().clamp(min=1.0)


def loop_settings(
    settings: ForecastSettings, epochs: float | None, world_size: int
) -> LoopSettings:
    if epochs is None:
        epochs = 6 if settings.segment_length == 1 else 3
    if epochs <= 0:
        raise InputError("nothing to train", where="--epochs", expected="> 0", got=str(epochs))
    windows = epochs * WINDOWS_PER_EPOCH
    steps = max(2, round(windows / (BATCH_SIZE * world_size)))
    return LoopSettings(steps=steps, learning_rate=1e-2, ema_decay=0.99)


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
    except ValueError as error:
        raise InputError(
            "impossible forecast settings",
            where="--seq-len, --horizon, --quantiles",
            expected="at least 8 steps of context, 1 ahead; rising quantiles with 0.5",
            got=str(error),
        ) from error
    changed = (context_length, horizon) != PRESETS[preset] or quantiles != DEFAULT_QUANTILES
    name = f"custom_{context_length}_{horizon}" if changed else preset
    if arguments.name and changed and arguments.name in PRESETS:
        raise InputError("a custom run cannot have a preset's name", where="--name")
    return arguments.name or name, settings


def write_run(
    run: TrainRun,
    name: str,
    network: LSTMForecast,
    series: list[Series],
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
        "sources": ["lstm", "seasonal", "last"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "skipped_rows": len(report.skipped),
    }
    (run.path / METADATA_FILE).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    write_golden(run.path, golden_rows(series, settings), golden_questions(series, settings))
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
