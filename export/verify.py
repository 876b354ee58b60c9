"""Is what lies in a repository still what was proven? Reads the version folders themselves."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from contract.errors import HashMismatchError, PublishError
from contract.manifest import MANIFEST_FILE, read_manifest, sha256_of
from export.candidate import MODEL_FILES, REPORT_FILE, Candidate, Target
from export.gate import Ascent, prove, require_passed
from export.ladder import EagerRung
from export.publish import versions
from export.report import ParityReport, read_report
from export.version_folder import version_folders
from training.artifact import Artifact
from training.spec import ModelSpec


def verify_published(
    specs: tuple[ModelSpec, ...],
    preset: str | None,
    *,
    artifacts: Path,
    repository: Path,
    target: Target,
    wire: bool,
    progress: bool,
) -> list[ParityReport]:
    """Check the newest version of each model, then climb the ladder again with its own file.

    Raises:
        PublishError: nothing published, a version without its report, or a changed config.
        HashMismatchError: a file is not the one its report is about.
        ParityError: it no longer decides as PyTorch does.
    """
    ascents = []
    with tempfile.TemporaryDirectory(prefix="presage-verify-") as scratch:
        for spec in specs:
            for name in spec.presets if preset is None else (preset,):
                folder = Path(scratch) / spec.name / name
                ascents.append(_ascent(spec, name, artifacts, repository, target, folder))
        reports = prove(ascents, wire=wire, progress=progress)
        require_passed(reports, [ascent.candidate for ascent in ascents])
    return reports


def _ascent(
    spec: ModelSpec, preset: str, artifacts: Path, repository: Path, target: Target, folder: Path
) -> Ascent:
    triton_name = spec.graph(preset).triton_name if preset in spec.presets else preset
    model = repository / triton_name
    newest = max(versions(model), default=None)
    again = f"python -m export {spec.name}"
    if newest is None:
        raise PublishError(
            f"{triton_name}: no published version", where=str(model), next_command=again
        )
    published = model / str(newest)
    manifest = read_manifest(published, verify_files=False)
    artifact = Artifact.load(artifacts / spec.name / manifest.run_id)
    report = read_report(published)
    if report is None:
        raise PublishError(
            f"{triton_name}: a version without its parity report",
            where=str(published / REPORT_FILE),
            next_command=again,
        )
    for file in (MODEL_FILES["onnx"], MANIFEST_FILE):
        actual = sha256_of(published / file)
        if actual != report.files.get(file):
            raise HashMismatchError(
                f"{triton_name}: {file} is not the one that was proven",
                where=str(published / file),
                expected=f"sha256 {report.files.get(file, 'none')[:12]}…",
                got=f"{actual[:12]}…",
                next_command=again,
            )
    candidate = Candidate(spec, artifact, target, folder=folder)
    folder.mkdir(parents=True)
    shutil.copyfile(published / MODEL_FILES["onnx"], candidate.file("onnx"))
    torchscript = dataclasses.replace(candidate, folder=Path()).file("torchscript")
    if torchscript.is_file():
        shutil.copyfile(torchscript, candidate.file("torchscript"))
    _check_beside(candidate, repository, newest, again)
    network = spec.load_network(artifact).eval()
    return Ascent(candidate, network, EagerRung(network, candidate.graph))


def _check_beside(candidate: Candidate, repository: Path, version: int, again: str) -> None:
    """Config, labels and the front's files, against what publishing would write."""
    for model in version_folders(candidate):
        folder = repository / model.triton_name
        for name, text in model.config.files().items():
            if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text:
                raise PublishError(
                    f"{model.triton_name}: {name} is not what the run says",
                    where=str(folder / name),
                    next_command=f"python -m export config --write, then {again}",
                )
        with tempfile.TemporaryDirectory(prefix="presage-verify-") as scratch:
            model.write(Path(scratch))
            for path in sorted(Path(scratch).rglob("*")):
                relative = path.relative_to(scratch)
                published = folder / str(version) / relative
                if path.is_dir() or relative.name in (*MODEL_FILES.values(), REPORT_FILE):
                    continue
                if not published.is_file() or sha256_of(published) != sha256_of(path):
                    raise HashMismatchError(
                        f"{model.triton_name}: {relative} is not the run's",
                        where=str(published),
                        next_command=again,
                    )
