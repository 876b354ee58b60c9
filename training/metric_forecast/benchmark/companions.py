"""What companion signals add: the network that reads them beside the plain one, the same seeds.

Only the command line is here, so that ``--help`` stays quick: ``companion_table.py`` holds the
protocol.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--preset", default="12h", help="the plain preset (default: 12h)")
    parser.add_argument(
        "--companions", type=int, default=4, metavar="K", help="of --train-seeds (default: 4)"
    )
    parser.add_argument(
        "--run-folder",
        type=Path,
        nargs="+",
        help="runs that read companions, as seeds of one recipe (default: the newest)",
    )
    parser.add_argument(
        "--plain-folder", type=Path, nargs="+", help="plain runs (default: the newest)"
    )
    parser.add_argument(
        "--origins", type=int, default=0, help="at most so many a series (default: every 12 steps)"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="resamplings for the interval (default: 1000)"
    )
    parser.add_argument("--hold-out", default="", help="family/system,… judge only these systems")
    parser.add_argument(
        "--train-seeds",
        default="",
        help="0,1,2: train both once per seed without the systems of --hold-out, judge those runs",
    )
    parser.add_argument(
        "--train-flags", default="", help="flags of `train metric_forecast` for --train-seeds"
    )


def run(arguments: Namespace) -> str:
    """The table as Markdown. Raises ArtifactError, DataFileError, InputError."""
    from training.metric_forecast.benchmark.companion_table import run_companions

    return run_companions(arguments)
