"""Locust users of the running server: gRPC through tritonclient, and raw KServe v2 over HTTP.

Run it by ``python -m loadtest run``, or by Locust itself with its web page:
``locust -f loadtest/locustfile.py``. Settings come by environment: PRESAGE_LOADTEST_GRPC and _HTTP
(host:port), _REPOSITORY and _ARTIFACTS (folders), _FRESH (1: no text comes twice), _SUMMARY (file
for the figures).
"""

# ruff: noqa: E402
from __future__ import annotations

# Before anything imports grpc: its own threads and gevent's greenlets deadlock each other
# (https://github.com/grpc/grpc/issues/4629).
import grpc.experimental.gevent

grpc.experimental.gevent.init_gevent()

import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from locust import HttpUser, User, events, task

from loadtest.served import Arrays, Questions, ServedModel, ready_models, served_models

GRPC_ADDRESS = os.environ.get("PRESAGE_LOADTEST_GRPC", "127.0.0.1:9001")
HTTP_ADDRESS = os.environ.get("PRESAGE_LOADTEST_HTTP", "127.0.0.1:9000")
REPOSITORY = Path(os.environ.get("PRESAGE_LOADTEST_REPOSITORY", "model_repository"))
ARTIFACTS = Path(os.environ.get("PRESAGE_LOADTEST_ARTIFACTS", "artifacts"))
FRESH = os.environ.get("PRESAGE_LOADTEST_FRESH") == "1"
SUMMARY_FILE = os.environ.get("PRESAGE_LOADTEST_SUMMARY")
_TYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "object": "BYTES"}
_DEADLINE_SECONDS = 30.0

_READY = ready_models(HTTP_ADDRESS)
MODELS = [model for model in served_models(REPOSITORY, ARTIFACTS) if model.name in _READY]
QUESTIONS = {model.name: Questions(model, fresh=FRESH) for model in MODELS}


def tensors(module: Any, inputs: Arrays) -> list[Any]:
    """tritonclient's own request tensors, of its grpc or http module."""
    made = []
    for name, array in inputs.items():
        tensor = module.InferInput(name, list(array.shape), _TYPES[str(array.dtype)])
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        made.append(tensor)
    return made


class GrpcUser(User):
    """Asks one model over gRPC; one subclass a model is made below."""

    abstract = True
    model: ServedModel

    def on_start(self) -> None:
        self.client = triton.InferenceServerClient(GRPC_ADDRESS)
        self.outputs = [triton.InferRequestedOutput(name) for name in self.model.outputs]

    def on_stop(self) -> None:
        # Left to __del__ this can hang at exit and ignore SIGTERM.
        self.client.close()

    @task
    def infer(self) -> None:
        inputs = tensors(triton, next(QUESTIONS[self.model.name]))
        failure, size = None, 0
        started = time.perf_counter()
        try:
            answer = self.client.infer(
                self.model.name, inputs, outputs=self.outputs, client_timeout=_DEADLINE_SECONDS
            )
            size = answer.get_response().ByteSize()
        except triton.InferenceServerException as error:
            failure = error
        self.environment.events.request.fire(
            request_type="gRPC",
            name=self.model.name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=size,
            exception=failure,
            context={},
        )


class KServeHttpUser(HttpUser):
    """Asks all models in turn over HTTP: KServe v2 as it is written, by Locust's own client."""

    host = f"http://{HTTP_ADDRESS}"
    weight = max(1, len(MODELS))

    def on_start(self) -> None:
        self.turn = 0

    @task
    def infer(self) -> None:
        model = MODELS[self.turn % len(MODELS)]
        self.turn += 1
        body, json_size = triton_http.InferenceServerClient.generate_request_body(
            tensors(triton_http, next(QUESTIONS[model.name])),
            outputs=[triton_http.InferRequestedOutput(name) for name in model.outputs],
        )
        headers = {"Content-Type": "application/octet-stream"}
        if json_size is not None:
            headers["Inference-Header-Content-Length"] = str(json_size)
        self.client.post(
            f"/v2/models/{model.name}/infer",
            data=body,
            headers=headers,
            name=model.name,
            timeout=_DEADLINE_SECONDS,
        )


for _model in MODELS:
    _class = "".join(word.title() for word in _model.name.split("_")) + "GrpcUser"
    globals()[_class] = type(_class, (GrpcUser,), {"model": _model})


# Locust rounds its own figures to whole milliseconds, which is coarser than these models.
_seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
_failures: dict[tuple[str, str], list[str]] = defaultdict(list)


@events.request.add_listener
def _note(
    request_type: str, name: str, response_time: float, exception: Exception | None, **_: object
) -> None:
    if exception is None:
        _seconds[request_type, name].append(response_time / 1000)
    else:
        _failures[request_type, name].append(str(exception))


@events.quitting.add_listener
def _write_summary(**_: object) -> None:
    if SUMMARY_FILE is None:
        return
    rows = [
        {
            "protocol": protocol,
            "model": name,
            "requests": len(_seconds[protocol, name]),
            "failures": len(_failures[protocol, name]),
            "first_failure": next(iter(_failures[protocol, name]), None),
            "milliseconds": [
                round(1000 * float(value), 3)
                for value in np.quantile(_seconds[protocol, name] or [np.nan], [0.5, 0.95, 0.99])
            ],
        }
        for protocol, name in sorted(_seconds.keys() | _failures.keys())
    ]
    Path(SUMMARY_FILE).write_text(json.dumps(rows), encoding="utf-8")


@events.quit.add_listener
def _leave(exit_code: int, **_: object) -> None:
    # grpc's threads keep the interpreter from ending in its own way.
    os._exit(exit_code)
