"""The rules of one metric: what is recorded, and the five alerts that compare it.

Three series are recorded, each carrying exactly the identifying labels (and ``horizon``), so that
alerts join one to one and the dear part, a line through hours of points, is drawn once:

``ai_forecast:<metric>:value``  only for a query that is an expression: a rule needs a series
``ai_forecast:<metric>:line``   where predict_linear ends, of series alive now and long enough
``ai_forecast:<metric>:fresh``  forecasts whose timestamp is young: whatever else is exposed (a
                                Pushgateway never forgets) is believed by no alert
"""

from __future__ import annotations

import re

from contract.errors import ConfigError
from contract.metric_names import (
    HORIZON_LABEL,
    METRIC_LABEL,
    RESIDUAL_HORIZON,
    RESIDUAL_SIGMA,
    TIMESTAMP,
    exposed_label,
    forecast_name,
    recorded_name,
)
from services.forecast_loop.alert_rules_text import (
    beyond_words,
    duration,
    looked_up,
    shown,
    shown_number,
    who,
    witness_words,
)
from services.forecast_loop.config import LARGEST_OF_UNIT, LoopConfig, Query, seconds

Rule = dict[str, object]
"""One entry of a group, in the order it is written."""

SIGMAS = 4
"""Residuals beyond this many of their own running scale are news."""
EVALUATE_AT_MOST_SECONDS = 60
_DAY_SECONDS = 86_400
_SHARE_OF_WINDOW = 0.8
_OVERWRITTEN = {"alertname", "severity"}


class MetricRules:
    """Writes the rules of one query; ``rules()`` is what its group holds."""

    def __init__(self, config: LoopConfig, query: Query) -> None:
        self.config, self.query = config, query
        self.loop = config.loop
        self.labels = tuple(exposed_label(label) for label in query.labels)
        self.on = f"on ({', '.join(self.labels)})"
        self.worst = "max" if query.direction == "above" else "min"
        self.beyond = ">" if query.direction == "above" else "<"
        self.horizon = max(config.loop.horizons, key=seconds)
        self.stale = duration(config.loop.stale_after_seconds)
        self.line = f'{recorded_name(query.metric, "line")}{{{HORIZON_LABEL}="{self.horizon}"}}'
        self.selector = self._selector()
        self._check()

    def rules(self) -> list[Rule]:
        """Recorded series first: the alerts of the same evaluation read them."""
        found = [*self._recorded()]
        if self.query.threshold is not None:
            found += [self._dual_confirmed(), self._model_only()]
        if RESIDUAL_HORIZON in self.loop.horizons:
            found.append(self._residual())
        found.append(self._stale())
        if self.query.unit in LARGEST_OF_UNIT:
            found.append(self._unit_suspect())
        return found

    def _check(self) -> None:
        where = f"queries.{self.query.metric}"
        if clash := sorted(_OVERWRITTEN & set(self.labels)):
            raise ConfigError(
                f"the alert's own label {clash[0]} would overwrite the series'",
                where=f"{where}.labels",
                next_command="rename it in the expression with label_replace",
            )
        largest, threshold = LARGEST_OF_UNIT.get(self.query.unit), self.query.threshold
        if largest is not None and threshold is not None and threshold > largest:
            raise ConfigError(
                f"no {self.query.unit} reaches this threshold",
                where=f"{where}.threshold",
                expected=f"at most {largest:g}, or another unit",
                got=f"{threshold:g}",
            )

    def _selector(self) -> str:
        """A series per source: the query's selector, or the recorded expression."""
        if self.query.selector is None:
            return recorded_name(self.query.metric, "value")
        name, matchers = self.query.selector
        return f"{name}{{{matchers.strip()}}}" if matchers.strip() else name

    @property
    def _is_expression(self) -> bool:
        return self.query.selector is None

    def identified(self, source: str) -> str:
        """One series per identity, under the labels that the forecasts carry."""
        return f"{self.worst} by ({', '.join(self.labels)}) ({source})"

    def _renamed(self, source: str) -> str:
        """Our own label names become ``exported_*``, as the forecasts have them."""
        for own, exposed in zip(self.query.labels, self.labels, strict=True):
            if own != exposed:
                source = f'label_replace({source}, "{exposed}", "$1", "{own}", "(.*)")'
        return source

    def actual(self, matchers: str) -> str:
        """What the forecasts speak of, narrowed to the series whose exposed labels match."""
        if self._is_expression:
            return self.identified(f"{self.selector}{{{matchers}}}")
        # Under the names that the source has.
        for own, exposed in zip(self.query.labels, self.labels, strict=True):
            matchers = re.sub(rf"(^|,){exposed}(?==)", rf"\1{own}", matchers)
        return self.identified(self._renamed(self.query.with_matcher(matchers)))

    def _of_source(self, source: str) -> str:
        """A recorded expression has the forecasts' label names already."""
        return self.identified(source if self._is_expression else self._renamed(source))

    def fresh(self, horizon: str) -> str:
        return f'{recorded_name(self.query.metric, "fresh")}{{{HORIZON_LABEL}="{horizon}"}}'

    def _recorded(self) -> list[Rule]:
        query, found = self.query, list[Rule]()
        if self._is_expression:
            found.append(
                {
                    "record": recorded_name(query.metric, "value"),
                    "expr": self.identified(self._renamed(query.with_matcher("").strip())),
                }
            )
        window = f"{self.selector}[{query.linear_window}]"
        # A line of the dead pod of a series that moved is no witness: only of what is alive.
        line = (
            f"predict_linear({window}, {seconds(self.horizon)})\n"
            f"and {self.selector}\n"
            f"and count_over_time({window}) >= {self._points_of_a_line()}"
        )
        found.append(
            {
                "record": recorded_name(query.metric, "line"),
                "expr": self._of_source(line),
                "labels": {HORIZON_LABEL: self.horizon},
            }
        )
        # Two loops, or a loop and a Pushgateway: each forecast is judged by its own timestamp.
        by_exporter = [name for name in ("job", "instance") if name not in self.labels]
        joined = [HORIZON_LABEL, *by_exporter]
        if self.loop.timestamp_per == "series":
            joined = [*self.labels, *joined]
        found.append(
            {
                "record": recorded_name(query.metric, "fresh"),
                "expr": (
                    f"{self.worst} by ({', '.join((*self.labels, HORIZON_LABEL))}) (\n"
                    # NaN is no forecast either: whoever gets none is told by ForecastStale.
                    f"{forecast_name(query.metric)} > -Inf\n"
                    f"and on ({', '.join(joined)})\n"
                    f'abs(time() - {TIMESTAMP}{{{METRIC_LABEL}="{query.metric}"}})'
                    f" < {self.loop.stale_after_seconds:g}\n)"
                ),
            }
        )
        return found

    def _points_of_a_line(self) -> int:
        """``min_points``, but no more than a short window can have with some scrapes missing."""
        steps = seconds(self.query.linear_window) / self.query.step_seconds
        return max(3, min(self.query.min_points, int(_SHARE_OF_WINDOW * steps)))

    def confirmation(self) -> str:
        """The series whose second witness is beyond the threshold as well."""
        query = self.query
        line = f"{self.line} {self.beyond} {query.threshold!r}"
        # The moment asked about is a horizon ahead; a day (or more) before it lies in the past.
        ahead = seconds(self.horizon)
        back = duration(-(-ahead // _DAY_SECONDS) * _DAY_SECONDS - ahead)
        offset = "" if back == "0s" else f" offset {back}"
        day = f"{self._of_source(self.selector + offset)} {self.beyond} {query.threshold!r}"
        if query.confirm == "line":
            return line
        return day if query.confirm == "yesterday" else f"(\n{line}\nor {self.on}\n{day}\n)"

    def _dual_confirmed(self) -> Rule:
        query = self.query
        forecast = f"{self.fresh(self.horizon)} {self.beyond} {query.threshold!r}"
        beyond, beyond_zh = beyond_words(query)
        witness, witness_zh = witness_words(query)
        return {
            "alert": "ForecastDualConfirmed",
            # The line always stands there: it is recorded only for long, living series.
            "expr": (
                f"{forecast}\nand {self.on}\n{self.confirmation()}"
                + (f"\nand {self.on}\n{self.line}" if query.confirm != "line" else "")
            ),
            "for": duration(2 * self.loop.interval_seconds),
            "keep_firing_for": self.stale,
            "labels": {"severity": query.severity, METRIC_LABEL: query.metric},
            "annotations": {
                "summary": (
                    f"{who(self.labels)}: {query.metric} is expected at {shown(query.unit)} in "
                    f"{self.horizon}, {beyond}: the model and {witness} agree "
                    f"(line: {self._line_value('none')}; now: {self._value_now('none')})."
                ),
                "summary_zh": (
                    f"{who(self.labels)}：{query.metric} 预计 {self.horizon} 后为 "
                    f"{shown(query.unit)}，{beyond_zh}；模型与{witness_zh}一致"
                    f"（外推 {self._line_value('无')}，当前 {self._value_now('无')}）。"
                ),
            },
        }

    def _model_only(self) -> Rule:
        query = self.query
        beyond, beyond_zh = beyond_words(query)
        witness, witness_zh = witness_words(query)
        return {
            "alert": "ForecastModelOnly",
            "expr": (
                f"{self.fresh(self.horizon)} {self.beyond} {query.threshold!r}\n"
                f"and {self.on}\n{self.line}\n"
                f"unless {self.on}\n{self.confirmation()}"
            ),
            "for": duration(2 * self.loop.interval_seconds),
            "labels": {"severity": "info", METRIC_LABEL: query.metric},
            "annotations": {
                "summary": (
                    f"{who(self.labels)}: the model alone expects {query.metric} at "
                    f"{shown(query.unit)} in {self.horizon}, {beyond}; {witness} does not "
                    f"(line: {self._line_value('none')}; now: {self._value_now('none')})."
                ),
                "summary_zh": (
                    f"{who(self.labels)}：仅模型预计 {query.metric} {self.horizon} 后为 "
                    f"{shown(query.unit)}，{beyond_zh}；{witness_zh}并不如此"
                    f"（外推 {self._line_value('无')}，当前 {self._value_now('无')}）。"
                ),
            },
        }

    def _residual(self) -> Rule:
        query, fresh = self.query, self.fresh(RESIDUAL_HORIZON)
        now = self._of_source(self.selector)
        sigma = (
            f"{RESIDUAL_SIGMA}"
            f'{{{METRIC_LABEL}="{query.metric}",{HORIZON_LABEL}="{RESIDUAL_HORIZON}"}}'
        )
        return {
            "alert": "ForecastResidual",
            # "fresh" an hour ago was fresh then; that it is today says that sigma is maintained.
            "expr": (
                f"abs(\n{now}\n- {self.on}\n{fresh} offset {RESIDUAL_HORIZON}\n)\n"
                f"> {self.on}\n"
                f"{SIGMAS} * max by ({', '.join(self.labels)}) ({sigma} > 0)\n"
                f"and {self.on}\n{fresh}\n"
                f"and {self.on}\n{self.line}"
            ),
            "for": duration(2 * self.loop.interval_seconds),
            "labels": {"severity": "warning", METRIC_LABEL: query.metric},
            "annotations": {
                "summary": (
                    f"{who(self.labels)}: {query.metric} is {shown(query.unit)} away from what "
                    f"was expected {RESIDUAL_HORIZON} ago, more than {SIGMAS} times the usual "
                    f"error (now: {self._value_now('none')})."
                ),
                "summary_zh": (
                    f"{who(self.labels)}：{query.metric} 与 {RESIDUAL_HORIZON} 前的预测相差 "
                    f"{shown(query.unit)}，超过平时误差的 {SIGMAS} 倍"
                    f"（当前 {self._value_now('无')}）。"
                ),
            },
        }

    def _stale(self) -> Rule:
        query = self.query
        # Younger series need no forecast yet: the loop wants min_points steps of them first.
        since = duration(query.min_points * query.step_seconds)
        old_enough = self._of_source(f"{self.selector} offset {since}")
        return {
            "alert": "ForecastStale",
            "expr": (
                f"count(\n{self.line} > -Inf\nand {self.on}\n{old_enough}\n"
                f"unless {self.on}\n{self.fresh(self.horizon)}\n) > 0"
            ),
            "for": self.loop.interval,
            "labels": {"severity": "warning", METRIC_LABEL: query.metric},
            "annotations": {
                "summary": (
                    f"{{{{ $value }}}} series of {query.metric} are alive but have no forecast "
                    f"younger than {self.stale}: threshold alerts on them are blind. Look at the "
                    "forecast loop's log and its ai_forecast_loop_* metrics."
                ),
                "summary_zh": (
                    f"{query.metric} 有 {{{{ $value }}}} 条序列仍在上报，但没有 {self.stale} "
                    "内的预测：其阈值预警已失效。"
                    "请查看 forecast loop 的日志与 ai_forecast_loop_* 指标。"
                ),
            },
        }

    def _unit_suspect(self) -> Rule:
        """Percents where a ratio is declared, and the reverse; one alert a metric."""
        query, ratio = self.query, LARGEST_OF_UNIT["ratio"]
        shown_value = '{{ $value | printf "%.4g" }}'
        if query.unit == "ratio":
            expression = f"max({self.selector}) > {ratio!r}"
            other, other_zh = "look like percent", "像是百分数"
            seen, seen_zh = f"the largest is {shown_value}", f"最大值为 {shown_value}"
        else:
            # One idle evening proves nothing: not one value of a whole window above it.
            largest = f"max(max_over_time({self.selector}[{query.linear_window}]))"
            expression = f"0 < {largest} <= {ratio!r}"
            other, other_zh = "look like ratios", "像是 0 到 1 的比例"
            seen = f"the largest of {query.linear_window} is {shown_value}"
            seen_zh = f"{query.linear_window} 内最大值为 {shown_value}"
        threshold, threshold_zh = "", ""
        if query.threshold is not None:
            threshold = f", and the threshold is {shown_number(query.unit, query.threshold)}"
            threshold_zh = f"，而阈值为 {shown_number(query.unit, query.threshold)}"
        return {
            "alert": "ForecastUnitSuspect",
            "expr": expression,
            "for": duration(2 * self.loop.interval_seconds),
            "labels": {"severity": "warning", METRIC_LABEL: query.metric},
            "annotations": {
                "summary": (
                    f"{query.metric} is declared {query.unit}, but its values {other}: {seen}"
                    f"{threshold}. Correct unit or threshold in the settings, then make rules."
                ),
                "summary_zh": (
                    f"{query.metric} 声明的单位是 {query.unit}，但数值{other_zh}：{seen_zh}"
                    f"{threshold_zh}。请修正配置中的单位或阈值，再运行 make rules。"
                ),
            },
        }

    def _line_value(self, missing: str) -> str:
        pairs = [(label, label) for label in self.labels]
        return looked_up(self.line, pairs, self.query.unit, missing)

    def _value_now(self, missing: str) -> str:
        own = self.labels if self._is_expression else self.query.labels
        pairs = list(zip(own, self.labels, strict=True))
        return looked_up(self.selector, pairs, self.query.unit, missing)


def evaluation_interval(config: LoopConfig) -> str:
    """Of the groups: as often as forecasts come, at least every minute."""
    return duration(min(config.loop.interval_seconds, EVALUATE_AT_MOST_SECONDS))
