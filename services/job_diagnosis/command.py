"""``python -m services job_diagnosis [serve|verdicts]``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.web.command import add_web_arguments, web_settings

if TYPE_CHECKING:
    from pydantic import BaseModel

NAME = "job_diagnosis"
_COMMANDS = ("serve", "verdicts")


def add_parser(commands: Any) -> None:
    """Add ``job_diagnosis`` to the services' subparsers. Without a word after it, it serves."""
    jobs = commands.add_parser(NAME, help="why did this training job die, and who must know")
    words = jobs.add_subparsers(dest="command", required=True)

    serve = words.add_parser(
        "serve",
        help="until told to stop (the default)",
        epilog="Every flag is also a variable: PRESAGE_JOBS_DATABASE_URL, PRESAGE_JOBS_SPOOL …",
    )
    serve.add_argument("--port", type=int, help="8004; 0 takes a free one")
    serve.add_argument("--triton-url", metavar="URL", help="grpc://127.0.0.1:9001")
    serve.add_argument("--spool", type=Path, metavar="FOLDER", help="what is not done yet")
    serve.add_argument("--answer-seconds", type=float, help="then 202, and later (20)")
    serve.add_argument("--workers", type=int, help="questions to the server at a time (2)")
    serve.add_argument("--retention-days", type=int, help="results are kept so long (180)")
    serve.add_argument(
        "--files-below", type=Path, action="append", metavar="FOLDER", help="readable by reference"
    )
    serve.add_argument(
        "--prometheus-url", metavar="URL", help="of the script exporters: faults of a job's node"
    )
    _add_database(serve)
    _add_sources(serve)
    serve.add_argument(
        "--notify-config", type=Path, metavar="FILE", help="whom to tell: deploy/notify/notify.toml"
    )
    serve.add_argument("--job-url", metavar="URL", help="a job's page for them, {job_id} in it")
    add_web_arguments(serve)
    serve.set_defaults(run=_serve)

    verdicts = words.add_parser("verdicts", help="what people said, as training reads it")
    verdicts.add_argument("--output", type=Path, metavar="FILE", help="instead of stdout")
    _add_database(verdicts)
    verdicts.set_defaults(run=_verdicts)


def with_default_command(argv: Sequence[str]) -> list[str]:
    """``job_diagnosis --port 8004`` means ``job_diagnosis serve --port 8004``."""
    words = list(argv)
    if words[:1] == [NAME] and not set(words[1:2]) & {*_COMMANDS, "-h", "--help"}:
        words.insert(1, "serve")
    return words


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database-url",
        metavar="URL",
        help="sqlite:///build/job_diagnosis/jobs.sqlite; one with a password is better told by "
        "PRESAGE_JOBS_DATABASE_URL",
    )


def _add_sources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("logs by reference")
    group.add_argument("--elasticsearch-url", metavar="URL", help="several: separated by commas")
    group.add_argument(
        "--elasticsearch-api-key-file", type=Path, metavar="FILE", help="holds an encoded API key"
    )
    group.add_argument("--elasticsearch-ca-file", type=Path, metavar="FILE")
    group.add_argument(
        "--elasticsearch-index",
        action="append",
        dest="elasticsearch_indices",
        metavar="PATTERN",
        help="that may be read; several (all)",
    )
    group.add_argument("--kubernetes", metavar="WHERE", help="in-cluster, or a kubeconfig file")
    group.add_argument("--kubernetes-context", metavar="NAME")
    group.add_argument(
        "--kubernetes-namespace",
        action="append",
        dest="kubernetes_namespaces",
        metavar="NAME",
        help="that may be read; several (all)",
    )


def _serve(arguments: argparse.Namespace) -> int:
    from services.job_diagnosis.notices import NoticeSettings
    from services.job_diagnosis.service import serve
    from services.job_diagnosis.settings import JobSettings
    from services.job_diagnosis.sources.settings import SourceSettings
    from services.web.serving import start_logging
    from services.web.settings import WebSettings, load_settings

    start_logging()
    names = ("port", "triton_url", "spool", "answer_seconds", "workers", "retention_days")
    given = {
        name: getattr(arguments, name)
        for name in (*names, "files_below", "prometheus_url", "database_url")
    }
    return serve(
        load_settings(JobSettings, given),
        WebSettings.load(**web_settings(arguments)),
        notices=load_settings(NoticeSettings, _given(arguments, NoticeSettings)),
        sources=load_settings(SourceSettings, _given(arguments, SourceSettings)),
    )


def _given(arguments: argparse.Namespace, settings: type[BaseModel]) -> dict[str, Any]:
    return {name: getattr(arguments, name, None) for name in settings.model_fields}


def _verdicts(arguments: argparse.Namespace) -> int:
    from contract.errors import InputError
    from services.job_diagnosis.settings import JobSettings
    from services.job_diagnosis.storage import Storage
    from services.job_diagnosis.verdicts import training_rows
    from services.web.settings import load_settings

    settings = load_settings(JobSettings, {"database_url": arguments.database_url})
    storage = Storage(settings.database_url.get_secret_value())
    count = -1  # the header is no verdict
    try:
        if arguments.output is None:
            for row in training_rows(storage):
                sys.stdout.write(row)
                count += 1
        else:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            partial = arguments.output.with_name(arguments.output.name + ".partial")
            with partial.open("w", encoding="utf-8", newline="") as file:
                for row in training_rows(storage):
                    file.write(row)
                    count += 1
            partial.replace(arguments.output)
    except OSError as error:
        raise InputError(
            "the verdicts cannot be written",
            where=str(arguments.output),
            got=error.strerror or str(error),
        ) from error
    finally:
        storage.close()
    print(f"{count} verdicts that name causes", file=sys.stderr)
    return 0
