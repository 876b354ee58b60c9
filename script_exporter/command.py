"""The command line: the Go program's flags, ``--check config``, and ``discover``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from contract.errors import PresageError

DEFAULT_CONFIG = Path("/app/config/config.yaml")
"""The Go program's own default."""


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; the exit code (see contract.errors)."""
    given = sys.argv[1:] if argv is None else argv
    try:
        if given[:1] == ["discover"]:
            from script_exporter.discovery.command import run

            return run(given[1:])
        return _run_exporter(given)
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run_exporter(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m script_exporter",
        description="Scripts on a schedule, exposed to Prometheus. "
        "`python -m script_exporter discover --help`: hosts and their collectors from the CMDB.",
        allow_abbrev=False,
    )
    # Go's flag package takes one dash as well as two.
    parser.add_argument(
        *("-config.file", "--config.file"),
        dest="config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help="configuration, as of the Go public_exporter (%(default)s)",
    )
    parser.add_argument(
        *("-web.listen-address", "--web.listen-address"),
        dest="listen",
        metavar="HOST:PORT",
        help="over the file's web.listen_address (default: 127.0.0.1 and global.http_port)",
    )
    parser.add_argument(
        *("-check", "--check"),
        choices=("config",),
        help="only say what is wrong with the configuration; exit 2 on a fault",
    )
    arguments = parser.parse_args(argv)
    if arguments.check:
        from script_exporter.check import check_config

        return check_config(arguments.config)
    from script_exporter.exporter import serve

    return serve(arguments.config, arguments.listen)
