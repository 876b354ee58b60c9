"""``python -m loadtest gpu-proof``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from contract.errors import InputError


def add_gpu_proof(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand, for the load tests' parser."""
    parser = commands.add_parser("gpu-proof", help="parity and speed on this machine's GPU")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--output", type=Path, default=Path("build/gpu_proof"))
    parser.add_argument("--venv", type=Path, default=Path(".venv-triton"), help="embedded server's")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved; medians count")
    parser.add_argument("--seconds", type=float, default=0.5, help="of one side in one round")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="without a GPU: the same steps on the CPU, few shapes, nothing judged",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from loadtest.gpu_proof.machine import inspect_machine

    if arguments.rounds < 1 or arguments.seconds <= 0:
        raise InputError(
            "nothing would be measured",
            where="--rounds, --seconds",
            expected="at least 1 round of more than 0 s",
            got=f"{arguments.rounds} rounds of {arguments.seconds:g} s",
        )
    machine = inspect_machine()
    if not machine.has_gpu and not arguments.dry_run:
        print(f"GPU proof: not measured: {machine.missing('GPU')} (try the steps: --dry-run)")
        return 0
    for check in machine.checks:
        print(check.line(), file=sys.stderr)
    from loadtest.gpu_proof.report import as_json, as_markdown
    from loadtest.gpu_proof.run import ProofSettings, prove_on
    from loadtest.gpu_proof.subjects import find_subjects

    settings = ProofSettings(
        artifacts=arguments.artifacts,
        folder=arguments.output,
        venv=arguments.venv,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        progress=not arguments.quiet,
    )
    subjects = find_subjects(arguments.artifacts, small=not machine.has_gpu)
    proof = prove_on(machine, subjects, settings)
    command = shlex.join(["python", "-m", "loadtest", *sys.argv[1:]])
    text = as_markdown(proof, command)
    (arguments.output / "report.md").write_text(text, encoding="utf-8")
    (arguments.output / "report.json").write_text(as_json(proof), encoding="utf-8")
    print(text)
    return 0
