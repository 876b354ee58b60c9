"""``python -m services <name>``: one service, until it is told to stop."""

from __future__ import annotations

import argparse
import sys

from contract.errors import PresageError
from services.dashboards.command import add_parser as add_dashboards
from services.forecast_loop.command import add_parser as add_forecast_loop
from services.forecast_loop.command import with_default_command as with_loop_default
from services.gateway.command import add_parser as add_gateway
from services.job_diagnosis.command import add_parser as add_job_diagnosis
from services.job_diagnosis.command import with_default_command as with_jobs_default
from services.log_pipeline.command import add_parser as add_log_pipeline
from services.notify.command import add_parser as add_notify
from services.web.command import add_parser as add_tokens


def main(argv: list[str] | None = None) -> int:
    """Run one service and return its exit code (see contract.errors)."""
    arguments = parse_words(sys.argv[1:] if argv is None else argv)
    try:
        code: int = arguments.run(arguments)
        return code
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parse_words(argv: list[str]) -> argparse.Namespace:
    """What a command line says. Ends the program, as argparse does, where it says nothing known."""
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    commands = parser.add_subparsers(dest="service", required=True)
    add_forecast_loop(commands)
    add_log_pipeline(commands)
    add_gateway(commands)
    add_notify(commands)
    add_job_diagnosis(commands)
    add_dashboards(commands)
    add_tokens(commands)
    return parser.parse_args(with_jobs_default(with_loop_default(argv)))
