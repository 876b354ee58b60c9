"""``python -m services log_pipeline score|tail|serve|batch|top``"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients import LogAnomalyClient
    from services.log_pipeline.classifier import LineClassifier

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
    _add_common(score)
    score.set_defaults(run=_score)


def make_client(url: str) -> LogAnomalyClient:
    from clients import CallPolicy, LogAnomalyClient

    return LogAnomalyClient(url, CallPolicy(deadline_seconds=_DEADLINE_SECONDS))


def make_classifier(url: str) -> LineClassifier:
    """Raises ServerError: nobody answers at ``url``."""
    from services.log_pipeline.classifier import LineClassifier

    classifier = LineClassifier(make_client(url))
    classifier.refresh()
    return classifier


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default=os.environ.get("PRESAGE_URL", DEFAULT_URL),
        help="the server, also PRESAGE_URL (%(default)s)",
    )
    parser.add_argument(
        "--join", action="store_true", help="the lines of a traceback are one event"
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
    return run_score(classifier, arguments.paths, arguments.output, join=arguments.join)
