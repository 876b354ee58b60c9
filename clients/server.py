"""What a server says of itself: its models, their states, and how they did since they started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clients._base import AsyncCaller, SyncCaller
from clients._transport import Call
from contract.canary_inputs import canary_inputs
from contract.errors import OverloadedError, PresageError

_DTYPES: dict[str, Any] = {
    "FP32": np.float32,
    "INT64": np.int64,
    "INT32": np.int32,
    "BYTES": np.object_,
}


@dataclass(frozen=True)
class ModelState:
    """One version of a model. ``reason``: why it is not ready, in Triton's words."""

    name: str
    version: str
    state: str
    reason: str = ""

    @property
    def is_ready(self) -> bool:
        return self.state == "READY"

    @property
    def is_wanted(self) -> bool:
        """Somebody asked the server to serve it: it was loaded, and not unloaded since."""
        return self.is_ready or (bool(self.state) and self.reason != "unloaded")


def not_ready(states: Iterable[ModelState]) -> list[str]:
    """Models that the server should serve and has no ready version of."""
    states = list(states)
    ready = {one.name for one in states if one.is_ready}
    return sorted({one.name for one in states if one.is_wanted} - ready)


@dataclass(frozen=True)
class ModelStatistics:
    """Of one version since the server started; mean times of one request.

    executions: batches that the model computed
    """

    name: str
    version: str
    requests: int
    failures: int
    executions: int
    rows: int
    mean_latency_milliseconds: float
    mean_queue_milliseconds: float
    mean_compute_milliseconds: float

    @property
    def mean_batch_size(self) -> float:
        return self.rows / self.executions if self.executions else 0.0


def read_index(index: list[dict[str, Any]]) -> list[ModelState]:
    """Sorted by name and version."""
    states = [
        ModelState(
            str(row["name"]),
            str(row.get("version", "")),
            str(row.get("state", "")),
            str(row.get("reason", "")),
        )
        for row in index
    ]
    return sorted(states, key=lambda state: (state.name, _number(state.version)))


def read_statistics(statistics: list[dict[str, Any]]) -> list[ModelStatistics]:
    return [_statistics(row) for row in statistics]


def _statistics(row: Mapping[str, Any]) -> ModelStatistics:
    # gRPC's JSON gives 64-bit numbers as text, and leaves zeros out.
    inference = row.get("inference_stats", {})

    def part(name: str) -> tuple[int, int]:
        found = inference.get(name, {})
        return int(found.get("count", 0)), int(found.get("ns", 0))

    succeeded, total = part("success")
    milliseconds = 1e-6 / succeeded if succeeded else 0.0
    compute = sum(part(name)[1] for name in ("compute_input", "compute_infer", "compute_output"))
    return ModelStatistics(
        name=str(row.get("name", "")),
        version=str(row.get("version", "")),
        requests=succeeded,
        failures=part("fail")[0],
        executions=int(row.get("execution_count", 0)),
        rows=int(row.get("inference_count", 0)),
        mean_latency_milliseconds=total * milliseconds,
        mean_queue_milliseconds=part("queue")[1] * milliseconds,
        mean_compute_milliseconds=compute * milliseconds,
    )


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0


def canary_call(model: str, config: dict[str, Any]) -> Call | None:
    """The smallest question that a model answers; None: of tensors that no client here sends."""
    inputs = {}
    for tensor in canary_inputs(config):
        dtype = _DTYPES.get(tensor["datatype"])
        if dtype is None:
            return None
        values = [v.encode() if isinstance(v, str) else v for v in tensor["data"]]
        inputs[tensor["name"]] = np.array(values, dtype=dtype).reshape(tensor["shape"])
    outputs = [str(tensor["name"]) for tensor in config.get("output", [])]
    return Call(model, inputs, outputs)


class ServerClient(SyncCaller):
    """Asks the server about itself. Every method raises ServerError and its subclasses."""

    def models(self) -> list[ModelState]:
        return read_index(self._transport.index())

    def why_silent(self, model: str) -> str:
        """ "" when the model answers a small question, else why not: Triton calls a model ready
        whose process is gone.
        """
        try:
            call = canary_call(model, self._config(model))
            if call is not None:
                self._run([call])
        except OverloadedError:
            return ""  # a full queue is no silence
        except PresageError as error:
            return error.got or str(error)
        return ""

    def statistics(self) -> list[ModelStatistics]:
        return read_statistics(self._transport.statistics())


class AsyncServerClient(AsyncCaller):
    """The async twin of ServerClient."""

    async def models(self) -> list[ModelState]:
        return read_index(await self._transport.index())

    async def statistics(self) -> list[ModelStatistics]:
        return read_statistics(await self._transport.statistics())
