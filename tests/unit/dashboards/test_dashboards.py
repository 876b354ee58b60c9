"""The committed dashboards: what the code says, readable, and every expression asks what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from contract.errors import ConfigError
from services.command import main
from services.dashboards.board import events
from services.dashboards.command import dashboard_files
from services.forecast_loop.config import LoopConfig, load_config
from tests.fixtures.metric_names import asked_names, declared_names, substituted
from tests.unit.alert_rules.promtool import DEPLOY, debian_program

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "deploy/grafana"
SETTINGS = DEPLOY / "forecast_loop.toml"
BOARDS = {
    file.stem: json.loads(file.read_text("utf-8"))
    for file in sorted((GRAFANA / "dashboards").glob("*.json"))
}
CHINESE = re.compile("[\u4e00-\u9fff]")


def panels(board: dict) -> list[dict]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: dict) -> list[str]:
    """Of panels, annotations and variables."""
    found = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    found += [annotation["expr"] for annotation in board["annotations"]["list"]]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            [series] = re.findall(r"^label_values\((.+), \w+\)$", variable["query"])
            found.append(series)
    return found


def test_there_are_five():
    assert set(BOARDS) == {
        f"presage-{name}" for name in ("serving", "forecasts", "logs", "causes", "exporters")
    }


def test_the_committed_dashboards_are_what_code_and_settings_say(capsys):
    assert main(["dashboards", "--check", "--config", str(SETTINGS)]) == 0
    assert "5 dashboards" in capsys.readouterr().out


def test_drift_is_named_and_repaired_and_a_dashboard_of_somebodys_own_stays(tmp_path, capsys):
    words = ["dashboards", "--config", str(SETTINGS), "--output", str(tmp_path)]
    assert main(words) == 0
    (tmp_path / "presage-logs.json").unlink()
    changed = json.loads((tmp_path / "presage-serving.json").read_text("utf-8"))
    changed["title"] = "mine"
    (tmp_path / "presage-serving.json").write_text(json.dumps(changed), "utf-8")
    (tmp_path / "gone.json").write_text(json.dumps(changed), "utf-8")
    (tmp_path / "own.json").write_text('{"title": "own", "tags": ["presage"]}')
    assert main([*words, "--check"]) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "presage-serving.json differs" in said
    assert "presage-logs.json is missing" in said
    assert "gone.json is left over" in said
    assert "own.json" not in said
    assert main(words) == 0
    assert main([*words, "--check"]) == 0
    assert not (tmp_path / "gone.json").exists()
    assert (tmp_path / "own.json").exists()


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_can_be_provisioned_anywhere(name):
    board = BOARDS[name]
    assert board["uid"] == name
    assert len(name) <= 40, "Grafana takes no longer uid"
    assert board["schemaVersion"] == 41
    assert not board["editable"]
    assert "id" not in board
    first, *others = board["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == (
        *("datasource", "datasource", "prometheus"),
    )
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert all(variable["datasource"] == chosen for variable in others)
    assert all(one["datasource"] == chosen for one in board["annotations"]["list"])
    for panel in panels(board):
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
    known = {variable["name"] for variable in board["templating"]["list"]}
    for expression in expressions(board):
        used = set(re.findall(r"\$(\w+)", expression)) - {"__rate_interval", "__range"}
        assert used - {"__interval"} <= known, expression
    used = {name for text in expressions(board) for name in re.findall(r"\$(\w+)", text)}
    assert known - {"datasource"} <= used, "a variable that changes nothing"


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_says_what_it_shows_in_both_languages_and_its_unit(name):
    titles = [panel["title"] for panel in panels(BOARDS[name])]
    if name != "presage-forecasts":  # a row of the same panels for each metric
        assert len(set(titles)) == len(titles)
    ids = [panel["id"] for panel in BOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(BOARDS[name]):
        english, chinese = panel["description"].split("\n\n")
        assert len(english) > 10
        assert not CHINESE.search(english)
        assert CHINESE.search(chinese), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        assert refs, panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_on_the_grid_side_by_side(name):
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} over {taken.get((x, y))}"
                taken[x, y] = panel["title"]
    height = 1 + max(y for _, y in taken)
    lines = {y for y in range(height) if any((x, y) in taken for x in range(24))}
    assert lines == set(range(height)), "an empty line"


def test_prometheus_parses_every_expression(tmp_path):
    """As recording rules: promtool has no other way to parse one."""
    rules = []
    for name, board in BOARDS.items():
        for number, expression in enumerate(expressions(board)):
            record = f"{name.replace('-', '_')}:{number}"
            rules.append({"record": record, "expr": substituted(expression)})
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}), "utf-8")
    result = debian_program("promtool", "check", "rules", file)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(rules)} rules found" in result.stdout


def test_every_metric_of_dashboards_and_rules_exists(tmp_path):
    declared = declared_names(load_config(SETTINGS), tmp_path)
    asked = {
        name: text
        for board in BOARDS.values()
        for text in expressions(board)
        for name in asked_names(substituted(text))
    }
    for file in ("serving.yml", "services.yml", "ai_forecast_loop.yml"):
        groups = yaml.safe_load((DEPLOY / "rules" / file).read_text("utf-8"))["groups"]
        for group in groups:
            for rule in group["rules"]:
                asked |= dict.fromkeys(asked_names(rule["expr"]), file)
    assert len(asked) > 80
    unknown = {name: where for name, where in asked.items() if name not in declared}
    assert not unknown


def test_asked_names_are_found_in_every_corner_of_an_expression():
    found = asked_names(
        'topk(3, sum by (x) (rate(a_total{b="c_total"}[5m]))) / on (y) group_left (z) '
        "max(d offset 1h) or (e unless f) and min_over_time((g + 1)[5m:1m]) > bool -h"
    )
    assert found == {"a_total", "d", "e", "f", "g", "h"}
    assert asked_names('{__name__=~"a|b",c="d"}') == {"a", "b"}


def config(loop: dict | None = None, **query: object) -> LoopConfig:
    settings = {"metric": "m", "labels": ["a"], **query}
    return LoopConfig.model_validate({"loop": loop or {}, "queries": [settings]})


def forecasts_of(settings: LoopConfig) -> dict[str, list[str]]:
    """Title → expressions, of the first metric's row."""
    board = json.loads(dashboard_files(settings)["presage-forecasts.json"])
    found: dict[str, list[str]] = {}
    for panel in board["panels"][1:]:
        if panel["type"] == "row":
            break
        found[panel["title"]] = [target["expr"] for target in panel["targets"]]
    return found


def test_a_forecast_is_drawn_at_the_moment_it_speaks_of():
    [title] = [title for title in forecasts_of(config()) if title.startswith("Actual")]
    assert forecasts_of(config())[title] == [
        'max by (a) (m{a=~"$a"})',
        'max by (a) (ai_forecast_m{a=~"$a",horizon="1h"} offset 1h)',
        'max by (a) (ai_forecast_m{a=~"$a",horizon="12h"} offset 12h)',
    ]
    # The band only where the loop exposes it.
    banded = forecasts_of(config({"quantiles": True}))[title]
    assert banded[3:] == [
        'max by (a) (ai_forecast_m_quantile{a=~"$a",horizon="12h",'
        f'quantile="{level}"}} offset 12h)'
        for level in ("0.1", "0.9")
    ]


def test_without_threshold_or_the_short_horizon_there_is_no_panel_of_them():
    all_of_them = forecasts_of(config(threshold=1))
    assert any(title.startswith("Error of the 1h") for title in all_of_them)
    assert "Who says so" in all_of_them
    assert "Who says so" not in forecasts_of(config())
    short = forecasts_of(config({"horizons": ["12h"]}))
    assert not any(title.startswith("Error of") for title in short)


def test_labels_of_ours_and_matchers_of_the_query_are_kept():
    found = forecasts_of(config(expr='m{job="x"}', labels=["metric", "a"]))
    [actual] = [texts[0] for title, texts in found.items() if title.startswith("Actual")]
    assert actual == (
        'max by (exported_metric, a) (label_replace(m{job="x",metric=~"$exported_metric",a=~"$a"}, '
        '"exported_metric", "$1", "metric", "(.*)"))'
    )


def test_events_counts_the_first_of_a_new_series():
    assert events("c", "1h") == "(c unless c offset 1h) or increase(c[1h])"


def test_provisioning_finds_the_dashboards_and_names_no_host():
    [source] = yaml.safe_load(
        (GRAFANA / "provisioning/datasources/prometheus.yml").read_text("utf-8")
    )["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "${PROMETHEUS_URL}"
    [provider] = yaml.safe_load(
        (GRAFANA / "provisioning/dashboards/presage.yml").read_text("utf-8")
    )["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
