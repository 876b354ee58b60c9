"""The board of the log pipeline: anomalies by template, and whether lines get through."""

from __future__ import annotations

from services.dashboards.board import Board, Panel, Query, Row, Variable, events

_SOURCE = 'source=~"$source"'
_RATE = "[$__rate_interval]"


def logs_board() -> Board:
    return Board(
        uid="presage-logs",
        title="Presage / Log anomalies",
        text="Anomalous log lines by template and source. 按模板与来源统计的异常日志。",
        rows=(_anomalies(), _pipeline()),
        variables=(
            Variable("source", "Source", "presage_log_lines_total", "source"),
            Variable("template", "Template", "presage_log_anomalies_total", "template"),
        ),
    )


def _anomalies() -> Row:
    anomalies = f'presage_log_anomalies_total{{{_SOURCE},template=~"$template"}}'
    lines = f"sum by (source) (rate(presage_log_lines_total{{{_SOURCE}"
    return Row(
        "Anomalies · 异常",
        (
            Panel(
                "Anomalies by template",
                "The ten most frequent. A template's text: python -m services log_pipeline top.",
                "出现最多的十个模板；模板内容见 python -m services log_pipeline top。",
                "cps",
                (Query(f"topk(10, sum by (template) (rate({anomalies}{_RATE})))", "{{template}}"),),
                kind="stacked",
                width=16,
            ),
            Panel(
                "Templates of this time range",
                "How often each template came in the range shown, with its source.",
                "所选时间范围内各模板（及来源）的出现次数。",
                "short",
                (
                    Query(
                        f"topk(20, sum by (source, template) ({events(anomalies, '$__range')}) > 0)"
                    ),
                ),
                kind="table",
            ),
            Panel(
                "Anomalies by source",
                "The ten noisiest sources.",
                "异常最多的十个来源。",
                "cps",
                (Query(f"topk(10, sum by (source) (rate({anomalies}{_RATE})))", "{{source}}"),),
                width=12,
            ),
            Panel(
                "Anomalous share of the lines",
                "By source; a jump without a deployment is worth a look.",
                "按来源统计的异常行占比；无发布而突增时值得查看。",
                "percentunit",
                (
                    Query(
                        f'{lines},label="anomaly"}}{_RATE}))\n/ ({lines}}}{_RATE})) > 0)',
                        "{{source}}",
                    ),
                ),
                width=12,
            ),
        ),
    )


def _pipeline() -> Row:
    return Row(
        "Pipeline · 流水线",
        (
            Panel(
                "Lines by answer",
                "Delivered each second.",
                "每秒交付的日志行，按结论。",
                "cps",
                (
                    Query(
                        f"sum by (label) (rate(presage_log_lines_total{{{_SOURCE}}}{_RATE}))",
                        "{{label}}",
                    ),
                ),
                kind="stacked",
            ),
            Panel(
                "Spool in use",
                "Acknowledged and not delivered, as a share of the limit; at 1 shippers are told "
                "to come again.",
                "已确认未交付的数据占上限之比；达到 1 时采集端被要求重试。",
                "percentunit",
                (
                    Query(
                        "max by (instance) "
                        "(presage_log_backlog_bytes / presage_log_backlog_limit_bytes)",
                        "{{instance}}",
                    ),
                ),
                red_above=0.5,
            ),
            Panel(
                "Delivery's lag",
                "Seconds since lines were last delivered, or there were none.",
                "距上次交付（或无待交付）的秒数。",
                "s",
                (
                    Query(
                        "max by (instance) (time() - presage_log_last_delivery_timestamp_seconds)",
                        "{{instance}}",
                    ),
                ),
                red_above=300,
            ),
            Panel(
                "Shipped requests by status",
                "429 is a full spool, 400 what cannot be read.",
                "采集端请求按状态码：429 表示缓冲已满，400 表示无法解析。",
                "reqps",
                (
                    Query(
                        f"sum by (status) (rate(presage_log_requests_total{_RATE}))",
                        "{{status}}",
                    ),
                ),
            ),
            Panel(
                "Failed deliveries and questions",
                "Each is repeated: by outlet, and by reason where the model server did not answer.",
                "失败的交付与模型请求（均会重试）。",
                "cps",
                (
                    Query(
                        f"sum by (outlet) (rate(presage_log_outlet_errors_total{_RATE}))",
                        "{{outlet}}",
                    ),
                    Query(
                        f"sum by (reason) (rate(presage_log_classifier_errors_total{_RATE}))",
                        "classifier: {{reason}}",
                    ),
                ),
            ),
            Panel(
                "Lines for each question",
                "Lines classified for each one that the server was asked: what memory saves.",
                "每次询问服务器所对应的日志行数（记忆带来的节省）。",
                "short",
                (
                    Query(
                        "sum by (instance) (presage_log_classified)\n"
                        "/ (sum by (instance) (presage_log_asked) > 0)",
                        "{{instance}}",
                    ),
                ),
            ),
        ),
    )
