"""The forecaster's own command-line flags. No torch here, so that ``--help`` stays quick."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

WINDOWS_PER_EPOCH = 8_192
# What ``--without`` can leave out, to measure what it adds.
PARTS = ("lstm", "analogs", "ensemble")


def add_train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--epochs",
        type=float,
        help=f"{WINDOWS_PER_EPOCH:,} random windows each (default: next 8, others 4)",
    )
    parser.add_argument("--seq-len", type=int, help="context length in steps")
    parser.add_argument("--horizon", type=int, help="steps ahead")
    parser.add_argument("--quantiles", help="rising, with 0.5 (default 0.1,0.5,0.9)")
    parser.add_argument(
        "--without",
        default="",
        help=f"{','.join(PARTS)}: leave parts out, to measure what they add (a custom run)",
    )
    parser.add_argument(
        "--companions",
        type=int,
        default=0,
        metavar="K",
        help="read up to K other series of the same machine beside each one (default: none)",
    )
    parser.add_argument("--name", help="preset name of the run (default: the preset, or custom_…)")
    parser.add_argument(
        "--hold-out", default="", help="family/system,… never trained on, reported apart"
    )
    parser.add_argument(
        "--origins", type=int, default=10, help="validation origins per series, 0 = every 12 steps"
    )


def add_predict_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="metrics CSV")
    parser.add_argument("--step-seconds", type=int, help="default: from the file's timestamps")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FOLDER",
        help="draw each series there: history, band, predict_linear and threshold (PNG and HTML)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="drawn by --plot, in the metric's unit (default: 95th percentile of the history)",
    )
