"""``python -m services forecast_loop [run|check|rules] --config FILE``"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.forecast_loop.config import LoopConfig, load_config

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_CONFIG = Path("deploy/prometheus/forecast_loop.toml")
COMMANDS = ("run", "check", "rules")
# Table, setting, flag, variable.
_OVERRIDES = (
    ("prometheus", "url", "prometheus_url", "PRESAGE_LOOP_PROMETHEUS_URL"),
    ("triton", "url", "triton_url", "PRESAGE_LOOP_TRITON_URL"),
    ("loop", "listen", "listen", "PRESAGE_LOOP_LISTEN"),
    ("loop", "state_file", "state_file", "PRESAGE_LOOP_STATE_FILE"),
    ("loop", "push_url", "push", None),
    ("loop", "remote_write_url", "remote_write", None),
)


def add_parser(commands: Any) -> None:
    """Add ``forecast_loop`` to the services' subparsers. Without a word after it, it runs."""
    from services.forecast_loop.rules import add_rules_arguments, run_rules

    loop = commands.add_parser("forecast_loop", help="Prometheus' series, forecast and given back")
    words = loop.add_subparsers(dest="command", required=True)

    run = words.add_parser("run", help="until told to stop (the default)")
    _add_config(run)
    _add_places(run)
    run.add_argument("--listen", metavar="HOST:PORT", help="also PRESAGE_LOOP_LISTEN")
    run.add_argument("--state-file", type=Path, metavar="FILE", help="also PRESAGE_LOOP_STATE_FILE")
    run.add_argument("--once", action="store_true", help="one cycle, for cron; see --push")
    run.add_argument("--push", metavar="URL", help="also push to this Pushgateway")
    run.add_argument("--remote-write", metavar="URL", help="also remote-write there")
    run.set_defaults(run=_run)

    check = words.add_parser("check", help="read every query once and say what is suspicious")
    _add_config(check)
    _add_places(check)
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


def _add_places(parser: argparse.ArgumentParser) -> None:
    """What differs from host to host while queries and rules stay the same."""
    parser.add_argument(
        "--prometheus-url", metavar="URL", help="over the file's; also PRESAGE_LOOP_PROMETHEUS_URL"
    )
    parser.add_argument(
        "--triton-url", metavar="URL", help="over the file's; also PRESAGE_LOOP_TRITON_URL"
    )


def command_config(arguments: argparse.Namespace) -> LoopConfig:
    """The file's settings, under variables, under flags."""
    tables: dict[str, dict[str, Any]] = {}
    for table, setting, flag, variable in _OVERRIDES:
        value = getattr(arguments, flag, None) or os.environ.get(variable or "")
        if value:
            tables.setdefault(table, {})[setting] = value
    return load_config(arguments.config, tables)


def _run(arguments: argparse.Namespace) -> int:
    from services.forecast_loop.service import run_once, serve

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = command_config(arguments)
    return run_once(config) if arguments.once else serve(config)


def _check(arguments: argparse.Namespace) -> int:
    from services.forecast_loop.check import check

    return check(command_config(arguments))
