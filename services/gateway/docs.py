"""/docs: the OpenAPI document as a page of plain HTML, without a script, offline."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from services.web.body import JSON
from services.web.limits import NDJSON

_TEMPLATES = Path(__file__).with_name("templates")
_WIDEST = 100


def add_docs(app: FastAPI) -> None:
    """GET /docs; /openapi.json is FastAPI's own."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_TEMPLATES / "docs.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"

    async def docs(request: Request) -> Response:
        document = app.openapi()
        base = f"{request.url.scheme}://{request.url.netloc}"
        html = environment.get_template("docs.html").render(
            style=style,
            title=document["info"]["title"],
            description=document["info"].get("description", ""),
            operations=operations(document, base),
            schemas={
                name: json.dumps(schema, indent=2, ensure_ascii=False)
                for name, schema in document["components"]["schemas"].items()
            },
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    app.add_route("/docs", docs, methods=["GET"], include_in_schema=False)


def operations(document: dict[str, Any], base: str) -> list[dict[str, Any]]:
    """What the page shows of each operation, in the document's order."""
    shown = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            answers = operation["responses"]["200"]["content"]
            shown.append(
                {
                    "anchor": f"{method}-{path.strip('/').replace('/', '-')}",
                    "method": method.upper(),
                    "path": path,
                    "summary": operation.get("summary", ""),
                    "description": operation.get("description", ""),
                    "requests": _requests(base + path, method, content),
                    "answers": [
                        (kind, _pretty(told.get("example"))) for kind, told in answers.items()
                    ],
                    "body": _schema_name(content.get(JSON, {})),
                    "answer": _schema_name(answers.get(JSON, {})),
                    "problems": [
                        (status, told["description"])
                        for status, told in operation["responses"].items()
                        if status != "200"
                    ],
                }
            )
    return shown


def _requests(url: str, method: str, content: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, curl command)"""
    if not content:
        return [("", f"curl -s {url}")]
    made = []
    for name, example in content.get(JSON, {}).get("examples", {}).items():
        body = json.dumps(example["value"], ensure_ascii=False)
        made.append((name, _curl(url, JSON, body)))
    if NDJSON in content:
        made.append(("stream", _curl(url, NDJSON, content[NDJSON]["example"], "--data-binary")))
    return made


def _curl(url: str, kind: str, body: str, flag: str = "-d") -> str:
    return f"curl -s {url} -H 'Content-Type: {kind}' \\\n  {flag} {shlex.quote(body)}"


def _pretty(example: Any) -> str:
    if isinstance(example, str):
        return example
    flat = json.dumps(example, ensure_ascii=False)
    return flat if len(flat) <= _WIDEST else json.dumps(example, ensure_ascii=False, indent=1)


def _schema_name(told: dict[str, Any]) -> str:
    return str(told.get("schema", {}).get("$ref", "")).rpartition("/")[2]
