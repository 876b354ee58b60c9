"""``python -m services log_pipeline score|tail|serve|batch|top``"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients import LogAnomalyClient
    from services.log_pipeline.classifier import LineClassifier
    from services.log_pipeline.serve import OutletSettings

DEFAULT_URL = "grpc://127.0.0.1:9001"
_DEADLINE_SECONDS = 300.0
"""Of some thousand new lines at once, on a machine with few cores."""


def add_parser(commands: Any) -> None:
    """Add ``log_pipeline`` to the services' subparsers."""
    pipeline = commands.add_parser("log_pipeline", help="log lines at stream speed")
    words = pipeline.add_subparsers(dest="command", required=True)

    score = words.add_parser("score", help="every line of files (or stdin), once")
    score.add_argument("paths", nargs="*", metavar="FILE", help="also .gz and .zst; - is stdin")
    score.add_argument("--output", choices=("anomalies", "all", "summary"), default="anomalies")
    score.add_argument(
        "--json-summary", action="store_true", help="the summary as JSON, as stdout's last line"
    )
    _add_common(score)
    score.set_defaults(run=_score)

    tail = words.add_parser("tail", help="follow files across rotation, until told to stop")
    tail.add_argument("paths", nargs="+", type=Path, metavar="FILE")
    tail.add_argument("--from-start", action="store_true", help="not only what is written from now")
    _add_common(tail)
    _add_outlets(tail)
    tail.set_defaults(run=_tail)

    serve = words.add_parser(
        "serve", help="take lines as Elasticsearch does (_bulk), until stopped"
    )
    serve.add_argument("--listen", default="127.0.0.1:9200", help="host:port (%(default)s)")
    serve.add_argument("--spool", type=Path, default=Path("build/log_pipeline/spool"))
    serve.add_argument(
        "--spool-limit-mb", type=int, default=1024, help="beyond it: 429 (%(default)s)"
    )
    serve.add_argument(
        "--no-fsync", action="store_true", help="faster; a power cut may cost acknowledged lines"
    )
    _add_url(serve)
    _add_outlets(serve)
    serve.set_defaults(run=_serve)

    batch = words.add_parser("batch", help="archives to parquet, on Ray Data; goes on after a kill")
    batch.add_argument(
        "patterns", nargs="+", metavar="GLOB", help="text, .jsonl, .parquet; .gz .zst"
    )
    batch.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    batch.add_argument("--address", help="a Ray cluster (default: this machine)")
    batch.add_argument("--workers", type=int, default=2)
    _add_url(batch)
    batch.set_defaults(run=_batch)

    top = words.add_parser("top", help="new and surging anomalous templates")
    top.add_argument(
        "place", nargs="?", default="http://127.0.0.1:9200", help="URL of serve, or anomalies' file"
    )
    top.add_argument("--limit", type=int, default=20)
    top.add_argument("--json", action="store_true")
    top.set_defaults(run=_top)


def make_client(url: str) -> LogAnomalyClient:
    from clients import CallPolicy, LogAnomalyClient

    return LogAnomalyClient(url, CallPolicy(deadline_seconds=_DEADLINE_SECONDS))


def make_classifier(url: str) -> LineClassifier:
    """Raises ServerError: nobody answers at ``url``."""
    from services.log_pipeline.classifier import LineClassifier

    classifier = LineClassifier(make_client(url))
    classifier.refresh()
    return classifier


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default=os.environ.get("PRESAGE_URL", DEFAULT_URL),
        help="the server, also PRESAGE_URL (%(default)s)",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_url(parser)
    parser.add_argument(
        "--join", action="store_true", help="the lines of a traceback are one event"
    )


def _add_outlets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json-lines", type=Path, metavar="FILE", help="anomalies, appended")
    parser.add_argument("--elasticsearch", metavar="URL", help="anomalies, by _bulk")
    parser.add_argument("--elasticsearch-index", default="presage-anomalies")
    parser.add_argument(
        "--elasticsearch-api-key-file", type=Path, metavar="FILE", help="holds an encoded API key"
    )
    parser.add_argument("--alertmanager", metavar="URL", help="one alert a template")


def _outlet_settings(arguments: argparse.Namespace) -> OutletSettings:
    from contract.errors import ConfigError
    from services.log_pipeline.serve import OutletSettings

    key = ""
    if arguments.elasticsearch_api_key_file is not None:
        try:
            key = arguments.elasticsearch_api_key_file.read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError(
                "the API key cannot be read",
                where=str(arguments.elasticsearch_api_key_file),
                got=error.strerror or str(error),
            ) from error
    return OutletSettings(
        json_lines=arguments.json_lines,
        elasticsearch=arguments.elasticsearch,
        elasticsearch_index=arguments.elasticsearch_index,
        elasticsearch_api_key=key,
        alertmanager=arguments.alertmanager,
    )


def start_logging() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _score(arguments: argparse.Namespace) -> int:
    from services.log_pipeline.score import run_score

    start_logging()
    classifier = make_classifier(arguments.url)
    return run_score(
        classifier,
        arguments.paths,
        arguments.output,
        join=arguments.join,
        json_summary=arguments.json_summary,
    )


def _tail(arguments: argparse.Namespace) -> int:
    import signal
    import threading

    from services.log_pipeline.delivery import Delivery
    from services.log_pipeline.outlets import JsonLines
    from services.log_pipeline.tail import Tail

    start_logging()
    settings = _outlet_settings(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    delivery = Delivery(
        make_classifier(arguments.url),
        settings.outlets() or [JsonLines(sys.stdout.buffer)],
        alerting=settings.alerting(),
        stop=stop,
    )
    follow = Tail(arguments.paths, delivery, join=arguments.join, from_start=arguments.from_start)
    print(f"log_pipeline: following {len(arguments.paths)} files", file=sys.stderr, flush=True)
    follow.run(stop)
    delivery.close()
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from services.log_pipeline.classifier import LineClassifier
    from services.log_pipeline.serve import ServeSettings, serve

    start_logging()
    settings = ServeSettings(
        listen=arguments.listen,
        spool=arguments.spool,
        spool_limit_bytes=arguments.spool_limit_mb << 20,
        fsync=not arguments.no_fsync,
    )
    # Not asked yet: lines are taken, and kept, while the server is away.
    classifier = LineClassifier(make_client(arguments.url))
    return serve(classifier, settings, _outlet_settings(arguments))


def _batch(arguments: argparse.Namespace) -> int:
    from services.log_pipeline.batch import run_batch

    return run_batch(
        arguments.patterns,
        arguments.output,
        arguments.url,
        address=arguments.address,
        workers=arguments.workers,
    )


def _top(arguments: argparse.Namespace) -> int:
    from services.log_pipeline.top import read_top, top_table

    rows = read_top(arguments.place, arguments.limit)
    if arguments.json:
        import orjson

        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
    else:
        print(top_table(rows))
    return 0
