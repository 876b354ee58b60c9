"""The loop's settings: one TOML file that the loop and its alerting rules both come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from contract.metric_names import RESERVED_LABELS, exposed_label
from services.settings_file import load_settings_file

Unit = Literal["ratio", "percent", "bytes", "seconds", "count", "other"]
LARGEST_OF_UNIT = {"ratio": 1.5, "percent": 150.0}
"""What no healthy series of the unit exceeds: beyond it the unit itself is suspect."""

_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
# Braces count only outside quotes: m{a=~"x{2}"} is a selector, a{x="1"} / b{x="1"} is none.
_SELECTOR = re.compile(
    r"""([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{((?:[^"'`{}]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)*)\})?""",
    re.DOTALL,
)
_DURATION = re.compile(r"(\d+)(s|m|h|d)")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SHARD_MARK = "$shard"


def seconds(duration: str) -> int:
    """Seconds of a Prometheus duration such as ``12h`` or ``1h30m``. Raises ValueError."""
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"expected a duration such as 5m or 12h, got {duration!r}")
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _duration(text: str) -> str:
    if seconds(text) <= 0:
        raise ValueError("expected a duration above zero")
    return text


def _metric_name(text: str) -> str:
    if not _METRIC.fullmatch(text):
        raise ValueError(f"expected a Prometheus metric name, got {text!r}")
    return text


def _label_name(text: str) -> str:
    if not _LABEL.fullmatch(text) or text.startswith("__"):
        raise ValueError(f"expected a Prometheus label name, got {text!r}")
    return text


Duration = Annotated[str, AfterValidator(_duration)]
MetricName = Annotated[str, AfterValidator(_metric_name)]
LabelName = Annotated[str, AfterValidator(_label_name)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PrometheusSettings(_Settings):
    """Where series are read. A shard is one query_range; ``concurrency`` of them run at a time."""

    url: str = Field(default="http://127.0.0.1:9090", pattern=r"^https?://")
    timeout_seconds: float = Field(default=30.0, gt=0)
    attempts: int = Field(default=3, ge=1, le=10)
    concurrency: int = Field(default=2, ge=1, le=32)
    bearer_token_file: Path | None = None
    ca_file: Path | None = None


class TritonSettings(_Settings):
    """Which served model answers; its context and horizon are learned from the server."""

    url: str = "grpc://127.0.0.1:9001"
    preset: str = "12h"
    deadline_seconds: float = Field(default=120.0, gt=0)
    in_flight: int = Field(default=4, ge=1, le=64)


class LoopSettings(_Settings):
    """How often, for which horizons, and where the forecasts go."""

    interval: Duration = "5m"
    horizons: tuple[Duration, ...] = Field(default=("1h", "12h"), min_length=1)
    listen: str = Field(default="127.0.0.1:9108", pattern=r"^[^\s:]+:\d+$")
    state_file: Path = Path("build/forecast_loop/state.npz")
    timestamp_per: Literal["series", "query"] = "series"
    quantiles: bool = False
    push_url: str | None = Field(default=None, pattern=r"^https?://")
    remote_write_url: str | None = Field(default=None, pattern=r"^https?://")
    stale_after_intervals: float = Field(default=3.0, ge=1)

    @property
    def interval_seconds(self) -> int:
        return seconds(self.interval)

    @property
    def stale_after_seconds(self) -> float:
        """A forecast older than this is served no more, and no rule believes it."""
        return self.interval_seconds * self.stale_after_intervals

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listen.rsplit(":", 1)
        return host, int(port)


class Query(_Settings):
    """One metric: what is read, what its values mean, and when it is too much.

    ``labels`` identify a series: the forecast carries them, joins are ``on`` them, and a series
    whose other labels change (a pod that moved) stays one series.

    ``confirm`` is the alert's second witness beside the model: the line of ``linear_window``, the
    value a day before the moment asked about, or either of them.
    """

    metric: MetricName
    expr: str = Field(default="", max_length=10_000)
    labels: tuple[LabelName, ...] = Field(min_length=1)
    unit: Unit = "other"
    step: Duration = "5m"
    history: Duration | None = None
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    direction: Literal["above", "below"] = "above"
    severity: str = "warning"
    linear_window: Duration = "6h"
    confirm: Literal["line", "yesterday", "either"] = "line"
    shard_by: LabelName | None = None
    shard_values: int = Field(default=50, ge=1)
    max_series: int = Field(default=20_000, ge=1)
    min_points: int = Field(default=30, ge=3)
    sigma_floor: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    allow_counter: bool = False
    companions: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _an_expression_defaults_to_the_metric(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("expr"):
            values = {**values, "expr": values.get("metric", "")}
        return values

    @model_validator(mode="after")
    def _makes_sense(self) -> Query:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"expected each label once, got {', '.join(self.labels)}")
        if len({exposed_label(label) for label in self.labels}) != len(self.labels):
            raise ValueError(
                f"{', '.join(sorted(RESERVED_LABELS))} become exported_*, which is there too"
            )
        if self.companions:
            raise ValueError(
                "companions: no companion variant is published, its ablation has not earned it; "
                "remove the line"
            )
        if self.shard_by and SHARD_MARK not in self.expr and self.selector is None:
            raise ValueError(
                f"shard_by: the expression is no plain selector: expected {SHARD_MARK} among its "
                f"matchers, such as rate(requests_total{{{SHARD_MARK}}}[5m])"
            )
        if SHARD_MARK in self.expr and not self.shard_by:
            raise ValueError(f"{SHARD_MARK} in expr: expected shard_by to name a label")
        return self

    @property
    def step_seconds(self) -> int:
        return seconds(self.step)

    @property
    def selector(self) -> tuple[str, str] | None:
        """(metric, matchers) when the expression is a plain selector."""
        found = _SELECTOR.fullmatch(self.expr.strip())
        return (found[1], found[2] or "") if found else None

    def with_matcher(self, matcher: str) -> str:
        """The expression narrowed to one shard (``""``: to everything)."""
        if SHARD_MARK in self.expr:
            text = self.expr.replace(SHARD_MARK, matcher)
            return text if matcher else re.sub(r",\s*(?=[,}])|(?<=\{)\s*,", "", text)
        if not matcher or self.selector is None:
            return self.expr
        name, matchers = self.selector
        inside = f"{matchers.rstrip().rstrip(',')},{matcher}" if matchers.strip() else matcher
        return f"{name}{{{inside}}}"


class LoopConfig(_Settings):
    prometheus: PrometheusSettings = PrometheusSettings()
    triton: TritonSettings = TritonSettings()
    loop: LoopSettings = LoopSettings()
    queries: tuple[Query, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> LoopConfig:
        names = [query.metric for query in self.queries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"queries: expected each metric once, got twice: {', '.join(twice)}")
        for query in self.queries:
            if self.loop.push_url and {"job", "instance"} & set(query.labels):
                raise ValueError(
                    f"queries.{query.metric}.labels: Pushgateway overwrites job and instance; "
                    "serve /metrics instead, or rename them in the expression with label_replace"
                )
            for horizon in self.loop.horizons:
                if seconds(horizon) % query.step_seconds:
                    raise ValueError(
                        f"queries.{query.metric}.step: expected a divisor of the horizon {horizon},"
                        f" got {query.step}"
                    )
        return self


def load_config(path: Path, given: Mapping[str, Mapping[str, Any]] | None = None) -> LoopConfig:
    """Read and check the settings; those that are given here, by table, win over the file's.

    Raises ConfigError: which setting, expected, got.
    """
    return load_settings_file(
        path,
        LoopConfig,
        example="deploy/prometheus/forecast_loop.toml",
        given=given,
    )
