"""12 h threshold alerts replayed over the validation parts."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--origins", type=int, default=48, help="origins a series; 0: every 12 steps")


def run(arguments: Namespace) -> str:
    raise NotImplementedError
