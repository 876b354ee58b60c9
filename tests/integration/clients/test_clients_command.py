"""``python -m clients`` against a real tritonserver of stand-ins: tables, JSON, bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.clients.conftest import run_clients

LOG = "step 1\n显存不足 OOM\nENOSPC\n"


def _csv(path: Path, last: float) -> str:
    rows = "".join(f"{1_700_000_000 + 300 * i},{last - 9 + i}\n" for i in range(10))
    path.write_text("timestamp,value\n" + rows)
    return str(path)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_health_lists_what_is_served(
    urls: dict[str, str], repository_root: Path, scheme: str
) -> None:
    table = run_clients(repository_root, urls[scheme], "health")
    assert table.returncode == 0, table.stderr
    lines = table.stdout.decode().splitlines()
    assert lines[0].split() == ["model", "version", "state", "reason"]
    assert [line.split()[:3] for line in lines[2:]] == [
        [name, "1", "READY"]
        for name in ("log_anomaly", "metric_forecast_12h", "metric_forecast_next")
    ] + [["train_failure_rca", "1", "READY"]]
    records = run_clients(repository_root, urls[scheme], "health", "--json").stdout.splitlines()
    assert [json.loads(record)["state"] for record in records] == ["READY"] * 4


def test_forecast_loses_no_good_file(
    urls: dict[str, str], repository_root: Path, tmp_path: Path
) -> None:
    good, other = _csv(tmp_path / "good.csv", 50), _csv(tmp_path / "other.csv", 70)
    hourly = tmp_path / "hourly.csv"
    hourly.write_text("ds,y\n2024-01-01 00:00,1\n2024-01-01 01:00,2\n2024-01-01 02:00,3\n")
    bad = {
        "letters.csv": b"timestamp,value\n1,a\n2,b\n",
        "empty.csv": b"",
        "short.csv": b"value\n1\n",
        "infinite.csv": b"value\n1\ninf\n2\n3\n",
        "too_wide.csv": b"value\n" + b"9" * 200_000 + b"\n1\n2\n",
        "binary.csv": bytes(range(256)),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    missing = str(tmp_path / "missing.csv")
    words = ["forecast", good, *(str(tmp_path / name) for name in bad), missing, other]
    result = run_clients(repository_root, urls["grpc"], *words, str(hourly), "--json")
    assert result.returncode == 2
    records = {Path(r["series"]).name: r for r in map(json.loads, result.stdout.splitlines())}
    assert set(records) == {"good.csv", "other.csv", "hourly.csv"}
    assert records["good.csv"]["quantiles"]["0.5"] == [50.0] * 144
    assert records["other.csv"]["quantiles"]["0.9"] == [pytest.approx(77, rel=1e-5)] * 144
    assert records["hourly.csv"]["step_seconds"] == 3600
    assert records["good.csv"]["source"] == "seasonal"
    said = result.stderr.decode()
    assert "Traceback" not in said
    for name in [*bad, "missing.csv"]:
        assert name in said
    assert f"{tmp_path}/letters.csv:2" in said


def test_forecast_prints_a_table(urls: dict[str, str], repository_root: Path) -> None:
    result = run_clients(
        repository_root,
        urls["http"],
        *("forecast", "-", "--preset", "next"),
        stdin=b"timestamp,value\n1700000000,1\n1700000300,2\n1700000600,4\n",
    )
    assert result.returncode == 0, result.stderr
    header, _, row = result.stdout.decode().splitlines()
    assert header.split() == ["series", "last", "in", "q0.1", "q0.5", "q0.9", "source"]
    assert row.split() == ["-", "4", "5", "min", "3.6", "4", "4.4", "seasonal"]


def test_logs_names_the_abnormal_lines(
    urls: dict[str, str], repository_root: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    first.write_bytes(b"line 1\n\n\xe3\x80\x80\nline 9000 \xff\xfe\nnul \0 8000\n")
    second.write_text("x" * 1_000_000 + " 7000\n显存 😀 2\n", encoding="utf-8")
    files = [str(first), str(tmp_path / "missing.log"), str(second)]
    table = run_clients(repository_root, urls["grpc"], "logs", *files)
    assert table.returncode == 2
    # The line of U+3000 alone is blank, no failure.
    [reason] = table.stderr.decode().splitlines()
    assert "missing.log" in reason
    lines = table.stdout.decode().splitlines()
    assert lines[0].split() == ["line", "verdict", "score", "text"]
    assert [line.split()[:3] for line in lines[2:-1]] == [
        [f"{first}:4", "anomaly", "0.090"],
        [f"{first}:5", "anomaly", "0.080"],
        [f"{second}:1", "anomaly", "0.070"],
    ]
    assert max(map(len, lines)) < 200
    assert lines[-1] == "3 abnormal, 2 normal"
    records = run_clients(repository_root, urls["http"], "logs", *files, "--json").stdout
    by_line = [json.loads(line) for line in records.splitlines()]
    assert [(Path(r["file"]).name, r["line"], r["label"]) for r in by_line] == [
        ("a.log", 1, "normal"),
        ("a.log", 4, "anomaly"),
        ("a.log", 5, "anomaly"),
        ("b.log", 1, "anomaly"),
        ("b.log", 2, "normal"),
    ]
    assert by_line[4]["text"] == "显存 😀 2"
    everything = run_clients(
        repository_root, urls["grpc"], "logs", "--all", stdin="磁盘 1\n盘 9000\n".encode()
    )
    assert everything.returncode == 0, everything.stderr
    assert "磁盘 1" in everything.stdout.decode()


def test_diagnose_loses_no_good_file(
    urls: dict[str, str], repository_root: Path, tmp_path: Path
) -> None:
    contents = {
        "good.log": LOG.encode(),
        "refused.log": b"refuse me",
        "blank.log": b" \n\0\n",
        "after.log": b"exit code 1",
        "fine.log": b"all is well",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in [*contents, "missing.log"]]
    result = run_clients(repository_root, urls["grpc"], "diagnose", *files, "--language", "zh")
    assert result.returncode == 2
    said = result.stdout.decode().replace(f"{tmp_path}/", "")
    assert said.splitlines() == [
        "good.log: 根因 OOM (0.90)",
        "  2: 显存不足 OOM",
        "  → 减小批量",
        "good.log: 次生 Disk_Full (0.90)",
        "  3: ENOSPC",
        "  → 减小批量",
        "after.log: 失败, 原因未知",
        "fine.log: 未见失败迹象",
    ]
    for name in ("refused.log", "blank.log", "missing.log"):
        assert name in result.stderr.decode()
    records = run_clients(repository_root, urls["http"], "diagnose", *files, "--json")
    assert records.returncode == 2
    diagnoses = [json.loads(line) for line in records.stdout.splitlines()]
    assert [(Path(d["file"]).name, d["root"]) for d in diagnoses] == [
        ("good.log", "OOM"),
        ("after.log", None),
        ("fine.log", None),
    ]
    above = run_clients(
        repository_root, urls["grpc"], "diagnose", "--threshold", "0.95", stdin=LOG.encode()
    )
    assert above.stdout.decode() == "-: no evidence of failure\n"


def test_errors_have_their_exit_codes(urls: dict[str, str], repository_root: Path) -> None:
    def code(url: str, *words: str) -> int:
        result = run_clients(repository_root, url, *words, stdin=b"1\n2\n3\n")
        assert result.stderr.startswith(b"error: ")
        assert result.stderr.count(b"\n") == 1
        return result.returncode

    assert code(urls["grpc"], "forecast", "--preset", "9h") == 3
    assert code(urls["http"], "forecast", "--preset", "9h") == 3
    assert code("grpc://127.0.0.1:1", "health") == 12
    assert code("http://127.0.0.1:1", "health") == 12
    assert code("nonsense://x", "health") == 2
    assert code(urls["grpc"], "diagnose", "--threshold", "7") == 2
