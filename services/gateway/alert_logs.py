"""``AlertLogs``: the log that an alert is about, from where the operator allows it to be read.

Whoever can send an alert must not be able to read files or make the gateway fetch addresses: a
path in an alert is never opened, an address only where its origin is named in the settings, and
a label enters the operator's pattern only if it is a plain name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson

from clients.results import Cause, Diagnosis, EvidenceLine
from contract.errors import ConfigError, PresageError, TextError
from services.gateway.settings import GatewaySettings

LARGEST_LOG_BYTES = 20 << 20
_FIELD = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}")
_TIMEOUT_SECONDS = 10.0
_SUBJECTS = ("job_id", "job_name", "training_job", "pod", "node", "instance", "host", "hostname")
SOURCES = ("annotation", "configured", "job_failure", "none")


@dataclass(frozen=True)
class FoundLog:
    """source: one of SOURCES. diagnosis: the job-failure service's own, instead of a text."""

    source: str
    text: bytes = b""
    diagnosis: Diagnosis | None = None
    reason: str = ""


def read_job_answer(raw: bytes) -> Diagnosis | None:
    """The newest result of the job-failure service's GET /v1/jobs/{id}; None: not diagnosed yet.

    Raises TextError: not its answer.
    """
    try:
        results = orjson.loads(raw)["results"]
        if not results:
            return None
        newest = results[0]
        causes = [
            Cause(
                str(cause["label"]),
                float(cause["probability"]),
                tuple(
                    EvidenceLine(int(e["line_number"]), str(e["text"])) for e in cause["evidence"]
                ),
                {str(k): str(v) for k, v in cause["action"].items()},
            )
            for cause in newest["causes"]
        ]
        return Diagnosis(
            causes,
            newest["root"],
            bool(newest["unknown"]),
            {str(k): float(v) for k, v in newest["probabilities"].items()},
            str(newest["model_version"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise TextError("the job-failure service answered something else") from error


def subject_of(labels: Mapping[str, str]) -> tuple[str, str]:
    """The label that names the job or node, and its value; "" where none does."""
    for name in _SUBJECTS:
        if labels.get(name):
            return name, labels[name]
    return "", ""


class AlertLogs:
    """Looks in the alert itself, then where ``alert_log`` points, then at the job-failure service.

    Raises ConfigError: an ``alert_log`` that makes no sense.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._pattern = settings.alert_log
        self._origins = {origin.rstrip("/") for origin in settings.alert_log_origins}
        self._token_files = {"log": settings.alert_log_token_file}
        self._token_files["job"] = settings.job_failure_token_file
        self._job_failure_url = settings.job_failure_url.rstrip("/")
        self._http: httpx.AsyncClient | None = None
        if self._pattern and not _FIELD.search(self._pattern):
            raise ConfigError(
                "alert_log is the same for every alert",
                where="PRESAGE_ALERT_LOG",
                expected="a label in braces, such as /var/log/jobs/{job_id}.log",
                got=self._pattern,
            )

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def find(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> FoundLog:
        """Never raises for one alert: ``reason`` says why nothing was found."""
        reasons = []
        for look in (self._in_alert, self._configured, self._job_failure):
            try:
                found = await look(labels, annotations)
            except PresageError as error:
                reasons.append(str(error))
                continue
            if found is not None:
                return found
        return FoundLog("none", reason="; ".join(reasons) or "the alert names no log")

    async def _in_alert(
        self, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> FoundLog | None:
        given = annotations.get("log") or labels.get("log") or ""
        if not given.strip():
            return None
        if re.match(r"https?://\S+$", given.strip()):
            url = given.strip()
            if _origin(url) not in self._origins:
                raise TextError(
                    "the log's address is not one of those that may be read",
                    where="annotation log",
                    expected="an origin of alert_log_origins",
                )
            return FoundLog("annotation", await self._fetch(url, "log"))
        if given.startswith(("/", "file:", "~", "..")) and "\n" not in given.strip():
            raise TextError("a path in an alert is not read", where="annotation log")
        return FoundLog("annotation", given.encode("utf-8", "replace"))

    async def _configured(
        self, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> FoundLog | None:
        if not self._pattern:
            return None
        missing = [name for name in _FIELD.findall(self._pattern) if not labels.get(name)]
        if missing:
            return None
        for name in _FIELD.findall(self._pattern):
            if not _PLAIN.fullmatch(labels[name]) or ".." in labels[name]:
                raise TextError("a label is no plain name", where=f"label {name}")
        place = _FIELD.sub(lambda field: labels[field[1]], self._pattern)
        if place.startswith(("http://", "https://")):
            return FoundLog("configured", await self._fetch(place, "log"))
        folder = Path(self._pattern[: self._pattern.index("{")]).parent
        if self._pattern[: self._pattern.index("{")].endswith("/"):
            folder = Path(self._pattern[: self._pattern.index("{")])
        return FoundLog("configured", await asyncio.to_thread(_read_below, folder, Path(place)))

    async def _job_failure(
        self, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> FoundLog | None:
        name, value = subject_of(labels)
        if not self._job_failure_url or not name.startswith(("job", "training")):
            return None
        if not _PLAIN.fullmatch(value) or ".." in value:
            raise TextError("a label is no plain name", where=f"label {name}")
        url = f"{self._job_failure_url}/v1/jobs/{value}"
        raw = await self._fetch(url, "job")
        diagnosis = read_job_answer(raw)
        return None if diagnosis is None else FoundLog("job_failure", diagnosis=diagnosis)

    async def _fetch(self, url: str, kind: str) -> bytes:
        """Raises TextError: not there, too slow, too large."""
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=_TIMEOUT_SECONDS, trust_env=False, follow_redirects=False
            )
        headers = {}
        token_file = self._token_files[kind]
        try:
            if token_file is not None:
                headers["Authorization"] = f"Bearer {token_file.read_text('utf-8').strip()}"
            parts: list[bytes] = []
            size_bytes = 0
            async with (
                asyncio.timeout(_TIMEOUT_SECONDS),
                self._http.stream("GET", url, headers=headers) as answer,
            ):
                if answer.status_code != 200:
                    raise TextError("the log is not there", got=f"HTTP {answer.status_code}")
                async for part in answer.aiter_bytes():
                    size_bytes += len(part)
                    if size_bytes > LARGEST_LOG_BYTES:
                        raise TextError(
                            "the log is too large", expected=f"at most {LARGEST_LOG_BYTES} bytes"
                        )
                    parts.append(part)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            raise TextError("the log cannot be fetched", got=type(error).__name__) from error
        return b"".join(parts)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    # A user in the address would be sent to whoever it names.
    return "" if "@" in parts.netloc else f"{parts.scheme}://{parts.netloc}"


def _read_below(folder: Path, path: Path) -> bytes:
    """The file, or its end where it is large. Raises TextError: not there, not in the folder."""
    try:
        inside = path.resolve(strict=True)
        if not inside.is_relative_to(folder.resolve(strict=True)) or not inside.is_file():
            raise TextError("the log is not where logs are")
        with inside.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(max(0, size_bytes - LARGEST_LOG_BYTES))
            return file.read(LARGEST_LOG_BYTES)
    except OSError as error:
        raise TextError("the log cannot be read", got=error.strerror or "") from error
