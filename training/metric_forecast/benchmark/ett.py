"""Long-term forecasting as the literature measures it: ETTh1, look-back 720, horizon 96.

Months of 30 days: 12 to learn from, 4 to choose the epoch by, 4 to judge; every channel scaled with
the mean and deviation of the first 12. Every window of the last part counts, none is dropped. The
network is SegRNN's shape with an LSTM: segments of 48 steps, the last value subtracted, weights
shared over channels, all segments ahead decoded at once.
"""

from __future__ import annotations

import math
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contract.errors import DataFileError
from training.data.source import DataSource, find_data
from training.metric_forecast.benchmark.table import (
    describe_machine,
    markdown_table,
    parse_seeds,
)

FILE = Path("ett/ETT-small/ETTh1.csv")
MONTH = 30 * 24
# First and last step of each part, without the look-back in front of it.
PARTS = {
    "train": (0, 12 * MONTH),
    "validation": (12 * MONTH, 16 * MONTH),
    "test": (16 * MONTH, 20 * MONTH),
}
TARGETS = {"MSE": 0.351, "MAE": 0.392}


@dataclass(frozen=True)
class EttSettings:
    """Sizes and training of the network; the defaults are what the table reports."""

    look_back: int = 720
    horizon: int = 96
    segment_length: int = 48
    hidden_size: int = 512
    dropout: float = 0.5
    learning_rate: float = 1e-3
    windows_per_step: int = 64
    epochs: int = 30
    patience: int = 6


def find_file(source: DataSource) -> Path:
    """ETTh1.csv below the data folder. Raises DataFileError."""
    root = source.root
    if root is not None and source.origin == "file":
        return root
    candidates = [] if root is None else [root / "metrics" / FILE, root / FILE]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise DataFileError(
            "no ETTh1",
            where=source.describe(),
            expected=f"metrics/{FILE}",
            next_command="python -m training data fetch",
        )
    return found


def read_ett(path: Path) -> np.ndarray:
    """float64 (steps, channels), hourly. Raises DataFileError: unreadable, or under 20 months."""
    try:
        values = pd.read_csv(path).drop(columns="date").to_numpy(dtype=np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise DataFileError("not an ETT file", where=str(path), got=str(error)) from error
    needed = PARTS["test"][1]
    if len(values) < needed or not np.isfinite(values[:needed]).all():
        raise DataFileError(
            "not an ETT file",
            where=str(path),
            expected=f"at least {needed} steps, no gap",
            got=f"{len(values)} steps, {int((~np.isfinite(values[:needed])).sum())} missing",
        )
    return values


def scaled(values: np.ndarray) -> np.ndarray:
    """float32 (steps, channels): zero mean, unit deviation over the training part."""
    start, end = PARTS["train"]
    part = values[start:end]
    deviation = part.std(0)
    return ((values - part.mean(0)) / np.where(deviation > 0, deviation, 1.0)).astype(np.float32)


def windows_of(values: np.ndarray, part: str, look_back: int, horizon: int) -> Tensor:
    """float32 (windows, channels, look_back + horizon), every start: a view, nothing is copied.

    The look-back of the first window lies before the part, except in training.
    """
    start, end = PARTS[part]
    own = values[max(0, start - look_back) : end]
    return torch.from_numpy(own).unfold(0, look_back + horizon, 1)


class SegmentLSTM(nn.Module):
    """Forecasts all channels with one LSTM over segments."""

    def __init__(self, settings: EttSettings, channels: int) -> None:
        super().__init__()
        self.settings = settings
        hidden, segment = settings.hidden_size, settings.segment_length
        self.embed = nn.Linear(segment, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        ahead = settings.horizon // segment
        self.positions = nn.Parameter(torch.randn(ahead, hidden // 2))
        self.channels = nn.Parameter(torch.randn(channels, hidden // 2))
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(hidden, segment)

    def forward(self, series: Tensor) -> Tensor:
        """series: float32 (windows, channels, look_back). Returns (windows, channels, horizon)."""
        windows, channels, look_back = series.shape
        segment, ahead = self.settings.segment_length, len(self.positions)
        last = series[:, :, -1:]
        segments = (series - last).reshape(windows * channels, look_back // segment, segment)
        _, (state, cell) = self.lstm(F.relu(self.embed(segments)))
        # Every segment ahead is one step from the same state, told apart by its embeddings.
        asked = torch.cat(
            [
                self.positions.expand(channels, -1, -1),
                self.channels.unsqueeze(1).expand(-1, ahead, -1),
            ],
            -1,
        )
        rows = windows * channels * ahead
        asked = asked.expand(windows, -1, -1, -1).reshape(rows, 1, -1)
        decoded, _ = self.lstm(
            asked, (state.repeat_interleave(ahead, 1), cell.repeat_interleave(ahead, 1))
        )
        return self.head(self.dropout(decoded)).reshape(windows, channels, -1) + last


@dataclass(frozen=True)
class EttResult:
    """Errors of the epoch that validates best, over all windows, channels and steps."""

    seed: int
    epoch: int
    epochs: int
    validation_mse: float
    mse: float
    mae: float
    seconds: float


def reduced_precision() -> torch.autocast:
    """bfloat16 products for training where the processor has AMX: a third of the time there."""
    amx = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return torch.autocast("cpu", torch.bfloat16, enabled=amx)


def errors_of(network: nn.Module, windows: Tensor, look_back: int) -> tuple[float, float]:
    """(MSE, MAE) over every window, channel and step."""
    network.eval()
    squared = absolute = 0.0
    with torch.inference_mode():
        for batch in windows.split(256):
            error = network(batch[..., :look_back]) - batch[..., look_back:]
            squared += float(error.square().sum(dtype=torch.float64))
            absolute += float(error.abs().sum(dtype=torch.float64))
    number = windows.shape[0] * windows.shape[1] * (windows.shape[2] - look_back)
    return squared / number, absolute / number


def train_ett(
    values: np.ndarray,
    settings: EttSettings,
    seed: int,
    *,
    seconds: float = math.inf,
    report: Callable[[str], None] = lambda line: None,
) -> EttResult:
    """Learn on the first part, keep the epoch of the lowest validation MSE, then judge it once.

    values: float64 (steps, channels), as read
    seconds: no new epoch begins later than this
    """
    started = time.monotonic()
    torch.manual_seed(seed)
    data = scaled(values)
    train, validation, test = (
        windows_of(data, part, settings.look_back, settings.horizon) for part in PARTS
    )
    network = SegmentLSTM(settings, data.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    best, best_epoch, epoch = math.inf, 0, 0
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch in range(1, settings.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.8 ** max(0, epoch - 3)
        network.train()
        for rows in torch.randperm(len(train)).split(settings.windows_per_step):
            batch = train[rows]
            with reduced_precision():
                forecast = network(batch[..., : settings.look_back])
            loss = F.l1_loss(forecast.float(), batch[..., settings.look_back :])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        mse, mae = errors_of(network, validation, settings.look_back)
        passed = time.monotonic() - started
        report(
            f"  seed {seed} epoch {epoch}: validation MSE {mse:.4f} MAE {mae:.4f}, {passed:.0f} s"
        )
        if mse < best:
            best, best_epoch = mse, epoch
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        elif epoch - best_epoch >= settings.patience:
            break
        if passed + passed / epoch > seconds:
            break
    network.load_state_dict(kept)
    mse, mae = errors_of(network, test, settings.look_back)
    return EttResult(seed, best_epoch, epoch, best, mse, mae, time.monotonic() - started)


def naive_errors(windows: Tensor, look_back: int, season_length: int) -> tuple[float, float]:
    """(MSE, MAE) of repeating the last ``season_length`` steps (1: the last value)."""
    horizon = windows.shape[2] - look_back
    repeats = -(-horizon // season_length)
    season = windows[..., look_back - season_length : look_back]
    error = (season.repeat(1, 1, repeats)[..., :horizon] - windows[..., look_back:]).double()
    return float(error.square().mean()), float(error.abs().mean())


def run_ett(arguments: Namespace) -> str:
    """The table of ``--protocol ett``. Raises DataFileError, InputError."""
    started = time.monotonic()
    values = read_ett(find_file(find_data(arguments.data)))
    settings = EttSettings()
    seeds = parse_seeds(arguments.train_seeds) or [0]

    def report(line: str) -> None:
        if not arguments.quiet:
            print(line, file=sys.stderr, flush=True)

    seconds = 60 * arguments.ett_minutes
    results = [train_ett(values, settings, seed, seconds=seconds, report=report) for seed in seeds]
    test = windows_of(scaled(values), "test", settings.look_back, settings.horizon)
    rows = []
    for name, season in (("last value", 1), ("same time yesterday", 24)):
        rows.append([name, *(f"{e:.4f}" for e in naive_errors(test, settings.look_back, season))])
        rows[-1] += ["", ""]
    for one in results:
        rows.append([f"segment LSTM, seed {one.seed}", f"{one.mse:.4f}", f"{one.mae:.4f}"])
        rows[-1] += [f"{one.epoch} of {one.epochs}", f"{one.seconds:.0f}"]
    means = {
        "MSE": float(np.mean([one.mse for one in results])),
        "MAE": float(np.mean([one.mae for one in results])),
    }
    if len(results) > 1:
        mean = f"segment LSTM, mean of {len(results)} seeds"
        rows.append([mean, *(f"{value:.4f}" for value in means.values()), "", ""])
    rows.append(["target", *(f"{value:.4f}" for value in TARGETS.values()), "", ""])
    headings = [f"ETTh1, {settings.horizon} steps ahead", "MSE", "MAE", "epoch kept", "seconds"]
    verdicts = [
        f"{name} {'reached' if means[name] <= TARGETS[name] else 'NOT reached'}" for name in TARGETS
    ]
    notes = [
        f"look-back {settings.look_back}, {len(test)} windows x {test.shape[1]} channels, none"
        " dropped; the epoch of the lowest validation MSE",
        f"target: {', '.join(verdicts)}",
        f"{describe_machine(torch.get_num_threads())}: {time.monotonic() - started:.0f} s",
    ]
    return markdown_table(headings, rows) + "\n\n" + "\n".join(f"- {note}" for note in notes)
