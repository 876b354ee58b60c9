"""Each guard of a rule is broken once: a named promtool test must see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.alert_rules.promtool import SUITES

QUOTA, DISK, LOOP = "quota_group_use_ratio", "node_filesystem_avail_ratio", "ai_forecast_loop"
SCRIPTS = "script_exporter"
SERVING, SERVICES = "serving", "services"
MODEL = 'ai_forecast:quota_group_use_ratio:fresh{horizon="12h"}'
LINE = 'ai_forecast:quota_group_use_ratio:line{horizon="12h"}'

# What is broken → (suite, the test that must fail, what stands in the rules, what stands instead).
MUTATIONS = {
    "stale forecasts are believed": (QUOTA, "b2:", "< 900", "< 9e9"),
    "the future is fresh": (QUOTA, "b3:", "abs(time() - ai_", "(time() - ai_"),
    "any exporter's clock vouches": (QUOTA, "b4:", ", horizon, job, instance)", ", horizon)"),
    "any horizon's clock vouches": (
        *(QUOTA, "two horizons, the 12 h one stale"),
        *(", horizon, job, instance)", ", job, instance)"),
    ),
    "joined on the group alone": (QUOTA, "c:", "and on (clu_name, group)", "and on (group)"),
    "the model's sign": (QUOTA, "b:", f"{MODEL} > 0.98", f"{MODEL} < 0.98"),
    "the line's sign": (QUOTA, "c:", f"{LINE} > 0.98", f"{LINE} < 0.98"),
    "a threshold in percent": (QUOTA, "b:", "> 0.98", "> 98"),
    "no threshold for the line": (QUOTA, "c:", f"{LINE} > 0.98", LINE),
    "no threshold for the model": (QUOTA, "a:", f"{MODEL} > 0.98", MODEL),
    "the other horizon": (QUOTA, "two horizons:", MODEL, MODEL.replace("12h", "1h")),
    "the line of one hour ahead": (QUOTA, "b:", ", 43200)", ", 3600)"),
    "a line through a handful of points": (QUOTA, "f:", ">= 30", ">= 2"),
    "a dead instance's line": (QUOTA, "an exporter", "and quota_group_use_ratio\n", ""),
    "NaN counts as a forecast": (QUOTA, "NaN", "quota_group_use_ratio > -Inf", QUOTA),
    "not kept firing": (QUOTA, "b:", "keep_firing_for: 15m", "keep_firing_for: 0s"),
    "kept firing too long": (QUOTA, "b:", "keep_firing_for: 15m", "keep_firing_for: 1h"),
    "fires at the first sight": (QUOTA, "b:", "for: 10m", "for: 0s"),
    "a restart is staleness": (QUOTA, "a loop restarted", "for: 5m", "for: 0s"),
    "model only, though confirmed": (
        QUOTA,
        "b:",
        f"unless on (clu_name, group)\n{'':6}{LINE}",
        "#",
    ),
    "model only, without a line": (QUOTA, "f:", f"and on (clu_name, group)\n{'':6}{LINE}\n", "\n"),
    "another severity": (QUOTA, "b:", "severity: warning", "severity: info"),
    "residual of the present": (QUOTA, "g2:", " offset 1h", ""),
    "three sigmas": (QUOTA, "g:", "4 * max", "3 * max"),
    "six sigmas": (QUOTA, "g:", "4 * max", "6 * max"),
    "a scale of nothing": (QUOTA, "g2:", " > 0)", ")"),
    "a scale that nobody keeps": (
        *(QUOTA, "g2:"),
        f"and on (clu_name, group)\n{'':6}{MODEL.replace('12h', '1h')}\n",
        "\n",
    ),
    "residual of one sign": (DISK, "the expression's", "abs(\n", "(\n"),
    "young series are stale": (QUOTA, "f2:", " offset 150m", ""),
    "one alert a stale series": (QUOTA, "f2:", "count(\n", "(\n"),
    "percents are ratios": (QUOTA, "e:", "> 1.5", "> 150"),
    "one value in two is enough": (QUOTA, "e:", "max(quota_group", "min(quota_group"),
    "above for below": (DISK, "plenty", "< 0.05", "> 0.05"),
    "yesterday is two days ago": (DISK, "yesterday", "offset 12h", "offset 11h"),
    "yesterday alone": (DISK, "the line confirms", 'line{horizon="12h"} < 0.05\n', "line > 9\n"),
    "every file system": (DISK, "the line confirms", '{fstype!~"tmpfs|overlay"}', ""),
    "a metric that never succeeded": (LOOP, "one metric", "or absent", "and absent"),
    "an alert a metric": (
        LOOP,
        "no loop",
        "and on () count(ai_forecast_loop_interval_seconds)",
        "",
    ),
    "success of long ago": (LOOP, "one metric", "> 900", "> 90000"),
    "a counter as it is": (LOOP, "a healthy", "_errors_total[20m]", "_errors_total"),
    "any stage of a cycle": (LOOP, "a healthy", '{stage="all"}', ""),
    "a long cycle is well": (LOOP, "failing", "> 300", "> 3000"),
    "failed and read": (LOOP, "a healthy", "> 0.1", "> 0.01"),
    "a slow Triton": (LOOP, "failing", "> 2\n", "> 20\n"),
    "any expert is a fallback": (LOOP, "a healthy", '{source="last"}', ""),
    "no heartbeat": (LOOP, "a healthy", "vector(1)", "vector(1) > 1"),
    "a loop that is down": (
        LOOP,
        "no loop",
        "absent(ai_forecast_loop_int",
        "max(ai_forecast_loop_int",
    ),
    "a flap for ever": (SCRIPTS, "a flap of", "link_downed_total[10m]", "link_downed_total[1d]"),
    "the cause of another node": (
        *(SCRIPTS, "a flap without"),
        'instance=%q,device=%q})" $labels.instance $labels.device',
        'device=%q})" $labels.device',
    ),
    "any cause": (SCRIPTS, "a flap of", "topk(1, ", "bottomk(1, "),
    "a flap told twice": (SCRIPTS, "a flap of", "unless on (instance, device)", "or"),
    "a namesake hides a flap": (SCRIPTS, "a flap without", "on (instance, device)", "on (device)"),
    "an empty port is down": (SCRIPTS, "a port", "[1h]) >= 4", "[1h]) >= 1"),
    "an Xid of long ago": (SCRIPTS, "an Xid", "< 900", "< 9000"),
    "the job's own Xid": (SCRIPTS, "an Xid", ',origin!="application"', ""),
    "hanging for a moment": (SCRIPTS, "memory", "for: 5m", "for: 0s"),
    "one failure": (SCRIPTS, "the exporter", "for: 10m", "for: 0s"),
    "a server that is down for a moment": (SERVING, "a:", "for: 2m", "for: 10m"),
    "one of two is all": (
        SERVING,
        "a:",
        'sum(up{job="triton"}) == 0',
        'min(up{job="triton"}) == 0',
    ),
    "no target is well": (SERVING, "c:", ' or absent(up{job="triton"})', ""),
    "anybody's absence": (SERVING, "c:", 'absent(up{job="triton"})', "absent(up)"),
    "models of an hour ago": (SERVING, "d:", "} offset 30m)", "} offset 5m)"),
    "a version on trial is missed": (SERVING, "d:", '{model!~".*__candidate"}', ""),
    "a dead server's models": (SERVING, "d:", 'up{job="triton"} == 1', "up >= 0"),
    "a long queue of a moment": (SERVING, "e:", "min_over_time(nv", "max_over_time(nv"),
    "a queue of a few": (SERVING, "e:", "[5m]) > 32", "[5m]) > 2"),
    "callers that give up are refused": (SERVING, "f:", '{reason="REJECTED"}', ""),
    "refused once, told for ever": (SERVING, "f:", "[5m])) > 0", "[1h])) > 0"),
    "callers that give up are errors": (SERVING, "g:", 'reason=~"BACKEND|OTHER"', 'reason!=""'),
    "a tenth may fail": (SERVING, "g:", "> 0.01\n", "> 0.1\n"),
    "versions that nobody compares": (SERVING, "h:", "< on (model)", "> on (model)"),
    "a promotion is a difference": (SERVING, "h:", "for: 30m", "for: 1m"),
    "not ready for a moment": (SERVING, "m:", "for: 2m", "for: 0s"),
    "one canary": (SERVING, "m:", "canary_failures_total[5m]", "canary_failures_total[1h]"),
    "two restarts": (SERVING, "n:", ">= 3", ">= 2"),
    "the first restart is missed": (
        *(SERVING, "n:"),
        "presage_supervisor_restarts_total offset 30m",
        "presage_supervisor_restarts_total",
    ),
    "given up, though it answers": (
        SERVING,
        "n:",
        "and on (instance) presage_supervisor_ready == 0",
        "",
    ),
    "any answer is a quick one": (SERVING, "i:", 'le="2.5"', 'le=~".*"'),
    "the job service is an API": (SERVING, "i:", 'job="gateway"', 'job=~".+"'),
    "the hour alone": (
        *(SERVING, "i:"),
        *(" and presage:api_slow:ratio_rate5m > 14.4 * 0.01", ""),
    ),
    "five minutes alone": (SERVING, "i:", "presage:api_slow:ratio_rate1h > 14.4 * 0.01 and ", ""),
    "one slow answer in a hundred": (SERVING, "i:", "6 * 0.01", "0.5 * 0.01"),
    "callers' errors are ours": (SERVING, "j:", 'status=~"5.."', 'status=~"[45].."'),
    "errors of hours ago": (
        *(SERVING, "j:"),
        *(" and presage:api_errors:ratio_rate30m > 6 * 0.001", ""),
    ),
    "half full is saturated": (SERVING, "k:", "> 0.8", "> 0.05"),
    "senseless questions are outages": (SERVING, "l:", "|server", "|server|input"),
    "a full spool only": (SERVICES, "b:", "backlog_limit_bytes > 0.5", "backlog_limit_bytes > 0.9"),
    "any spool": (SERVICES, "b:", "backlog_limit_bytes > 0.5", "backlog_limit_bytes > 0.3"),
    "silence is lag": (SERVICES, "c:", "and presage_log_backlog_bytes > 0\n", "\n"),
    "the first failure is missed": (
        *(SERVICES, "d:"),
        "(presage_log_outlet_errors_total unless presage_log_outlet_errors_total offset 10m)\n",
        "(presage_log_outlet_errors_total unless presage_log_outlet_errors_total)\n",
    ),
    "one failure is told": (SERVICES, "d:", "for: 10m", "for: 1m"),
    "five minutes are too long": (
        SERVICES,
        "e:",
        "accepted_seconds > 600",
        "accepted_seconds > 6000",
    ),
    "no room left only": (
        SERVICES,
        "e:",
        "accepted_limit_bytes > 0.5",
        "accepted_limit_bytes > 0.9",
    ),
    "any queue is the database's": (SERVICES, "f:", '{queue="results"}', ""),
    "one waiting result": (SERVICES, "f:", "min_over_time(", "max_over_time("),
    "set aside long ago": (
        SERVICES,
        "g:",
        "increase(presage_jobs_set_aside_total[30m])",
        "(presage_jobs_set_aside_total)",
    ),
    "a late notice is early": (SERVICES, "h:", "oldest_seconds > 900", "oldest_seconds > 9000"),
    "given up for ever": (SERVICES, "h:", "unless presage_notify_given_up_total offset 1h", ""),
    "given up and missed": (
        *(SERVICES, "h:"),
        "(presage_notify_given_up_total unless presage_notify_given_up_total offset 1h)\n",
        "(presage_notify_given_up_total unless presage_notify_given_up_total)\n",
    ),
    "a month is too late": (SERVICES, "j:", "< 14 * 86400", "< 12 * 86400"),
    "a moment without it": (SERVICES, "j:", "for: 2h", "for: 1m"),
    "output of a day ago": (SERVICES, "i:", "> 3600", "> 86400"),
    "our own label names": ("per_series", "labels", '"horizon", "(.*)"', '"nothing", "(.*)"'),
    "job is the exporter's": (
        *("per_series", "labels"),
        *("by (exported_horizon, exported_metric, job", "by (exported_horizon, exported_metric"),
    ),
    "yesterday is no witness": ("per_series", "labels", " offset 12h", ""),
    "one idle minute": ("per_series", "ratios", "max_over_time(cpu_percent[6h])", "cpu_percent"),
    "other metrics' clocks": ("per_query", "another", '{metric="cpu_percent"}', ""),
    "a clock a series": ("per_query", "one timestamp", "on (horizon, ", "on (instance, horizon, "),
}


@pytest.mark.parametrize("broken", MUTATIONS)
def test_a_broken_rule_is_seen(broken: str, tmp_path: Path):
    name, test, old, new = MUTATIONS[broken]
    suite = SUITES[name]
    rules = suite.rules()
    own = {Path(file).name for file in suite.cases()["rule_files"]}
    mutated = {
        file: _mutated(text, old, new, broken) if file in own else text
        for file, text in rules.items()
    }
    assert mutated != rules, f"not in the rules: {old}"
    result = suite.run(tmp_path, rules=mutated, only=test)
    output = result.stdout + result.stderr
    assert result.returncode != 0, f"nobody sees: {broken}"
    # By a wrong answer, not because the broken rule cannot be read.
    assert "exp:" in output, output
    assert "parse error" not in output, output


def _mutated(text: str, old: str, new: str, broken: str) -> str:
    if broken == "a counter as it is":
        return text.replace(
            f"(increase(ai_forecast_loop_query{old}))", f"(ai_forecast_loop_query{new})"
        )
    return text.replace(old, new)
