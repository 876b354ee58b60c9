"""The gateway as a process: one API, or all three in one event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from services.gateway.alert_logs import AlertLogs
from services.gateway.app import make_app
from services.gateway.asking import Connections
from services.gateway.notifying import make_notifier
from services.gateway.settings import GatewaySettings
from services.web.access_log import AccessLog
from services.web.serving import Served, serve


def serve_gateway(
    apis: Sequence[str],
    ports: Mapping[str, int],
    settings: GatewaySettings,
    listening: Callable[[dict[str, str]], None] | None = None,
) -> int:
    """Until SIGTERM; ``listening`` is told the URLs by API.

    Raises ConfigError, ServerSetupError.
    """
    settings.check_exposure()
    logs = AlertLogs(settings)
    notifier = make_notifier(settings.notify_config)
    connections = Connections(settings)
    log = AccessLog()

    async def closing() -> None:
        await connections.close()
        await logs.close()
        if notifier is not None:
            notifier.close()

    served = [
        Served(make_app(api, settings, connections, logs, notifier, log), ports[api])
        for api in apis
    ]
    return serve(served, settings, name="gateway", listening=listening, closing=closing)
