"""Are a model repository's files the ones that were proven and uploaded? Standard library only.

``python -m contract.proven_files check FOLDER`` runs where a server is about to start: also in a
container that has neither Presage nor its packages (Python 3.10 is enough). Each version is held to
the sha256 its parity report is bound to; where ``SHA256SUMS`` lies beside the models (``write``
makes it before an upload), every other file is held to that, and none may be missing or added.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contract.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    HashMismatchError,
    PresageError,
    PublishError,
)

MANIFEST_FILE = "manifest.json"
REPORT_FILE = "parity_report.json"
SUMS_FILE = "SHA256SUMS"
MODEL_FILES = ("model.onnx", "model.pt")
_ON_TRIAL = "__candidate"


def sha256_of(path: Path) -> str:
    """sha256 of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sha256_of_json(value: object) -> str:
    """sha256 of a value's canonical JSON: the same for the same value, however it was written."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_version(folder: Path) -> None:
    """Every file of a version folder is the one its parity report is bound to, and is there.

    Raises:
        ArtifactMissingError, ArtifactCorruptError: a file of the version is missing or unreadable.
        PublishError: a version without its parity report.
        HashMismatchError: a file, the labels or the thresholds are not the ones that were proven.
    """
    if not (folder / REPORT_FILE).is_file():
        raise PublishError(
            f"{folder.parent.name}: a version without its parity report",
            where=str(folder / REPORT_FILE),
            next_command="publish it again: python -m export all",
        )
    manifest, report = _read(folder / MANIFEST_FILE), _read(folder / REPORT_FILE)
    bound = report.get("files")
    if not isinstance(bound, dict):
        raise ArtifactCorruptError(
            f"{folder.parent.name}: a parity report that is bound to no file",
            where=str(folder / REPORT_FILE),
        )
    found = {
        "labels": sha256_of_json(manifest.get("labels", [])),
        "thresholds": sha256_of_json(manifest.get("thresholds", {})),
    }
    for name in _files_of(folder, manifest):
        found[name] = sha256_of(folder / name)
    for name, sha256 in found.items():
        if bound.get(name) != sha256:
            raise HashMismatchError(
                f"{folder.parent.name}: {name} is not the one that was proven",
                where=str(folder),
                expected=f"sha256 {str(bound.get(name, 'none'))[:12]}…",
                got=f"{sha256[:12]}…",
                next_command=f"publish it again: python -m export {manifest.get('model', 'all')}",
            )


def check_repository(repository: Path, *, sums_sha256: str | None = None) -> str:
    """One line that says what was checked.

    sums_sha256: that of ``SHA256SUMS`` itself, told by another way than the repository's own

    Raises:
        ArtifactMissingError: no repository, nothing published in it, or a file that should be.
        PublishError, ArtifactCorruptError, HashMismatchError: as ``check_version``.
    """
    versions = list(_versions(repository))
    if not versions:
        raise ArtifactMissingError(
            "nothing published is where models should be",
            where=str(repository),
            expected="<model>/<version>/",
            got="no version" if repository.is_dir() else "no such folder",
            next_command="copy a published repository there: python -m export all",
        )
    for folder in versions:
        check_version(folder)
    told = f"{repository}: {len(versions)} versions as proven"
    if sums_sha256 is None and not (repository / SUMS_FILE).is_file():
        return told + f"; no {SUMS_FILE}: front code and config.pbtxt are bound by no hash"
    return f"{told}; {_check_sums(repository, sums_sha256)} files as uploaded"


def write_sums(repository: Path) -> str:
    """Write ``SHA256SUMS`` (``sha256sum --check`` reads it, too); its own sha256."""
    lines = [f"{sha256_of(repository / name)}  {name}\n" for name in _every_file(repository)]
    partial = repository / (SUMS_FILE + ".partial")
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(repository / SUMS_FILE)
    return sha256_of(repository / SUMS_FILE)


def _check_sums(repository: Path, sums_sha256: str | None) -> int:
    path = repository / SUMS_FILE
    if not path.is_file():
        raise ArtifactMissingError(f"no {SUMS_FILE}", where=str(path))
    if sums_sha256 is not None and sha256_of(path) != sums_sha256:
        raise HashMismatchError(
            f"{SUMS_FILE} is another one",
            where=str(path),
            expected=f"sha256 {sums_sha256[:12]}…",
            got=f"{sha256_of(path)[:12]}…",
        )
    try:
        rows = [line.split("  ", 1) for line in path.read_text("utf-8").splitlines()]
        expected = {name: sha256 for sha256, name in rows}
    except ValueError as error:
        raise ArtifactCorruptError(f"{SUMS_FILE} cannot be read", where=str(path)) from error
    there = set(_every_file(repository))
    for name in sorted(there ^ set(expected)):
        raise ArtifactCorruptError(
            "a file that nobody uploaded" if name in there else "a file is missing",
            where=str(repository / name),
            next_command="copy the repository again",
        )
    for name, sha256 in expected.items():
        if (actual := sha256_of(repository / name)) != sha256:
            raise HashMismatchError(
                f"{name} is not the one that was uploaded",
                where=str(repository / name),
                expected=f"sha256 {sha256[:12]}…",
                got=f"{actual[:12]}…",
                next_command="copy the repository again",
            )
    return len(expected)


def _files_of(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The bound files that the folder must hold: of a front, or of a classifier or forecaster."""
    front = manifest.get("front") or {}
    if front.get("triton_name") == folder.parent.name:
        names = [MANIFEST_FILE, *front.get("files", [])]
    else:
        names = [name for name in MODEL_FILES if (folder / name).is_file()] or [MODEL_FILES[0]]
        names.append(MANIFEST_FILE)
    for name in names:
        if not (folder / name).is_file():
            raise ArtifactMissingError(
                f"{folder.parent.name}: a file of the version is missing", where=str(folder / name)
            )
    return names


def _versions(repository: Path) -> Iterator[Path]:
    for model in sorted(repository.iterdir()) if repository.is_dir() else ():
        if model.is_dir() and not model.name.startswith(".") and not model.name.endswith(_ON_TRIAL):
            yield from sorted(
                path for path in model.iterdir() if path.is_dir() and path.name.isdigit()
            )


def _every_file(repository: Path) -> list[str]:
    """Hidden folders (staging, withdrawn versions) and what Python compiles do not travel."""
    return [
        name
        for path in sorted(repository.rglob("*"))
        if path.is_file()
        for name in [path.relative_to(repository).as_posix()]
        if name != SUMS_FILE
        and not any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
        and not name.split("/")[0].endswith(_ON_TRIAL)
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ArtifactMissingError("a file of the version is missing", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise ArtifactCorruptError("cannot be read", where=str(path), got=str(error)) from error
    if not isinstance(stored, dict):
        raise ArtifactCorruptError("cannot be read", where=str(path), expected="a JSON object")
    return stored


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the error (see contract.errors), 0 where every file is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m contract.proven_files", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="refuse a repository with any other file")
    check.add_argument("--sums-sha256", metavar="HEX", help=f"of {SUMS_FILE}, as `write` said it")
    write = commands.add_parser("write", help=f"{SUMS_FILE}, before an upload; prints its sha256")
    for one in (check, write):
        one.add_argument("repository", type=Path)
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "write":
            for folder in _versions(arguments.repository):
                check_version(folder)
            print(write_sums(arguments.repository))
        else:
            pin = arguments.sums_sha256 or None
            print(check_repository(arguments.repository, sums_sha256=pin), flush=True)
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
