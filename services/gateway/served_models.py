"""/v1/models: versions, hashes, quality and parity verdicts, and how they do now."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, Field

from clients import ModelState, ModelStatistics
from contract.errors import ArtifactError, DeadlineExceededError, PresageError
from contract.manifest import read_manifest
from services.gateway import examples
from services.gateway.answers import json_response
from services.gateway.asking import Connections
from services.gateway.context import Gateway, exchange_of

PARITY_FILE = "parity_report.json"
_PARITY = ("passed", "target", "precision", "created_at", "decisions", "flipped", "worst", "run_id")
_RUNG = ("rung", "passed", "decisions", "flipped")
_TEXT_MODELS = ("log_anomaly", "train_failure_rca")


class ServedModelAnswer(BaseModel):
    name: str
    version: str
    state: str
    reason: str = ""
    sha256: str | None = Field(description="Of the served file, as the parity gate saw it.")
    quality: list[dict[str, Any]] = Field(description="Each beside the simplest baseline.")
    parity: dict[str, Any] | None
    live: dict[str, float] = Field(description="Since the server started; rates since last asked.")


def add_models(gateway: Gateway) -> None:
    """GET /v1/models, for any token."""
    models = ServedModels(gateway.asker.connections, gateway.settings.repository)

    async def handler(request: Request) -> Response:
        seconds = exchange_of(request).deadline_seconds
        try:
            async with asyncio.timeout(seconds):
                return json_response(await models.told())
        except TimeoutError:
            raise DeadlineExceededError("the model server does not answer in time") from None

    gateway.add(
        "/v1/models",
        handler,
        "",
        method="GET",
        summary="What is served, and why it may be trusted",
        description="Hashes, quality and parity come from the model repository where it is on the "
        "gateway's machine; live figures from Triton.",
        **gateway.schemas.describe(
            answer=gateway.schemas.array_of(ServedModelAnswer),
            answer_example=examples.MODELS_ANSWER,
            problems=(400, 401, 429, 431, 500, 502, 503, 504),
        ),
    )


@dataclass(frozen=True)
class _Seen:
    at: float
    requests: int


class ServedModels:
    """Reads each version's papers once; a published version never changes."""

    def __init__(
        self,
        connections: Connections,
        repository: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = connections.server
        self._describers = {
            "log_anomaly": connections.logs.describe,
            "train_failure_rca": connections.diagnose.describe,
        }
        self._repository = repository
        self._clock = clock
        self._papers: dict[tuple[str, str], dict[str, Any]] = {}
        self._seen: dict[tuple[str, str], _Seen] = {}

    async def told(self) -> list[dict[str, Any]]:
        """Raises ServerError: nobody answers."""
        states = await self._server.models()
        statistics = {(row.name, row.version): row for row in await self._server.statistics()}
        return [
            {
                "name": state.name,
                "version": state.version,
                "state": state.state or "UNAVAILABLE",
                "reason": "" if state.is_ready else "not loaded",
                **await self._papers_of(state),
                "live": self._live(statistics.get((state.name, state.version))),
            }
            for state in states
        ]

    async def _papers_of(self, state: ModelState) -> dict[str, Any]:
        key = (state.name, state.version)
        if key not in self._papers:
            papers = read_papers(self._repository / state.name / state.version)
            if not papers["quality"] and state.is_ready and state.name in _TEXT_MODELS:
                papers["quality"] = await self._told_quality(state)
            self._papers[key] = papers
        return self._papers[key]

    async def _told_quality(self, state: ModelState) -> list[dict[str, Any]]:
        """In the server's own words, where the repository is on another machine."""
        try:
            manifest = await self._describers[state.name]()
        except PresageError:
            return []
        return list(manifest.get("quality", [])) if isinstance(manifest, dict) else []

    def _live(self, row: ModelStatistics | None) -> dict[str, float]:
        if row is None:
            return {}
        key, now = (row.name, row.version), self._clock()
        seen = self._seen.get(key)
        live: dict[str, float] = {
            "requests": row.requests,
            "failures": row.failures,
            "mean_latency_ms": round(row.mean_latency_milliseconds, 3),
            "mean_queue_ms": round(row.mean_queue_milliseconds, 3),
            "mean_compute_ms": round(row.mean_compute_milliseconds, 3),
            "mean_batch_size": round(row.mean_batch_size, 2),
        }
        if seen is not None and now - seen.at > 0 and row.requests >= seen.requests:
            live["requests_per_second"] = round((row.requests - seen.requests) / (now - seen.at), 2)
        if seen is None or now - seen.at >= 1.0 or row.requests < seen.requests:
            self._seen[key] = _Seen(now, row.requests)
        return live


def read_papers(version: Path) -> dict[str, Any]:
    """Hash, quality and parity of a version folder; empty where it is not here."""
    papers: dict[str, Any] = {"sha256": None, "quality": [], "parity": None}
    try:
        manifest = read_manifest(version, verify_files=False)
        papers["quality"] = [row.model_dump() for row in manifest.quality]
    except ArtifactError:
        pass
    try:
        report = json.loads((version / PARITY_FILE).read_text("utf-8"))
        files: dict[str, str] = report.get("files", {})
        papers["sha256"] = files.get("model.onnx") or next(iter(files.values()), None)
        papers["parity"] = {name: report[name] for name in _PARITY if name in report} | {
            "rungs": [
                {name: rung[name] for name in _RUNG if name in rung}
                for rung in report.get("rungs", [])
            ]
        }
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    return papers
