"""The served rungs: tritonserver asked over gRPC, over HTTP, and by 32 callers at once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from contract.errors import ServerError
from contract.manifest import Graph
from training.spec import Arrays

Protocol = Literal["grpc", "http"]
REQUEST_TIMEOUT_SECONDS = 120
CALLERS = 32
_MODULES: dict[Protocol, Any] = {"grpc": tritonclient.grpc, "http": tritonclient.http}


class WireClient:
    """One connection to tritonserver; ``address`` is host:port of the protocol."""

    def __init__(self, protocol: Protocol, address: str) -> None:
        self.protocol = protocol
        self._module = _MODULES[protocol]
        waits = (
            {
                "network_timeout": REQUEST_TIMEOUT_SECONDS,
                "connection_timeout": REQUEST_TIMEOUT_SECONDS,
            }
            if protocol == "http"
            else {}
        )
        self._client = self._module.InferenceServerClient(address, **waits)

    def infer(
        self,
        model: str,
        inputs: Arrays,
        types: Mapping[str, str],
        output_names: Mapping[str, str],
        version: str = "",
    ) -> Arrays:
        """One request; ``output_names`` maps our names to the server's. Raises ServerError."""
        sent = []
        for name, array in inputs.items():
            tensor = self._module.InferInput(name, array.shape, types[name])
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            sent.append(tensor)
        wanted = [self._module.InferRequestedOutput(name) for name in output_names.values()]
        waits = {"client_timeout": REQUEST_TIMEOUT_SECONDS} if self.protocol == "grpc" else {}
        try:
            answer = self._client.infer(model, sent, version, outputs=wanted, **waits)
        except (InferenceServerException, OSError) as error:
            raise ServerError(
                f"{model}: the server refused a golden request", got=str(error)
            ) from error
        return {ours: answer.as_numpy(theirs) for ours, theirs in output_names.items()}

    def close(self) -> None:
        self._client.close()


class WireRung:
    """A served model, asked as it is by clients; ``version`` "" is the newest one."""

    def __init__(
        self, client: WireClient, model: str, graph: Graph, *, positional: bool, version: str = ""
    ) -> None:
        """positional: outputs are called ``<name>__<index>``, as the pytorch backend wants."""
        self.name: str = client.protocol
        self.served_by = f"tritonserver, {client.protocol}"
        self.client = client
        self._model, self._version = model, version
        self._types = {tensor.name: tensor.dtype for tensor in graph.inputs}
        self._output_names = {
            tensor.name: f"{tensor.name}__{index}" if positional else tensor.name
            for index, tensor in enumerate(graph.outputs)
        }

    def run(self, inputs: Arrays) -> Arrays:
        return self.client.infer(
            self._model,
            {name: inputs[name] for name in self._types},
            self._types,
            self._output_names,
            self._version,
        )


class ConcurrentRung:
    """Each row of a batch a request of its own, up to 32 of them at once: Triton batches strangers.

    Only over gRPC: its client may be shared by threads.
    """

    name = "concurrent"

    def __init__(self, wire: WireRung) -> None:
        self._wire = wire
        self.served_by = f"tritonserver, {wire.client.protocol}, {CALLERS} callers of one row each"
        self._pool = ThreadPoolExecutor(CALLERS, thread_name_prefix="caller")

    def run(self, inputs: Arrays) -> Arrays:
        rows = len(next(iter(inputs.values())))
        single = [
            {name: array[row : row + 1] for name, array in inputs.items()} for row in range(rows)
        ]
        answers = list(self._pool.map(self._wire.run, single))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
