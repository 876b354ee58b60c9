"""``make_app``: one API behind its protection, with the page and the documents."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI

from contract.errors import PresageError
from services.gateway.alert_logs import AlertLogs
from services.gateway.alertmanager import Notifier, add_alertmanager
from services.gateway.asking import Asker, Connections
from services.gateway.context import Gateway
from services.gateway.docs import add_docs
from services.gateway.log_anomaly import add_log_anomaly
from services.gateway.metric_forecast import add_metric_forecast
from services.gateway.prometheus_query import add_forecast_query
from services.gateway.served_models import add_models
from services.gateway.settings import GatewaySettings
from services.gateway.train_failure_rca import add_train_failure_rca
from services.web.access_log import AccessLog
from services.web.protection import Protection, protect
from services.web.telemetry import WebTelemetry

TITLES = {
    "metric_forecast": "Presage: metric forecasts",
    "log_anomaly": "Presage: log anomalies",
    "train_failure_rca": "Presage: root causes of failed jobs",
}
_DESCRIPTION = (
    "Limits: 64 MiB a body, 10,000 rows a batch; NDJSON streams may be longer. gzip bodies are "
    "taken. X-Request-Timeout (seconds) is passed on to the model server; X-Request-Id comes back. "
    "Titles of problems are Chinese where Accept-Language prefers it."
)
_CANARY_SECONDS = 5.0
_CANARY_LINE = "canary: all systems nominal"
_CANARY_SERIES = [1.0] * 30


def make_app(
    api: str,
    settings: GatewaySettings,
    connections: Connections,
    logs: AlertLogs,
    notifier: Notifier | None = None,
    access_log: AccessLog | None = None,
) -> Protection:
    """The ASGI app of one API. It serves the others' /v1 too, undocumented, for the page; a token
    must be for the API that a path belongs to.
    """
    app = FastAPI(title=TITLES[api], docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    telemetry = WebTelemetry(api)
    asker = Asker(connections, settings, telemetry)
    gateway = Gateway(app, api, settings, asker)
    add_metric_forecast(gateway)
    add_log_anomaly(gateway)
    add_train_failure_rca(gateway)
    if settings.prometheus:
        add_forecast_query(gateway)
    add_alertmanager(gateway, logs, notifier)
    add_models(gateway)
    gateway.schemas.install(app, description=_DESCRIPTION)
    add_docs(app)
    has_page = _mount_page(app, settings)
    protection = protect(
        app,
        settings,
        api=api,
        ready=_canary(api, asker),
        telemetry=telemetry,
        access_log=access_log,
        owner_of=gateway.owners.get,
    )
    # Documents and the page's files hold nothing secret; what they ask for needs the token.
    protection.open_paths = frozenset({"/docs", "/openapi.json"} | ({"/"} if has_page else set()))
    protection.open_prefixes = ("/assets/",) if has_page else ()
    return protection


def _mount_page(app: FastAPI, settings: GatewaySettings) -> bool:
    """``/``, where the page is installed."""
    try:
        page = importlib.import_module("services.gateway.page")
    except ModuleNotFoundError as error:
        if error.name != "services.gateway.page":
            raise
        return False
    page.mount_page(app, page.PageSettings(prometheus=tuple(settings.prometheus)))
    return True


def _canary(api: str, asker: Asker) -> Callable[[], Awaitable[str | None]]:
    """Asks the API's own model through Triton: "ready" there also says who died is ready."""
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "metric_forecast": lambda: asker.forecast(
            [_CANARY_SERIES], step_seconds=300.0, preset="next", deadline_seconds=_CANARY_SECONDS
        ),
        "log_anomaly": lambda: asker.classify([_CANARY_LINE], _CANARY_SECONDS),
        "train_failure_rca": lambda: asker.diagnose([_CANARY_LINE], None, _CANARY_SECONDS),
    }

    async def ready() -> str | None:
        try:
            async with asyncio.timeout(_CANARY_SECONDS):
                await asked[api]()
        except PresageError as error:
            return error.what
        except TimeoutError:
            return "the model server does not answer in time"
        return None

    return ready
