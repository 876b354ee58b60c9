"""``python -m services <name>``: one service, until it is told to stop."""

from __future__ import annotations

import argparse
import sys

from contract.errors import PresageError
from services.forecast_loop.command import add_parser as add_forecast_loop
from services.forecast_loop.command import with_default_command
from services.gateway.command import add_parser as add_gateway
from services.log_pipeline.command import add_parser as add_log_pipeline
from services.web.command import add_parser as add_tokens


def main(argv: list[str] | None = None) -> int:
    """Run one service and return its exit code (see contract.errors)."""
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    commands = parser.add_subparsers(dest="service", required=True)
    add_forecast_loop(commands)
    add_log_pipeline(commands)
    add_gateway(commands)
    add_tokens(commands)
    arguments = parser.parse_args(with_default_command(sys.argv[1:] if argv is None else argv))
    try:
        code: int = arguments.run(arguments)
        return code
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
