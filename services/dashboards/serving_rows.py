"""Rows of the serving board beside Triton's own: the APIs, and the embedded server's supervisor."""

from __future__ import annotations

from services.dashboards.board import Panel, Query, Row, events

_WEB = 'api=~"$api"'
_RATE = "[$__rate_interval]"


def _per_second(counter: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}{{{_WEB}}}{_RATE}))"


def _web_quantile(quantile: float, histogram: str, by: str) -> str:
    return (
        f"histogram_quantile({quantile}, sum by ({by}, le) "
        f"(rate({histogram}_bucket{{{_WEB}}}{_RATE})))"
    )


def api_row() -> Row:
    return Row(
        "APIs · 网关",
        (
            Panel(
                "Requests by status",
                "Answered each second; 499 is a caller that went away.",
                "每秒应答数，按状态码；499 表示调用方已断开。",
                "reqps",
                (
                    Query(
                        _per_second("presage_web_requests_total", "api, status"),
                        "{{api}} {{status}}",
                    ),
                ),
                kind="stacked",
            ),
            Panel(
                "Latency of the APIs",
                "From the first header to the last byte: median and 99%.",
                "从首个请求头到最后一个字节：中位数与 99 分位。",
                "s",
                (
                    Query(_web_quantile(0.5, "presage_web_request_seconds", "api"), "{{api}} p50"),
                    Query(_web_quantile(0.99, "presage_web_request_seconds", "api"), "{{api}} p99"),
                ),
            ),
            Panel(
                "Refused by reason",
                "in_flight and rate are too much at once; no_token and bad_token are strangers.",
                "按原因统计的拒绝：in_flight、rate 为过载，no_token、bad_token 为未授权。",
                "reqps",
                (
                    Query(
                        _per_second("presage_web_refused_total", "api, reason"),
                        "{{api}} {{reason}}",
                    ),
                ),
            ),
            Panel(
                "In flight",
                "Requests being answered, as a share of the limit; at 1 callers are told to come "
                "again.",
                "正在应答的请求占上限之比；达到 1 时新请求被要求重试。",
                "percentunit",
                (
                    Query(
                        f"max by (api, instance) (presage_web_in_flight{{{_WEB}}} "
                        "/ presage_web_in_flight_limit)",
                        "{{api}} {{instance}}",
                    ),
                ),
                red_above=0.8,
            ),
            Panel(
                "Waiting for models",
                "What a question to a model takes, its queue included: 99%.",
                "等待模型应答的时间（含排队），99 分位。",
                "s",
                (
                    Query(
                        _web_quantile(0.99, "presage_web_model_seconds", "api, model"),
                        "{{api}} {{model}}",
                    ),
                ),
            ),
            Panel(
                "Questions to models by outcome",
                "ok, or the label of the error (contract/errors.py).",
                "按结果统计的模型请求：ok 或错误标签（见 contract/errors.py）。",
                "reqps",
                (
                    Query(
                        _per_second("presage_web_model_calls_total", "model, outcome"),
                        "{{model}} {{outcome}}",
                    ),
                ),
            ),
        ),
    )


def supervisor_row() -> Row:
    return Row(
        "Supervisor of the embedded server · 内嵌服务器的守护进程",
        (
            Panel(
                "Models that answer",
                "By test questions: Triton's own ready endpoint stays true for a dead model. "
                "NVIDIA's container has no supervisor.",
                "以探测请求为准：模型失效时 Triton 自身的 ready 仍为真。NVIDIA 容器没有守护进程。",
                "short",
                (Query("min by (model) (presage_supervisor_model_up)", "{{model}}"),),
                kind="states",
                width=12,
                states=(("0", "no answer · 无应答", "red"), ("1", "answers · 正常", "green")),
            ),
            Panel(
                "Restarts",
                "Of a model or the whole server (tritonserver), in the range shown, by cause.",
                "所选范围内模型或整个服务器（tritonserver）的重启次数，按原因。",
                "short",
                (
                    Query(
                        "sum by (model, cause) "
                        f"({events('presage_supervisor_restarts_total', '$__range')}) > 0"
                    ),
                ),
                kind="table",
                width=12,
            ),
            Panel(
                "Canaries",
                "Time of an answered test question: 99%.",
                "探测请求的应答时间：99 分位。",
                "s",
                (
                    Query(
                        "histogram_quantile(0.99, sum by (model, le) "
                        f"(rate(presage_supervisor_canary_seconds_bucket{_RATE})))",
                        "{{model}}",
                    ),
                ),
            ),
            Panel(
                "Canaries without an answer",
                "By model and verdict.",
                "未应答的探测请求，按模型与结论。",
                "cps",
                (
                    Query(
                        "sum by (model, verdict) "
                        f"(rate(presage_supervisor_canary_failures_total{_RATE}))",
                        "{{model}} {{verdict}}",
                    ),
                ),
            ),
            Panel(
                "Recovery",
                "From noticed to serving again, the newest restart of each model.",
                "从发现故障到恢复服务的时间（各模型最近一次重启）。",
                "s",
                (Query("max by (model) (presage_supervisor_recovery_seconds)", "{{model}}"),),
            ),
        ),
    )
