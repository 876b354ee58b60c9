"""Threshold alerts replayed: what each rule would have said at every origin, and who was right.

A series' threshold is the 95th percentile of its first 80%. In its last 20%, every 15 minutes, a
rule says whether the value 12 hours later will be above it (``lead_steps``); it is an event if that
value is. Rules see a method's forecast for that one step, made from the steps before the origin.

An *episode* is a run of alerts of one rule with at most an hour between neighbours: what pages
somebody once. It is a false alarm if none of its alerts was followed by the event it foretold.
Otherwise its *lead time* runs from its first alert to the beginning of the excursion above the
threshold in which its first right alert saw the value; an episode that began when that excursion
was under way has none. A missing value ends no excursion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from training.metric_forecast.benchmark.measure import Method, group_of
from training.metric_forecast.benchmark.methods import LAST, SEASONAL, line_name
from training.metric_forecast.data import COARSE_STEP_SECONDS, Series, horizon_at

THRESHOLD_QUANTILE = 0.95
ORIGIN_EVERY_SECONDS = 15 * 60
MERGE_SECONDS = 3600
WEEK_SECONDS = 7 * 86400

MODEL = "model"
DUAL = "dual: predict_linear[6h] and model"
YESTERDAY = "model and yesterday"
HIGH_YESTERDAY = "model's highest quantile and yesterday"

# Method → float64 (origins, quantiles), the forecast of the step that is asked; a threshold.
Rule = Callable[[Mapping[str, np.ndarray], float], np.ndarray]


def above(name: str, quantile: int | None = None) -> Rule:
    """The method's point forecast (or its quantile of that index) is above; no number is not."""

    def fires(forecasts: Mapping[str, np.ndarray], threshold: float) -> np.ndarray:
        columns = forecasts[name]
        at = columns.shape[-1] // 2 if quantile is None else quantile
        return columns[:, at] > threshold

    return fires


def both(first: Rule, second: Rule) -> Rule:
    def fires(forecasts: Mapping[str, np.ndarray], threshold: float) -> np.ndarray:
        return first(forecasts, threshold) & second(forecasts, threshold)

    return fires


# In the table's order. "Yesterday" is the value a day before the one asked about: seasonal naive.
RULES: dict[str, Rule] = {
    **{line_name(span): above(line_name(span)) for span in ("1h", "6h", "24h")},
    SEASONAL: above(SEASONAL),
    LAST: above(LAST),
    MODEL: above(MODEL),
    DUAL: both(above(line_name("6h")), above(MODEL)),
    YESTERDAY: both(above(MODEL), above(SEASONAL)),
    HIGH_YESTERDAY: both(above(MODEL, -1), above(SEASONAL)),
}


@dataclass(frozen=True)
class Tally:
    """Counts of one rule. hits, false, missed: origins; lead_hours: one per episode that has one"""

    hits: int
    false: int
    missed: int
    episodes: int
    false_episodes: int
    lead_hours: tuple[float, ...]

    @property
    def precision(self) -> float:
        """NaN where the rule never alerted."""
        return _ratio(self.hits, self.hits + self.false)

    @property
    def recall(self) -> float:
        """NaN where nothing happened."""
        return _ratio(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> float:
        """0 for a rule that never alerted though something happened; NaN where nothing did."""
        if self.hits + self.missed == 0:
            return float("nan")
        return _ratio(2 * self.hits, 2 * self.hits + self.false + self.missed)

    @property
    def lead(self) -> float:
        """Median lead time in hours; NaN for none."""
        return float(np.median(self.lead_hours)) if self.lead_hours else float("nan")


@dataclass(frozen=True)
class Replayed:
    """One series. tallies: per network (seed), per rule; events, origins: with a known truth"""

    group: str
    origins: int
    events: int
    weeks: float
    tallies: Mapping[str, Mapping[str, Tally]]

    def usable(self, _: int) -> bool:
        """It stands in a table, also where nothing happened: false alarms count there."""
        return self.origins > 0


def replay(
    series: Sequence[Series],
    methods: Mapping[str, Method],
    networks: Mapping[str, Method],
    horizon: int,
    limit: int,
    *,
    rules: Mapping[str, Rule] = RULES,
    progress: bool = False,
) -> list[Replayed]:
    """One entry per series with an origin whose truth is known; a series at a time in memory.

    methods: without the model; networks: the model, once per seed; horizon: steps the model
    reaches; limit: origins a series, 0 = every 15 minutes
    """
    found = []
    for one in tqdm(series, desc="replay", unit="series", disable=not progress):
        threshold, lead = threshold_of(one), one.lead_steps(horizon)
        origins = alert_origins(one, lead, limit)
        if threshold is None or not origins:
            continue
        truth = np.array([horizon_at(one.values, o, lead)[-1] for o in origins], dtype=np.float64)
        if not np.isfinite(truth).any():
            continue
        asked = {name: method(one, origins, (lead,))[:, 0] for name, method in methods.items()}
        tallies = {}
        for name, network in networks.items():
            forecasts = {**asked, MODEL: network(one, origins, (lead,))[:, 0]}
            tallies[name] = {
                rule: tally(one, threshold, lead, origins, fires(forecasts, threshold))
                for rule, fires in rules.items()
            }
        spacing = float(np.median(np.diff(origins))) if len(origins) > 1 else 1.0
        span = origins[-1] - origins[0] + spacing
        found.append(
            Replayed(
                group=group_of(one),
                origins=int(np.isfinite(truth).sum()),
                events=int((truth > threshold).sum()),
                weeks=span * _step_seconds(one) / WEEK_SECONDS,
                tallies=tallies,
            )
        )
    return found


def threshold_of(series: Series) -> float | None:
    """95th percentile of the numbers in the first 80%; None where there is none."""
    head = series.values[: series.split].astype(np.float64)
    head = head[np.isfinite(head)]
    return float(np.quantile(head, THRESHOLD_QUANTILE)) if len(head) else None


def alert_origins(series: Series, lead: int, limit: int) -> list[int]:
    """Every 15 minutes (or step, if longer) of the last 20%, evenly thinned to ``limit``."""
    first, end = max(1, series.split), len(series.values) - lead
    every = max(1, ORIGIN_EVERY_SECONDS // _step_seconds(series))
    origins = list(range(first, end + 1, every))
    if limit and len(origins) > limit:
        chosen = np.linspace(0, len(origins) - 1, limit).round().astype(int)
        origins = [origins[i] for i in chosen]
    return origins


def tally(
    series: Series, threshold: float, lead: int, origins: Sequence[int], alerts: np.ndarray
) -> Tally:
    """Judge one rule on one series.

    lead: steps from the last known one to the one asked about
    origins: rising, number of steps known at each; alerts: bool (origins,)
    """
    values = series.values.astype(np.float64)
    asked = np.asarray(origins, dtype=int) - 1 + lead
    truth = values[asked]
    known, event = np.isfinite(truth), truth > threshold
    step = _step_seconds(series)
    runs = episodes(np.asarray(origins) * step, alerts)
    false_episodes, hours = 0, []
    for run in runs:
        right = [i for i in run if event[i]]
        if right:
            begin = excursion_start(values, threshold, int(asked[right[0]]))
            first_alert = origins[run[0]] - 1
            if begin > first_alert:
                hours.append((begin - first_alert) * step / 3600)
        elif known[run].any():
            false_episodes += 1
    return Tally(
        hits=int((alerts & event).sum()),
        false=int((alerts & known & ~event).sum()),
        missed=int((~alerts & event).sum()),
        episodes=len(runs),
        false_episodes=false_episodes,
        lead_hours=tuple(hours),
    )


def episodes(at_seconds: np.ndarray, alerts: np.ndarray) -> list[list[int]]:
    """Indices of alerting origins, a list per episode.

    Neighbours at most an hour apart belong together, and so do neighbouring origins where these
    are rarer than that.
    """
    apart = float(np.median(np.diff(at_seconds))) if len(at_seconds) > 1 else 0.0
    longest = max(MERGE_SECONDS, apart)
    found: list[list[int]] = []
    for i in np.flatnonzero(alerts).tolist():
        if found and at_seconds[i] - at_seconds[found[-1][-1]] <= longest:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def excursion_start(values: np.ndarray, threshold: float, inside: int) -> int:
    """First step of the excursion above the threshold that the step ``inside`` belongs to."""
    below = np.flatnonzero(values[:inside] <= threshold)
    after = int(below[-1]) + 1 if len(below) else 0
    # Missing steps before it are not yet known to be above.
    return after + int(np.argmax(values[after : inside + 1] > threshold))


def pooled(tallies: Iterable[Tally]) -> Tally:
    """All series of a group as one: every origin counts the same."""
    every = list(tallies)
    return Tally(
        hits=sum(one.hits for one in every),
        false=sum(one.false for one in every),
        missed=sum(one.missed for one in every),
        episodes=sum(one.episodes for one in every),
        false_episodes=sum(one.false_episodes for one in every),
        lead_hours=tuple(hours for one in every for hours in one.lead_hours),
    )


def _step_seconds(series: Series) -> int:
    return series.step_seconds if series.step_seconds > 0 else COARSE_STEP_SECONDS


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
