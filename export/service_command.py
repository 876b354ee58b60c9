"""``promote``, ``rollback`` and ``history``: versions of a running service."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from contract.errors import InputError, PublishError
from embedded_triton.state import read_state
from export import history
from export.candidate import Candidate, find_candidates
from export.promote import Server, promote, rollback
from export.report import read_report
from export.target import CPU, TARGETS, get_target
from training.artifact import DEFAULT_ROOT
from training.registry import all_specs, get_spec, model_names
from training.spec import ModelSpec

EMBEDDED_RUN_FOLDER = Path("build/embedded_triton")


def main(argv: list[str]) -> int:
    """``argv``: the subcommand and its flags. Raises PresageError."""
    arguments = _parser().parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export")
    commands = parser.add_subparsers(dest="command", required=True)
    promoting = commands.add_parser(
        "promote",
        help="publish the newest proven run and route to it",
        description="Publish the newest run (proving it first where no proof is there), load it"
        " beside the version that serves, ask its canary questions, and only then route to it.",
    )
    promoting.add_argument("model", help=f"{', '.join(model_names())} or all")
    promoting.add_argument("--preset", help="only this preset (default: all of the model's)")
    promoting.add_argument("--artifacts", type=Path, default=DEFAULT_ROOT, help="where runs are")
    promoting.set_defaults(run=_promote)
    back = commands.add_parser("rollback", help="withdraw the newest version")
    back.add_argument("model", help="a model of ours with one preset, or a Triton model's name")
    back.set_defaults(run=_rollback)
    for command in (promoting, back):
        command.add_argument("--reason", default="", help="why; kept in the history")
        command.add_argument("--who", default="", help="default: the user and this host")
        command.add_argument(
            "--server",
            action="append",
            default=[],
            metavar="GRPC,HTTP",
            help="host:port,host:port of a running server; repeat for each one that shares the"
            " repository (default: the embedded server that is up)",
        )
    told = commands.add_parser("history", help="who published what, when, and why")
    told.add_argument("model", help="a model of ours, a Triton model's name, or all")
    told.add_argument("--json", action="store_true", help="JSON lines")
    told.set_defaults(run=_history)
    for command in (promoting, back, told):
        command.add_argument("--target", choices=tuple(TARGETS), default=CPU.name)
        command.add_argument("--repository", type=Path, help="default: the target's")
    return parser


def _promote(arguments: argparse.Namespace) -> int:
    target = get_target(arguments.target)
    repository = arguments.repository or target.repository
    servers = _servers(arguments.server, repository)
    specs = all_specs() if arguments.model == "all" else (get_spec(arguments.model),)
    candidates = find_candidates(specs, arguments.preset, root=arguments.artifacts, target=target)
    _prove_where_needed(candidates)
    for candidate in candidates:
        folders = promote(candidate, repository, servers, why=arguments.reason, who=arguments.who)
        print(f"serving {', '.join(map(str, folders))}", flush=True)
    return 0


def _prove_where_needed(candidates: list[Candidate]) -> None:
    """Those without a passing report for the files as they are."""
    unproven = [candidate for candidate in candidates if not _is_proven(candidate)]
    if not unproven:
        return
    from export.gate import export_files, prove, require_passed
    from export.report import table

    reports = prove([export_files(candidate) for candidate in unproven], wire=True)
    print(table(reports))
    require_passed(reports, unproven)


def _is_proven(candidate: Candidate) -> bool:
    report = read_report(candidate.folder)
    return report is not None and report.passed and report.files == candidate.hashes()


def _rollback(arguments: argparse.Namespace) -> int:
    repository = arguments.repository or get_target(arguments.target).repository
    names = _names(arguments.model)
    servers = _servers(arguments.server, repository)
    version = rollback(names, repository, servers, why=arguments.reason, who=arguments.who)
    print(f"{', '.join(names)}: version {version} serves")
    return 0


def _history(arguments: argparse.Namespace) -> int:
    repository = arguments.repository or get_target(arguments.target).repository
    names = [name for group in _groups(arguments.model) for name in group]
    entries = [entry for name in names for entry in history.read(repository, name)]
    entries.sort(key=lambda entry: entry.when)
    if arguments.json:
        for entry in entries:
            print(json.dumps(asdict(entry), ensure_ascii=False))
    else:
        print(history.table(entries))
    return 0


def _groups(model: str) -> list[list[str]]:
    """Triton names that belong together, graph first, for each preset a word stands for."""
    every = {
        (spec.name, preset): _names_of(spec, preset)
        for spec in all_specs()
        for preset in spec.presets
    }
    if model == "all":
        return list(every.values())
    if model in model_names():
        return [names for (name, _), names in every.items() if name == model]
    # A run of one's own sizes has a Triton name that no preset lists.
    return [next((names for names in every.values() if model in names), [model])]


def _names_of(spec: ModelSpec, preset: str) -> list[str]:
    front = spec.front(preset)
    return [spec.graph(preset).triton_name, *([] if front is None else [front.triton_name])]


def _names(model: str) -> list[str]:
    groups = _groups(model)
    if len(groups) != 1:
        raise InputError(
            f"{model} stands for several Triton models",
            expected=f"one of {', '.join(group[0] for group in groups)}",
            next_command=f"python -m export rollback {groups[0][0]}",
        )
    return groups[0]


def _servers(words: list[str], repository: Path) -> list[Server]:
    if words:
        return [parse_server(word, "--server") for word in words]
    state = read_state(EMBEDDED_RUN_FOLDER)
    if state is None or Path(state.repository) != repository.absolute():
        raise PublishError(
            "no running server to promote on",
            where=str(repository),
            got="none is up" if state is None else f"one that serves {state.repository}",
            next_command="name it (--server grpc_host:port,http_host:port), start one (python -m"
            " embedded_triton up --detach), or only publish (python -m export <model>)",
        )
    return [Server(state.grpc_url, state.http_url)]


def parse_server(word: str, flag: str) -> Server:
    """``grpc_host:port,http_host:port``. Raises InputError."""
    addresses = word.split(",")
    if len(addresses) != 2 or any(":" not in address for address in addresses):
        raise InputError(
            "two addresses are needed",
            where=flag,
            expected="GRPC_HOST:PORT,HTTP_HOST:PORT (127.0.0.1:9001,127.0.0.1:9000 when embedded)",
            got=word,
        )
    return Server(*addresses)
