"""The board of the serving path: Triton, the text fronts, the APIs before them."""

from __future__ import annotations

from services.dashboards.board import Board, Panel, Query, Row, Variable
from services.dashboards.serving_rows import api_row, supervisor_row

_MODEL = 'model=~"$model",instance=~"$triton"'
_RATE = "[$__rate_interval]"


def _per_second(counter: str, matchers: str = _MODEL, by: str = "model") -> str:
    return f"sum by ({by}) (rate({counter}{{{matchers}}}{_RATE}))"


def _per_request(part: str) -> str:
    """Microseconds of a part of the way, for one successful request."""
    return (
        f"{_per_second(f'nv_inference_{part}_duration_us')}\n"
        f"/ ({_per_second('nv_inference_request_success')} > 0)"
    )


def serving_board() -> Board:
    return Board(
        uid="presage-serving",
        title="Presage / Serving",
        text="Triton, the text fronts and the three APIs. Triton、文本前端与三个 API 的运行情况。",
        rows=(_now(), _latency(), _batching(), _text_fronts(), api_row(), supervisor_row()),
        variables=(
            Variable("triton", "Triton", "nv_inference_request_success", "instance"),
            Variable("model", "Model", "nv_inference_request_success", "model"),
            Variable("api", "API", "presage_web_requests_total", "api"),
        ),
        since="now-3h",
    )


def _now() -> Row:
    failed = f'sum(rate(nv_inference_request_failure{{{_MODEL},reason!="CANCELED"}}{_RATE}))'
    return Row(
        "Now · 当前状态",
        (
            Panel(
                "Servers that answer",
                "Share of the scraped Triton servers that answer; below 1 one is down.",
                "可抓取的 Triton 占比；低于 1 表示有实例离线。",
                "percentunit",
                (Query('avg(up{job="triton",instance=~"$triton"})', "up"),),
                kind="value",
                width=4,
                height=6,
                red_below=1,
            ),
            Panel(
                "Requests",
                "Answered by Triton each second, all models.",
                "Triton 每秒成功应答的请求数（全部模型）。",
                "reqps",
                (Query(f"sum(rate(nv_inference_request_success{{{_MODEL}}}{_RATE}))", "ok"),),
                kind="value",
                width=4,
                height=6,
            ),
            Panel(
                "Failed share",
                "Failed requests among all, callers that gave up not counted; above 1% the SLO "
                "burns.",
                "失败请求占比（不含客户端取消）；高于 1% 表示 SLO 正在消耗。",
                "percentunit",
                (
                    Query(
                        f"{failed}\n/ (sum(rate(nv_inference_request_success"
                        f"{{{_MODEL}}}{_RATE}))\n+ {failed})",
                        "failed",
                    ),
                ),
                kind="value",
                width=4,
                height=6,
                red_above=0.01,
            ),
            Panel(
                "Versions served",
                "Each loaded version and its share of the requests. Two versions of one model are "
                "normal only around a promotion.",
                "已加载的版本及其请求量；同一模型出现两个版本只应发生在发布前后。",
                "reqps",
                (
                    Query(
                        _per_second("nv_inference_request_success", by="model, version"),
                        "{{model}} v{{version}}",
                    ),
                ),
                kind="bars",
                width=12,
                height=6,
            ),
        ),
    )


def _latency() -> Row:
    return Row(
        "Latency · 延迟",
        (
            Panel(
                "Request latency by quantile",
                "Of Triton's own sliding window, queue included. The slowest server of each model.",
                "Triton 自身滑动窗口的请求延迟分位数（含排队）；每个模型取最慢的实例。",
                "µs",
                (
                    Query(
                        "max by (model, quantile) (nv_inference_request_summary_us"
                        f'{{{_MODEL},quantile=~"0.5|0.99"}})',
                        "{{model}} p{{quantile}}",
                    ),
                ),
                width=12,
            ),
            Panel(
                "Where a request's time goes",
                "Mean of a request: waiting in the queue, and computing. A queue that grows beside "
                "a steady compute time asks for another instance.",
                "单个请求的平均耗时：排队与计算。计算平稳而排队增长时应增加实例。",
                "µs",
                (
                    Query(_per_request("queue"), "{{model}} queue"),
                    Query(_per_request("compute_infer"), "{{model}} compute"),
                ),
                width=12,
            ),
            Panel(
                "Queue's share of the latency",
                "Queue time over request time, as a ratio of sums: what the autoscaler looks at.",
                "排队时间占请求时间之比（总和之比），与弹性伸缩使用的指标一致。",
                "percentunit",
                (
                    Query(
                        f"{_per_second('nv_inference_queue_duration_us')}\n"
                        f"/ ({_per_second('nv_inference_request_duration_us')} > 0)",
                        "{{model}}",
                    ),
                ),
                red_above=0.5,
            ),
            Panel(
                "Waiting requests",
                "In the queues at this moment; refused beyond max_queue_size.",
                "当前排队的请求数；超过 max_queue_size 时拒绝。",
                "short",
                (
                    Query(
                        f"sum by (model) (nv_inference_pending_request_count{{{_MODEL}}})",
                        "{{model}}",
                    ),
                ),
            ),
            Panel(
                "Refused and failed",
                "By reason: REJECTED is a full queue, CANCELED a caller that gave up, BACKEND the "
                "model itself.",
                "按原因统计：REJECTED 队列已满，CANCELED 客户端放弃，BACKEND 模型出错。",
                "reqps",
                (
                    Query(
                        _per_second("nv_inference_request_failure", by="model, reason"),
                        "{{model}} {{reason}}",
                    ),
                ),
            ),
        ),
    )


def _batching() -> Row:
    return Row(
        "Batches and resources · 批处理与资源",
        (
            Panel(
                "Realised batch",
                "Rows that one execution holds, on average: what the dynamic batcher made of the "
                "traffic.",
                "一次执行的平均行数：动态批处理的实际效果。",
                "short",
                (
                    Query(
                        f"{_per_second('nv_inference_count')}\n"
                        f"/ ({_per_second('nv_inference_exec_count')} > 0)",
                        "{{model}}",
                    ),
                ),
            ),
            Panel(
                "Rows",
                "Inferred each second: a request may hold several.",
                "每秒推理的行数；一个请求可含多行。",
                "cps",
                (Query(_per_second("nv_inference_count"), "{{model}}"),),
                kind="stacked",
            ),
            Panel(
                "Processor and memory",
                "Of the server's machine, as Triton sees it.",
                "服务器主机的 CPU 与内存占用（Triton 上报）。",
                "percentunit",
                (
                    Query(
                        'max by (instance) (nv_cpu_utilization{instance=~"$triton"})',
                        "CPU {{instance}}",
                    ),
                    Query(
                        'max by (instance) (nv_cpu_memory_used_bytes{instance=~"$triton"} '
                        "/ nv_cpu_memory_total_bytes)",
                        "memory {{instance}}",
                    ),
                ),
                red_above=0.95,
            ),
        ),
    )


def _text_fronts() -> Row:
    rows = f"sum by (model) (rate(presage_text_rows_total{{{_MODEL}"
    tokens = f"sum by (model) (rate(presage_text_tokens_total{{{_MODEL}"
    return Row(
        "Text fronts · 文本前端",
        (
            Panel(
                "Answered without the classifier",
                "Rows from the cache or repeated within a batch, among all.",
                "无需分类器的行占比：缓存命中或批内重复。",
                "percentunit",
                (
                    Query(
                        f'1 - {rows},by="classifier"}}{_RATE}))\n/ ({rows}}}{_RATE})) > 0)',
                        "{{model}}",
                    ),
                ),
            ),
            Panel(
                "Padding",
                "Padding among the tokens that the classifier gets: work for nothing.",
                "送入分类器的 token 中填充所占比例（无效计算）。",
                "percentunit",
                (
                    Query(
                        f'{tokens},kind="padding"}}{_RATE}))\n/ ({tokens}}}{_RATE})) > 0)',
                        "{{model}}",
                    ),
                ),
                red_above=0.5,
            ),
            Panel(
                "Cache",
                "Distinct masked texts that are remembered, over all instances.",
                "缓存中的不同脱敏文本数（所有实例合计）。",
                "short",
                (
                    Query(
                        f"sum by (model, version) (presage_text_cache_entries{{{_MODEL}}})",
                        "{{model}} v{{version}}",
                    ),
                ),
            ),
        ),
    )
