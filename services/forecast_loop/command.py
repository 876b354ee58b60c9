"""``python -m services forecast_loop [run|check|rules] --config FILE``"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.forecast_loop.config import load_config

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_CONFIG = Path("deploy/prometheus/forecast_loop.toml")
COMMANDS = ("run", "check", "rules")


def add_parser(commands: Any) -> None:
    """Add ``forecast_loop`` to the services' subparsers. Without a word after it, it runs."""
    from services.forecast_loop.rules import add_rules_arguments, run_rules

    loop = commands.add_parser("forecast_loop", help="Prometheus' series, forecast and given back")
    words = loop.add_subparsers(dest="command", required=True)

    run = words.add_parser("run", help="until told to stop (the default)")
    _add_config(run)
    run.add_argument("--once", action="store_true", help="one cycle, for cron; see --push")
    run.add_argument("--push", metavar="URL", help="also push to this Pushgateway")
    run.add_argument("--remote-write", metavar="URL", help="also remote-write there")
    run.set_defaults(run=_run)

    check = words.add_parser("check", help="read every query once and say what is suspicious")
    _add_config(check)
    check.set_defaults(run=_check)

    rules = words.add_parser("rules", help="alerting rules from the same settings")
    add_rules_arguments(rules)
    rules.set_defaults(run=run_rules)


def with_default_command(argv: Sequence[str]) -> list[str]:
    """``forecast_loop --config F`` means ``forecast_loop run --config F``."""
    words = list(argv)
    if words[:1] == ["forecast_loop"] and not set(words[1:2]) & {*COMMANDS, "-h", "--help"}:
        words.insert(1, "run")
    return words


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help="settings, TOML (%(default)s)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from services.forecast_loop.service import run_once, serve

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    outlets = {"push_url": arguments.push, "remote_write_url": arguments.remote_write}
    config = load_config(arguments.config, **{name: url for name, url in outlets.items() if url})
    return run_once(config) if arguments.once else serve(config)


def _check(arguments: argparse.Namespace) -> int:
    from services.forecast_loop.check import check

    return check(load_config(arguments.config))
