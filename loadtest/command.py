"""The command line of the load tests."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from contract.errors import InputError, PresageError, ServerError
from loadtest.gpu_proof.command import add_gpu_proof
from loadtest.load.command import add_load_parsers


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


_LOGS_HELP = "folder with *.log files (default: PRESAGE_DATA/logs)"


def _logs() -> Path:
    return Path(os.environ.get("PRESAGE_DATA", "data"), "logs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    capacity = commands.add_parser("capacity", help="replicas for large loads, as measured")
    capacity.set_defaults(run=_capacity)

    add_load_parsers(commands, _add_places, _address)

    table = commands.add_parser("demo-table", help="quality, parity, speed and one answer a model")
    _add_places(table)
    table.add_argument("--seconds", type=float, default=20.0, help="spent measuring, in all")
    table.add_argument("--markdown", type=Path, help="file (default: build/demo.md)")
    table.add_argument("--quiet", action="store_true", help="no progress bar")
    table.set_defaults(run=_demo_table)

    eager = commands.add_parser("eager", help="the eager baseline alone, until stdin closes")
    _add_folders(eager)
    eager.add_argument("--models", nargs="+", default=[], help="these alone (default: all)")
    eager.add_argument("--compile", action="store_true", help="through torch.compile")
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
    speed.add_argument("--logs", type=Path, default=_logs(), help=_LOGS_HELP)
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

    compare = commands.add_parser(
        "compare", help="eager, torch.compile, ONNX Runtime and every published target, one run"
    )
    _add_folders(compare)
    compare.add_argument("--logs", type=Path, default=_logs(), help=_LOGS_HELP)
    compare.add_argument("--rounds", type=_positive, default=5)
    compare.add_argument("--seconds", type=float, default=1.5, help="of one side in one round")
    compare.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PART",
        help="start, batch, series, growth, matmul, lines, rca, bert, forecasts (default: all)",
    )
    compare.add_argument("--series", type=_positive, default=100_000, help="of the part series")
    compare.add_argument("--no-compile", action="store_true", help="without torch.compile")
    compare.add_argument("--quiet", action="store_true", help="no progress bar")
    compare.add_argument("--markdown", type=Path, default=Path("build/compare.md"))
    compare.set_defaults(run=_compare)

    tune = commands.add_parser("tune", help="settings of a model that give the most within a p99")
    tune.add_argument("model", help="as clients name it: log_anomaly, metric_forecast_next, …")
    _add_folders(tune)
    tune.add_argument("--target", default="cpu", help="whose repository it is (%(default)s)")
    tune.add_argument("--p99-ms", type=float, default=20.0)
    tune.add_argument("--concurrency", type=_positive, default=32)
    tune.add_argument("--rounds", type=_positive, default=3)
    tune.add_argument("--seconds", type=float, default=2.0, help="of one trial in one round")
    tune.add_argument("--repeats", action="store_true", help="texts come again (caches count)")
    tune.add_argument("--output", type=Path, default=Path("tuning.toml"), help="(%(default)s)")
    tune.add_argument("--dry-run", action="store_true", help="write no tuning file")
    tune.add_argument("--quiet", action="store_true", help="no progress bar")
    tune.add_argument("--markdown", type=Path, default=Path("build/tune.md"))
    tune.set_defaults(run=_tune)

    bert = commands.add_parser(
        "bert-base", help="make and publish the BERT-base-size classifier of compare's row"
    )
    bert.add_argument("--target", nargs="+", default=["cpu-openvino"], help="(%(default)s)")
    bert.set_defaults(run=_bert_base)

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

    models = served_models(arguments.repository, arguments.artifacts)
    chosen = [model for model in models if not arguments.models or model.name in arguments.models]
    return serve_eagerly(chosen, compiled=arguments.compile)


def _forecast_loop(arguments: argparse.Namespace) -> int:
    from loadtest.services.forecast_loop_scale import ScaleSettings, measure_scale, scale_table

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
    from loadtest.services.log_pipeline_speed import SpeedSettings, measure_speed, speed_table

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
    from loadtest.services.job_failures import FailureSettings, failures_table, measure_failures

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
    from loadtest.services.gateway_speed import GatewaySettings, gateway_table, measure_gateway

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


def _compare(arguments: argparse.Namespace) -> int:
    from loadtest.speed.compare_run import run_compare
    from loadtest.speed.questions import CompareSettings

    settings = CompareSettings(
        repository=arguments.repository,
        artifacts=arguments.artifacts,
        logs=arguments.logs,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        only=tuple(arguments.only),
        compiled=not arguments.no_compile,
    )
    report = run_compare(
        settings, arguments.markdown, series=arguments.series, progress=not arguments.quiet
    )
    print(report)
    return 0


def _bert_base(arguments: argparse.Namespace) -> int:
    from loadtest.speed.bert_base import BertBasePlaces, make_bert_base

    make_bert_base(BertBasePlaces(), tuple(arguments.target))
    return 0


def _tune(arguments: argparse.Namespace) -> int:
    from export.tuning import read_tunings, write_tunings
    from loadtest.served import served_models
    from loadtest.speed.tuning import TuneSettings, merged, tune, tune_table

    known = read_tunings(arguments.output)
    settings = TuneSettings(
        repository=arguments.repository,
        artifacts=arguments.artifacts,
        target=arguments.target,
        p99_seconds=arguments.p99_ms / 1000,
        concurrency=arguments.concurrency,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        fresh=not arguments.repeats,
    )
    served = served_models(settings.repository, settings.artifacts)
    best, trials = tune(arguments.model, served, settings, progress=not arguments.quiet)
    _tell(tune_table(best, trials, arguments.model, settings), arguments.markdown)
    if not best.settings:
        print("nothing was better than what the specs say: no tuning file written")
    elif not arguments.dry_run:
        write_tunings(merged(known, settings.target, best), arguments.output)
        print(
            f"wrote {arguments.output}; apply it: python -m export config --write "
            f"--target {settings.target}, then python -m loadtest compare"
        )
    return 0
