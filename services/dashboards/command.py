"""``python -m services dashboards --config FILE --output FOLDER [--check]``"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.forecast_loop.config import LoopConfig

DEFAULT_CONFIG = Path("deploy/prometheus/forecast_loop.toml")
DEFAULT_OUTPUT = Path("deploy/grafana/dashboards")
_COMMAND = "python -m services dashboards"


def add_parser(commands: Any) -> None:
    """Add ``dashboards`` to the services' subparsers."""
    parser = commands.add_parser("dashboards", help="write Grafana's dashboards")
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help="the loop's settings (%(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder of the JSON (%(default)s)"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 2 where files differ"
    )
    parser.set_defaults(run=_run)


def dashboard_files(config: LoopConfig) -> dict[str, str]:
    """File name → JSON. Raises ConfigError: settings that no rule can be made of."""
    from services.dashboards.board import render
    from services.dashboards.causes import causes_board
    from services.dashboards.exporters import exporters_board
    from services.dashboards.forecasts import forecasts_board
    from services.dashboards.logs import logs_board
    from services.dashboards.serving import serving_board

    boards = (
        serving_board(),
        forecasts_board(config),
        logs_board(),
        causes_board(),
        exporters_board(),
    )
    return {board.file_name: render(board) for board in boards}


def _run(arguments: argparse.Namespace) -> int:
    """Raises ConfigError: drift."""
    from services.dashboards.board import is_generated
    from services.forecast_loop.config import load_config
    from services.generated_files import GeneratedFiles

    wanted = dashboard_files(load_config(arguments.config))
    files = GeneratedFiles(wanted, arguments.output, "*.json", is_generated)
    if arguments.check:
        files.check(
            "dashboards are not what the code and the settings say",
            f"{_COMMAND} --config {arguments.config} --output {arguments.output}",
        )
        print(f"{len(wanted)} dashboards are what the code and {arguments.config} say")
        return 0
    for path in files.write():
        print(f"removed {path}: no such dashboard any more", file=sys.stderr)
    print(f"{len(wanted)} dashboards in {arguments.output}")
    return 0
