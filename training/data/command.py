"""``python -m training data fetch|list|check``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from contract.errors import DataFileError
from training.data.fetch import BASE_URL_VARIABLE, fetch, read_sources
from training.data.labelled_tsv import read_labelled_tsv
from training.data.metrics_csv import read_metrics_csv
from training.data.row_report import RowReport
from training.data.source import FETCHED_FOLDER, FETCHED_MARK
from training.registry import all_specs

TOP_FOLDERS = ("metrics", "logs", "rca")
_SHOWN_ROWS = 20


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Mount the subcommands of ``data``."""
    commands = parser.add_subparsers(dest="data_command", required=True)
    fetching = commands.add_parser("fetch", help="download the listed public files")
    fetching.add_argument("--into", type=Path, default=FETCHED_FOLDER)
    fetching.add_argument("--only", nargs="+", choices=TOP_FOLDERS, default=[])
    fetching.add_argument("--base-url", help=f"mirror (default ${BASE_URL_VARIABLE})")
    fetching.add_argument("--quiet", action="store_true", help="no progress bar")
    commands.add_parser("list", help="what fetch would download")
    check = commands.add_parser("check", help="read seed-format files and report bad rows")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument("--strict", action="store_true", help="stop at the first bad row")


def run_data_command(arguments: argparse.Namespace) -> int:
    """Run one subcommand of ``data`` and return its exit code."""
    if arguments.data_command == "fetch":
        count = fetch(
            arguments.into,
            base_url=arguments.base_url,
            only=arguments.only,
            progress=not arguments.quiet,
        )
        (arguments.into / FETCHED_MARK).touch()
        listed = [
            source
            for source in read_sources()
            if not arguments.only or source.file.split("/", 1)[0] in arguments.only
        ]
        print(
            f"{arguments.into}: {len(listed)} listed files, {count} fetched now,"
            f" {len(listed) - count} were there already"
        )
        return 0
    if arguments.data_command == "list":
        for source in read_sources():
            print(
                f"{source.size_bytes:>9,}  {source.file}  {source.repository}@{source.commit[:8]}"
            )
        return 0
    return max([_check(path, arguments.strict) for path in arguments.files])


def _check(path: Path, strict: bool) -> int:
    """Print what is good and bad in one file; 0 when every row is good."""
    report = RowReport(strict)
    try:
        if ".tsv" in path.suffixes:
            _check_labels(path, report)
        else:
            series = read_metrics_csv(path, report)
            print(
                f"{path}: step {series.step_seconds} s, channels {', '.join(series.channel_names)}"
            )
    except DataFileError as error:
        print(f"error: {error}", file=sys.stderr)
        for row in report.skipped[:_SHOWN_ROWS]:
            print(f"  {row}")
        return error.exit_code
    print(f"{path}: {report.describe()}")
    for row in report.skipped[:_SHOWN_ROWS]:
        print(f"  {row}")
    return DataFileError.exit_code if report.skipped else 0


def _check_labels(path: Path, report: RowReport) -> None:
    """Any model's labels will do: the check does not know which model the file is for."""
    labels: list[str] = []
    aliases: dict[str, str] = {}
    for spec in all_specs():
        labels += spec.labels
        data = importlib.import_module(f"training.{spec.name}.data")
        aliases |= getattr(data, "LABEL_ALIASES", {})
    read_labelled_tsv(path, labels, report, multiple=True, aliases=aliases)
