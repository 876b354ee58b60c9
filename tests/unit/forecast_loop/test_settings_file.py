"""The loop's settings: what is refused, and in which words."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from contract.errors import ConfigError
from services.command import main
from services.forecast_loop.command import add_parser, command_config, with_default_command
from services.forecast_loop.config import Query, load_config

GOOD = """
[loop]
horizons = ["1h", "12h"]
[[queries]]
metric = "quota_group_use_ratio"
labels = ["clu_name", "group"]
"""
QUERY = '\n[[queries]]\nmetric = "other"\nlabels = ["group"]\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "loop.toml"
    path.write_text(text, "utf-8")
    return path


def test_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.queries[0].expr == "quota_group_use_ratio"
    assert config.loop.interval_seconds == 300
    assert config.loop.stale_after_seconds == 900
    assert config.loop.address == ("127.0.0.1", 9108)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("[loop]", '[loop]\npush_url = "http://one:9091"'))
    assert load_config(path).loop.push_url == "http://one:9091"
    assert (
        load_config(path, {"loop": {"push_url": "http://two:9091"}}).loop.push_url
        == "http://two:9091"
    )
    with pytest.raises(ConfigError, match="push_url"):
        load_config(path, {"loop": {"push_url": "two:9091"}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[loop", "settings are no TOML"),
        ("", "queries"),
        (GOOD + "[loops]\n", "loops"),
        (GOOD + GOOD.partition("[[")[1] + GOOD.partition("[[")[2], "each metric once"),
        (GOOD.replace('"12h"]', '"12"]'), "duration such as"),
        (GOOD.replace('"12h"]', '"0h"]'), "above zero"),
        (GOOD.replace('["clu_name", "group"]', "[]"), "at least 1"),
        (GOOD.replace('["clu_name", "group"]', '["clu-name"]'), "label name"),
        (GOOD.replace('["clu_name", "group"]', '["group", "group"]'), "each label once"),
        (GOOD.replace('["clu_name", "group"]', '["metric", "exported_metric"]'), "exported_"),
        (GOOD.replace("quota_group_use_ratio", "quota-ratio"), "metric name"),
        (GOOD + 'step = "7m"\n', "divisor of the horizon"),
        (GOOD + "threshold = nan\n", "threshold"),
        (GOOD + 'expr = "rate(a[5m])"\nshard_by = "x"\n', "[$]shard"),
        (GOOD + 'companions = ["cpu"]\n', "no companion variant"),
        (
            GOOD.replace("[loop]", '[loop]\npush_url = "http://one"').replace("group", "instance"),
            "Pushgateway overwrites",
        ),
    ],
)
def test_nonsense_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(write(tmp_path, text))
    assert "loop.toml" in str(caught.value)


def test_matchers_go_into_selectors_and_marks() -> None:
    def query(expr: str) -> Query:
        return Query(metric="m", labels=("a",), expr=expr, shard_by="a")

    assert query("m").with_matcher('a=~"x"') == 'm{a=~"x"}'
    assert query('m{b="1"}').with_matcher('a=~"x"') == 'm{b="1",a=~"x"}'
    assert query('m{b="1"}').with_matcher("") == 'm{b="1"}'
    assert query("rate(m{$shard}[5m])").with_matcher('a=~"x"') == 'rate(m{a=~"x"}[5m])'


def test_run_is_the_default_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_default_command(["forecast_loop", "--once"]) == ["forecast_loop", "run", "--once"]
    assert with_default_command(["forecast_loop"]) == ["forecast_loop", "run"]
    assert with_default_command(["forecast_loop", "check"]) == ["forecast_loop", "check"]
    assert with_default_command(["forecast_loop", "-h"]) == ["forecast_loop", "-h"]
    assert main(["forecast_loop", "--config", "/nonexistent.toml"]) == ConfigError.exit_code
    assert "start from deploy/prometheus/forecast_loop.toml" in capsys.readouterr().err


def test_places_of_a_host_come_from_variables_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file of queries, from which the rules come, on every host."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    path = str(write(tmp_path, GOOD))
    monkeypatch.setenv("PRESAGE_LOOP_TRITON_URL", "grpc://triton:8001")
    monkeypatch.setenv("PRESAGE_LOOP_PROMETHEUS_URL", "http://prometheus:9090")
    monkeypatch.setenv("PRESAGE_LOOP_LISTEN", "0.0.0.0:9108")
    monkeypatch.setenv("PRESAGE_LOOP_STATE_FILE", "/var/lib/presage/state.npz")
    words = ["forecast_loop", "run", "--config", path, "--prometheus-url", "http://flag:1"]
    config = command_config(parser.parse_args([*words, "--push", "http://push:9091"]))
    assert config.triton.url == "grpc://triton:8001"
    assert config.prometheus.url == "http://flag:1"
    assert config.loop.address == ("0.0.0.0", 9108)
    assert config.loop.state_file == Path("/var/lib/presage/state.npz")
    assert config.loop.push_url == "http://push:9091"
    monkeypatch.setenv("PRESAGE_LOOP_LISTEN", "nowhere")
    with pytest.raises(ConfigError, match=r"loop\.listen"):
        command_config(parser.parse_args(words))
