"""``python -m services tokens add|list|remove``, and the flags every web service takes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from contract.errors import ConfigError

VARIABLE = "PRESAGE_TOKENS_FILE"


def add_parser(commands: Any) -> None:
    """Add ``tokens`` to the services' subparsers."""
    tokens = commands.add_parser("tokens", help="who may ask the web services")
    words = tokens.add_subparsers(dest="command", required=True)

    add = words.add_parser("add", help="make a token and print it, this once")
    add.add_argument("name", help="who it is for; in the access log")
    add.add_argument(
        "--api", action="append", required=True, help="metric_forecast, log_anomaly, … or all"
    )
    add.add_argument("--rate-per-second", type=float, help="requests; 0 is unlimited")
    _add_file(add)
    add.set_defaults(run=_add)

    show = words.add_parser("list", help="names and APIs")
    _add_file(show)
    show.set_defaults(run=_list)

    remove = words.add_parser("remove", help="running services notice within a second")
    remove.add_argument("name")
    _add_file(remove)
    remove.set_defaults(run=_remove)


def add_web_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``WebSettings``; ``web_settings`` reads them. Each is a PRESAGE_ variable too."""
    group = parser.add_argument_group("exposure", "also PRESAGE_* variables, see services/web")
    group.add_argument("--host", help="address to listen on (127.0.0.1)")
    group.add_argument("--tokens-file", type=Path, metavar="FILE", help="who may ask")
    group.add_argument(
        "--no-tokens", action="store_const", const=True, help="anybody on this machine may ask"
    )
    group.add_argument("--tls-certificate-file", type=Path, metavar="FILE", help="PEM, with chain")
    group.add_argument("--tls-key-file", type=Path, metavar="FILE")


def web_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The given ones, for ``WebSettings.load``."""
    names = ("host", "tokens_file", "no_tokens", "tls_certificate_file", "tls_key_file")
    return {name: getattr(arguments, name) for name in names}


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", type=Path, help=f"the tokens file (default: ${VARIABLE})")


def _file(arguments: argparse.Namespace) -> Path:
    path = arguments.file or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if path is None:
        raise ConfigError(
            "which tokens file?", where="--file", expected=f"a path, also in {VARIABLE}"
        )
    return Path(path)


def _add(arguments: argparse.Namespace) -> int:
    from services.web.tokens import add_token

    path = _file(arguments)
    secret = add_token(path, arguments.name, arguments.api, arguments.rate_per_second)
    print(f"{arguments.name}: in {path} is only its hash; this is shown once:", file=sys.stderr)
    print(secret)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from services.web.tokens import read_tokens

    for token in read_tokens(_file(arguments)):
        rate = token.rate_per_second
        shown = "" if rate is None else f"  {rate:g}/s" if rate else "  unlimited"
        print(f"{token.name}  {', '.join(sorted(token.apis))}{shown}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    from services.web.tokens import remove_token

    remove_token(_file(arguments), arguments.name)
    print(f"{arguments.name}: removed")
    return 0
