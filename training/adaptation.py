"""``python -m training adapt <model>``: corrections in, a new run out, and on to the gate."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from contract.errors import InputError
from training.artifact import DEFAULT_ROOT, Artifact, new_run_id
from training.data.source import find_data
from training.registry import all_specs, get_spec
from training.run import TrainRun, pick_device


def add_adapt_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every adaptation has."""
    able = ", ".join(spec.name for spec in all_specs() if spec.adaptation is not None)
    parser.add_argument("model", help=able)
    parser.add_argument("--run-folder", type=Path, help="the run to go on from (default: newest)")
    parser.add_argument("--data", type=Path, help="what it learnt from (default: $PRESAGE_DATA)")
    parser.add_argument("--artifacts", type=Path, default=DEFAULT_ROOT, help="where runs are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument(
        "--publish", action="store_true", help="then export: the gate decides whether it ships"
    )
    parser.add_argument("--repository", type=Path, help="where to publish (default: the target's)")


def run_adapt(arguments: argparse.Namespace) -> int:
    """Adapt the newest run (or ``--run-folder``) and return the exit code; with ``--publish`` the
    export's.

    Raises:
        InputError: the model cannot be adapted. And what the model's own adaptation raises.
    """
    spec = get_spec(arguments.model)
    if spec.adaptation is None:
        raise InputError(
            f"{spec.name} does not learn from corrections",
            expected=", ".join(s.name for s in all_specs() if s.adaptation is not None),
            next_command=f"train it on your data: python -m training train {spec.name} --data …",
        )
    pick_device(arguments.device)
    parent = (
        Artifact.load(arguments.run_folder)
        if arguments.run_folder is not None
        else Artifact.latest(spec.name, spec.presets[0], arguments.artifacts)
    )
    print(f"{spec.name}: going on from {parent.manifest.run_id}", flush=True)
    path = arguments.artifacts / spec.name / new_run_id(parent.manifest.preset, arguments.seed)
    path.mkdir(parents=True)
    run = TrainRun(
        model=spec.name,
        preset=parent.manifest.preset,
        path=path,
        data=find_data(arguments.data),
        seed=arguments.seed,
        device=arguments.device,
        arguments=arguments,
        strict=arguments.strict,
        progress=not arguments.quiet,
        checkpoint_folder=path,
    )
    try:
        artifact = spec.adaptation.run(parent, run)
    except BaseException:
        # A folder without weights would only be in the way.
        if not any(path.iterdir()):
            path.rmdir()
        raise
    print(f"  wrote {artifact.path}", flush=True)
    return _publish(arguments) if arguments.publish else 0


def _publish(arguments: argparse.Namespace) -> int:
    """The export stage is a command of its own; training does not know it."""
    command = [sys.executable, "-m", "export", arguments.model]
    command += ["--artifacts", str(arguments.artifacts)]
    if arguments.repository is not None:
        command += ["--repository", str(arguments.repository)]
    if arguments.quiet:
        command.append("--quiet")
    return subprocess.run(command, check=False).returncode
