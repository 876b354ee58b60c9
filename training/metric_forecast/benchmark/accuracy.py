"""Forecast error on held-out parts of every series, beside simple and classical methods."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--origins", type=int, default=48, help="origins a series; 0: every 12 steps")


def run(arguments: Namespace) -> str:
    raise NotImplementedError
