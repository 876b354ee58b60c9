"""``Gateway``: what the routes of one API share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request

from services.gateway.asking import Asker
from services.gateway.json_lines import STREAMS
from services.gateway.openapi import Schemas
from services.gateway.settings import GatewaySettings
from services.web.access_log import Exchange
from services.web.limits import InFlight
from services.web.problem import preferred_language

LARGE_BODY_BYTES = 256 << 10
"""Beyond it a body is read, asked and answered in a thread."""


@dataclass
class Gateway:
    """documented: APIs whose routes are in this app's OpenAPI document; the others serve the page
    alone.
    """

    app: FastAPI
    api: str
    settings: GatewaySettings
    asker: Asker
    schemas: Schemas = field(default_factory=Schemas)
    streams: InFlight = field(default_factory=lambda: InFlight(STREAMS))
    owners: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, handler: Any, api: str, *, method: str = "POST", **more: Any) -> None:
        """A route of ``api``: what a token must be for, also on another API's port."""
        self.owners[path] = api
        self.app.add_api_route(
            path, handler, methods=[method], include_in_schema=api == self.api, **more
        )


def exchange_of(request: Request) -> Exchange:
    exchange: Exchange = request.scope["presage"]
    return exchange


def language_of(request: Request, default: str) -> str:
    return preferred_language(request.headers.get("accept-language", ""), default)
