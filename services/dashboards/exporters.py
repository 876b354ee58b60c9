"""The board of the script exporters: do the scripts run, how long, how old is what they said."""

from __future__ import annotations

from services.dashboards.board import Board, Panel, Query, Row, Variable

_SCRIPT = 'instance=~"$instance",cluster=~"$cluster",collector=~"$collector"'
_NODE = 'instance=~"$instance"'
_RATE = "[$__rate_interval]"


def exporters_board() -> Board:
    return Board(
        uid="presage-exporters",
        title="Presage / Script exporters",
        text="Health of the scripts on the nodes. 各节点采集脚本的健康状况。",
        rows=(_health(), _scripts(), _exporter()),
        variables=(
            Variable("instance", "Exporter", "collector_count", "instance"),
            Variable("cluster", "Cluster", "script_success", "cluster"),
            Variable("collector", "Collector", "script_success", "collector"),
        ),
    )


def _health() -> Row:
    return Row(
        "Health · 健康",
        (
            Panel(
                "Exporters that answer",
                "Share of those that Prometheus scrapes; the others' nodes are unseen.",
                "可抓取的采集器占比；其余节点处于监控盲区。",
                "percentunit",
                (Query(f'avg(up{{job="script_exporter",{_NODE}}})', "up"),),
                kind="value",
                width=4,
                height=6,
                red_below=1,
            ),
            Panel(
                "Scripts that succeed",
                "Share of the collectors whose newest run was good.",
                "最近一次运行成功的脚本占比。",
                "percentunit",
                (Query(f"avg(script_success{{{_SCRIPT}}})", "good"),),
                kind="value",
                width=4,
                height=6,
                red_below=1,
            ),
            Panel(
                "Collectors",
                "Enabled, over all exporters.",
                "已启用的采集脚本总数。",
                "short",
                (Query(f"sum(collector_count{{{_NODE}}})", "collectors"),),
                kind="value",
                width=4,
                height=6,
            ),
            Panel(
                "Scripts that fail now",
                "1 is good, 0 is not; /health of the exporter says why.",
                "1 为正常，0 为失败；原因见采集器的 /health。",
                "bool",
                (
                    Query(
                        "bottomk(20, min by (instance, cluster, collector) "
                        f"(script_success{{{_SCRIPT}}}))"
                    ),
                ),
                kind="table",
                width=12,
                height=6,
            ),
        ),
    )


def _scripts() -> Row:
    return Row(
        "Scripts · 脚本",
        (
            Panel(
                "Success over time",
                "Of each collector, the worst node counts.",
                "各采集脚本的运行状态（取最差节点）。",
                "short",
                (Query(f"min by (collector) (script_success{{{_SCRIPT}}})", "{{collector}}"),),
                kind="states",
                width=12,
                states=(("0", "failed · 失败", "red"), ("1", "ok · 正常", "green")),
            ),
            Panel(
                "Duration",
                "Of the newest run, the slowest node.",
                "最近一次运行耗时（取最慢节点）。",
                "s",
                (
                    Query(
                        f"max by (collector) (script_duration_seconds{{{_SCRIPT}}})",
                        "{{collector}}",
                    ),
                ),
                width=12,
            ),
            Panel(
                "Age of the output",
                "Of what is exposed now: a script that fails shows its last good output until it "
                "is too old.",
                "当前展示数据的时间；脚本失败时在过期前继续展示上一次的正常输出。",
                "s",
                (
                    Query(
                        f"max by (collector) (script_output_age_seconds{{{_SCRIPT}}})",
                        "{{collector}}",
                    ),
                ),
            ),
            Panel(
                "Runs by their end",
                "ok, exit, timeout, output, stuck …",
                "按结束方式统计的运行次数。",
                "cps",
                (
                    Query(
                        f"sum by (collector, result) (rate(script_runs_total{{{_SCRIPT}}}{_RATE}))",
                        "{{collector}} {{result}}",
                    ),
                ),
            ),
            Panel(
                "Skipped runs and lines on stderr",
                "A run is skipped while an earlier one of the same script goes on.",
                "被跳过的运行，以及 stderr 行数。",
                "cps",
                (
                    Query(
                        f"sum by (collector) (rate(script_skipped_total{{{_SCRIPT}}}{_RATE}))",
                        "{{collector}} skipped",
                    ),
                    Query(
                        f"sum by (collector) (rate(script_stderr_lines_total{{{_SCRIPT}}}{_RATE}))",
                        "{{collector}} stderr",
                    ),
                ),
            ),
        ),
    )


def _exporter() -> Row:
    return Row(
        "The exporters · 采集器",
        (
            Panel(
                "Series",
                "Exposed by each collector, all nodes together.",
                "各采集脚本暴露的序列数（全部节点合计）。",
                "short",
                (Query(f"sum by (collector) (script_series{{{_SCRIPT}}})", "{{collector}}"),),
            ),
            Panel(
                "Running and waiting",
                "Scripts that run, and those that are due and wait for a free place.",
                "正在运行与等待运行的脚本数。",
                "short",
                (
                    Query(f"sum(script_exporter_running{{{_NODE}}})", "running"),
                    Query(f"sum(script_exporter_waiting{{{_NODE}}})", "waiting"),
                ),
            ),
            Panel(
                "Configuration taken",
                "0 while a new configuration was refused and the old one holds.",
                "0 表示新配置被拒绝，仍使用旧配置。",
                "bool",
                (
                    Query(
                        "min by (instance) "
                        f"(script_exporter_config_last_reload_successful{{{_NODE}}})",
                        "{{instance}}",
                    ),
                ),
                kind="states",
                states=(("0", "refused · 拒绝", "red"), ("1", "taken · 生效", "green")),
            ),
        ),
    )
