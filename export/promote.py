"""A new version into service: published, loaded, asked, and only then routed to.

Triton routes a request without a version to the highest one it has loaded, at once. So a version
is first loaded under another name, ``<model>__candidate``, which no client asks; it becomes a
version of the real model only after it has answered its canary questions there. Whatever fails,
the version is withdrawn and the one before goes on serving.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import PresageError, PublishError, ServerError
from embedded_triton.http_control import HttpControl
from embedded_triton.repository import ON_TRIAL
from export import history
from export.candidate import Candidate
from export.config_pbtxt import CONFIG_FILE, renamed_config
from export.golden_answers import disagreement
from export.publish import Prepared, locked, preparing, record, require_proof, versions, withdraw
from export.version_folder import VersionFolder

LOAD_SECONDS = 300.0


@dataclass(frozen=True)
class Server:
    """Addresses of a running server, host:port of gRPC and of HTTP."""

    grpc_address: str
    http_address: str

    @property
    def control(self) -> HttpControl:
        return HttpControl(self.http_address)


def promote(
    candidate: Candidate,
    repository: Path,
    servers: Sequence[Server],
    *,
    why: str = "",
    who: str = "",
) -> list[Path]:
    """Publish a proven candidate and route to it on every server; the new version folders.

    servers: all of them share ``repository``, with explicit model control

    Raises:
        PublishError: not proven, refused by a server, or answering otherwise than proven. The
            version before is serving.
    """
    require_proof(candidate)
    with preparing(candidate, repository) as prepared:
        folders = [repository / one.triton_name / str(prepared.version) for one in prepared.models]
        try:
            _try_out(prepared, servers)
            prepared.make_visible()
            _route(prepared, servers)
        except BaseException as failure:
            _go_back(prepared, servers)
            if not isinstance(failure, PresageError | OSError):
                raise
            # Triton answers with whole tracebacks.
            reason = " ".join(str(failure).split())
            said = {"why": why, "outcome": reason, "who": who}
            for folder in folders:
                record(candidate, repository, "refused", folder, **said)
            raise PublishError(
                f"{candidate.triton_name}: version {prepared.version} is not promoted, the one"
                " before goes on serving",
                where=str(repository),
                got=reason,
                next_command=f"python -m export history {candidate.spec.name}",
            ) from failure
        for folder in folders:
            record(candidate, repository, "promote", folder, why=why, outcome="serving", who=who)
        prepared.drop_old()
    return folders


def rollback(
    names: Sequence[str],
    repository: Path,
    servers: Sequence[Server],
    *,
    why: str = "",
    who: str = "",
) -> int:
    """Withdraw the newest version of a model (graph first, then its front); the version that serves
    now. It is moved to ``.withdrawn``, and its number is never used again.

    Raises:
        PublishError: there is no version to go back to, or it does not answer as it was proven.
    """
    with locked(repository):
        newest = max(versions(repository / names[0]), default=0)
        before = [
            number
            for number in versions(repository / names[0])
            if number < newest and all((repository / name / str(number)).is_dir() for name in names)
        ]
        if not before:
            raise PublishError(
                f"{names[0]}: no version to go back to",
                where=str(repository / names[0]),
                got=f"versions {newest or 'none'}",
                next_command="python -m export history " + names[0],
            )
        for name in reversed(names):
            if (repository / name / str(newest)).is_dir():
                withdraw(repository, name, newest)
        for server in servers:
            _reload(server, names)
        folder = repository / names[0] / str(before[-1])
        wrong = _first_disagreement(servers, folder, str(before[-1]))
        for name in names:
            history.append(
                repository,
                history.make_entry(
                    "rollback",
                    name,
                    newest,
                    run_id="",
                    why=why,
                    outcome=wrong or f"version {before[-1]} serves",
                    who=who,
                ),
            )
        if wrong is not None:
            raise PublishError(
                f"{names[0]}: version {before[-1]} serves, but not as it was proven", got=wrong
            )
    return before[-1]


def _try_out(prepared: Prepared, servers: Sequence[Server]) -> None:
    """Load the version under names that nobody asks, and ask its canary questions there."""
    names = [model.triton_name + ON_TRIAL for model in prepared.models]
    _remove_trials(prepared.repository, prepared.models, servers)
    try:
        for model, source, name in zip(prepared.models, prepared.folders, names, strict=True):
            trial = prepared.repository / name
            shutil.copytree(source, trial)
            (trial / CONFIG_FILE).write_text(
                renamed_config(model.config.config, name, classifier=names[0]), encoding="utf-8"
            )
        for server in servers:
            for name in names:
                server.control.load(name, timeout=LOAD_SECONDS)
        folder = prepared.folders[0] / str(prepared.version)
        wrong = _first_disagreement(servers, folder, "", names)
        if wrong is not None:
            raise ServerError("a canary question is answered otherwise than proven", got=wrong)
    finally:
        _remove_trials(prepared.repository, prepared.models, servers)


def _remove_trials(
    repository: Path, models: Sequence[VersionFolder], servers: Sequence[Server]
) -> None:
    """Also those that a promotion left which was killed; the front before what it asks."""
    for model in reversed(models):
        name = model.triton_name + ON_TRIAL
        for server in servers:
            try:
                server.control.unload(name)
            except ServerError:
                continue  # it was never loaded, or the server is gone: said by the next step
        shutil.rmtree(repository / name, ignore_errors=True)


def _route(prepared: Prepared, servers: Sequence[Server]) -> None:
    """Load the real names, graph before front, and ask again what is now routed to."""
    names = [model.triton_name for model in prepared.models]
    for server in servers:
        for name in names:
            server.control.load(name, timeout=LOAD_SECONDS)
    folder = prepared.repository / names[0] / str(prepared.version)
    for version in (str(prepared.version), ""):
        wrong = _first_disagreement(servers, folder, version)
        if wrong is not None:
            raise ServerError("the new version answers otherwise than proven", got=wrong)


def _go_back(prepared: Prepared, servers: Sequence[Server]) -> None:
    """As it was: nothing of the version is visible, and every server has the one before."""
    names = [model.triton_name for model in prepared.models]
    routed = any((prepared.repository / name / str(prepared.version)).is_dir() for name in names)
    prepared.withdraw()
    if not routed:
        return
    for server in servers:
        try:
            _reload(server, names)
        except ServerError:
            continue  # gone: when it comes back it finds only the version before


def _reload(server: Server, names: Sequence[str]) -> None:
    """The front first: its newest version asks a classifier version that is about to go."""
    for name in reversed(names):
        server.control.load(name, timeout=LOAD_SECONDS)


def _first_disagreement(
    servers: Sequence[Server], folder: Path, version: str, names: Sequence[str] = ()
) -> str | None:
    for server in servers:
        wrong = disagreement(server.grpc_address, folder, version=version, names=names)
        if wrong is not None:
            return f"{server.grpc_address}: {wrong}"
    return None
