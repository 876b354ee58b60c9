"""``LSTMForecast``: an LSTM over segments of one series, a seasonal skip, and a back-test.

Everything between the raw window and the forecast in the metric's own unit is inside the module,
so that the exported graph needs no client-side arithmetic. Three parts:

- ``ForecastCore``: running instance normalisation, the LSTM, and a decoder that answers all steps
  of the horizon at once. Its forecast is a weighted sum of simple curves (last value, yesterday,
  mean of the days, recent means) plus a residual. The LSTM is causal and so is the normalisation:
  its state at an earlier segment is exactly what it would have known then. One pass therefore
  gives the forecast *and* its back-tests, and training learns from many origins of one window.
- the experts ``seasonal`` and ``last``, gathered from the raw window without any rounding.
- ``LSTMForecast``: picks per row among the three by their errors on the window's own tail.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.metric_forecast.graph import DEFAULT_QUANTILES

# Larger magnitudes count as missing, as do NaN and infinities: sums of a window stay finite.
LARGEST_MAGNITUDE = 1e30
# Below this share of the level, variation is float32 rounding.
_SMALLEST_RELATIVE_SCALE = 1e-6
_CURVES = 8
# Sorts after every value there can be.
_BEYOND = 3e38


@dataclass(frozen=True)
class ForecastSettings:
    """Architecture of one preset. Lengths in steps."""

    context_length: int
    horizon: int
    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    # Steps the LSTM reads at once; shorter segments cost time, longer ones detail.
    segment_length: int = 1
    hidden_size: int = 64
    seasonal_days: int = 7
    recent_steps: tuple[int, int] = (3, 12)
    # How many earlier origins, one (whole-segment) horizon apart, judge the experts.
    backtests: int = 12
    # Weight of a curve's earlier errors after each further origin.
    memory: float = 0.9
    # An expert replaces the LSTM only if its back-test error is below this share of the LSTM's.
    challenger_share: float = 0.6

    def __post_init__(self) -> None:
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError(f"quantiles must rise and hold 0.5, got {self.quantiles}")

    @property
    def padded_length(self) -> int:
        """Context length rounded up to whole segments (padding is missing points, on the left)."""
        return math.ceil(self.context_length / self.segment_length) * self.segment_length

    @property
    def padded_horizon(self) -> int:
        return math.ceil(self.horizon / self.segment_length) * self.segment_length

    @property
    def median_index(self) -> int:
        return self.quantiles.index(0.5)

    def origins(self, count: int) -> list[int]:
        """The window's end and up to ``count`` earlier origins, in padded steps, newest first."""
        earlier = (self.padded_length - self.padded_horizon * i for i in range(count + 1))
        return [origin for origin in earlier if origin >= self.segment_length]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ForecastSettings:
        """Raises TypeError or ValueError for settings of another architecture."""
        tuples = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.items()
        }
        return cls(**tuples)


def settings_for(
    context_length: int, horizon: int, quantiles: tuple[float, ...]
) -> ForecastSettings:
    """Sensible architecture for any lengths; ``next`` and ``12h`` are (30, 1) and (2016, 144)."""
    short = context_length < 168
    return ForecastSettings(
        context_length=context_length,
        horizon=horizon,
        quantiles=quantiles,
        segment_length=1 if short else round(context_length / 84),
        recent_steps=(3, 12) if short else (12, 72),
        backtests=max(4, min(12, 16 // horizon)),
    )


def _compress(ratio: Tensor) -> Tensor:
    """Sign-preserving log: outliers of any size stay in the LSTM's range."""
    return torch.sign(ratio) * torch.log(1 + ratio.abs())


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last axis where mask is 1; 0 where nothing is."""
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)


def _median(columns: list[Tensor], number: Tensor) -> Tensor:
    """Elementwise median of the ``number`` entries below ``_BEYOND``; 0 where there is none.

    Odd-even transposition: minima and maxima only, the same bits in every runtime.
    """
    ordered, size = list(columns), len(columns)
    for turn in range(size):
        for i in range(turn % 2, size - 1, 2):
            low, high = ordered[i], ordered[i + 1]
            ordered[i], ordered[i + 1] = torch.minimum(low, high), torch.maximum(low, high)
    median = torch.zeros_like(ordered[0])
    for count in range(1, size + 1):
        middle = 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])
        median = torch.where((number - count).abs() < 0.5, middle, median)
    return median


class ForecastCore(nn.Module):
    """The LSTM with its curves, at several origins of the same window at once."""

    def __init__(self, settings: ForecastSettings) -> None:
        super().__init__()
        self.settings = settings
        segment, hidden = settings.segment_length, settings.hidden_size
        self.segments_ahead = settings.padded_horizon // segment
        self.origins = settings.origins(settings.backtests)
        self.embed = nn.Linear(3 * segment, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.positions = nn.Parameter(torch.randn(self.segments_ahead, 16) * 0.1)
        self.decoder = nn.Linear(hidden + 16 + 2 * segment + 6 + _CURVES, 2 * hidden)
        quantile_steps = segment * len(settings.quantiles)
        self.head = nn.Linear(2 * hidden, quantile_steps + _CURVES)
        self.trust = nn.Parameter(torch.tensor(2.0))
        with torch.no_grad():
            self.head.weight[:segment] *= 0.1

    def forward(
        self, series: Tensor, season_length: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        series: float32 (batch, context_length), own unit, NaN = missing
        season_length: int64 (batch, 1), steps a day, 0 = none

        Returns, per origin: LSTM quantiles (batch, origins, horizon, quantiles), seasonal curve
        (batch, origins, horizon), last value (batch, origins), scale (batch, origins); own unit.
        """
        filled, mask = self.clean(series)
        last = self._last_values(filled, mask)
        states, scales, counts = self._encode(filled, mask)
        curves, scalars, seasonal = self._curves(filled, mask, last, season_length)

        settings, horizon = self.settings, self.settings.horizon
        at = [origin // settings.segment_length - 1 for origin in self.origins]
        state = torch.stack([states[:, i] for i in at], 1)
        scale = torch.stack([scales[:, i] for i in at], 1)
        count = torch.stack([counts[:, i] for i in at], 1)
        floor = _SMALLEST_RELATIVE_SCALE * last.abs() + 1e-20
        divisor = torch.maximum(scale, floor)

        shape = (len(self.origins), self.segments_ahead, settings.segment_length)
        seen = torch.cat(
            [
                _compress(curves[1] / divisor.unsqueeze(-1)).reshape(-1, *shape),
                _compress(curves[3] / divisor.unsqueeze(-1)).reshape(-1, *shape),
            ],
            -1,
        )
        record = self._record(filled, mask, last, curves, divisor)
        known = torch.stack(
            [_compress(value / divisor) for value in scalars[:4]]
            + [scalars[4], 0.25 * torch.log(1 + count)],
            -1,
        )
        known = torch.cat([known, record], -1)
        context = torch.cat([state, known], -1).unsqueeze(2)
        context = context.expand(-1, -1, self.segments_ahead, -1)
        positions = self.positions.expand(context.shape[0], len(self.origins), -1, -1)
        decoded = self.head(F.gelu(self.decoder(torch.cat([context, positions, seen], -1))))

        logits = decoded[..., -_CURVES:] - self.trust * record.unsqueeze(2)
        weights = torch.softmax(logits, -1)
        steps = decoded[..., :-_CURVES].reshape(-1, *shape[:2], len(settings.quantiles), shape[2])
        # Curve 0 is the last value: zero in these units.
        base = torch.zeros_like(seen[..., : settings.segment_length])
        for i in range(1, _CURVES):
            base = base + weights[..., i : i + 1] * curves[i].reshape(-1, *shape)
        unit = scale.reshape(-1, shape[0], 1, 1)
        median = last.reshape(-1, shape[0], 1, 1) + base + unit * steps[..., 0, :]
        quantiles = self._spread(median, unit, F.softplus(steps[..., 1:, :]))
        lstm = torch.stack([q.flatten(2)[..., :horizon] for q in quantiles], -1)
        return lstm, seasonal, last, scale

    def clean(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """Padded window with 0 for missing points, and its 0/1 mask; both (batch, padded)."""
        finite = series.abs() <= LARGEST_MAGNITUDE
        filled = torch.where(finite, series, torch.zeros_like(series))
        pad = self.settings.padded_length - self.settings.context_length
        return F.pad(filled, (pad, 0)), F.pad(finite.to(series.dtype), (pad, 0))

    def _last_values(self, filled: Tensor, mask: Tensor) -> Tensor:
        """Last finite value before each origin (batch, origins), 0 where there is none."""
        length = self.settings.padded_length
        order = mask * torch.arange(1, length + 1, dtype=mask.dtype, device=mask.device)
        found = torch.stack([order[:, :origin].amax(1) for origin in self.origins], 1)
        return torch.gather(filled, 1, (found - 1).clamp(min=0).to(torch.int64))

    def _first(self, mask: Tensor) -> Tensor:
        """Index of the first finite step, int64 (batch, 1); beyond the window if there is none."""
        order = torch.arange(self.settings.padded_length, device=mask.device)
        missing = torch.where(mask > 0.5, 0, self.settings.padded_length)
        return (order + missing).amin(1, keepdim=True)

    def _encode(self, filled: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States (batch, segments, hidden), scales and counts (batch, segments).

        Mean and scale (mean absolute deviation) are running ones: segment i is normalised by what
        was known at its own end.
        """
        # Sums run over distances from the first value: a flat stretch stays exactly zero, and
        # rounding is small beside how far the series has moved, however large its level is.
        first = self._first(mask).clamp(max=self.settings.padded_length - 1)
        level = torch.gather(filled, 1, first)
        anchored = filled - level
        segments = (-1, self.settings.padded_length // self.settings.segment_length)
        shape = (*segments, self.settings.segment_length)
        values, seen = (anchored * mask).reshape(shape), mask.reshape(shape)
        counts = torch.cumsum(seen.sum(-1), 1)
        mean = torch.cumsum(values.sum(-1), 1) / counts.clamp(min=1.0)
        deviation = (values - mean.unsqueeze(-1)) * seen
        # What is left of a flat stretch far from the first value is rounding of the mean. It
        # differs between runtimes, and an LSTM that sees it magnified can remember it for days.
        rounding = _SMALLEST_RELATIVE_SCALE * mean.abs().unsqueeze(-1)
        deviation = torch.sign(deviation) * F.relu(deviation.abs() - rounding)
        scales = torch.cumsum(deviation.abs().sum(-1), 1) / counts.clamp(min=1.0)
        floor = _SMALLEST_RELATIVE_SCALE * level.abs() + 1e-20
        divisor = torch.maximum(scales, floor).unsqueeze(-1)

        both = mask[:, 1:] * mask[:, :-1]
        change = F.pad((anchored[:, 1:] - anchored[:, :-1]) * both, (1, 0)).reshape(shape)
        features = [_compress(deviation / divisor), _compress(change / divisor), seen]
        states, _ = self.lstm(self.embed(torch.cat(features, -1)))
        return states, scales, counts

    def _curves(
        self, filled: Tensor, mask: Tensor, last: Tensor, season_length: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Simple forecasts relative to the origin's last value, (batch, origins, padded horizon):
        last, yesterday, yesterday at today's level, median of days, the same at today's level,
        mean of days, two recent means. And (batch, origins): both level shifts, both recent means,
        share of steps with a seasonal value. And yesterday in the metric's own unit (batch,
        origins, horizon), the last value where no day is known.
        """
        recent, longer = self.settings.recent_steps
        device, ahead = filled.device, self.settings.padded_horizon
        season = season_length.clamp(min=1).unsqueeze(-1)
        # Step 1 is the first one ahead; the steps up to 0 measure how today differs from then.
        step = torch.arange(1 - recent, ahead + 1, device=device).reshape(1, 1, -1)
        origins = torch.tensor(self.origins, device=device).reshape(1, -1, 1)
        periods = torch.div((step - 1).clamp(min=0), season, rounding_mode="trunc") + 1
        has_season = (season_length >= 2).to(filled.dtype).unsqueeze(-1)

        total = torch.zeros_like(last).unsqueeze(-1)
        number, yesterday, found, days = total, total, total, []
        repeated = last.unsqueeze(-1)
        for day in range(self.settings.seasonal_days):
            index = origins + step - 1 - season * (periods + day)
            inside = (index >= 0).to(filled.dtype) * has_season
            flat = index.clamp(min=0).flatten(1)
            there = torch.gather(mask, 1, flat).reshape(inside.shape) * inside
            exact = torch.gather(filled, 1, flat).reshape(inside.shape)
            value = exact - last.unsqueeze(-1)
            newly = (there - found) > 0.5
            yesterday = torch.where(newly, value, yesterday)
            # Not last + (value - last): beside one huge value that would round the rest away.
            repeated = torch.where(newly, exact, repeated)
            found = torch.maximum(found, there)
            total = total + there * value
            number = number + there
            days.append(torch.where(there > 0.5, value, torch.full_like(value, _BEYOND)))
        of_days = _median(days, number)

        current, current_mask = self._at(filled, mask, -recent, 0)
        current = current - last.unsqueeze(-1)
        comparable = current_mask * found[..., :recent]
        shift = _masked_mean(current - yesterday[..., :recent], comparable)
        shift_of_days = _masked_mean(current - of_days[..., :recent], comparable)
        older, older_mask = self._at(filled, mask, -longer, 0)
        short_mean = _masked_mean(current, current_mask)
        long_mean = _masked_mean(older - last.unsqueeze(-1), older_mask)

        seasonal, available = yesterday[..., recent:], found[..., recent:]
        of_days = of_days[..., recent:]
        mean = (total / number.clamp(min=1.0))[..., recent:]
        curves = [
            torch.zeros_like(seasonal),
            seasonal,
            seasonal + available * shift.unsqueeze(-1),
            of_days,
            of_days + available * shift_of_days.unsqueeze(-1),
            mean,
            short_mean.unsqueeze(-1).expand_as(seasonal),
            long_mean.unsqueeze(-1).expand_as(seasonal),
        ]
        scalars = [shift, shift_of_days, short_mean, long_mean, available.mean(-1)]
        return curves, scalars, repeated[..., recent : recent + self.settings.horizon]

    def _record(
        self, filled: Tensor, mask: Tensor, last: Tensor, curves: list[Tensor], divisor: Tensor
    ) -> Tensor:
        """Log of each curve's mean error over the earlier origins of the window, above the best
        curve's: float32 (batch, origins, curves), 0 for the best and where nothing is known.
        """
        curve = torch.stack(curves, -1)[:, :, : self.settings.horizon]
        truth, weight = self.realised(filled, mask)
        error = (truth - last.unsqueeze(-1)).unsqueeze(-1) - curve
        errors = (weight.unsqueeze(-1) * error.abs()).sum(2)
        numbers = weight.sum(-1, keepdim=True)
        smallest = 0.01 * divisor.unsqueeze(-1)

        # From the oldest origin on: each knows what came true before it.
        total, number = torch.zeros_like(errors[:, 0]), torch.zeros_like(numbers[:, 0])
        records = []
        for i in range(len(self.origins) - 1, -1, -1):
            mean = total / number.clamp(min=1.0)
            best = mean.amin(-1, keepdim=True)
            record = torch.log((mean + smallest[:, i]) / (best + smallest[:, i]))
            records.insert(0, torch.where(number > 0.5, record, torch.zeros_like(record)))
            total = self.settings.memory * total + errors[:, i]
            number = self.settings.memory * number + numbers[:, i]
        return torch.stack(records, 1)

    def realised(self, filled: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What came after each origin within the window, and its 0/1 weight; both
        (batch, origins, horizon). Weight 0 for the newest origin (its horizon is the future) and
        for origins before the first point (nothing was known to forecast from).
        """
        truth, weight = self._at(filled, mask, 0, self.settings.horizon)
        known = torch.tensor(self.origins, device=mask.device).unsqueeze(0) > self._first(mask)
        return truth, weight * known.to(weight.dtype).unsqueeze(-1)

    def _at(self, filled: Tensor, mask: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Steps ``start … stop - 1`` relative to each origin: values and mask, both
        (batch, origins, stop - start); steps outside the window are masked.
        """
        origins = torch.tensor(self.origins, device=mask.device).unsqueeze(1)
        index = origins + torch.arange(start, stop, device=mask.device)
        inside = ((index >= 0) & (index < self.settings.padded_length)).to(mask.dtype)
        index = index.clamp(0, self.settings.padded_length - 1)
        return filled[:, index], mask[:, index] * inside

    def _spread(self, median: Tensor, unit: Tensor, widths: Tensor) -> list[Tensor]:
        """Quantiles in order. Widths are not negative, so quantiles cannot cross."""
        middle = self.settings.median_index
        quantiles = [median]
        for i in range(middle - 1, -1, -1):
            quantiles.insert(0, quantiles[0] - unit * widths[..., i, :])
        for i in range(middle, len(self.settings.quantiles) - 1):
            quantiles.append(quantiles[-1] + unit * widths[..., i, :])
        return quantiles


class LSTMForecast(nn.Module):
    """The exported network.

    series: float32 (batch, context_length), metric's own unit, NaN = missing, padded on the left
    season_length: int64 (batch, 1), steps a day, 0 = none
    → forecast: float32 (batch, horizon, quantiles), metric's own unit
    → source: int32 (batch, 1), index into graph.SOURCES

    A window without one finite point is answered with NaN.
    """

    def __init__(self, settings: ForecastSettings) -> None:
        super().__init__()
        self.settings = settings
        self.core = ForecastCore(settings)

    def forward(self, series: Tensor, season_length: Tensor) -> tuple[Tensor, Tensor]:
        lstm, seasonal, last, _ = self.core(series, season_length)
        filled, mask = self.core.clean(series)
        middle, horizon = self.settings.median_index, self.settings.horizon
        truth, weight = self.core.realised(filled, mask)
        source = self.choose(truth, weight, lstm[..., middle], seasonal, last.unsqueeze(-1))

        median = lstm[:, 0, :, middle]
        expert = torch.where(source == 1, seasonal[:, 0], last[:, :1].expand(-1, horizon))
        # The band keeps the LSTM's widths around whichever median was chosen.
        moved = torch.where(source == 0, median, expert).unsqueeze(-1)
        around = moved + (lstm[:, 0] - median.unsqueeze(-1))
        forecast = torch.where((source == 0).unsqueeze(-1), lstm[:, 0], around)
        empty = (mask.amax(1) < 0.5).reshape(-1, 1, 1)
        forecast = torch.where(empty, torch.full_like(forecast, math.nan), forecast)
        # A plain reshape, so that the exported graph knows its sizes.
        shape = (-1, horizon, len(self.settings.quantiles))
        return forecast.reshape(shape), source.to(torch.int32).reshape(-1, 1)

    def choose(
        self, truth: Tensor, weight: Tensor, median: Tensor, seasonal: Tensor, last: Tensor
    ) -> Tensor:
        """Index into graph.SOURCES, int64 (batch, 1), from the errors at the earlier origins; all
        inputs (batch, origins, horizon).

        Strict comparisons: on a tie (a constant, or nothing to judge by) the LSTM stays.
        """
        of_lstm, of_seasonal, of_last = (
            (weight * (truth - forecast).abs()).flatten(1).sum(1, keepdim=True)
            for forecast in (median, seasonal, last)
        )
        bar = self.settings.challenger_share * of_lstm
        challenger = torch.minimum(of_seasonal, of_last)
        expert = torch.where(of_last < of_seasonal, 2, 1)
        # Where yesterday is unknown the seasonal curve is the last value: call it that.
        expert = torch.where(of_last == of_seasonal, 2, expert)
        return torch.where(challenger < bar, expert, 0)
