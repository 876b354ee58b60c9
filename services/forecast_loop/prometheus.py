"""``Prometheus``: its HTTP API, with timeouts, retries and its refusals as typed errors."""

from __future__ import annotations

import random
import ssl
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from contract.errors import (
    ConfigError,
    DeadlineExceededError,
    PresageError,
    QueryError,
    ServerAnswerError,
    ServerUnavailableError,
)
from services.bounded_http import bounded_client
from services.forecast_loop.config import PrometheusSettings
from services.forecast_loop.grid import Grid
from services.forecast_loop.range_answer import RangeAnswer, parse_answer, parse_range

FIRST_DELAY_SECONDS = 0.2
LARGEST_DELAY_SECONDS = 5.0
_WORTH_A_RETRY = frozenset({429, 500, 502, 503, 504})
_REFUSALS = {400: "bad_query", 404: "not_found", 422: "refused"}
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "presage-forecast-loop"}
"""Identity: on one machine or in one cluster, unpacking costs more than the bytes it saves."""


@dataclass(frozen=True)
class ServerTime:
    """Prometheus' clock (Unix seconds), and how far it is ahead of ours at least: an answer that
    was long on its way tells nothing more exact."""

    now_seconds: float
    skew_seconds: float


class Prometheus:
    """Blocking, and safe to use from several threads. Once ``stop`` is set it waits no more.

    Every method raises:
        QueryError: Prometheus refused the query (400, 422), in its own words.
        ServerUnavailableError, DeadlineExceededError: nobody answered, all attempts used up.
        ServerAnswerError: the answer is truncated, not JSON, or not the API's.
    """

    def __init__(self, settings: PrometheusSettings, stop: threading.Event | None = None) -> None:
        self.settings = settings
        self._stop = stop or threading.Event()
        verify: ssl.SSLContext | bool = True
        if settings.ca_file is not None:
            try:
                verify = ssl.create_default_context(cafile=str(settings.ca_file))
            except OSError as error:
                raise ConfigError(
                    "prometheus.ca_file cannot be used",
                    where=str(settings.ca_file),
                    expected="certificates in PEM",
                    got=str(error),
                ) from error
        # No trust in the environment: a proxy for the internet is no way to one's own Prometheus.
        self._http = bounded_client(
            settings.timeout_seconds,
            base_url=settings.url.rstrip("/"),
            headers=_HEADERS,
            limits=httpx.Limits(max_connections=settings.concurrency + 2),
            verify=verify,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def server_time(self) -> ServerTime:
        """By the query ``time()``, which says milliseconds where the Date header says seconds."""
        sent = time.time()
        answer = self._ask("/api/v1/query", {"query": "time()"})
        received = time.time()
        try:
            result = answer["data"]["result"]
            # A scalar is one [time, value]; some who speak this API answer a vector.
            pair = result[0]["value"] if isinstance(result[0], dict) else result
            theirs = float(pair[1])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerAnswerError("Prometheus does not say its time", got=repr(answer)) from error
        # It was said at some moment between: a stalled answer is no clock that runs ahead.
        skew = max(0.0, theirs - received) + min(0.0, theirs - sent)
        return ServerTime(theirs, skew)

    def query_range(self, expression: str, grid: Grid) -> RangeAnswer:
        form = {
            "query": expression,
            "start": str(grid.start_seconds),
            "end": str(grid.end_seconds),
            "step": str(grid.step_seconds),
            "timeout": f"{self.settings.timeout_seconds:g}s",
        }
        path = "/api/v1/query_range"
        return parse_range(self._bytes(path, form), grid, self.settings.url + path)

    def count(self, expression: str, now_seconds: float) -> int:
        """How many series the expression has at a moment."""
        form = {"query": f"count({expression})", "time": f"{now_seconds:.3f}"}
        result = self._ask("/api/v1/query", form)["data"]["result"]
        return int(float(result[0]["value"][1])) if result else 0

    def vector(self, expression: str, now_seconds: float) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that the expression has at a moment."""
        form = {"query": expression, "time": f"{now_seconds:.3f}"}
        answer = self._ask("/api/v1/query", form)
        try:
            return [
                (dict(one["metric"]), float(one["value"][1])) for one in answer["data"]["result"]
            ]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerAnswerError(
                "Prometheus answers no vector", where=self.settings.url, got=repr(error)
            ) from error

    def label_values(self, label: str, selector: str | None, grid: Grid) -> list[str]:
        """Sorted; of the series that the selector matches within the grid (None: of all)."""
        form = {"start": str(grid.start_seconds), "end": str(grid.end_seconds)}
        if selector is not None:
            form["match[]"] = selector
        return sorted(self._ask(f"/api/v1/label/{label}/values", form, method="GET")["data"])

    def knows(self, metric: str, grid: Grid) -> bool:
        """Whether any series of that name has points within the grid."""
        return bool(self.label_values("__name__", f'{{__name__="{metric}"}}', grid))

    def metric_type(self, metric: str) -> str:
        """counter, gauge, histogram, summary, or "" where no target says so."""
        found = self._ask("/api/v1/metadata", {"metric": metric}, method="GET")["data"]
        return str(found[metric][0].get("type", "")) if found.get(metric) else ""

    def _ask(self, path: str, form: dict[str, str], method: str = "POST") -> dict[str, Any]:
        return parse_answer(self._bytes(path, form, method), self.settings.url + path)

    def _bytes(self, path: str, form: dict[str, str], method: str = "POST") -> bytes:
        attempt = 0
        while True:
            try:
                return self._bytes_once(path, form, method)
            except (ServerUnavailableError, DeadlineExceededError) as error:
                attempt += 1
                delay = min(LARGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**attempt)
                if attempt >= self.settings.attempts or self._stop.wait(
                    delay * random.uniform(0.5, 1.0)
                ):
                    raise error

    def _bytes_once(self, path: str, form: dict[str, str], method: str) -> bytes:
        where = self.settings.url + path
        # A POST: a shard's matchers outgrow a URL. GET where the API knows nothing else.
        sent: dict[str, Any] = {"data": form} if method == "POST" else {"params": form}
        try:
            answer = self._http.request(method, path, headers=self._authorization(), **sent)
        except httpx.TimeoutException as error:
            raise DeadlineExceededError(
                "Prometheus: no answer in time",
                where=where,
                expected=f"an answer within {self.settings.timeout_seconds:g} s",
                next_command="raise prometheus.timeout_seconds, or read in shards (shard_by)",
            ) from error
        except httpx.TransportError as error:
            raise ServerUnavailableError(
                "Prometheus cannot be reached", where=where, got=str(error) or repr(error)
            ) from error
        if answer.status_code == 200:
            return answer.content
        raise _refusal(answer, where, form.get("query", ""))

    def _authorization(self) -> dict[str, str]:
        """Read anew each time: such tokens are rotated."""
        path = self.settings.bearer_token_file
        if path is None:
            return {}
        try:
            return {"Authorization": f"Bearer {path.read_text('utf-8').strip()}"}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "prometheus.bearer_token_file cannot be read", where=str(path), got=str(error)
            ) from error


def _refusal(answer: httpx.Response, where: str, query: str) -> PresageError:
    """The error of a status other than 200, with Prometheus' own words."""
    status = answer.status_code
    try:
        words = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        words = answer.text[:200].strip() or "no words"
    got = f"{status}: {words}"
    if status in _WORTH_A_RETRY:
        return ServerUnavailableError("Prometheus cannot answer now", where=where, got=got)
    if status in _REFUSALS:
        too_much = "too many samples" in words or "exceeded" in words
        return QueryError(
            f"Prometheus refuses {query or 'the request'}",
            reason=_REFUSALS[status],
            where=where,
            got=got,
            next_command="set shard_by, or a smaller shard_values" if too_much else None,
        )
    return ServerAnswerError(
        "Prometheus answered something else",
        where=where,
        expected="200",
        got=got,
        next_command="see prometheus.bearer_token_file" if status in (401, 403) else None,
    )
