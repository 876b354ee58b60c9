"""``Board``: a dashboard as a table of rows and panels, and its JSON for Grafana 11 and 12.

Only what Presage's dashboards need; the schema is Grafana's own, by its foundation SDK. Every panel
says what it shows in English and in Chinese, and in which unit; every expression asks the
datasource that the reader chooses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as schema
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TAG = "presage"
GENERATED = "generated"
WIDTH = 24
DATASOURCE = "datasource"
Kind = Literal["lines", "stacked", "value", "bars", "table", "states"]
_SOURCE = schema.DataSourceRef(type_val="prometheus", uid=f"${{{DATASOURCE}}}")
_REF_IDS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called; a band fills down to the series of that name."""

    expr: str
    legend: str = ""
    band_down_to: str = ""


@dataclass(frozen=True)
class Panel:
    """text, text_zh: what it shows and what to think of it.

    unit: Grafana's; kind: ``lines`` over time, ``stacked`` too; ``value``, ``bars`` and ``table``
    of now; ``states`` are values by name over time
    red_above, red_below: where it turns red; states: value, its word, its colour
    every: the shortest step; such a panel draws a bar for each
    """

    title: str
    text: str
    text_zh: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "lines"
    width: int = 8
    height: int = 8
    red_above: float | None = None
    red_below: float | None = None
    states: tuple[tuple[str, str, str], ...] = ()
    every: str = ""


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """What the reader chooses: values of a label; ``series`` and ``label`` say which."""

    name: str
    title: str
    series: str
    label: str


@dataclass(frozen=True)
class Annotation:
    """Marks on every panel while ``expr`` gives series; {{label}} in the texts."""

    name: str
    expr: str
    colour: str
    title: str
    text: str


@dataclass(frozen=True)
class Board:
    """uid: never changes, links stand on it."""

    uid: str
    title: str
    text: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    since: str = "now-6h"

    @property
    def file_name(self) -> str:
        return f"{self.uid}.json"


def events(counter: str, window: str) -> str:
    """How many in the window, the first of a new series included: it begins at 1, and
    ``increase`` alone would miss it.
    """
    return f"({counter} unless {counter} offset {window}) or increase({counter}[{window}])"


def render(board: Board) -> str:
    """The dashboard's JSON, the same text for the same board."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.text)
        .tags([TAG, GENERATED])
        .readonly()
        .refresh("30s")
        .time(board.since, "now")
        .timezone("browser")
        .tooltip(schema.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable(DATASOURCE).label("Prometheus").type("prometheus")
        )
        .link(
            dashboard.DashboardLink("Presage")
            .type(schema.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(False)
            .keep_time(True)
        )
    )
    for variable in board.variables:
        built = built.with_variable(_variable(variable))
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(_panel(panel))
    content: dict[str, Any] = json.loads(JSONEncoder().encode(built.build()))
    for number, one in enumerate(content["panels"], 1):
        one["id"] = number
    content["annotations"] = {"list": [_annotation(one) for one in board.annotations]}
    return json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def is_generated(text: str) -> bool:
    """Whether a file of the dashboards' folder is of ours, and not somebody's own."""
    try:
        tags = json.loads(text).get("tags") or []
    except (ValueError, AttributeError):
        return False
    return {TAG, GENERATED} <= set(tags)


def _variable(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.title)
        .datasource(_SOURCE)
        .query(f"label_values({variable.series}, {variable.label})")
        .refresh(schema.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(schema.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # Series without the label are shown, too.
        .all_value(".*")
        .current(schema.VariableOption(selected=True, text="All", value="$__all"))
    )


def _annotation(annotation: Annotation) -> dict[str, Any]:
    """Prometheus' own fields, which the SDK does not know."""
    return {
        "name": annotation.name,
        "datasource": _SOURCE.to_json(),
        "enable": True,
        "hide": False,
        "iconColor": annotation.colour,
        "expr": annotation.expr,
        "step": "60s",
        "titleFormat": annotation.title,
        "textFormat": annotation.text,
    }


def _panel(panel: Panel) -> Any:
    built = _visual(panel)
    built = (
        built.title(panel.title)
        .description(f"{panel.text}\n\n{panel.text_zh}")
        .datasource(_SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(panel.height)
        .thresholds(_thresholds(panel))
    )
    over_time = panel.kind in ("lines", "stacked", "states")
    for ref_id, query in zip(_REF_IDS, panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).ref_id(ref_id).datasource(_SOURCE)
        target = target.legend_format(query.legend or "__auto")
        if not over_time:
            target = target.instant()
            if panel.kind == "table":
                target = target.format(PromQueryFormat.TABLE)
        built = built.with_target(target)
        if query.band_down_to:
            built = built.override_by_query(
                ref_id,
                [
                    schema.DynamicConfigValue("custom.fillBelowTo", query.band_down_to),
                    schema.DynamicConfigValue("custom.lineWidth", 0),
                ],
            )
    return built


def _visual(panel: Panel) -> Any:
    calcs = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    if panel.kind == "value":
        return stat.Panel().reduce_options(calcs).color_mode(words.BigValueColorMode.VALUE)
    if panel.kind == "bars":
        return (
            bargauge.Panel()
            .reduce_options(calcs)
            .orientation(words.VizOrientation.HORIZONTAL)
            .display_mode(words.BarGaugeDisplayMode.GRADIENT)
        )
    if panel.kind == "table":
        return table.Panel().with_transformation(
            schema.DataTransformerConfig(
                id_val="organize", options={"excludeByName": {"Time": True}}
            )
        )
    if panel.kind == "states":
        options = {
            value: schema.ValueMappingResult(text=text, color=colour)
            for value, text, colour in panel.states
        }
        return statetimeline.Panel().mappings([schema.ValueMap(options=options)])
    lines = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(60 if panel.kind == "stacked" else 8)
        .show_points(words.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(words.LegendDisplayMode.LIST)
            .placement(words.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(words.TooltipDisplayMode.MULTI)
            .sort(words.SortOrder.DESCENDING)
        )
    )
    if panel.every:
        lines = lines.draw_style(words.GraphDrawStyle.BARS).interval(panel.every)
    if panel.kind == "stacked":
        return lines.stacking(common.StackingConfig().mode(words.StackingMode.NORMAL))
    if panel.red_above is None and panel.red_below is None:
        return lines
    return lines.thresholds_style(
        common.GraphThresholdsStyleConfig().mode(words.GraphThresholdsStyleMode.DASHED)
    )


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Green, and red beyond; a panel without a limit is only green."""
    good, bad = ("red", "green") if panel.red_below is not None else ("green", "red")
    steps = [schema.Threshold(color=good, value=None)]
    limit = panel.red_below if panel.red_below is not None else panel.red_above
    if limit is not None:
        steps.append(schema.Threshold(color=bad, value=limit))
    return dashboard.ThresholdsConfig().mode(schema.ThresholdsMode.ABSOLUTE).steps(steps)
