"""What the forecast loop exposes to Prometheus, and what rules and dashboards ask for by name.

``ai_forecast_<metric>{<labels…>,horizon}``            median of the value ``horizon`` from now
``ai_forecast_<metric>_quantile{…,horizon,quantile}``  only on request
``ai_forecast_timestamp_seconds{metric,<labels…>,horizon}``  when it was made: rules guard on it
``ai_forecast_residual_sigma{metric,<labels…>,horizon}``     running scale of past errors
``ai_forecast_loop_…``                                 the loop itself

A forecast is stamped with the time of the scrape, never with the time it speaks of.
"""

from __future__ import annotations

PREFIX = "ai_forecast_"
TIMESTAMP = PREFIX + "timestamp_seconds"
RESIDUAL_SIGMA = PREFIX + "residual_sigma"
QUANTILE_SUFFIX = "_quantile"

HORIZON_LABEL = "horizon"
QUANTILE_LABEL = "quantile"
METRIC_LABEL = "metric"
RESERVED_LABELS = frozenset({HORIZON_LABEL, QUANTILE_LABEL, METRIC_LABEL})
RESIDUAL_HORIZON = "1h"
"""The horizon whose forecasts are compared with what came: short enough to be judged at once."""

LOOP_PREFIX = PREFIX + "loop_"
LOOP_SERIES = LOOP_PREFIX + "series"
"""Gauge {metric, state}: state is read, forecast or failed, of the newest cycle."""
LOOP_SERIES_FAILED_TOTAL = LOOP_PREFIX + "series_failed_total"
"""Counter {metric, reason}."""
LOOP_QUERY_ERRORS_TOTAL = LOOP_PREFIX + "query_errors_total"
"""Counter {metric, reason}: the query as a whole gave nothing."""
LOOP_LAST_SUCCESS = LOOP_PREFIX + "last_success_timestamp_seconds"
"""Gauge {metric}: end of the newest cycle that forecast at least one series of the metric."""
LOOP_LAG = LOOP_PREFIX + "lag_seconds"
"""Gauge {metric}: age of the newest point when it was forecast from."""
LOOP_CYCLE_DURATION = LOOP_PREFIX + "cycle_duration_seconds"
"""Gauge {stage}: read, forecast, publish, all, of the newest cycle."""
LOOP_CYCLES_TOTAL = LOOP_PREFIX + "cycles_total"
"""Counter {result}: ok, partial (a query failed) or failed."""
LOOP_INTERVAL = LOOP_PREFIX + "interval_seconds"
LOOP_TRITON_LATENCY = LOOP_PREFIX + "triton_latency_seconds"
"""Histogram {model} of one batch over the wire."""
LOOP_FALLBACK_RATIO = LOOP_PREFIX + "fallback_ratio"
"""Gauge {metric, source}: share of the series that each expert of the model answered."""
LOOP_PUBLISH_ERRORS_TOTAL = LOOP_PREFIX + "publish_errors_total"
"""Counter {outlet}: pushgateway, remote_write."""
LOOP_WARNINGS_TOTAL = LOOP_PREFIX + "warnings_total"
"""Counter {metric, reason}: served all the same, but worth a look (duplicates, unit, …)."""
LOOP_CLOCK_SKEW = LOOP_PREFIX + "clock_skew_seconds"
"""Gauge: Prometheus' clock minus the loop's; windows end by Prometheus' clock."""


def forecast_name(metric: str) -> str:
    """``ai_forecast_<metric>``, the median."""
    return PREFIX + metric


def quantile_name(metric: str) -> str:
    return PREFIX + metric + QUANTILE_SUFFIX


def recorded_name(metric: str, what: str) -> str:
    """``ai_forecast:<metric>:<what>``, recorded by the generated rules: value, line or fresh."""
    return f"ai_forecast:{metric}:{what}"


def exposed_label(name: str) -> str:
    """A source label as the forecast carries it: one of ours becomes ``exported_*``."""
    return f"exported_{name}" if name in RESERVED_LABELS else name
