"""Forecast error on held-out parts of every series, beside simple and classical methods.

Only the command line is here, so that ``--help`` stays quick: ``series.py`` and ``ett.py`` hold the
two protocols.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--protocol",
        choices=("series", "ett"),
        default="series",
        help="series: all the data (default); ett: ETTh1, 96 steps, as the literature measures it",
    )
    parser.add_argument("--preset", default="12h", help="newest run of this preset (default: 12h)")
    parser.add_argument(
        "--run-folder",
        type=Path,
        nargs="+",
        help="a certain run (default: the newest); several are judged as seeds of one recipe",
    )
    parser.add_argument(
        "--origins", type=int, default=0, help="at most so many a series (default: every 12 steps)"
    )
    parser.add_argument(
        "--ets-series", type=int, default=20, help="series for AutoETS, 0: none (default: 20)"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="resamplings for the interval (default: 1000)"
    )
    parser.add_argument("--hold-out", default="", help="family/system,… judge only these systems")
    parser.add_argument(
        "--train-seeds",
        default="",
        help="0,1,2: train the preset once per seed without the systems of --hold-out, judge those"
        " runs (protocol ett: the seeds of its own network, default 0)",
    )
    parser.add_argument(
        "--train-flags", default="", help="flags of `train metric_forecast` for --train-seeds"
    )
    parser.add_argument(
        "--ett-minutes",
        type=float,
        default=15.0,
        help="protocol ett: no epoch of a seed begins that would end later (default: 15)",
    )


def run(arguments: Namespace) -> str:
    """The table as Markdown. Raises ArtifactError, DataFileError, InputError."""
    if arguments.protocol == "ett":
        from training.metric_forecast.benchmark.ett import run_ett

        return run_ett(arguments)
    from training.metric_forecast.benchmark.series import run_series

    return run_series(arguments)
