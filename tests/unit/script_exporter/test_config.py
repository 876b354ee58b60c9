"""The Go program's file is read unchanged; what is wrong with one is said, all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import ConfigError
from script_exporter.command import main
from script_exporter.config import ExporterConfig, load_config

# As the Go program's users write it.
GO_FILE = """
global:
  log_file: "/var/log/public_exporter/exporter.log"
  log_level: "info"
  log_max_age: 7
  log_rotation_time: 24
  http_port: 5535
  http_timeout: 30
  default_scrape_interval: 45

clusters:
  train28:
    enabled: true
    collectors:
      optical_link:
        enabled: true
        interval: 30
        timeout: 10
        script_path: "/scripts/check_optical_link.py"
        script_type: "python3"
      network:
        enabled: true
        script_path: "/scripts/network.sh"
        script_type: "shell"
      legacy:
        enabled: true
        interval: 120
        script_path: "/scripts/legacy.py"
        script_type: "python2"
      off:
        enabled: false
      forgotten:
        interval: 5
        script_path: "/scripts/x.sh"
        script_type: "shell"
  spare:
    enabled: false
    collectors:
      broken: {enabled: true, script_type: perl6, interval: -1}
"""
ONE = "{enabled: true, script_path: /x.sh, script_type: shell}"


def load(folder: Path, text: str) -> ExporterConfig:
    path = folder / "config.yml"
    path.write_text(text, "utf-8")
    return load_config(path)


def load_one(folder: Path, collector: str, more: str = "") -> ExporterConfig:
    return load(
        folder,
        f"{more}\nclusters:\n  c:\n    enabled: true\n    collectors:\n      n: {collector}\n",
    )


def test_the_go_programs_file_is_read_unchanged(tmp_path: Path) -> None:
    config = load(tmp_path, GO_FILE.replace("script_type: perl6, interval: -1", ""))
    assert [collector.key for collector in config.collectors] == [
        "train28:optical_link",
        "train28:network",
        "train28:legacy",
    ]
    optical, network, legacy = config.collectors
    assert optical.command == ("python3", "/scripts/check_optical_link.py")
    assert (optical.interval_seconds, optical.timeout_seconds) == (30, 10)
    assert network.command == ("bash", "/scripts/network.sh")
    assert (network.interval_seconds, network.timeout_seconds) == (45, 30)
    assert legacy.command[0] == "python2"
    assert config.http_timeout_seconds == 30
    assert any("train28.collectors.forgotten" in warning for warning in config.warnings)


def test_defaults_of_a_short_file(tmp_path: Path) -> None:
    config = load_one(tmp_path, ONE)
    assert config.file.global_.http_port == 5535
    assert config.collectors[0].interval_seconds == 60
    assert config.collectors[0].max_age_seconds == 600
    assert config.warnings == ()


def test_zero_is_the_default_as_in_the_go_program(tmp_path: Path) -> None:
    config = load_one(
        tmp_path,
        "{enabled: true, interval: 0, timeout: 0, script_path: /x.sh, script_type: shell}",
        "global: {default_scrape_interval: 0, log_max_age: 0}",
    )
    assert config.collectors[0].interval_seconds == 60
    assert config.collectors[0].timeout_seconds == 30


def test_what_is_added_to_the_go_programs_settings(tmp_path: Path) -> None:
    collector = load_one(
        tmp_path,
        "{enabled: true, interval: 500ms, timeout: 1m30s, "
        "script_path: /x, script_type: executable, "
        "args: [-v, 1], env: {A: 1}, user: nobody, labels: {cluster: c}, max_age: 1h}",
    ).collectors[0]
    assert collector.command == ("/x", "-v", "1")
    assert (collector.interval_seconds, collector.timeout_seconds) == (0.5, 90)
    assert collector.settings.env == {"A": "1"}
    assert collector.max_age_seconds == 3600


def test_every_fault_is_named(tmp_path: Path) -> None:
    text = """
global: {http_port: 99999}
clusters:
  c:
    enabled: true
    collectors:
      a: {enabled: true, interval: -1, script_path: /x, script_type: shell}
      b: {enabled: true, script_path: /x, script_type: ruby}
      d: {enabled: true, timeout: soon, script_path: /x, script_type: shell}
      e: {enabled: true, script_path: /x, script_type: shell, labels: {"0": x}}
"""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    for place in (
        "global.http_port",
        "c.collectors.a.interval",
        "b.script_type",
        "d.timeout",
        "e.l",
    ):
        assert place in message
    assert "5 faults" in message


@pytest.mark.parametrize(
    ("collector", "fault"),
    [
        ("{enabled: true, script_type: shell}", "n.script_path: expected a path"),
        ("{enabled: true, script_path: /x}", "n.script_type: expected python"),
        ("{enabled: maybe}", "n.enabled"),
        ("7", "n: Input should be"),
        (
            "{enabled: true, interval: true, script_path: /x, script_type: shell}",
            "expected seconds",
        ),
    ],
)
def test_faults_of_a_collector(tmp_path: Path, collector: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_one(tmp_path, collector)
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "clusters: Field required"),
        ("clusters: {}", "at least 1 item"),
        ("clusters: {c: {enabled: true}}", "expected at least one"),
        ("- a\n- b", "no YAML mapping"),
        ("clusters: [", "no YAML"),
        ("a: !!python/object/apply:os.system ['true']", "no YAML"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert fault in str(caught.value)


def test_oddities_are_warnings(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        f"""
global: {{log_level: loud, log_colour: red}}
extra: 1
clusters:
  c:
    enabled: true
    colour: red
    collectors:
      n: {{enabled: true, interval: 5, timeout: 9, script_path: /x, script_type: shell, retry: 1}}
      m: {ONE}
      m: {ONE}
""",
    )
    told = "\n".join(config.warnings)
    for words in (
        "global.log_colour: unknown",
        "extra: unknown",
        "clusters.c.colour: unknown",
        "n.retry: unknown",
        "m at line 11: given twice",
        "'loud' is unknown: info",
        "longer than its interval",
    ):
        assert words in told
    assert len(config.collectors) == 2


def test_check_names_what_this_machine_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "x.sh"
    script.write_text("true\n")
    script.chmod(0o666)
    good = f"      a: {{enabled: true, script_path: {script}, script_type: shell}}\n"
    bad = (
        "      b: {enabled: true, script_path: /no/such.sh, script_type: shell}\n"
        f"      c: {{enabled: true, script_path: {script}, script_type: executable}}\n"
        f"      d: {{enabled: true, script_path: {script}, script_type: shell, user: nosuchuser}}\n"
    )
    head = "clusters:\n  k:\n    enabled: true\n    collectors:\n"
    path = tmp_path / "config.yml"
    path.write_text(head + good)
    assert main(["--check", "config", "-config.file", str(path)]) == 0
    out = capsys.readouterr().out
    assert "can be written by others" in out
    assert out.endswith("1 collectors\n")

    path.write_text(f"web: {{token_file: /no/such}}\n{head}{good}{bad}")
    assert main(["-check=config", f"-config.file={path}"]) == 2
    error = capsys.readouterr().err
    for words in ("/no/such", "k:b: no script", "is not executable", "no user nosuchuser"):
        assert words in error


def test_a_missing_file_says_where_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config.file", "/no/such.yml"]) == 2
    assert "start from deploy/script_exporter/config.yml" in capsys.readouterr().err


def test_the_sample_is_well(repository_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository_root)
    assert main(["--check", "config", "-config.file", "deploy/script_exporter/config.yml"]) == 0
    config = load_config(Path("deploy/script_exporter/config.yml"))
    assert config.warnings == ()
    assert {collector.name for collector in config.collectors} == {
        "infiniband",
        "nic",
        "gpu_events",
        "stuck_processes",
    }
