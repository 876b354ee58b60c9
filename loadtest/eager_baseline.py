"""What the served models are compared with: FastAPI, uvicorn and eager PyTorch.

Each model is loaded once and one request is one forward pass (for a long log, one per chunk of its
windows, read by the same text front). No batching across requests, as such services usually are.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, HTTPException

from loadtest.served import Arrays, Questions, ServedModel
from training.registry import get_spec

HOST = "127.0.0.1"
# A dynamic graph is compiled again where the first one turns out too narrow.
_COMPILING_QUESTIONS = 4


class EagerModel:
    """One trained network in this process. ``answer``: arrays of one request → its outputs.

    ``compiled``: through torch.compile, for any batch and length; raises whatever it raises here.
    """

    def __init__(self, served: ServedModel, *, compiled: bool = False) -> None:
        manifest = served.manifest
        self.served = served
        self._network: Any = get_spec(manifest.model).load_network(served.artifact).eval()
        self._inputs = {tensor.name: tensor.dtype for tensor in manifest.graph.inputs}
        self._outputs = [tensor.name for tensor in manifest.graph.outputs]
        self._front: Any = None
        self._wanted = frozenset(served.outputs)
        if manifest.front is not None:
            module = importlib.import_module(manifest.front.module)
            self._front = module.Front(served.artifact.path, self._classify)
            # One request, one forward pass: the baseline remembers nothing.
            self._front.batcher.cache_size = 0
        if compiled:
            self._network = torch.compile(self._network, dynamic=True)
            for question in itertools.islice(Questions(served, fresh=True), _COMPILING_QUESTIONS):
                self.answer(question)

    def answer(self, inputs: Arrays) -> Arrays:
        """Raises ValueError: the request is bad."""
        if self._front is None:
            return self._forward(inputs)
        (answer,) = self._front.answer([inputs], self._wanted)
        if isinstance(answer, Exception):
            raise ValueError(str(answer))
        outputs: Arrays = answer
        return outputs

    def read(self, body: dict[str, Any]) -> Arrays:
        """JSON {input name: nested lists, null is missing} → arrays. Raises ValueError."""
        arrays: Arrays = {}
        for tensor in self.served.inputs:
            if tensor.name not in body:
                raise ValueError(f"input {tensor.name!r} is missing")
            if tensor.dtype == "BYTES":
                texts = [[str(cell).encode() for cell in row] for row in body[tensor.name]]
                arrays[tensor.name] = np.array(texts, dtype=object)
            else:
                # float64 first: it is what turns null into NaN.
                numbers = np.array(body[tensor.name], dtype=np.float64)
                arrays[tensor.name] = numbers.astype(
                    np.float32 if tensor.dtype == "FP32" else np.int64
                )
        return arrays

    def _forward(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = self._network(*(torch.from_numpy(inputs[name]) for name in self._inputs))
        return dict(zip(self._outputs, (tensor.numpy() for tensor in outputs), strict=True))

    def _classify(self, chunks: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        names = list(self._inputs)
        return [
            self._forward(dict(zip(names, chunk, strict=True)))[self._outputs[0]]
            for chunk in chunks
        ]


class _Threads:
    """torch's thread count, which OpenMP keeps for each calling thread of its own."""

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self._local = threading.local()

    def apply(self) -> None:
        if getattr(self._local, "count", None) != self.count:
            torch.set_num_threads(self.count)
            self._local.count = self.count


@contextlib.asynccontextmanager
async def _one_request_a_core(_app: FastAPI) -> AsyncIterator[None]:
    """As many requests at a time as there are cores, the rest waiting in line: forty threads, as
    Starlette has them, take the interpreter from each other and answer a fraction of it."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = len(os.sched_getaffinity(0))
    yield


def make_app(models: dict[str, EagerModel]) -> FastAPI:
    """POST /predict/<model> {input: rows} → {output: rows}; PUT /threads/<n>; GET /health."""
    app = FastAPI(title="eager baseline", lifespan=_one_request_a_core)
    threads = _Threads()

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"models": sorted(models), "threads": threads.count}

    @app.put("/threads/{count}")
    def set_threads(count: int) -> dict[str, int]:
        threads.count = max(1, count)
        return {"threads": threads.count}

    # Not async: FastAPI then runs it in a thread, and requests do not wait for one another.
    @app.post("/predict/{name}")
    def predict(name: str, body: dict[str, Any]) -> dict[str, Any]:
        model = models.get(name)
        if model is None:
            raise HTTPException(404, f"unknown model {name!r}, there are {sorted(models)}")
        threads.apply()
        try:
            outputs = model.answer(model.read(body))
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return {key: _listed(array) for key, array in outputs.items()}

    return app


def _listed(array: np.ndarray) -> list[Any]:
    if array.dtype == object:
        return [[cell.decode() for cell in row] for row in array]
    listed: list[Any] = array.tolist()
    return listed


def serve_eagerly(models: list[ServedModel], *, compiled: bool = False) -> int:
    """Serve on a free loopback port, say ``port N`` on stdout, end when stdin does."""
    app = make_app({model.name: EagerModel(model, compiled=compiled) for model in models})
    # The protocol is named, because asyncio sets TCP_NODELAY only then: without it every answer
    # waits 40 ms for a delayed acknowledgement, and the baseline would look ten times too slow.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((HOST, 0))
    listener.listen()
    # A caller's connection idles while the other side is measured: longer than uvicorn's 5 s.
    settings = uvicorn.Config(app, log_level="error", access_log=False, timeout_keep_alive=600)
    server = uvicorn.Server(settings)
    # Whoever started this may be killed: its end of the pipe then closes.
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    print(f"port {listener.getsockname()[1]}", flush=True)
    server.run(sockets=[listener])
    return 0


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
