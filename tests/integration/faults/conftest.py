"""Promises kept under faults, and the table that ends the run.

A test names its promise with ``@pytest.mark.promise(fault="…", promise="…")`` and says what it saw
with the fixture: ``promise.measured("back after 2.1 s")``. Time limits come from
``promise.limit_seconds(5)``: the issue's own figure in `make faults`, a multiple of it in
`make test`, which runs on busy machines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from clients import LogAnomalyClient
from embedded_triton import EmbeddedServer, ServerSettings
from export.candidate import Candidate
from export.gate import export_files
from export.version_folder import stage
from tests.integration.faults.launched_server import DOUBLE, Launched, launched
from tests.integration.faults.retrying_load import LINES
from tests.integration.server.conftest import write_multiply
from training.registry import get_spec

STRICT_VARIABLE = "PRESAGE_FAULTS_STRICT"
TABLE_VARIABLE = "PRESAGE_FAULTS_TABLE"
GENEROUS_FACTOR = 6.0
_FAULT, _PROMISE, _MEASURED = "promise.fault", "promise.promise", "promise.measured"
_KEPT, _BROKEN, _SKIPPED = "kept", "BROKEN", "skipped"
_PASSED = pytest.StashKey[bool]()


def strict() -> bool:
    return os.environ.get(STRICT_VARIABLE) == "1"


@dataclass
class Promise:
    """What a test of a promise saw, in words for the table."""

    node: pytest.Item
    seen: list[str] = field(default_factory=list)

    def measured(self, text: str) -> None:
        """Add to the table's last column; a test may call it several times."""
        self.seen.append(text)
        self.node.user_properties.append((_MEASURED, text))

    @staticmethod
    def limit_seconds(promised: float) -> float:
        return promised if strict() else promised * GENEROUS_FACTOR


@dataclass
class _Row:
    name: str
    fault: str
    promise: str
    measured: str = ""
    verdict: str = _KEPT


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "promise(fault, promise): a row of the table of promises kept under faults"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # As properties of the test: they reach the reports of skipped tests and of xdist's workers too.
    for item in items:
        mark = item.get_closest_marker("promise")
        if mark is not None:
            item.user_properties.append((_FAULT, mark.kwargs["fault"]))
            item.user_properties.append((_PROMISE, mark.kwargs["promise"]))


@pytest.fixture
def promise(request: pytest.FixtureRequest) -> Iterator[Promise]:
    """Fails a test that ended without saying what it measured."""
    if request.node.get_closest_marker("promise") is None:
        pytest.fail("the fixture `promise` needs @pytest.mark.promise(fault=…, promise=…)")
    record = Promise(request.node)
    yield record
    if request.node.stash.get(_PASSED, False):
        assert record.seen, "a promise without a measurement"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call":
        item.stash[_PASSED] = report.passed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = _rows(terminalreporter)
    if not rows:
        return
    build = terminalreporter.config.rootpath / "build"
    if table := os.environ.get(TABLE_VARIABLE):
        rows = _joined(Path(table), rows)
    counted = [row for row in rows if row.verdict != _SKIPPED]
    kept = sum(row.verdict == _KEPT for row in counted)
    terminalreporter.section("promises")
    for row in counted:
        terminalreporter.write_line(f"{row.verdict:<7} {row.fault}: {row.promise}")
        terminalreporter.write_line(f"        {row.measured or row.name}")
    for row in rows:
        if row.verdict == _SKIPPED:
            terminalreporter.write_line(f"skipped {row.name}: {row.measured}")
    total = f"promises kept: {kept} of {len(counted)}"
    terminalreporter.write_line(total)
    _write_markdown(build / "faults.md", rows, total)


def _joined(path: Path, rows: list[_Row]) -> list[_Row]:
    """With the rows of the parts that ran before: `make faults` runs its parts one by one."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    named = {row.name: row for row in [*(_Row(**row) for row in before), *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    document = [asdict(row) for row in named.values()]
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    return list(named.values())


def _rows(reporter: pytest.TerminalReporter) -> list[_Row]:
    """One row a test with a promise, in the order of the run."""
    rows: dict[str, _Row] = {}
    reports = [
        report
        for kind in ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "")
        for report in reporter.stats.get(kind, [])
        if isinstance(report, pytest.TestReport)
    ]
    for report in sorted(reports, key=lambda report: report.start):
        properties = list(report.user_properties)
        known = dict(properties)
        if _FAULT not in known:
            continue
        name = report.nodeid.rsplit("/", 1)[-1]
        row = rows.setdefault(report.nodeid, _Row(name, str(known[_FAULT]), str(known[_PROMISE])))
        seen = [str(value) for key, value in properties if key == _MEASURED]
        row.measured = "; ".join(seen) or row.measured
        if report.failed:
            row.verdict = _BROKEN
        elif report.skipped and row.verdict == _KEPT:
            row.verdict = _SKIPPED
            if isinstance(report.longrepr, tuple):
                row.measured = report.longrepr[2].removeprefix("Skipped: ")
    return list(rows.values())


def _write_markdown(path: Path, rows: list[_Row], total: str) -> None:
    limits = "as promised" if strict() else f"{GENEROUS_FACTOR:.0f} × the promised (busy machine)"
    lines = [f"# {total}", "", f"Time limits: {limits}.", ""]
    lines += ["| fault | promise | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {_cell(row.fault)} | {_cell(row.promise)} | {_cell(row.measured)} | {row.verdict} |"
        for row in rows
        if row.verdict != _SKIPPED
    ]
    skipped = [row for row in rows if row.verdict == _SKIPPED]
    if skipped:
        lines += ["", "Not counted:", ""]
        lines += [f"- {row.fault}: skipped, {_cell(row.measured)}" for row in skipped]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


@pytest.fixture(scope="session")
def tiny_repository(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """log_anomaly (the real front, random weights) and ``double``; copy it to change it."""
    folder = tmp_path_factory.mktemp("tiny")
    artifact = toy_model.make_tiny_log_anomaly(folder / "run")
    candidate = export_files(Candidate(get_spec("log_anomaly"), artifact)).candidate
    stage(candidate, folder / "repository")
    write_multiply(folder / "repository/double/1/model.onnx", 2.0)
    (folder / "repository/double/config.pbtxt").write_text(DOUBLE)
    return folder / "repository"


@pytest.fixture(scope="session")
def server(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory, repository_root: Path
) -> Iterator[Launched]:
    """A launched, supervised server. Each test leaves it serving; no model is killed more often
    than its supervisor puts up with."""
    folder = tmp_path_factory.mktemp("launched")
    with launched(tiny_repository, folder / "run", repository_root) as running:
        yield running


@pytest.fixture(scope="session")
def expected_scores(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory, repository_root: Path
) -> dict[str, float]:
    """What the untroubled server answers, line by line."""
    settings = ServerSettings(
        tiny_repository,
        *(0, 0, 0),
        venv=repository_root / ".venv-triton",
        run_folder=tmp_path_factory.mktemp("untroubled"),
    )
    with (
        EmbeddedServer(settings) as untroubled,
        LogAnomalyClient(f"grpc://{untroubled.grpc_url}") as client,
    ):
        verdicts = client.classify(LINES)
    return dict(zip(LINES, (verdict.score for verdict in verdicts), strict=True))
