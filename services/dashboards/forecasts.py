"""The board of the forecasts against what came, from the loop's settings as the rules are."""

from __future__ import annotations

from dataclasses import replace

from contract.metric_names import (
    HORIZON_LABEL,
    LOOP_CYCLE_DURATION,
    LOOP_CYCLES_TOTAL,
    LOOP_FALLBACK_RATIO,
    LOOP_LAG,
    LOOP_PREFIX,
    LOOP_SERIES,
    LOOP_TRITON_LATENCY,
    METRIC_LABEL,
    QUANTILE_LABEL,
    RESIDUAL_HORIZON,
    RESIDUAL_SIGMA,
    TIMESTAMP,
    forecast_name,
    quantile_name,
)
from services.dashboards.board import Annotation, Board, Panel, Query, Row, Variable
from services.forecast_loop.alert_rules_metric import SIGMAS, MetricRules
from services.forecast_loop.alert_rules_text import beyond_words
from services.forecast_loop.config import LoopConfig, Unit, seconds

_RATE = "[$__rate_interval]"
_UNITS: dict[Unit, str] = {
    "ratio": "percentunit",
    "percent": "percent",
    "bytes": "bytes",
    "seconds": "s",
    "count": "short",
    "other": "short",
}
_BAND = ("0.1", "0.9")
_ALERTS = 'ALERTS{{alertstate="firing",alertname{match}"ForecastDualConfirmed",metric!=""}}'
_STATES = (
    ("0", "quiet · 正常", "green"),
    ("1", "model only · 仅模型", "yellow"),
    ("2", "witness only · 仅旁证", "blue"),
    ("3", "confirmed · 双重确认", "red"),
)

# Of a row's panels, by how many there are; each line of the grid is 24 wide.
_WIDTHS = {3: (16, 8, 24), 4: (16, 8, 12, 12), 5: (16, 8, 8, 8, 8)}


def forecasts_board(config: LoopConfig) -> Board:
    """A row for each query of the settings; labels that queries share are one variable."""
    rules = [MetricRules(config, query) for query in config.queries]
    return Board(
        uid="presage-forecasts",
        title="Presage / Forecasts",
        text="What was forecast, and what came. 预测与实际的对比。",
        rows=(*(_MetricRow(config, one).row() for one in rules), _loop()),
        variables=tuple(
            Variable(label, label, _series_with(label, rules), label)
            for label in dict.fromkeys(label for one in rules for label in one.labels)
        ),
        annotations=(
            Annotation(
                "Confirmed alerts · 双重确认告警",
                _ALERTS.format(match="="),
                "red",
                "{{alertname}}: {{metric}}",
                "{{clu_name}} {{group}} {{instance}} {{mountpoint}} {{severity}}",
            ),
            Annotation(
                "Other forecast alerts · 其他预测告警",
                _ALERTS.format(match="!="),
                "orange",
                "{{alertname}}: {{metric}}",
                "{{severity}}",
            ),
        ),
        since="now-2d",
    )


def _series_with(label: str, rules: list[MetricRules]) -> str:
    names = [forecast_name(one.query.metric) for one in rules if label in one.labels]
    return names[0] if len(names) == 1 else f'{{__name__=~"{"|".join(names)}"}}'


class _MetricRow:
    """The panels of one query."""

    def __init__(self, config: LoopConfig, rules: MetricRules) -> None:
        self._config, self._rules, self._query = config, rules, rules.query
        self._unit = _UNITS[self._query.unit]
        self._legend = "/".join(f"{{{{{label}}}}}" for label in rules.labels)
        self._chosen = ",".join(f'{label}=~"${label}"' for label in rules.labels)

    def row(self) -> Row:
        panels = [self._against_reality(), self._ahead()]
        if RESIDUAL_HORIZON in self._config.loop.horizons:
            panels.append(self._residual())
        if self._query.threshold is not None:
            panels.append(self._confirmation())
        panels.append(self._alerts())
        widths = _WIDTHS[len(panels)]
        return Row(
            self._query.metric,
            tuple(replace(panel, width=width) for panel, width in zip(panels, widths, strict=True)),
        )

    def _actual(self) -> str:
        return self._rules.actual(self._chosen)

    def _forecast(self, horizon: str, *, quantile: str = "") -> str:
        metric = self._query.metric
        name = quantile_name(metric) if quantile else forecast_name(metric)
        more = f',{QUANTILE_LABEL}="{quantile}"' if quantile else ""
        return f'{name}{{{self._chosen},{HORIZON_LABEL}="{horizon}"{more}}}'

    def _against_reality(self) -> Panel:
        horizons = sorted(self._config.loop.horizons, key=seconds)
        queries = [Query(self._actual(), f"{self._legend} actual")]
        queries += [
            Query(
                self._rules.identified(f"{self._forecast(horizon)} offset {horizon}"),
                f"{self._legend} expected {horizon} before",
            )
            for horizon in horizons
        ]
        if self._config.loop.quantiles:
            low, high = (
                self._rules.identified(
                    f"{self._forecast(horizons[-1], quantile=level)} offset {horizons[-1]}"
                )
                for level in _BAND
            )
            queries += [
                Query(low, f"{self._legend} {_BAND[0]}"),
                Query(
                    high, f"{self._legend} {_BAND[1]}", band_down_to=f"{self._legend} {_BAND[0]}"
                ),
            ]
        return Panel(
            "Actual, and what was expected for the same moment",
            "Each forecast is drawn at the moment it speaks of. Lines that part early say that the "
            "model is wrong; lines that part suddenly say that something happened.",
            "预测按其所指的时刻绘制。长期偏离说明模型不准，突然偏离说明出现了异常。",
            self._unit,
            tuple(queries),
            red_above=self._threshold("above"),
            red_below=self._threshold("below"),
        )

    def _threshold(self, direction: str) -> float | None:
        return self._query.threshold if self._query.direction == direction else None

    def _ahead(self) -> Panel:
        return Panel(
            "Expected ahead",
            "The newest forecasts by horizon: where each series will be.",
            "最新预测，按预测时长：各序列未来的取值。",
            self._unit,
            tuple(
                Query(
                    self._rules.identified(self._forecast(horizon)), f"{self._legend} in {horizon}"
                )
                for horizon in sorted(self._config.loop.horizons, key=seconds)
            ),
            red_above=self._threshold("above"),
            red_below=self._threshold("below"),
        )

    def _residual(self) -> Panel:
        sigma = (
            f'{RESIDUAL_SIGMA}{{{METRIC_LABEL}="{self._query.metric}",{self._chosen},'
            f'{HORIZON_LABEL}="{RESIDUAL_HORIZON}"}}'
        )
        was = self._rules.identified(
            f"{self._forecast(RESIDUAL_HORIZON)} offset {RESIDUAL_HORIZON}"
        )
        return Panel(
            f"Error of the {RESIDUAL_HORIZON} forecast",
            f"Against {SIGMAS} times its usual scale (residual sigma); above it ForecastResidual "
            "fires.",
            f"与其平时误差的 {SIGMAS} 倍（residual sigma）对比；超过即触发 ForecastResidual。",
            self._unit,
            (
                Query(f"abs({self._actual()}\n- {self._rules.on} {was})", f"{self._legend} error"),
                Query(
                    f"{SIGMAS} * max by ({', '.join(self._rules.labels)}) ({sigma})",
                    f"{self._legend} {SIGMAS} sigma",
                ),
            ),
        )

    def _confirmation(self) -> Panel:
        rules, asked = self._rules, self._query
        fresh = rules.fresh(rules.horizon).replace("{", f"{{{self._chosen},", 1)
        witness = f"(({rules.confirmation()}) * 0 + 1\nor {rules.on}\n{rules.line} * 0)"
        beyond, beyond_zh = beyond_words(asked)
        return Panel(
            "Who says so",
            f"Whether the {rules.horizon} forecast is {beyond}, and whether its second witness "
            f"({asked.confirm}) is; ForecastDualConfirmed needs both.",
            f"{rules.horizon} 预测是否{beyond_zh}，旁证（{asked.confirm}）是否同样；"
            "两者一致才触发 ForecastDualConfirmed。",
            "short",
            (
                Query(
                    f"({fresh} {rules.beyond} bool {asked.threshold!r})\n"
                    f"+ {rules.on}\n2 * {witness}",
                    self._legend,
                ),
            ),
            kind="states",
            states=_STATES,
        )

    def _alerts(self) -> Panel:
        return Panel(
            "Alerts",
            "Pending and firing, by name.",
            "等待中与触发中的告警，按名称。",
            "short",
            (
                Query(
                    "sum by (alertname, alertstate) "
                    f'(ALERTS{{{METRIC_LABEL}="{self._query.metric}"}})',
                    "{{alertname}} {{alertstate}}",
                ),
            ),
            kind="stacked",
        )


def _loop() -> Row:
    return Row(
        "The loop · 预测循环",
        (
            Panel(
                "Age of the forecasts",
                "Of the oldest, by metric and horizon; rules believe none that is too old.",
                "最旧预测的时间，按指标与时长；规则不采信过旧的预测。",
                "s",
                (
                    Query(
                        f"time() - min by ({METRIC_LABEL}, {HORIZON_LABEL}) ({TIMESTAMP})",
                        f"{{{{{METRIC_LABEL}}}}} {{{{{HORIZON_LABEL}}}}}",
                    ),
                ),
            ),
            Panel(
                "Series",
                "Of the newest cycle: read, forecast and failed.",
                "最近一轮读取、预测与失败的序列数。",
                "short",
                (
                    Query(
                        f"max by ({METRIC_LABEL}, state) ({LOOP_SERIES})",
                        f"{{{{{METRIC_LABEL}}}}} {{{{state}}}}",
                    ),
                ),
            ),
            Panel(
                "Duration of a cycle",
                "By stage; all must stay below the interval.",
                "各阶段耗时；all 应低于循环间隔。",
                "s",
                (
                    Query(f"max by (stage) ({LOOP_CYCLE_DURATION})", "{{stage}}"),
                    Query(f"max({LOOP_PREFIX}interval_seconds)", "interval"),
                ),
            ),
            Panel(
                "Cycles by result",
                "partial: a query failed; failed: none was forecast.",
                "partial 为部分查询失败，failed 为全部失败。",
                "cps",
                (Query(f"sum by (result) (rate({LOOP_CYCLES_TOTAL}{_RATE}))", "{{result}}"),),
            ),
            Panel(
                "Experts",
                "Share of the series that each expert of the model answered; last only repeats "
                "the newest value.",
                "各专家应答的序列占比；last 仅重复最新值。",
                "percentunit",
                (
                    Query(
                        f"max by ({METRIC_LABEL}, source) ({LOOP_FALLBACK_RATIO})",
                        f"{{{{{METRIC_LABEL}}}}} {{{{source}}}}",
                    ),
                ),
            ),
            Panel(
                "A batch at Triton",
                "Mean time of one batch over the wire.",
                "单个批次的平均往返耗时。",
                "s",
                (
                    Query(
                        f"sum by (model) (rate({LOOP_TRITON_LATENCY}_sum{_RATE}))\n"
                        f"/ sum by (model) (rate({LOOP_TRITON_LATENCY}_count{_RATE}))",
                        "{{model}}",
                    ),
                ),
            ),
            Panel(
                "Lag of the source",
                "Age of the newest point that was forecast from.",
                "预测所依据的最新数据点的时间。",
                "s",
                (Query(f"max by ({METRIC_LABEL}) ({LOOP_LAG})", f"{{{{{METRIC_LABEL}}}}}"),),
            ),
            Panel(
                "What went wrong",
                "Queries, series and publications that failed, and warnings; each second.",
                "每秒失败的查询、序列、发布，以及警告。",
                "cps",
                tuple(
                    Query(
                        f"sum by ({by}) (rate({LOOP_PREFIX}{name}_total{_RATE}))",
                        " ".join([word, *(f"{{{{{label}}}}}" for label in by.split(", "))]),
                    )
                    for name, by, word in (
                        ("query_errors", f"{METRIC_LABEL}, reason", "query"),
                        ("series_failed", f"{METRIC_LABEL}, reason", "series"),
                        ("publish_errors", "outlet", "outlet"),
                        ("warnings", f"{METRIC_LABEL}, reason", "warning"),
                    )
                ),
                width=16,
            ),
        ),
    )
