"""The command line of the load tests."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from contract.errors import InputError, PresageError, ServerError
from loadtest.gpu_proof.command import add_gpu_proof


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code (see contract.errors)."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        return code
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    capacity = commands.add_parser("capacity", help="replicas for large loads, as measured")
    capacity.set_defaults(run=_capacity)

    run = commands.add_parser("run", help="a bounded Locust run against the running server")
    _add_places(run)
    run.add_argument("--users", type=_positive, default=8)
    run.add_argument("--seconds", type=_positive, default=10)
    run.add_argument("--fresh", action="store_true", help="no text comes twice (defeats caches)")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.set_defaults(run=_run)

    table = commands.add_parser("demo-table", help="quality, parity, speed and one answer a model")
    _add_places(table)
    table.add_argument("--seconds", type=float, default=20.0, help="spent measuring, in all")
    table.add_argument("--markdown", type=Path, help="file (default: build/demo.md)")
    table.add_argument("--quiet", action="store_true", help="no progress bar")
    table.set_defaults(run=_demo_table)

    eager = commands.add_parser("eager", help="the eager baseline alone, until stdin closes")
    _add_folders(eager)
    eager.set_defaults(run=_eager)

    scale = commands.add_parser("forecast-loop", help="the forecast loop at several sizes")
    scale.add_argument("--series", type=_positive, nargs="+", default=[1_000, 5_000, 20_000])
    scale.add_argument(
        "--url", default="grpc://127.0.0.1:9001", help="the server's gRPC endpoint (%(default)s)"
    )
    scale.add_argument("--preset", default="12h", help="which forecaster (%(default)s)")
    scale.add_argument("--in-flight", type=_positive, default=4, help="batches at a time")
    scale.add_argument("--concurrency", type=_positive, default=2, help="reads at a time")
    scale.add_argument("--timestamp-per", choices=("series", "query"), default="series")
    scale.add_argument(
        "--no-prometheus", action="store_true", help="recorded answers only, no real Prometheus"
    )
    scale.set_defaults(run=_forecast_loop)

    speed = commands.add_parser("log-pipeline", help="log lines a second, against the seed's way")
    _add_folders(speed)
    speed.add_argument(
        "--url", default="grpc://127.0.0.1:9001", help="the server's gRPC endpoint (%(default)s)"
    )
    speed.add_argument(
        "--logs",
        type=Path,
        default=Path(os.environ.get("PRESAGE_DATA", "data"), "logs"),
        help="folder with *.log files (default: PRESAGE_DATA/logs)",
    )
    speed.add_argument("--lines", type=_positive, default=5_000_000, help="of the repeated logs")
    speed.add_argument("--distinct-lines", type=_positive, default=400)
    speed.add_argument("--rounds", type=_positive, default=5, help="of the distinct lines")
    speed.add_argument("--markdown", type=Path, default=Path("build/log_pipeline.md"))
    speed.set_defaults(run=_log_pipeline)

    failures = commands.add_parser("job-diagnosis", help="failed jobs a minute, none lost")
    failures.add_argument(
        "--url", default="grpc://127.0.0.1:9001", help="the server's gRPC endpoint (%(default)s)"
    )
    failures.add_argument("--per-minute", type=_positive, default=500)
    failures.add_argument("--minutes", type=float, default=1.0)
    failures.add_argument("--database-url", default="", help="default: a new SQLite file")
    failures.add_argument("--huge-mb", type=int, default=1024, help="of the last log; 0: none")
    failures.add_argument("--markdown", type=Path, default=Path("build/job_diagnosis.md"))
    failures.set_defaults(run=_job_diagnosis)

    through = commands.add_parser(
        "gateway", help="requests through the gateway, against eager PyTorch and direct gRPC"
    )
    _add_folders(through)
    through.add_argument(
        "--url", default="grpc://127.0.0.1:9001", help="the server's gRPC endpoint (%(default)s)"
    )
    through.add_argument("--rounds", type=_positive, default=5)
    through.add_argument("--seconds", type=float, default=3.0, help="of one side in one round")
    through.add_argument("--markdown", type=Path, default=Path("build/gateway.md"))
    through.set_defaults(run=_gateway)

    add_gpu_proof(commands)
    return parser


def _tell(table: str, markdown: Path) -> None:
    """To the terminal, and to the file that a document is made of."""
    markdown.parent.mkdir(parents=True, exist_ok=True)
    markdown.write_text(table + "\n", encoding="utf-8")
    print(table)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", default="grpc://127.0.0.1:9001", help="the server's gRPC endpoint (%(default)s)"
    )
    parser.add_argument(
        "--http-url", default="http://127.0.0.1:9000", help="its HTTP endpoint (%(default)s)"
    )
    _add_folders(parser)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))


def _address(url: str, scheme: str) -> str:
    """``host:port`` of a URL. Raises InputError."""
    found, separator, address = url.rpartition("://")
    if (separator and found != scheme) or ":" not in address or "/" in address.rstrip("/"):
        raise InputError("not a server URL", expected=f"{scheme}://host:port", got=repr(url))
    return address.rstrip("/")


def _capacity(_arguments: argparse.Namespace) -> int:
    from loadtest.capacity import capacity_table

    print(capacity_table(), end="")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from loadtest.locust_run import LoadSettings, load_table, run_locust

    settings = LoadSettings(
        grpc_address=_address(arguments.url, "grpc"),
        http_address=_address(arguments.http_url, "http"),
        repository=arguments.repository,
        artifacts=arguments.artifacts,
        users=arguments.users,
        seconds=arguments.seconds,
        fresh=arguments.fresh,
    )
    rows = run_locust(settings, progress=not arguments.quiet)
    print(load_table(rows, settings))
    return ServerError.exit_code if any(row.failures for row in rows) else 0


def _demo_table(arguments: argparse.Namespace) -> int:
    from loadtest.closing_table import MARKDOWN_FILE, as_markdown, as_text, make_closing_table

    table = make_closing_table(
        grpc_address=_address(arguments.url, "grpc"),
        http_address=_address(arguments.http_url, "http"),
        repository=arguments.repository,
        artifacts=arguments.artifacts,
        seconds=arguments.seconds,
        progress=not arguments.quiet,
    )
    path = arguments.markdown or MARKDOWN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_markdown(table), encoding="utf-8")
    print(as_text(table))
    return 0


def _eager(arguments: argparse.Namespace) -> int:
    from loadtest.eager_baseline import serve_eagerly
    from loadtest.served import served_models

    return serve_eagerly(served_models(arguments.repository, arguments.artifacts))


def _forecast_loop(arguments: argparse.Namespace) -> int:
    from loadtest.forecast_loop_scale import ScaleSettings, measure_scale, scale_table

    settings = ScaleSettings(
        triton_url=f"grpc://{_address(arguments.url, 'grpc')}",
        preset=arguments.preset,
        timestamp_per=arguments.timestamp_per,
        concurrency=arguments.concurrency,
        in_flight=arguments.in_flight,
    )
    rows = measure_scale(arguments.series, settings, real=not arguments.no_prometheus)
    print(scale_table(rows, settings))
    return 0


def _log_pipeline(arguments: argparse.Namespace) -> int:
    from loadtest.log_pipeline_speed import SpeedSettings, measure_speed, speed_table

    settings = SpeedSettings(
        url=f"grpc://{_address(arguments.url, 'grpc')}",
        logs=arguments.logs,
        repository=arguments.repository,
        artifacts=arguments.artifacts,
        lines=arguments.lines,
        distinct_lines=arguments.distinct_lines,
        rounds=arguments.rounds,
    )
    table = speed_table(measure_speed(settings))
    _tell(table, arguments.markdown)
    return 0


def _job_diagnosis(arguments: argparse.Namespace) -> int:
    from loadtest.job_failures import FailureSettings, failures_table, measure_failures

    settings = FailureSettings(
        triton_url=f"grpc://{_address(arguments.url, 'grpc')}",
        per_minute=arguments.per_minute,
        minutes=arguments.minutes,
        database_url=arguments.database_url,
        huge_bytes=arguments.huge_mb << 20,
    )
    run = measure_failures(settings)
    table = failures_table(run, settings)
    _tell(table, arguments.markdown)
    complete = run.lost == run.twice == 0 and set(run.statuses) <= {200, 202}
    return 0 if complete else ServerError.exit_code


def _gateway(arguments: argparse.Namespace) -> int:
    from loadtest.gateway_speed import GatewaySettings, gateway_table, measure_gateway

    settings = GatewaySettings(
        url=f"grpc://{_address(arguments.url, 'grpc')}",
        repository=arguments.repository,
        artifacts=arguments.artifacts,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
    )
    table = gateway_table(measure_gateway(settings), settings)
    _tell(table, arguments.markdown)
    return 0
