"""``mount_page``: ``/`` and ``/assets/*`` on any gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from contract.plotly_script import PLOTLY_NAME
from services.gateway.page.asset_store import AssetStore
from services.gateway.page.catalogue import Catalogue, document_language
from services.gateway.page.settings import PageSettings

# Scripts, styles, pictures and requests come from and go to this origin only; nothing inline.
# plotly.js keeps to it: it sets styles through the DOM, which style-src does not judge, and leaves
# its style sheets out when the page brings elements of their ids (plotly.css and, for maps, empty
# ones). Its pictures are data: URLs.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# Beside those that services.web puts on every answer.
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
LANGUAGE_COOKIE = "presage_language"
THEME_COOKIE = "presage_theme"
# What each tab asks.
_TAB_APIS = {
    "diagnose": "/v1/diagnose",
    "logs": "/v1/logs",
    "forecast": "/v1/forecast",
    "models": "/v1/models",
}
_QUERY_API = "/v1/forecast/query"
_HTML_LANGUAGE = {"en": "en", "zh": "zh-CN"}


class Page:
    """Renders the one document and serves its files."""

    def __init__(self, app: Starlette, settings: PageSettings) -> None:
        self._app = app
        self._settings = settings
        self._assets = AssetStore()
        self._catalogue = Catalogue()
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("page.html")

    async def document(self, request: Request) -> Response:
        language = document_language(
            request.headers.get("accept-language", ""), request.cookies.get(LANGUAGE_COOKIE)
        )
        theme = request.cookies.get(THEME_COOKIE, "")
        html = self._template.render(
            language=language,
            html_language=_HTML_LANGUAGE[language],
            theme=theme if theme in {"light", "dark"} else "auto",
            tabs=self._tabs(),
            settings_json=json.dumps(self._told()),
            asset=self._assets.path,
            scripts=self._assets.scripts(),
            foreign_style_ids=self._assets.foreign_style_ids,
            t=lambda key: self._catalogue.text(key, language),
        )
        headers = {
            "Cache-Control": "no-cache",
            "Content-Language": _HTML_LANGUAGE[language],
            "Vary": "Accept-Language, Cookie",
        }
        return Response(
            html, headers=SECURITY_HEADERS | headers, media_type="text/html; charset=utf-8"
        )

    async def asset(self, request: Request) -> Response:
        asset = self._assets.get(request.path_params["address"])
        if asset is None:
            # A page from before an update asks for files of then; it must not be remembered.
            return Response(
                "no such file; load the page again\n",
                404,
                headers=SECURITY_HEADERS | {"Cache-Control": "no-store"},
                media_type="text/plain; charset=utf-8",
            )
        headers = SECURITY_HEADERS | {
            "Cache-Control": "public, max-age=31536000, immutable",
            "ETag": asset.etag,
            "Vary": "Accept-Encoding",
        }
        if _matches(request.headers.get("if-none-match", ""), asset.etag):
            return Response(status_code=304, headers=headers)
        body = asset.body
        if _accepts_gzip(request.headers):
            compressed = await run_in_threadpool(asset.compressed)
            if compressed is not None:
                body = compressed
                headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers, media_type=asset.media_type)

    def _tabs(self) -> list[str]:
        if self._settings.tabs is not None:
            return [tab for tab in _TAB_APIS if tab in self._settings.tabs]
        return [tab for tab, api in _TAB_APIS.items() if api in self._apis]

    @cached_property
    def _apis(self) -> set[str]:
        # At the first request: the page may be mounted before the APIs are.
        return _paths(self._app)

    def _told(self) -> dict[str, Any]:
        return {
            "tabs": self._tabs(),
            "plotly": self._assets.path(PLOTLY_NAME),
            "largest_log_bytes": self._settings.largest_log_bytes,
            "lines_a_request": self._settings.lines_a_request,
            "prometheus": list(self._settings.prometheus),
            "has_query": _QUERY_API in self._apis,
            "language_cookie": LANGUAGE_COOKIE,
            "theme_cookie": THEME_COOKIE,
        }


def mount_page(app: Starlette, settings: PageSettings | None = None) -> None:
    """Add ``GET /`` and ``GET /assets/{address}`` to a gateway's app (FastAPI is a Starlette).

    Raises ServerSetupError: plotly is not installed.
    """
    page = Page(app, settings or PageSettings())
    app.add_route("/", page.document, methods=["GET"], include_in_schema=False)
    app.add_route("/assets/{address:path}", page.asset, methods=["GET"], include_in_schema=False)


def _paths(app: Starlette) -> set[str]:
    """What the app answers; FastAPI knows its included routers' paths only in its document."""
    described = app.openapi()["paths"] if isinstance(app, FastAPI) else ()
    return {*described, *(str(getattr(route, "path", "")) for route in app.routes)}


def _matches(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags


def _accepts_gzip(headers: Mapping[str, str]) -> bool:
    for part in headers.get("accept-encoding", "").split(","):
        name, _, parameter = part.strip().partition(";")
        if name.strip().lower() == "gzip":
            return parameter.replace(" ", "") not in {"q=0", "q=0.0"}
    return False
