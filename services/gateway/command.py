"""``python -m services gateway metric_forecast|log_anomaly|train_failure_rca|all|down``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from services.gateway.ports import PORTS, RUN_FOLDER
from services.web.command import add_web_arguments, web_settings

_HELP = {
    "metric_forecast": "where will metrics be?",
    "log_anomaly": "which log lines are abnormal?",
    "train_failure_rca": "why did a job die?",
}


def add_parser(commands: Any) -> None:
    """Add ``gateway`` to the services' subparsers."""
    gateway = commands.add_parser("gateway", help="the models' HTTP APIs, and a page for people")
    words = gateway.add_subparsers(dest="command", required=True)
    for api, port in PORTS.items():
        one = words.add_parser(api, help=f"{_HELP[api]} (port {port})")
        one.add_argument("--port", type=int, default=port, help="0 takes a free one (%(default)s)")
        _add_arguments(one)
        one.set_defaults(run=_run, apis=[api])
    every = words.add_parser("all", help="all three in one process")
    for api, port in PORTS.items():
        flag = f"--{api.replace('_', '-')}-port"
        every.add_argument(flag, type=int, default=port, help="(%(default)s)")
    _add_arguments(every)
    every.set_defaults(run=_run, apis=list(PORTS))
    down = words.add_parser("down", help="stop exactly what --detach started")
    down.add_argument("--run-folder", type=Path, default=RUN_FOLDER)
    down.set_defaults(run=_down)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="Triton (grpc://127.0.0.1:9001)")
    parser.add_argument(
        "--repository", type=Path, help="where versions lie, for /v1/models (model_repository)"
    )
    parser.add_argument(
        "--prometheus",
        action="append",
        type=_named_url,
        metavar="NAME=URL",
        help="a server that /v1/forecast/query may ask; repeatable",
    )
    parser.add_argument(
        "--alert-log",
        metavar="PATTERN",
        help="an alert's log by its labels: /var/log/jobs/{job_id}.log, https://…/{job_id}",
    )
    parser.add_argument("--job-failure-url", metavar="URL", help="the job-failure service")
    parser.add_argument(
        "--notify-config", type=Path, metavar="FILE", help="tell people of diagnosed alerts"
    )
    parser.add_argument("--detach", action="store_true", help="return once it listens")
    parser.add_argument("--run-folder", type=Path, help="keep state and logs there")
    add_web_arguments(parser)


def _named_url(text: str) -> tuple[str, str]:
    name, separator, url = text.partition("=")
    if not separator or not name or not url.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"expected NAME=http://…, got {text!r}")
    return name, url


def _ports(arguments: argparse.Namespace) -> dict[str, int]:
    if len(arguments.apis) == 1:
        return {arguments.apis[0]: arguments.port}
    return {api: getattr(arguments, f"{api}_port") for api in arguments.apis}


def _run(arguments: argparse.Namespace) -> int:
    if arguments.detach:
        return _detach(arguments)
    from services.gateway.detached import remove_state, write_own_state
    from services.gateway.serve import serve_gateway
    from services.gateway.settings import GatewaySettings
    from services.web.serving import start_logging

    start_logging()
    given = {
        name: getattr(arguments, name)
        for name in ("url", "repository", "alert_log", "job_failure_url", "notify_config")
    }
    prometheus = None if arguments.prometheus is None else dict(arguments.prometheus)
    settings = GatewaySettings.load(**given, prometheus=prometheus, **web_settings(arguments))
    folder: Path | None = arguments.run_folder
    try:
        return serve_gateway(
            arguments.apis,
            _ports(arguments),
            settings,
            listening=None if folder is None else (lambda urls: write_own_state(folder, urls)),
        )
    finally:
        if folder is not None:
            remove_state(folder)


def _detach(arguments: argparse.Namespace) -> int:
    from services.gateway.detached import start_detached

    folder = arguments.run_folder or RUN_FOLDER
    state = start_detached(folder, _words(arguments, folder))
    told = ", ".join(f"{api} {url}" for api, url in state.urls.items())
    print(f"gateway is up: {told}; stop it: python -m services gateway down")
    return 0


def _words(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The flags of this command again, without --detach."""
    every = len(arguments.apis) > 1
    words = ["gateway", "all" if every else arguments.apis[0], f"--run-folder={folder}"]
    for api, port in _ports(arguments).items():
        words.append(f"--{api.replace('_', '-')}-port={port}" if every else f"--port={port}")
    for name, url in arguments.prometheus or ():
        words.append(f"--prometheus={name}={url}")
    if arguments.no_tokens:
        words.append("--no-tokens")
    for name in (
        *("url", "repository", "alert_log", "job_failure_url", "notify_config"),
        *(name for name in web_settings(arguments) if name != "no_tokens"),
    ):
        value = getattr(arguments, name)
        if value is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    return words


def _down(arguments: argparse.Namespace) -> int:
    from services.gateway.detached import stop_detached

    print("gateway is down" if stop_detached(arguments.run_folder) else "no gateway is up")
    return 0
