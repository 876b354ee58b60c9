"""What Triton counts of its models (its statistics API), read while a run goes on."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from contract.errors import ServerUnavailableError

_TIMEOUT_SECONDS = 10.0
_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class ModelCounts:
    """Of all versions of a model since the server started; ``batches``: {rows: executions}."""

    requests: int = 0
    failures: int = 0
    rows: int = 0
    executions: int = 0
    queue_seconds: float = 0.0
    input_seconds: float = 0.0
    infer_seconds: float = 0.0
    output_seconds: float = 0.0
    batches: Mapping[int, int] = field(default_factory=dict)

    def since(self, earlier: ModelCounts) -> ModelCounts:
        batches = {
            size: count - earlier.batches.get(size, 0) for size, count in self.batches.items()
        }
        numbers = {name: getattr(self, name) - getattr(earlier, name) for name in _NUMBERS}
        kept = {size: count for size, count in sorted(batches.items()) if count}
        return ModelCounts(**numbers, batches=kept)

    def plus(self, other: ModelCounts) -> ModelCounts:
        sizes = sorted({*self.batches, *other.batches})
        batches = {size: self.batches.get(size, 0) + other.batches.get(size, 0) for size in sizes}
        numbers = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        return ModelCounts(**numbers, batches=batches)

    @property
    def realised_batch(self) -> float | None:
        """Rows that were computed together, on average; None: nothing was computed."""
        return self.rows / self.executions if self.executions else None

    @property
    def compute_seconds(self) -> float:
        return self.input_seconds + self.infer_seconds + self.output_seconds

    @property
    def queue_share(self) -> float | None:
        """Of the time in the server, what was spent waiting; None: nobody asked."""
        total = self.queue_seconds + self.compute_seconds
        return self.queue_seconds / total if total else None


_NUMBERS = tuple(part.name for part in fields(ModelCounts) if part.name != "batches")
Counts = dict[str, ModelCounts]


def read_counts(http_address: str) -> Counts:
    """Raises ServerUnavailableError."""
    connection = http.client.HTTPConnection(http_address, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/v2/models/stats")
        told = json.loads(connection.getresponse().read())
        return counts_of(told["model_stats"])
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise ServerUnavailableError(
            "the server tells no statistics", where=http_address, got=repr(error)
        ) from error
    finally:
        connection.close()


def counts_of(statistics: list[dict[str, Any]]) -> Counts:
    """``model_stats`` of the statistics API, versions together."""
    counts: Counts = {}
    for row in statistics:
        own = _counts(row)
        name = row["name"]
        counts[name] = counts[name].plus(own) if name in counts else own
    return counts


def _counts(row: Mapping[str, Any]) -> ModelCounts:
    inference = row.get("inference_stats", {})

    def of(part: str) -> tuple[int, float]:
        found = inference.get(part, {})
        return int(found.get("count", 0)), int(found.get("ns", 0)) / 1e9

    return ModelCounts(
        requests=of("success")[0],
        failures=of("fail")[0],
        rows=int(row.get("inference_count", 0)),
        executions=int(row.get("execution_count", 0)),
        queue_seconds=of("queue")[1],
        input_seconds=of("compute_input")[1],
        infer_seconds=of("compute_infer")[1],
        output_seconds=of("compute_output")[1],
        batches={
            int(batch["batch_size"]): int(batch["compute_infer"]["count"])
            for batch in row.get("batch_stats", [])
        },
    )


class StatisticsSampler:
    """Reads the counts once a second; ``between`` tells what was counted in a span of time."""

    def __init__(
        self,
        http_address: str,
        *,
        read: Callable[[str], Counts] = read_counts,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._address = http_address
        self._read = read
        self._interval_seconds = interval_seconds
        self.samples: list[tuple[float, Counts]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Raises ServerUnavailableError."""
        self._sample()
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        try:
            self._sample()
        except ServerUnavailableError:
            # The run tells of it; what was sampled stays.
            return

    def between(self, begin: float, end: float, model: str) -> ModelCounts:
        """Between two moments of ``time.monotonic``, to the second."""
        before = [counts for at, counts in self.samples if at <= begin] or [self.samples[0][1]]
        after = [counts for at, counts in self.samples if at >= end] or [self.samples[-1][1]]
        nothing = ModelCounts()
        return after[0].get(model, nothing).since(before[-1].get(model, nothing))

    def _sample(self) -> None:
        counts = self._read(self._address)
        self.samples.append((time.monotonic(), counts))

    def _run(self) -> None:
        while not self._end.wait(self._interval_seconds):
            try:
                self._sample()
            except ServerUnavailableError:
                continue
