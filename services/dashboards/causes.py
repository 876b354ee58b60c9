"""The board of failed jobs: their causes over time, by cluster, node and user; and the service."""

from __future__ import annotations

from services.dashboards.board import Board, Panel, Query, Row, Variable, events

_CAUSE = 'cause=~"$cause"'
_RATE = "[$__rate_interval]"


def causes_board() -> Board:
    return Board(
        uid="presage-causes",
        title="Presage / Failed jobs",
        text="Why training jobs die. 训练任务失败原因随时间的变化。",
        rows=(_causes(), _service(), _notices()),
        variables=(
            Variable("cause", "Cause", "presage_jobs_causes_total", "cause"),
            Variable("cluster", "Cluster", "presage_jobs_cluster_causes_total", "cluster"),
        ),
        since="now-7d",
    )


def _counted(counter: str, by: str, matchers: str = _CAUSE) -> str:
    return f"sum by ({by}) ({events(f'{counter}{{{matchers}}}', '$__range')}) > 0"


def _each_hour(counter: str, by: str, matchers: str = _CAUSE) -> str:
    return f"sum by ({by}) ({events(f'{counter}{{{matchers}}}', '$__interval')}) > 0"


def _causes() -> Row:
    cluster = f'{_CAUSE},cluster=~"$cluster"'
    return Row(
        "Causes · 失败原因",
        (
            Panel(
                "Causes over time",
                "Failures diagnosed each hour, by label; unknown failed for no known cause, none "
                "shows no failure.",
                "每小时诊断的失败数，按原因；unknown 为未知原因，none 为日志中没有失败。",
                "short",
                (Query(_each_hour("presage_jobs_causes_total", "cause"), "{{cause}}"),),
                kind="stacked",
                every="1h",
                width=16,
            ),
            Panel(
                "Causes of this time range",
                "How many failures had each cause.",
                "所选时间范围内各原因的失败数。",
                "short",
                (Query(_counted("presage_jobs_causes_total", "cause"), "{{cause}}"),),
                kind="bars",
            ),
            Panel(
                "By cluster",
                "Failures each hour, by cluster and cause.",
                "按集群与原因统计的每小时失败数。",
                "short",
                (
                    Query(
                        _each_hour("presage_jobs_cluster_causes_total", "cluster, cause", cluster),
                        "{{cluster}} {{cause}}",
                    ),
                ),
                kind="stacked",
                every="1h",
            ),
            Panel(
                "Nodes with most failures",
                "In the range shown. One node with several hardware causes should be cordoned.",
                "所选范围内失败最多的节点；多次硬件原因的节点应隔离。",
                "short",
                (Query(f"topk(15, {_counted('presage_jobs_node_causes_total', 'node, cause')})"),),
                kind="table",
            ),
            Panel(
                "Users with most failures",
                "In the range shown.",
                "所选范围内失败最多的用户。",
                "short",
                (Query(f"topk(15, {_counted('presage_jobs_user_causes_total', 'user, cause')})"),),
                kind="table",
            ),
        ),
    )


def _service() -> Row:
    return Row(
        "The service · 诊断服务",
        (
            Panel(
                "Answers",
                "diagnosed at once, replayed (the same log again), accepted (diagnosed later).",
                "应答类型：diagnosed 即时诊断，replayed 重复日志，accepted 稍后诊断。",
                "reqps",
                (Query(f"sum by (kind) (rate(presage_jobs_answers_total{_RATE}))", "{{kind}}"),),
            ),
            Panel(
                "Logs that wait",
                "Accepted and not diagnosed; red when the oldest is ten minutes old.",
                "已接收未诊断的日志数，以及最早一条的等待时间。",
                "short",
                (
                    Query(
                        'sum by (instance) (presage_jobs_backlog{queue="accepted"})', "{{instance}}"
                    ),
                ),
            ),
            Panel(
                "The oldest that waits",
                "Its age. Beyond ten minutes somebody waits for an answer in vain.",
                "最早一条待诊断日志的等待时间；超过十分钟需处理。",
                "s",
                (
                    Query(
                        "max by (instance) (presage_jobs_oldest_accepted_seconds)", "{{instance}}"
                    ),
                ),
                red_above=600,
            ),
            Panel(
                "Room for logs in use",
                "Accepted logs as a share of the limit; at 1 failures are told to come again.",
                "已接收日志占上限之比；达到 1 时新的上报被要求重试。",
                "percentunit",
                (
                    Query(
                        "max by (instance) (presage_jobs_accepted_bytes "
                        "/ presage_jobs_accepted_limit_bytes)",
                        "{{instance}}",
                    ),
                ),
                red_above=0.5,
            ),
            Panel(
                "Failed attempts and what was set aside",
                "Attempts are repeated; what is set aside lies in the spool for somebody to see.",
                "失败的尝试（会重试）与搁置的日志（需人工查看）。",
                "cps",
                (
                    Query(
                        f"sum by (step, reason) (rate(presage_jobs_errors_total{_RATE}))",
                        "{{step}} {{reason}}",
                    ),
                    Query(
                        f"sum by (step) (rate(presage_jobs_set_aside_total{_RATE}))",
                        "set aside: {{step}}",
                    ),
                ),
            ),
            Panel(
                "People's verdicts",
                "In the range shown: what the model is corrected by.",
                "所选范围内的人工结论（用于纠正模型）。",
                "short",
                (
                    Query(
                        _counted("presage_jobs_verdicts_total", "verdict", ""),
                        "{{verdict}}",
                    ),
                ),
                kind="bars",
            ),
        ),
    )


def _notices() -> Row:
    return Row(
        "Notifications · 通知",
        (
            Panel(
                "Messages",
                "Sent each hour, by channel and kind.",
                "每小时发送的消息，按渠道与类型。",
                "short",
                (
                    Query(
                        "sum by (channel, kind) (rate(presage_notify_messages_total"
                        f"{_RATE})) * 3600",
                        "{{channel}} {{kind}}",
                    ),
                ),
            ),
            Panel(
                "Not taken",
                "Messages that a channel refused, each hour; each is repeated.",
                "每小时被渠道拒收的消息（均会重试）。",
                "short",
                (
                    Query(
                        "sum by (channel, reason) (rate(presage_notify_failures_total"
                        f"{_RATE})) * 3600",
                        "{{channel}} {{reason}}",
                    ),
                ),
            ),
            Panel(
                "The oldest that is due",
                "Age of the oldest notification that nobody was told of yet.",
                "最早一条到期未送达通知的等待时间。",
                "s",
                (Query("max by (channel) (presage_notify_outbox_oldest_seconds)", "{{channel}}"),),
                red_above=900,
            ),
        ),
    )
