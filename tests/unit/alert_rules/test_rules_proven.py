"""promtool and amtool judge what is generated and committed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.unit.alert_rules.promtool import DEPLOY, SUITES, Suite, debian_program


@pytest.mark.parametrize("name", SUITES)
def test_the_rules_do_what_their_tests_say(name, tmp_path):
    result = SUITES[name].run(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_committed_tests_run_beside_the_committed_rules():
    # Cheap: one file is enough to see that the relative paths in it lead somewhere.
    result = debian_program("promtool", "test", "rules", DEPLOY / "tests/ai_forecast_loop.yml")
    assert result.returncode == 0, result.stdout + result.stderr


def alerts_of(suite: Suite) -> set[tuple[str, str]]:
    """(alert, metric or "") that the suite's own rule files define."""
    files = {Path(file).name for file in suite.cases()["rule_files"]}
    return {
        (rule["alert"], rule["labels"].get("metric", ""))
        for name, text in suite.rules().items()
        if name in files
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def asked(suite: Suite) -> list[dict]:
    return [ask for test in suite.cases()["tests"] for ask in test.get("alert_rule_test", [])]


@pytest.mark.parametrize("name", SUITES)
def test_no_test_asks_for_an_alert_that_does_not_exist(name):
    # promtool itself is content with `alertname: ForecastDaulConfirmed, exp_alerts: []`.
    names = {alert for alert, _ in alerts_of(SUITES[name])}
    assert {ask["alertname"] for ask in asked(SUITES[name])} <= names


# The variants test only what differs from the sample.
@pytest.mark.parametrize("name", [name for name in SUITES if SUITES[name].is_sample])
def test_every_sample_alert_is_seen_firing_and_silent(name):
    suite = SUITES[name]
    firing = {
        (ask["alertname"], alert["exp_labels"].get("metric", ""))
        for ask in asked(suite)
        for alert in ask["exp_alerts"]
    }
    for alert, metric in alerts_of(suite):
        assert any(seen == alert and (not metric or of == metric) for seen, of in firing), (
            f"{alert} {metric} never fires in {suite.tests}"
        )
    silent = {ask["alertname"] for ask in asked(suite) if not ask["exp_alerts"]}
    assert {alert for alert, _ in alerts_of(suite)} - silent <= {"ForecastHeartbeat"}


@pytest.mark.parametrize(
    "name",
    ["forecast_loop", "per_series", "per_query", "script_exporter", "serving", "services"],
)
def test_promtool_checks_every_rule(name, tmp_path):
    suite = next(suite for suite in SUITES.values() if suite.rules_name == name)
    files = []
    for file, text in suite.rules().items():
        files.append(tmp_path / file)
        files[-1].write_text(text, encoding="utf-8")
    result = debian_program("promtool", "check", "rules", "--lint=all", "--lint-fatal", *files)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_sample_configurations_are_valid():
    for program, *words in (
        ("promtool", "check", "config", DEPLOY / "prometheus.yml"),
        ("amtool", "check-config", DEPLOY / "alertmanager.yml"),
    ):
        result = debian_program(program, *words)
        assert result.returncode == 0, result.stdout + result.stderr


def test_each_place_has_its_own_targets_of_the_same_jobs(tmp_path):
    """This machine's, and docker compose's, which are mounted over them."""
    jobs = {}
    for folder in ("targets", "targets.compose"):
        there = tmp_path / folder
        shutil.copytree(DEPLOY, there)
        shutil.rmtree(there / "targets")
        shutil.copytree(DEPLOY / folder, there / "targets", ignore=shutil.ignore_patterns("nodes*"))
        result = debian_program("promtool", "check", "config", there / "prometheus.yml")
        assert result.returncode == 0, result.stdout + result.stderr
        # A file that a job asks for and nobody wrote is only a warning; nodes' is the CMDB's.
        missing = [line for line in result.stdout.splitlines() if "does not exist" in line]
        assert len(missing) == 1, missing
        assert "nodes*.json" in missing[0]
        jobs[folder] = {
            group["labels"]["job"]
            for name in ("presage.yml", "ai_forecast.yml")
            for group in yaml.safe_load((DEPLOY / folder / name).read_text("utf-8"))
        }
    # The CMDB's discovery is a site's own; Grafana runs only in compose.
    assert jobs["targets"] - jobs["targets.compose"] == {"cmdb_discovery"}
    assert jobs["targets.compose"] - jobs["targets"] == {"grafana"}


def test_no_inhibition_names_an_alert_that_does_not_exist():
    content = yaml.safe_load((DEPLOY / "alertmanager.yml").read_text("utf-8"))
    named = {
        alert
        for rule in content["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
        if matcher.startswith("alertname")
        for alert in re.findall(r'"(.+)"', matcher)[0].split("|")
    }
    defined = {
        rule["alert"]
        for file in (DEPLOY / "rules").glob("*.yml")
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert len(named) > 20
    assert named <= defined, named - defined


def test_every_job_that_a_rule_asks_for_is_scraped():
    asked = {
        job
        for file in (DEPLOY / "rules").glob("*.yml")
        for job in re.findall(r'job="(\w+)"', file.read_text("utf-8"))
    }
    groups = [
        group
        for file in (DEPLOY / "targets").glob("*.yml")
        for group in yaml.safe_load(file.read_text("utf-8"))
    ]
    assert {"triton", "gateway", "log_pipeline", "job_diagnosis"} <= asked
    assert asked <= {group.get("labels", {}).get("job") for group in groups}


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=ForecastDualConfirmed", "severity=warning"), "oncall"),
        (("alertname=ForecastModelOnly", "severity=info"), "daily"),
        (("alertname=ForecastHeartbeat", "severity=none"), "heartbeat"),
        (("alertname=TritonNoneAnswers", "severity=critical"), "page"),
        (("alertname=GpuXidFatal", "severity=critical"), "page"),
        (("alertname=LogSpoolFilling", "severity=warning"), "oncall"),
    ],
)
def test_alerts_are_routed_by_their_weight(labels, receiver):
    file = DEPLOY / "alertmanager.yml"
    result = debian_program("amtool", "config", "routes", "test", f"--config.file={file}", *labels)
    assert result.stdout.strip() == receiver, result.stdout + result.stderr
