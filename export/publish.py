"""Puts a proven candidate into a model repository: all of it or nothing. No torch here.

Everything is written into ``<repository>/.staging/<pid>/`` and synced to disk; one rename makes
it visible. A publisher that dies leaves only its staging folder, which the next one removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.errors import PublishError
from contract.manifest import MANIFEST_FILE, verify
from export import history
from export.candidate import REPORT_FILE, Candidate
from export.config_pbtxt import CONFIG_FILE, LABELS_FILE
from export.report import read_report
from export.version_folder import VersionFolder, version_folders

STAGING = ".staging"
LOCK_FILE = "lock"
VERSIONS_KEPT = 3


def publish(candidate: Candidate, repository: Path, *, why: str = "") -> list[Path]:
    """Publish the next version, the classifier before its front, and return the new folders.

    Raises:
        PublishError: no passing report for exactly these files, labels or tensors other than the
            repository's, or another publisher at work. The repository is as it was.
    """
    require_proof(candidate)
    with preparing(candidate, repository) as prepared:
        published = prepared.make_visible()
        prepared.drop_old()
        for path in published:
            record(candidate, repository, "publish", path, why=why)
    return published


@dataclass(frozen=True)
class Prepared:
    """A version that is complete on disk, but that no server sees yet."""

    repository: Path
    version: int
    models: list[VersionFolder]
    folders: list[Path]
    staging: Path

    def make_visible(self) -> list[Path]:
        """One rename per model; the new version folders."""
        return [
            _make_visible(model, folder, self.version, self.repository)
            for model, folder in zip(self.models, self.folders, strict=True)
        ]

    def drop_old(self) -> None:
        for model in self.models:
            _drop_old(self.repository / model.triton_name, self.staging)

    def withdraw(self) -> None:
        """Take the version back, whatever became visible; the front first, as it asks the other."""
        for model in reversed(self.models):
            folder = self.repository / model.triton_name / str(self.version)
            if folder.is_dir():
                withdraw(self.repository, model.triton_name, self.version)


@contextlib.contextmanager
def preparing(candidate: Candidate, repository: Path) -> Iterator[Prepared]:
    """Write the next version out of sight, under the repository's lock.

    Raises:
        PublishError: as ``publish``.
    """
    models = version_folders(candidate)
    with locked(repository) as staging:
        for model in models:
            _check_same_contract(model, repository)
        _remove_unpaired(models, repository, staging)
        used = [
            number
            for model in models
            for number in (
                *versions(repository / model.triton_name),
                history.largest_version(repository, model.triton_name),
            )
        ]
        version = 1 + max(used, default=0)
        folders = [_prepare(model, version, staging) for model in models]
        yield Prepared(repository, version, models, folders, staging)


def withdraw(repository: Path, triton_name: str, version: int) -> Path:
    """Move a version out of every server's sight; it is kept for whoever asks what it was."""
    kept = repository / history.WITHDRAWN / triton_name / str(version)
    kept.parent.mkdir(parents=True, exist_ok=True)
    os.rename(repository / triton_name / str(version), kept)  # noqa: PTH104
    _sync(kept.parent)
    _sync(repository / triton_name)
    return kept


def record(
    candidate: Candidate,
    repository: Path,
    action: history.Action,
    folder: Path,
    *,
    why: str = "",
    outcome: str = "",
    who: str = "",
) -> None:
    """One line of history about a version folder."""
    history.append(
        repository,
        history.make_entry(
            action,
            folder.parent.name,
            int(folder.name),
            run_id=candidate.artifact.manifest.run_id,
            why=why,
            outcome=outcome,
            sha256=candidate.hashes(),
            who=who,
        ),
    )


def versions(folder: Path) -> list[int]:
    """Version numbers of one model, rising."""
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name) for path in folder.iterdir() if path.name.isdigit() and path.is_dir()
    )


def require_proof(candidate: Candidate) -> None:
    """Raise PublishError unless the report beside the files passed for exactly these files."""
    retry = f"prove it first: python -m export {candidate.spec.name}"
    where = str(candidate.folder / REPORT_FILE)
    verify(candidate.artifact.path, candidate.artifact.manifest)
    report = read_report(candidate.folder)
    if report is None:
        raise PublishError(
            f"{candidate.triton_name}: not published without a parity report",
            where=where,
            got="no such file",
            next_command=retry,
        )
    for file, sha256 in candidate.hashes().items():
        if report.files.get(file) != sha256:
            raise PublishError(
                f"{candidate.triton_name}: the parity report is about another {file}",
                where=where,
                expected=f"sha256 {sha256[:12]}…",
                got=f"{report.files.get(file, 'none')[:12]}…",
                next_command=retry,
            )
    if not report.passed:
        raise PublishError(
            f"{candidate.triton_name}: its parity report failed",
            where=where,
            got=report.complaint() or "no rung",
            next_command=retry,
        )
    missing = report.missing_rungs(front=candidate.front is not None)
    if report.triton_name != candidate.triton_name:
        missing = ["grpc"]  # proven for the other format only
    if missing:
        raise PublishError(
            f"{candidate.triton_name}: its parity report is incomplete",
            where=where,
            expected="every rung",
            got=f"none for {', '.join(missing)}",
            next_command=f"without --skip-wire: python -m export {candidate.spec.name}",
        )


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[Path]:
    """An empty staging folder; one publisher at a time, whatever became of the one before."""
    root = repository / STAGING
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK_FILE).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise PublishError(
                "another publisher is at work",
                where=str(repository),
                got=f"process {lock.read().strip() or 'unknown'}",
                next_command="wait for it and repeat",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        # Whoever left these held the lock and is gone.
        for leftover in root.iterdir():
            if leftover.name != LOCK_FILE:
                shutil.rmtree(leftover, ignore_errors=True)
        staging = root / str(os.getpid())
        staging.mkdir()
        try:
            yield staging
        except OSError as error:
            raise PublishError(
                "the version could not be written",
                where=str(repository),
                got=f"{type(error).__name__}: {error}",
                next_command="free the disk or fix the rights, then repeat",
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _check_same_contract(model: VersionFolder, repository: Path) -> None:
    """Config and labels are shared by all versions of a model: they may not change under them."""
    folder = repository / model.triton_name
    if not (folder / CONFIG_FILE).is_file():
        return
    for name, text in model.config.files().items():
        path = folder / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if old == text:
            continue
        if name == LABELS_FILE:
            raise PublishError(
                f"{model.triton_name}: the label set changed",
                where=str(path),
                expected=", ".join(old.split("\n")[:-1]) or "no labels",
                got=", ".join(text.split("\n")[:-1]),
                next_command="train with the committed labels, or publish to a new --repository",
            )
        raise PublishError(
            f"{model.triton_name}: the run does not fit the committed config",
            where=str(path),
            expected="the config.pbtxt of this run's tensors and settings",
            got=_first_difference(old, text),
            next_command="python -m export config --write, or publish to a new --repository",
        )


def _first_difference(old: str, new: str) -> str:
    old_lines, new_lines = old.splitlines(), new.splitlines()
    for number, (before, after) in enumerate(zip(old_lines, new_lines, strict=False), 1):
        if before != after:
            return f"line {number}: {before.strip()!r}, this run {after.strip()!r}"
    return f"{len(old_lines)} lines, this run {len(new_lines)}"


def _remove_unpaired(models: list[VersionFolder], repository: Path, staging: Path) -> None:
    """A publisher that died between classifier and front left a classifier nobody can ask."""
    if len(models) < 2:
        return
    classifier, front = (repository / model.triton_name for model in models)
    newest_front = max(versions(front), default=0)
    for number in versions(classifier):
        if number > newest_front:
            _remove(classifier / str(number), staging)


def _prepare(model: VersionFolder, version: int, staging: Path) -> Path:
    """A complete model folder in staging, on disk."""
    folder = staging / model.triton_name
    (folder / str(version)).mkdir(parents=True)
    for name, text in model.config.files().items():
        (folder / name).write_text(text, encoding="utf-8")
    model.write(folder / str(version))
    for file in (folder / str(version) / MANIFEST_FILE, folder / str(version) / REPORT_FILE):
        if not file.is_file():
            raise PublishError(f"{model.triton_name}: incomplete version", where=str(file))
    _sync_tree(folder)
    return folder


def _make_visible(model: VersionFolder, source: Path, version: int, repository: Path) -> Path:
    """One rename: of the version, or of the whole model folder where there is none yet."""
    folder = repository / model.triton_name
    if not folder.exists():
        os.rename(source, folder)  # noqa: PTH104
    else:
        for name in model.config.files():
            if not (folder / name).is_file():
                os.replace(source / name, folder / name)  # noqa: PTH105
        os.rename(source / str(version), folder / str(version))  # noqa: PTH104
        _sync(folder)
    _sync(repository)
    return folder / str(version)


def _drop_old(folder: Path, staging: Path) -> None:
    for number in versions(folder)[:-VERSIONS_KEPT]:
        _remove(folder / str(number), staging)


def _remove(folder: Path, staging: Path) -> None:
    """Out of sight first: a half-deleted version is as bad as a half-written one."""
    grave = staging / f"old-{folder.parent.name}-{folder.name}"
    os.rename(folder, grave)  # noqa: PTH104
    shutil.rmtree(grave, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
