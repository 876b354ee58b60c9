"""12 h threshold alerts replayed over the last 20% of every series.

Only the command line is here, so that ``--help`` stays quick: ``replay.py`` holds the protocol.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--preset", default="12h", help="newest run of this preset (default: 12h)")
    parser.add_argument(
        "--run-folder",
        type=Path,
        nargs="+",
        help="a certain run (default: the newest); several are judged as seeds of one recipe",
    )
    parser.add_argument(
        "--origins",
        type=int,
        default=0,
        help="at most so many a series, spread evenly (default: every 15 minutes)",
    )
    parser.add_argument("--hold-out", default="", help="family/system,… judge only these systems")
    parser.add_argument(
        "--train-seeds",
        default="",
        help="0,1,2: train the preset once per seed without the systems of --hold-out, judge those"
        " runs",
    )
    parser.add_argument(
        "--train-flags", default="", help="flags of `train metric_forecast` for --train-seeds"
    )


def run(arguments: Namespace) -> str:
    """The tables as Markdown. Raises ArtifactError, DataFileError, InputError."""
    from training.metric_forecast.benchmark.alert_table import run_alerts

    return run_alerts(arguments)
