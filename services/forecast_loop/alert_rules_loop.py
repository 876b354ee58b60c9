"""The rules that watch the loop itself, on what it says of itself (``ai_forecast_loop_*``)."""

from __future__ import annotations

from collections.abc import Iterator

from contract.metric_names import (
    LOOP_CYCLE_DURATION,
    LOOP_FALLBACK_RATIO,
    LOOP_INTERVAL,
    LOOP_LAST_SUCCESS,
    LOOP_PUBLISH_ERRORS_TOTAL,
    LOOP_QUERY_ERRORS_TOTAL,
    LOOP_SERIES,
    LOOP_TRITON_LATENCY,
    METRIC_LABEL,
)
from services.forecast_loop.alert_rules_metric import Rule
from services.forecast_loop.alert_rules_text import duration
from services.forecast_loop.config import LoopConfig

FAILED_SHARE = 0.1
FALLBACK_SHARE = 0.5
FALLBACK_SOURCE = "last"
"""The expert that repeats the newest value: what is left when nothing else is known."""
TRITON_SLOW_SECONDS = 2.0
"""Of an average batch: thousand times what one row takes, a tenth of what a cycle can bear."""
_COUNTED_INTERVALS = 4


def loop_rules(config: LoopConfig) -> list[Rule]:
    """Rules of the group ``ai_forecast_loop``."""
    return [*_liveness(config), *_quality(config)]


def _rule(
    alert: str,
    expr: str,
    wait: str,
    texts: tuple[str, str],
    *,
    severity: str = "warning",
    metric: str | None = None,
) -> Rule:
    labels = {"severity": severity} | ({METRIC_LABEL: metric} if metric else {})
    rule: Rule = {"alert": alert, "expr": expr}
    if wait:
        rule["for"] = wait
    return rule | {
        "labels": labels,
        "annotations": {"summary": texts[0], "summary_zh": texts[1]},
    }


def _liveness(config: LoopConfig) -> Iterator[Rule]:
    interval = config.loop.interval
    stale = duration(config.loop.stale_after_seconds)
    yield _rule(
        "ForecastHeartbeat",
        "vector(1)",
        "",
        (
            "Rules are evaluated and alerts get through. It always fires: page on its absence.",
            "规则与告警通道正常。本告警始终触发：应在其消失时告警。",
        ),
        severity="none",
    )
    yield _rule(
        "ForecastLoopDown",
        f"absent({LOOP_INTERVAL})",
        interval,
        (
            "No forecast loop is scraped: nothing renews the forecasts. Is `python -m services "
            "forecast_loop run` alive, and is it a target of this Prometheus?",
            "没有抓取到 forecast loop：预测不再更新。请确认进程存活并已列入抓取目标。",
        ),
    )
    for query in config.queries:
        last = f'{LOOP_LAST_SUCCESS}{{{METRIC_LABEL}="{query.metric}"}}'
        yield _rule(
            "ForecastLoopNoSuccess",
            # A loop that is down altogether is one alert, not one a metric.
            f"(\ntime() - max({last}) > {config.loop.stale_after_seconds:g}\n"
            f"or absent({last})\n)\nand on () count({LOOP_INTERVAL})",
            interval,
            (
                f"The loop runs, but has forecast no series of {query.metric} for more than "
                f"{stale}. Its log names the reason once per cycle.",
                f"循环在运行，但超过 {stale} 未能预测 {query.metric} 的任何序列。原因见其日志。",
            ),
            metric=query.metric,
        )


def _quality(config: LoopConfig) -> Iterator[Rule]:
    interval = config.loop.interval
    counted = duration(_COUNTED_INTERVALS * config.loop.interval_seconds)
    twice = duration(2 * config.loop.interval_seconds)
    yield _rule(
        "ForecastLoopQueryErrors",
        f"sum by ({METRIC_LABEL}, reason) (increase({LOOP_QUERY_ERRORS_TOTAL}[{counted}])) > 0",
        twice,
        (
            "The query of {{ $labels.metric }} fails: {{ $labels.reason }}, "
            f"{{{{ $value | humanize }}}} times in {counted}.",
            "{{ $labels.metric }} 的查询失败：{{ $labels.reason }}，"
            f"{counted} 内 {{{{ $value | humanize }}}} 次。",
        ),
    )
    by_state = f'max by ({METRIC_LABEL}) ({LOOP_SERIES}{{state="%s"}})'
    yield _rule(
        "ForecastLoopSeriesFailed",
        f"{by_state % 'failed'}\n/ {by_state % 'read'}\n> {FAILED_SHARE}",
        twice,
        (
            "{{ $value | humanizePercentage }} of the series of {{ $labels.metric }} could not be "
            "forecast; ai_forecast_loop_series_failed_total says why.",
            "{{ $labels.metric }} 有 {{ $value | humanizePercentage }} 的序列无法预测；"
            "原因见 ai_forecast_loop_series_failed_total。",
        ),
    )
    yield _rule(
        "ForecastLoopSlow",
        f'max({LOOP_CYCLE_DURATION}{{stage="all"}}) > {config.loop.interval_seconds}',
        twice,
        (
            f"A cycle takes {{{{ $value | humanizeDuration }}}}, longer than its interval of "
            f"{interval}: forecasts come late. The label stage says where the time goes.",
            f"一轮耗时 {{{{ $value | humanizeDuration }}}}，超过间隔 {interval}：预测滞后。"
            "标签 stage 显示耗时所在。",
        ),
    )
    yield _rule(
        "ForecastLoopTritonSlow",
        f"sum by (model) (rate({LOOP_TRITON_LATENCY}_sum[{counted}]))\n"
        f"/ sum by (model) (rate({LOOP_TRITON_LATENCY}_count[{counted}]))\n"
        f"> {TRITON_SLOW_SECONDS:g}",
        twice,
        (
            "Triton needs {{ $value | humanizeDuration }} for a batch of {{ $labels.model }}.",
            "Triton 处理 {{ $labels.model }} 的一个批次需 {{ $value | humanizeDuration }}。",
        ),
    )
    yield _rule(
        "ForecastLoopPublishErrors",
        f"sum by (outlet) (increase({LOOP_PUBLISH_ERRORS_TOTAL}[{counted}])) > 0",
        twice,
        (
            f"Forecasts do not reach {{{{ $labels.outlet }}}}: {{{{ $value | humanize }}}} errors "
            f"in {counted}.",
            "预测未能写入 {{ $labels.outlet }}："
            f"{counted} 内 {{{{ $value | humanize }}}} 次错误。",
        ),
    )
    yield _rule(
        "ForecastLoopFallback",
        f'max by ({METRIC_LABEL}) ({LOOP_FALLBACK_RATIO}{{source="{FALLBACK_SOURCE}"}})'
        f" > {FALLBACK_SHARE}",
        twice,
        (
            "For {{ $value | humanizePercentage }} of the series of {{ $labels.metric }} the "
            "forecast only repeats the newest value: too little history, or no pattern in it.",
            "{{ $labels.metric }} 有 {{ $value | humanizePercentage }} 的序列仅重复最新值："
            "历史过短，或无规律可循。",
        ),
        severity="info",
    )
