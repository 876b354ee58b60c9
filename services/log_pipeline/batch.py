"""``batch``: archives → parquet partitions, on Ray Data: this machine, or a cluster by address.

One archive is one row of the dataset, and one partition. A partition appears by one rename once it
is complete, so a run that was killed goes on where it was, and a worker that died is repeated,
without a line lost or told twice.
"""

from __future__ import annotations

import glob
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract.errors import InputError, ServerSetupError
from services.log_pipeline.archive import Scored, is_done, score_archive

_OBJECT_STORE_BYTES = 128 << 20
"""Only names and counts go through it; Ray would take a third of the memory."""
_RESTARTS = 20


def find_archives(patterns: Sequence[str]) -> list[Path]:
    """Files of the patterns (``**`` is recursive), sorted, each once. Raises InputError."""
    found = {
        Path(name).absolute()
        for pattern in patterns
        for name in glob.glob(pattern, recursive=True)  # noqa: PTH207 (absolute patterns)
        if Path(name).is_file()
    }
    if not found:
        raise InputError("no archives", expected="files", got=", ".join(patterns))
    return sorted(found)


class _Worker:
    """An actor of Ray's: one client and one memory for all the archives it gets."""

    def __init__(self, url: str, output: str) -> None:
        from services.log_pipeline.command import make_classifier

        self._classifier = make_classifier(url)
        self._output = Path(output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        told: dict[str, list[Any]] = {"source": [], "lines": [], "anomalies": [], "error": []}
        for source in batch["source"]:
            try:
                scored = score_archive(Path(str(source)), self._output, self._classifier)
                error = ""
            except InputError as bad:
                # One damaged archive does not stop the others.
                scored, error = Scored(str(source), "", 0, 0), str(bad)
            told["source"].append(str(source))
            told["lines"].append(scored.lines)
            told["anomalies"].append(scored.anomalies)
            told["error"].append(error)
        return told


def run_batch(
    patterns: Sequence[str],
    output: Path,
    url: str,
    *,
    address: str | None = None,
    workers: int = 2,
) -> int:
    """The command. Exit code 0; 2 when an archive could not be read (the others are done).

    address: of a Ray cluster whose nodes see the same files; None: this machine

    Raises InputError: no archives. ServerSetupError: Ray is not installed. ServerError.
    """
    archives = find_archives(patterns)
    output.mkdir(parents=True, exist_ok=True)
    for leftover in output.glob("part-*.tmp"):
        leftover.unlink(missing_ok=True)
    todo = [path for path in archives if not is_done(path, output)]
    print(f"{len(archives):,} archives, {len(archives) - len(todo):,} done before", file=sys.stderr)
    failures = 0
    for row in _rows(todo, output, url, address, workers) if todo else ():
        if row["error"]:
            failures += 1
            print(f"error: {row['error']}", file=sys.stderr)
        else:
            lines, found = f"{row['lines']:,} lines", f"{row['anomalies']:,} anomalies"
            print(f"{row['source']}: {lines}, {found}", flush=True)
    return InputError.exit_code if failures else 0


def _rows(todo: Sequence[Path], output: Path, url: str, address: str | None, workers: int) -> Any:
    try:
        # Nobody here is to be told of our use, and there is no dashboard to serve.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray: Any = importlib.import_module("ray")
        data: Any = importlib.import_module("ray.data")
    except ImportError as error:
        raise ServerSetupError(
            "batch needs Ray Data",
            got=str(error),
            next_command="pip install -c requirements/constraints.txt "
            "-r requirements/distributed.txt",
        ) from error
    # One more than there are actors: whatever else Ray Data has to run would wait for ever.
    local: dict[str, Any] = {"num_cpus": workers + 1, "object_store_memory": _OBJECT_STORE_BYTES}
    ray.init(
        address=address,
        include_dashboard=False if address is None else None,
        log_to_driver=False,
        logging_level="ERROR",
        **({} if address else local),
    )
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    # A dead worker is Ray's to replace; what it had not finished is done again.
    context.actor_task_retry_on_errors = True
    try:
        rows = data.from_items(
            [{"source": str(path)} for path in todo], override_num_blocks=len(todo)
        )
        done = rows.map_batches(
            _Worker,
            fn_constructor_args=(url, str(output.absolute())),
            batch_size=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(todo))),
            num_cpus=1,
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )
        yield from done.iter_rows()
    finally:
        ray.shutdown()
