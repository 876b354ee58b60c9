"""The command line of the export stage."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from contract.errors import ExportError, PresageError
from export.candidate import Candidate, find_candidates
from export.config_pbtxt import drift, spec_configs, write_configs
from export.target import CPU, TARGETS, get_target
from export.tuning import TUNING_FILE, apply_tuning, read_tunings
from training.artifact import DEFAULT_ROOT
from training.registry import all_specs, get_spec, model_names
from training.spec import ModelSpec

SUBCOMMANDS = {
    "config": "config.pbtxt and labels.txt from the specs",
    "verify": "is a published version still what was proven?",
    "promote": "publish, load, ask the canary questions, and only then route to it",
    "rollback": "back to the version before",
    "history": "who published what, when, and why",
    "compare": "size, decisions and speed of every target against eager",
    "selftest": "break your own exports in every known way: does the gate see it?",
}


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code (see contract.errors)."""
    argv = sys.argv[1:] if argv is None else argv
    first = argv[0] if argv else ""
    # Read when torch is loaded, later. Threads that spin for work take the cores of a busy machine
    # from each other: the same proof took 32 s instead of 9.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if first == "config":
            return _config(_config_parser().parse_args(argv[1:]))
        if first == "verify":
            return _verify(_verify_parser().parse_args(argv[1:]))
        if first in ("promote", "rollback", "history"):
            from export import service_command

            return service_command.main(argv)
        if first == "compare":
            return _compare(_compare_parser().parse_args(argv[1:]))
        if first == "selftest":
            return _selftest(_selftest_parser().parse_args(argv[1:]))
        return _export(_export_parser().parse_args(argv))
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the repository is as it was", file=sys.stderr)
        return 130


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export, prove and publish the newest run of a model.",
        epilog="also: "
        + "; ".join(f"python -m export {word} ({what})" for word, what in SUBCOMMANDS.items()),
    )
    _add_runs(parser)
    _add_target(parser)
    parser.add_argument("--repository", type=Path, help="model repository (default: the target's)")
    parser.add_argument(
        "--format",
        choices=("onnx", "torchscript"),
        default="onnx",
        help="what is served; both are proven (torchscript publishes <name>_torchscript)",
    )
    parser.add_argument("--no-publish", action="store_true", help="export and prove only")
    _add_wire(parser)
    parser.add_argument(
        "--report-folder",
        type=Path,
        default=Path("build/parity"),
        help="JUnit XML and an HTML page of all models of this run",
    )
    return parser


def _verify_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export verify",
        description="Prove a published version again, from its own files.",
    )
    parser.add_argument(
        "place", help="model_repository/<model>/<n>, a Triton model's name, a model, or all"
    )
    parser.add_argument("--artifacts", type=Path, default=DEFAULT_ROOT, help="where runs are")
    _add_target(parser)
    parser.add_argument("--repository", type=Path, help="model repository (default: the target's)")
    parser.add_argument(
        "--url",
        help="ask this running server instead of one started here: gRPC host:port,HTTP host:port",
    )
    _add_wire(parser)
    return parser


def _compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export compare", description=SUBCOMMANDS["compare"]
    )
    _add_runs(parser)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; medians count")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def _selftest_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export selftest", description=SUBCOMMANDS["selftest"]
    )
    _add_runs(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def _config_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export config", description="config.pbtxt and labels.txt from the specs."
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--check", action="store_true", help="fail where the files differ")
    group.add_argument("--write", action="store_true", help="write them")
    _add_target(parser)
    parser.add_argument("--repository", type=Path, help="model repository (default: the target's)")
    return parser


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=f"{', '.join(model_names())} or all")
    parser.add_argument("--preset", help="only this preset (default: all of the model's)")
    parser.add_argument("--artifacts", type=Path, default=DEFAULT_ROOT, help="where runs are")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        choices=tuple(TARGETS),
        default=CPU.name,
        help="; ".join(f"{target.name}: {target.summary}" for target in TARGETS.values()),
    )


def _add_wire(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-wire", action="store_true", help="no server: proves offline, publishes nothing"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _specs(name: str) -> tuple[ModelSpec, ...]:
    return all_specs() if name == "all" else (get_spec(name),)


def _candidates(arguments: argparse.Namespace) -> list[Candidate]:
    return find_candidates(
        _specs(arguments.model),
        arguments.preset,
        root=arguments.artifacts,
        target=get_target(arguments.target),
        served=arguments.format,
    )


def _export(arguments: argparse.Namespace) -> int:
    candidates = _candidates(arguments)
    # torch and the exporters take seconds to import: not for a misspelt model.
    from tqdm import tqdm

    from export.gate import export_files, prove, require_passed
    from export.publish import publish
    from export.report import table, write_summary

    started = time.monotonic()
    ascents = []
    with tqdm(candidates, desc="export", unit="graph", disable=arguments.quiet) as bar:
        for candidate in bar:
            bar.set_description(f"export: {candidate.title}")
            ascents.append(export_files(candidate))
    reports = prove(ascents, wire=not arguments.skip_wire, progress=not arguments.quiet)
    print(table(reports))
    print(f"see {write_summary(reports, candidates, arguments.report_folder)}")
    publishing = not (arguments.no_publish or arguments.skip_wire)
    repository = arguments.repository or get_target(arguments.target).repository
    published = [
        path
        for candidate, report in zip(candidates, reports, strict=True)
        if publishing and report.passed
        for path in publish(candidate, repository)
    ]
    for path in published:
        print(f"published {path}")
    print(f"{len(candidates)} graphs in {time.monotonic() - started:.0f} s", flush=True)
    require_passed(reports, candidates)
    if arguments.skip_wire:
        print("not published: the served rung was skipped (--skip-wire)")
    elif published:
        print("serve them: python -m embedded_triton up (a running server: down first)")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from export.report import table
    from export.service_command import parse_server
    from export.verify import find_published, verify

    repository = arguments.repository or get_target(arguments.target).repository
    server = None if arguments.url is None else parse_server(arguments.url, "--url")
    for place in _places(arguments.place):
        published = find_published(place, repository)
        report = verify(
            published,
            artifacts=arguments.artifacts,
            server=server,
            wire=not arguments.skip_wire,
            progress=not arguments.quiet,
        )
        if report is not None:
            print(table([report]))
        print(f"{published.folder} is what was proven")
    return 0


def _places(place: str) -> list[str]:
    """A model of ours stands for the Triton models of its presets."""
    if place != "all" and place not in model_names():
        return [place]
    return [spec.graph(preset).triton_name for spec in _specs(place) for preset in spec.presets]


def _compare(arguments: argparse.Namespace) -> int:
    from export.compare import compare_targets

    for candidate in find_candidates(
        _specs(arguments.model), arguments.preset, root=arguments.artifacts
    ):
        print(
            compare_targets(candidate, rounds=arguments.rounds, progress=not arguments.quiet),
            flush=True,
        )
    return 0


def _selftest(arguments: argparse.Namespace) -> int:
    from export.mutation.suite import main as run_suite

    candidates = find_candidates(
        _specs(arguments.model), arguments.preset, root=arguments.artifacts
    )
    return run_suite(candidates, progress=not arguments.quiet)


def _config(arguments: argparse.Namespace) -> int:
    target = get_target(arguments.target)
    repository = arguments.repository or target.repository
    tuned = read_tunings().get(target.name, {})
    configs: list[Any] = [
        apply_tuning(config, tuned.get(config.triton_name))
        for spec in all_specs()
        for config in spec_configs(spec, target)
    ]
    if arguments.write:
        for path in write_configs(iter(configs), repository):
            print(f"wrote {path}")
        return 0
    difference = drift(iter(configs), repository)
    if difference:
        print(difference)
        raise ExportError(
            "config.pbtxt differs from the specs",
            where=str(repository),
            next_command=f"python -m export config --write --target {target.name}"
            + (f" --repository {arguments.repository}" if arguments.repository else "")
            + ", and commit",
        )
    source = f"the specs and {TUNING_FILE} say" if tuned else "the specs say"
    print(f"{len(configs)} models: config.pbtxt is what {source}")
    return 0
