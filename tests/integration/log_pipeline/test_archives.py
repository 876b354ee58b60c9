"""Archives to parquet: every format, resumed after a kill, nothing lost or told twice."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import zstandard

from clients import LogAnomalyClient
from contract.errors import InputError
from embedded_triton import EmbeddedServer
from services.log_pipeline.archive import is_done, partition_of, score_archive
from services.log_pipeline.batch import find_archives
from services.log_pipeline.classifier import LineClassifier
from tests.fixtures.endpoints import wait_until
from tests.fixtures.toy_model import LINES

pyarrow = pytest.importorskip("pyarrow", reason="pip install -r requirements/distributed.txt")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def classifier(triton: EmbeddedServer) -> LineClassifier:
    return LineClassifier(LogAnomalyClient(f"grpc://{triton.grpc_url}"))


def write_archives(folder: Path, repeats: int) -> list[Path]:
    """One log in every format."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in LINES * repeats).encode()
    rows = [{"message": line} for line in LINES * repeats]
    objects = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "a.log").write_bytes(text)
    (folder / "b.log.gz").write_bytes(gzip.compress(text))
    (folder / "c.log.zst").write_bytes(zstandard.compress(text))
    (folder / "d.jsonl").write_bytes(objects)
    (folder / "e.jsonl.gz").write_bytes(gzip.compress(objects))
    table = pyarrow.table({"n": range(len(rows)), "message": [row["message"] for row in rows]})
    parquet.write_table(table, folder / "f.parquet")
    return sorted(folder.iterdir())


def rows_of(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of each partition by the name of its source."""
    found = {}
    for path in output.glob("*.parquet"):
        table = parquet.read_table(path)
        name = Path(table.schema.metadata[b"presage_path"].decode()).name
        assert name not in found, "two partitions of one archive"
        found[name] = table.to_pylist()
    return found


def expected_rows(triton: EmbeddedServer, repeats: int) -> list[tuple[int, str, str | None]]:
    with LogAnomalyClient(f"grpc://{triton.grpc_url}") as client:
        labels = [client.classify([line])[0].label for line in LINES]
    return [
        (number + 1, label, line if label == "anomaly" else None)
        for number, (line, label) in enumerate(zip(LINES * repeats, labels * repeats, strict=True))
    ]


def test_every_format_gives_the_same_rows(
    triton: EmbeddedServer, classifier: LineClassifier, tmp_path: Path
) -> None:
    expected = expected_rows(triton, 50)
    for path in write_archives(tmp_path / "in", 50):
        scored = score_archive(path, tmp_path / "out", classifier)
        assert scored.lines == len(expected)
        assert is_done(path, tmp_path / "out")
    for name, rows in rows_of(tmp_path / "out").items():
        assert [(r["line"], r["label"], r["text"]) for r in rows] == expected, name
        assert all(row["template"] and row["score"] is not None for row in rows)


def test_a_source_that_changed_is_done_again(classifier: LineClassifier, tmp_path: Path) -> None:
    source = tmp_path / "a.log"
    source.write_text("one\n\n")
    score_archive(source, tmp_path / "out", classifier)
    assert (
        parquet.read_table(partition_of(source, tmp_path / "out")).to_pylist()[1]["label"] is None
    )
    source.write_text("one\ntwo\nthree\n")
    assert not is_done(source, tmp_path / "out")


@pytest.mark.parametrize("name", ["cut.log.gz", "cut.log.zst", "cut.parquet", "other.parquet"])
def test_a_damaged_archive_is_named_and_leaves_nothing(
    classifier: LineClassifier, tmp_path: Path, name: str
) -> None:
    source = tmp_path / name
    text = os.urandom(50_000)
    if name.endswith(".gz"):
        source.write_bytes(gzip.compress(text)[:-20])
    elif name.endswith(".zst"):
        source.write_bytes(zstandard.compress(text)[5:])
    elif name.startswith("cut"):
        source.write_bytes(b"PAR1" + text)
    else:
        parquet.write_table(pyarrow.table({"n": [1]}), source)
    with pytest.raises(InputError, match="archive"):
        score_archive(source, tmp_path / "out", classifier)
    assert not list((tmp_path / "out").glob("*"))


def test_no_archives_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no archives"):
        find_archives([str(tmp_path / "*.log")])


def batch(root: Path, triton: EmbeddedServer, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "services", "log_pipeline", "batch", str(folder / "in" / "*")),
        *("--output", str(folder / "out"), "--url", f"grpc://{triton.grpc_url}"),
        *("--workers", "1"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_data_goes_on_after_a_killed_worker_and_a_killed_run(
    triton: EmbeddedServer, tmp_path: Path, repository_root: Path
) -> None:
    pytest.importorskip("ray", reason="pip install -r requirements/distributed.txt")
    repeats = 200
    expected = expected_rows(triton, repeats)
    for copy in range(6):
        write_archives(tmp_path / "in" / "more", repeats)
        for path in list((tmp_path / "in" / "more").iterdir()):
            path.rename(tmp_path / "in" / f"{copy}{path.name}")
    (tmp_path / "in" / "more").rmdir()
    command = batch(repository_root, triton, tmp_path)

    def partitions() -> int:
        return len(list((tmp_path / "out").glob("*.parquet")))

    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(command, cwd=repository_root, stdout=log, stderr=log)
        wait_until(lambda: partitions() >= 3, seconds=180, what=(tmp_path / "log").read_text())
        killed = workers_of(first.pid)
        assert killed
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: partitions() >= 10, seconds=180, what=(tmp_path / "log").read_text())
        kill_with_children(first)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    result = subprocess.run(command, cwd=repository_root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"36 archives, {len(done)} done before" in result.stderr
    for path, written in done.items():
        assert path.stat().st_mtime_ns == written
    found = rows_of(tmp_path / "out")
    assert len(found) == 36
    for name, rows in found.items():
        assert [(r["line"], r["label"], r["text"]) for r in rows] == expected, name


def kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """As a machine that fails: Ray's own processes are in sessions of theirs, and would linger."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def workers_of(pid: int) -> list[int]:
    """Ray's actor processes of this run."""
    workers = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if "_Worker" in " ".join(process.cmdline()) or "MapWorker" in process.name():
                workers.append(process.pid)
        except psutil.Error:
            continue
    return workers
