"""The command line of the training stage."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from contract.errors import InputError, PresageError
from training.adaptation import add_adapt_arguments, run_adapt
from training.artifact import CHECKPOINT_FILE, DEFAULT_ROOT, MANIFEST_FILE, Artifact, new_run_id
from training.data.command import add_data_arguments, run_data_command
from training.data.source import find_data
from training.registry import all_specs, get_spec, model_names
from training.run import TrainRun, join_process_group, pick_device, share_from_first_rank
from training.spec import ModelSpec

ARGUMENTS_FILE = "arguments.json"


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code (see contract.errors)."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = _parser(argv).parse_args(argv)
        code: int = arguments.run(arguments)
        return code
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; go on with the same command and --resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) went away: nothing is wrong, and nobody reads a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a model and write its run folder")
    train.add_argument("model", help=f"{', '.join(model_names())} or all")
    train.add_argument("--preset", help="train only this preset (default: all of the model's)")
    train.add_argument("--data", type=Path, help="folder or file (default: $PRESAGE_DATA)")
    train.add_argument(
        "--artifacts", type=Path, default=DEFAULT_ROOT, help="where runs are written"
    )
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    train.add_argument("--resume", action="store_true", help="go on with the interrupted run")
    train.add_argument("--strict", action="store_true", help="stop at the first bad row")
    train.add_argument("--quick", action="store_true", help="a short training, for a demo")
    train.add_argument("--quiet", action="store_true", help="no progress bars")
    train.set_defaults(run=_train)

    predict = commands.add_parser("predict", help="answer from a run folder, without a server")
    predict.add_argument("model", help=", ".join(model_names()))
    predict.add_argument("--preset", help="default: the model's first")
    predict.add_argument("--artifacts", type=Path, default=DEFAULT_ROOT)
    predict.add_argument("--run-folder", type=Path, help="a certain run (default: the newest)")
    predict.set_defaults(run=_predict)

    adapt = commands.add_parser("adapt", help="a user's corrections to a better run")
    add_adapt_arguments(adapt)
    adapt.set_defaults(run=_adapt)

    benchmark = commands.add_parser("benchmark", help="a model beside what it must beat, measured")
    _add_benchmarks(benchmark)

    data = commands.add_parser("data", help="fetch and check training data")
    add_data_arguments(data)
    data.set_defaults(run=run_data_command)

    commands.add_parser("list", help="the models and their presets").set_defaults(run=_list)
    _add_model_arguments(argv, train, predict, adapt)
    return parser


def _add_model_arguments(
    argv: list[str],
    train: argparse.ArgumentParser,
    predict: argparse.ArgumentParser,
    adapt: argparse.ArgumentParser,
) -> None:
    """A model's own flags, so that ``train <model> --help`` shows them."""
    named = next((word for word in argv[1:] if word in model_names()), None)
    if named is None:
        return
    spec = get_spec(named)
    if argv[0] == "train":
        spec.add_train_arguments(train.add_argument_group(f"{named} only"))  # type: ignore[arg-type]
    elif argv[0] == "predict":
        spec.add_predict_arguments(predict.add_argument_group(f"{named} only"))  # type: ignore[arg-type]
    elif argv[0] == "adapt" and spec.adaptation is not None:
        spec.adaptation.add_arguments(adapt.add_argument_group(f"{named} only"))  # type: ignore[arg-type]


def _add_benchmarks(parser: argparse.ArgumentParser) -> None:
    tables = parser.add_subparsers(dest="table", required=True)
    for spec in all_specs():
        for name, benchmark in spec.benchmarks.items():
            table = tables.add_parser(name, help=benchmark.summary, description=benchmark.summary)
            table.add_argument("--data", type=Path, help="folder or file (default: $PRESAGE_DATA)")
            table.add_argument(
                "--artifacts", type=Path, default=DEFAULT_ROOT, help="where runs are"
            )
            table.add_argument("--seed", type=int, default=0)
            table.add_argument("--quiet", action="store_true", help="no progress bars")
            benchmark.add_arguments(table)
            table.set_defaults(run=_benchmark, benchmark=benchmark)


def _benchmark(arguments: argparse.Namespace) -> int:
    with _own_threads():
        print(arguments.benchmark.run(arguments), flush=True)
    return 0


def _adapt(arguments: argparse.Namespace) -> int:
    with _own_threads():
        return run_adapt(arguments)


def _list(_: argparse.Namespace) -> int:
    for spec in all_specs():
        print(f"{spec.name:<20} {spec.question}  presets: {', '.join(spec.presets)}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    specs = all_specs() if arguments.model == "all" else (get_spec(arguments.model),)
    for spec in specs:
        defaults = _defaults(spec)
        for name, value in defaults.items():
            if arguments.model == "all":
                setattr(arguments, name, value)
            # A flag that was given counts more than --quick.
            if arguments.quick and getattr(arguments, name) == value:
                setattr(arguments, name, spec.quick.get(name, value))
        for preset in _presets(spec, arguments.preset):
            _train_preset(spec, preset, arguments)
    return 0


def _defaults(spec: ModelSpec) -> dict[str, object]:
    """Of the model's own flags."""
    parser = argparse.ArgumentParser()
    spec.add_train_arguments(parser)
    return vars(parser.parse_args([]))


def _presets(spec: ModelSpec, named: str | None) -> tuple[str, ...]:
    if named is None:
        return spec.presets
    if named not in spec.presets:
        raise InputError(
            f"{spec.name}: unknown preset",
            where="--preset",
            expected=f"one of {', '.join(spec.presets)}",
            got=named,
        )
    return (named,)


def _train_preset(spec: ModelSpec, preset: str, arguments: argparse.Namespace) -> None:
    pick_device(arguments.device)
    data = find_data(arguments.data)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        join_process_group(arguments.device)
    folder = arguments.artifacts / spec.name
    settings = _settings_of(arguments, world_size)
    path = Path(
        share_from_first_rank(lambda: str(_run_folder(folder, preset, settings, arguments)))
    )
    own = path if rank == 0 else Path(tempfile.mkdtemp(prefix="presage-rank-"))
    if rank == 0:
        print(f"{spec.name} {preset}: training on {data.describe()}", flush=True)
        (path / ARGUMENTS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    started = time.monotonic()
    run = TrainRun(
        model=spec.name,
        preset=preset,
        path=own,
        data=data,
        seed=arguments.seed,
        device=arguments.device,
        arguments=arguments,
        strict=arguments.strict,
        progress=not arguments.quiet,
        checkpoint_folder=path,
    )
    with _own_threads():
        artifact = spec.train(run)
    if rank == 0:
        _print_result(artifact, time.monotonic() - started)
    else:
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """A model may choose its number of threads; the next one starts from the default again."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _settings_of(arguments: argparse.Namespace, world_size: int) -> dict[str, object]:
    """What must not change between an interrupted run and its resumption."""
    passing = {"run", "resume", "quiet", "command", "artifacts", "model", "preset"}
    settings: dict[str, object] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in sorted(vars(arguments).items())
        if name not in passing
    }
    settings["world_size"] = world_size
    return json.loads(json.dumps(settings, default=str))  # type: ignore[no-any-return]


def _run_folder(
    folder: Path, preset: str, settings: dict[str, object], arguments: argparse.Namespace
) -> Path:
    if arguments.resume:
        interrupted = _interrupted_run(folder, preset)
        if interrupted is not None:
            stored = json.loads((interrupted / ARGUMENTS_FILE).read_text(encoding="utf-8"))
            changed = sorted(
                name
                for name in stored.keys() | settings.keys()
                if stored.get(name) != settings.get(name)
            )
            if changed:
                raise InputError(
                    "the interrupted run had other settings",
                    where=str(interrupted),
                    expected=", ".join(f"{name}={stored.get(name)}" for name in changed),
                    got=", ".join(f"{name}={settings.get(name)}" for name in changed),
                    next_command="repeat its flags, or start anew without --resume",
                )
            print(f"going on with {interrupted}")
            return interrupted
        print(f"nothing to resume in {folder}: starting anew")
    path = folder / new_run_id(preset, arguments.seed)
    path.mkdir(parents=True)
    return path


def _interrupted_run(folder: Path, preset: str) -> Path | None:
    """The newest run of the preset that has a checkpoint but no manifest."""
    candidates = [
        path
        for path in folder.glob(f"{preset}-*")
        if (path / CHECKPOINT_FILE).is_file()
        and (path / ARGUMENTS_FILE).is_file()
        and not (path / MANIFEST_FILE).is_file()
    ]
    return max(candidates, default=None)


def _print_result(artifact: Artifact, seconds: float) -> None:
    manifest = artifact.manifest
    for quality in manifest.quality:
        better = (quality.value > quality.baseline_value) == quality.higher_is_better
        print(
            f"  {quality.metric} {quality.value:.3f} against {quality.baseline_value:.3f} of"
            f" {quality.baseline} ({'better' if better else 'NOT better'}; {quality.rows} rows,"
            f" {quality.split})"
        )
    print(f"  wrote {artifact.path} in {seconds:.0f} s", flush=True)


def _predict(arguments: argparse.Namespace) -> int:
    spec = get_spec(arguments.model)
    if arguments.run_folder is not None:
        artifact = Artifact.load(arguments.run_folder)
    else:
        preset = arguments.preset or spec.presets[0]
        artifact = Artifact.latest(spec.name, preset, arguments.artifacts)
    failed = False
    for record in spec.predict(artifact, arguments):
        failed = failed or "error" in record
        print(json.dumps(record, ensure_ascii=False), flush=True)
    return InputError.exit_code if failed else 0
