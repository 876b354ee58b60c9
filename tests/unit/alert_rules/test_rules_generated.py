"""Rules from settings: which there are, what is refused, drift, and scaling to any interval."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml

from contract.errors import ConfigError
from services.forecast_loop.alert_rules_text import duration, looked_up, shown_number
from services.forecast_loop.config import LoopConfig, load_config
from services.forecast_loop.rules import add_rules_arguments, rule_files, run_rules
from tests.unit.alert_rules.promtool import DEPLOY


def config(loop: dict | None = None, **query: object) -> LoopConfig:
    settings = {"metric": "m", "labels": ["a"], **query}
    return LoopConfig.model_validate({"loop": loop or {}, "queries": [settings]})


def rules_of(settings: LoopConfig, file: str = "m.yml") -> dict[str, dict]:
    groups = yaml.safe_load(rule_files(settings)[file])["groups"]
    return {rule.get("alert") or rule["record"]: rule for rule in groups[0]["rules"]}


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_rules_arguments(parser)
    return run_rules(parser.parse_args([str(word) for word in words]))


def test_the_committed_rules_are_what_the_sample_says(capsys):
    folder = DEPLOY / "rules"
    assert run("--config", DEPLOY / "forecast_loop.toml", "--output", folder, "--check") == 0
    assert "3 rule files" in capsys.readouterr().out


def test_drift_is_named_file_by_file_and_repaired(tmp_path: Path):
    words = ("--config", DEPLOY / "forecast_loop.toml", "--output", tmp_path / "rules")
    assert run(*words) == 0
    rules = tmp_path / "rules"
    (rules / "quota_group_use_ratio.yml").unlink()
    (rules / "ai_forecast_loop.yml").write_text("groups: []\n")
    old = (rules / "node_filesystem_avail_ratio.yml").read_text("utf-8")
    (rules / "gone.yml").write_text(old, encoding="utf-8")
    (rules / "by_hand.yml").write_text("groups: []\n")
    with pytest.raises(ConfigError) as caught:
        run(*words, "--check")
    assert caught.value.got == (
        "quota_group_use_ratio.yml is missing; ai_forecast_loop.yml differs; gone.yml is left over"
    )
    assert f"--output {rules}" in str(caught.value)
    assert run(*words) == 0
    assert run(*words, "--check") == 0
    assert not (rules / "gone.yml").exists()
    assert (rules / "by_hand.yml").exists()


def test_without_a_threshold_nothing_is_compared_with_one():
    assert set(rules_of(config(unit="other"))) == {
        "ai_forecast:m:line",
        "ai_forecast:m:fresh",
        "ForecastResidual",
        "ForecastStale",
    }


def test_without_the_one_hour_horizon_there_is_no_residual():
    found = rules_of(config({"horizons": ["12h"]}, threshold=1))
    assert "ForecastResidual" not in found
    assert {"ForecastDualConfirmed", "ForecastModelOnly", "ForecastStale"} <= set(found)


def test_the_longest_horizon_is_the_one_that_alerts():
    found = rules_of(config({"horizons": ["2h", "1d", "90m"]}, threshold=1))
    assert ", 86400)" in found["ai_forecast:m:line"]["expr"]
    assert 'horizon="1d"' in found["ForecastDualConfirmed"]["expr"]


def test_durations_follow_the_interval():
    settings = config(
        {"interval": "2s", "horizons": ["10s"], "stale_after_intervals": 2.5},
        **{"threshold": 1, "step": "1s", "linear_window": "60s", "min_points": 10},
    )
    text = rule_files(settings)["m.yml"]
    assert "  interval: 2s\n" in text
    found = rules_of(settings)
    assert found["ForecastDualConfirmed"]["for"] == "4s"
    assert found["ForecastDualConfirmed"]["keep_firing_for"] == "5s"
    assert found["ForecastStale"]["for"] == "2s"
    assert " offset 10s" in found["ForecastStale"]["expr"]
    assert "m[60s]" in found["ai_forecast:m:line"]["expr"]
    assert "< 5\n" in found["ai_forecast:m:fresh"]["expr"]
    loop = rules_of(settings, "ai_forecast_loop.yml")
    assert "[8s]" in loop["ForecastLoopQueryErrors"]["expr"]


@pytest.mark.parametrize(
    ("window", "step", "points"), [("6h", "5m", 30), ("1h", "5m", 9), ("5m", "5m", 3)]
)
def test_a_short_window_is_not_asked_for_more_points_than_it_has(window, step, points):
    line = rules_of(config(linear_window=window, step=step))["ai_forecast:m:line"]["expr"]
    assert f"count_over_time(m[{window}]) >= {points})" in line


def test_yesterday_of_a_horizon_beyond_a_day_is_the_day_before_last():
    def witness(horizon: str) -> str:
        found = rules_of(config({"horizons": [horizon]}, threshold=1, confirm="yesterday"))
        return str(found["ForecastDualConfirmed"]["expr"])

    assert "(m offset 23h) > 1" in witness("1h")
    assert "(m offset 12h) > 1" in witness("36h")
    assert "(m) > 1" in witness("24h")


@pytest.mark.parametrize(
    ("query", "got"),
    [
        ({"unit": "ratio", "threshold": 98}, "no ratio reaches this threshold"),
        ({"unit": "percent", "threshold": 200}, "no percent reaches this threshold"),
        ({"labels": ["severity"]}, "the alert's own label severity"),
        ({"metric": "ai_forecast_loop"}, "cannot be called ai_forecast_loop"),
    ],
)
def test_settings_that_no_rule_can_be_made_of_are_refused(query, got):
    with pytest.raises(ConfigError, match=got):
        rule_files(config(**query))


def test_every_alert_speaks_both_languages_and_has_a_weight():
    for text in rule_files(load_config(DEPLOY / "forecast_loop.toml")).values():
        for rule in yaml.safe_load(text)["groups"][0]["rules"]:
            if "alert" in rule:
                assert set(rule["annotations"]) == {"summary", "summary_zh"}
                assert rule["labels"]["severity"] in {"none", "info", "warning", "critical"}
                assert any(
                    "\u4e00" <= letter <= "\u9fff" for letter in rule["annotations"]["summary_zh"]
                )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(900, "15m"), (90, "90s"), (2.4, "3s"), (86_400, "1d"), (5400, "90m"), (0, "0s")],
)
def test_durations_are_whole_and_short(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("unit", "number", "text"),
    [
        *[("ratio", 0.98, "98%"), ("percent", 98.0, "98%"), ("bytes", 8e9, "7.451GiB")],
        *[("bytes", 100.0, "100B"), ("seconds", 2.5, "2.5s"), ("count", 1000.0, "1000")],
    ],
)
def test_thresholds_are_shown_in_their_unit(unit, number, text):
    assert shown_number(unit, number) == text


def test_a_matcher_keeps_its_quotes_and_percent_signs_in_a_template():
    pairs = [("a", "exported_a")]
    assert looked_up('m{x="100%"}', pairs, "other", "none").startswith(
        '{{ with printf `m{x="100%%",a=%q}` $labels.exported_a | query }}'
    )
    assert looked_up("m{x=`1`}", pairs, "other", "none").startswith(
        '{{ with printf "m{x=`1`,a=%q}" $labels.exported_a | query }}'
    )
