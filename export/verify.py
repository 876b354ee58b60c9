"""Is a published version still what was proven? Reads the version folder itself, at any time.

With the run it came from, the whole ladder is climbed again. Without it (a GPU host has neither
the run nor torch) the golden answers inside the version are asked: fewer rows, the same tolerances.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from contract.errors import (
    ArtifactMissingError,
    InputError,
    ParityError,
    PublishError,
    ServerError,
)
from contract.manifest import Manifest, read_manifest
from contract.proven_files import check_version
from export.candidate import (
    GOLDEN_FILE,
    REPORT_FILE,
    TORCHSCRIPT_SUFFIX,
    Candidate,
)
from export.golden_answers import disagreement
from export.promote import Server
from export.publish import versions
from export.report import ParityReport, read_report
from export.target import TARGETS, Target
from training.artifact import Artifact
from training.registry import get_spec


@dataclass(frozen=True)
class Published:
    """One version folder of a classifier or forecaster, with its own manifest and report."""

    folder: Path
    manifest: Manifest
    report: ParityReport

    @property
    def version(self) -> int:
        return int(self.folder.name)

    @property
    def triton_name(self) -> str:
        return self.folder.parent.name

    @property
    def repository(self) -> Path:
        return self.folder.parent.parent

    @property
    def target(self) -> Target:
        return TARGETS[self.report.target]


def find_published(place: str, repository: Path) -> Published:
    """``place``: a version folder, a model folder, or a Triton model's name in ``repository``.

    A front's folder stands for its classifier: they were proven together.

    Raises:
        PublishError: nothing published there, or a version without its report.
        ArtifactCorruptError: a manifest or report that cannot be read.
    """
    path = Path(place) if "/" in place or Path(place).is_dir() else repository / place
    model, wanted = (path.parent, int(path.name)) if path.name.isdigit() else (path, None)
    manifest_of = model / str(wanted or max(versions(model), default=0))
    if not manifest_of.is_dir():
        raise PublishError(
            f"{model.name}: no published version" + (f" {wanted}" if wanted else ""),
            where=str(manifest_of if wanted else model),
            got=f"versions {', '.join(map(str, versions(model))) or 'none'}",
            next_command="python -m export all",
        )
    manifest = read_manifest(manifest_of, verify_files=False)
    if manifest.front is not None and model.name == manifest.front.triton_name:
        manifest_of = model.parent / manifest.graph.triton_name / manifest_of.name
        manifest = read_manifest(manifest_of, verify_files=False)
    report = read_report(manifest_of)
    if report is None:
        raise PublishError(
            f"{manifest_of.parent.name}: a version without its parity report",
            where=str(manifest_of / REPORT_FILE),
            next_command=f"python -m export {manifest.model}",
        )
    return Published(manifest_of, manifest, report)


def require_hashes(published: Published) -> None:
    """Every file in the folder is the one the report is bound to, its front's files as well.

    Raises HashMismatchError, ArtifactMissingError.
    """
    check_version(published.folder)
    if published.manifest.front is not None:
        front = published.repository / published.manifest.front.triton_name / published.folder.name
        if front.is_dir():
            check_version(front)


def verify(
    published: Published,
    *,
    artifacts: Path,
    server: Server | None = None,
    wire: bool = True,
    progress: bool = True,
) -> ParityReport | None:
    """Hashes, then the ladder with the run, or the golden answers without it (returns None then).

    ``server``: asked instead of one that is started here; exactly this version of it.

    Raises:
        HashMismatchError, ParityError, PublishError, ServerError
    """
    require_hashes(published)
    try:
        artifact = Artifact.load(artifacts / published.manifest.model / published.manifest.run_id)
    except ArtifactMissingError:
        _ask_golden(published, server)
        return None
    candidate = Candidate(
        get_spec(published.manifest.model),
        artifact,
        published.target,
        "torchscript" if published.triton_name.endswith(TORCHSCRIPT_SUFFIX) else "onnx",
    )
    return _climb(published, candidate, server=server, wire=wire, progress=progress)


def _climb(
    published: Published, candidate: Candidate, *, server: Server | None, wire: bool, progress: bool
) -> ParityReport:
    from tqdm import tqdm

    from export.judge import begin, climb_offline, climb_served, offline_ticks, served_ticks
    from export.serving import copied, serving

    ascent = begin(candidate)
    steps = offline_ticks(candidate) + (served_ticks(candidate) if wire else 0)
    with tqdm(
        total=steps, unit="cell", desc=f"verify {candidate.title}", disable=not progress
    ) as bar:
        climb_offline(ascent, published.repository, published.version, tick=bar.update)
        if ascent.passed and wire and server is not None:
            climb_served(
                ascent,
                server.grpc_address,
                server.http_address,
                version=str(published.version),
                tick=bar.update,
            )
        elif ascent.passed and wire:
            number = published.version
            with (
                copied(candidate, published.repository, number) as repository,
                serving([candidate], repository) as own,
            ):
                climb_served(
                    ascent, own.grpc_url, own.http_url, version=str(number), tick=bar.update
                )
    report = dataclasses.replace(ascent.report(), files=published.report.files)
    if not report.passed:
        raise ParityError(
            f"{report.complaint()}; in {published.folder}",
            next_command=f"go back: python -m export rollback {published.manifest.model}",
        )
    return report


def _ask_golden(published: Published, server: Server | None) -> None:
    """Without the run: what the version itself was published to answer."""
    if not (published.folder / GOLDEN_FILE).is_file():
        raise InputError(
            f"{published.triton_name}: neither the run nor golden answers are here",
            where=str(published.folder),
            expected=f"{GOLDEN_FILE}, or the run {published.manifest.run_id} (--artifacts)",
        )
    if server is None:
        raise InputError(
            f"{published.triton_name}: the run {published.manifest.run_id} is not here",
            expected="the run (--artifacts), or a server to ask its golden answers (--url)",
        )
    wrong = disagreement(server.grpc_address, published.folder, version=str(published.version))
    if wrong is not None:
        raise ServerError(
            f"{published.triton_name}: version {published.version} does not answer as proven",
            where=server.grpc_address,
            got=wrong,
            next_command=f"go back: python -m export rollback {published.manifest.model}",
        )
