"""Four transports behind one shape: gRPC and HTTP, sync and async. tritonclient is imported late:
it costs most of a client's import time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from clients._translate import translate
from clients.results import Array
from contract.errors import InputError

DEFAULT_URL = "grpc://127.0.0.1:9001"
_LARGEST_MESSAGE_BYTES = 1 << 30
_LONGEST_CALL_SECONDS = 3_600.0
"""Of the HTTP libraries' own timeouts; the policy's deadline is the tighter one."""
INDEX_SECONDS = 10.0
"""Of questions to the server about itself."""
_TYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "object": "BYTES"}


@dataclass(frozen=True)
class Call:
    """One inference: inputs with their batch axis, and the outputs that are wanted."""

    model: str
    inputs: Mapping[str, Array]
    outputs: Sequence[str]


@dataclass(frozen=True)
class Answer:
    outputs: dict[str, Array]
    model_version: str


class Transport(Protocol):
    url: str

    def infer(self, call: Call, timeout_seconds: float) -> Answer: ...
    def config(self, model: str, timeout_seconds: float) -> dict[str, Any]: ...
    def index(self, timeout_seconds: float = INDEX_SECONDS) -> list[dict[str, Any]]: ...
    def statistics(self) -> list[dict[str, Any]]: ...
    def close(self) -> None: ...


class AsyncTransport(Protocol):
    url: str

    async def infer(self, call: Call, timeout_seconds: float) -> Answer: ...
    async def config(self, model: str, timeout_seconds: float) -> dict[str, Any]: ...
    async def index(self, timeout_seconds: float = INDEX_SECONDS) -> list[dict[str, Any]]: ...
    async def statistics(self) -> list[dict[str, Any]]: ...
    async def close(self) -> None: ...


def split_url(url: str) -> tuple[str, str, bool]:
    """("grpc" or "http", "host:port", TLS). Raises InputError."""
    scheme, separator, address = url.partition("://")
    if not separator:
        scheme, address = "grpc", url
    kinds = {
        "grpc": ("grpc", False),
        "grpcs": ("grpc", True),
        "http": ("http", False),
        "https": ("http", True),
    }
    address = address.rstrip("/")
    if scheme not in kinds or not address or "/" in address:
        raise InputError(
            "not a server URL",
            expected="grpc://host:port, grpcs://, http:// or https://",
            got=repr(url),
        )
    kind, tls = kinds[scheme]
    return kind, address, tls


def make_transport(url: str, token: str | None = None) -> Transport:
    """token: sent as a bearer token, for a server behind a proxy that asks for one."""
    is_grpc = split_url(url)[0] == "grpc"
    return _GrpcTransport(url, token) if is_grpc else _HttpTransport(url, token)


def make_async_transport(url: str, token: str | None = None) -> AsyncTransport:
    is_grpc = split_url(url)[0] == "grpc"
    return _AsyncGrpcTransport(url, token) if is_grpc else _AsyncHttpTransport(url, token)


def _bearer(token: str | None) -> dict[str, str] | None:
    return {"authorization": f"Bearer {token}"} if token else None


def _tensors(module: Any, call: Call) -> dict[str, Any]:
    """tritonclient's own request objects, from its grpc or http module."""
    inputs = []
    for name, array in call.inputs.items():
        tensor = module.InferInput(name, list(array.shape), _TYPES[str(array.dtype)])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    outputs = [module.InferRequestedOutput(name) for name in call.outputs]
    return {"model_name": call.model, "inputs": inputs, "outputs": outputs}


def _answer(call: Call, result: Any, model_version: str) -> Answer:
    outputs: dict[str, Array] = {}
    for name in call.outputs:
        array = result.as_numpy(name)
        if array is None:
            raise ValueError(f"output {name!r} is missing from the answer")
        outputs[name] = np.asarray(array)
    return Answer(outputs, model_version)


class _GrpcTransport:
    """Safe to use from several threads, as the channel below it is."""

    def __init__(self, url: str, token: str | None = None) -> None:
        import tritonclient.grpc as triton

        self.url = url
        self._headers = _bearer(token)
        self._triton = triton
        self._client = triton.InferenceServerClient(**_grpc_arguments(url, triton))

    def infer(self, call: Call, timeout_seconds: float) -> Answer:
        try:
            result = self._client.infer(
                **_tensors(self._triton, call),
                client_timeout=timeout_seconds,
                headers=self._headers,
            )
            return _answer(call, result, result.get_response().model_version)
        except Exception as error:
            raise translate(error, model=call.model, url=self.url) from error

    def config(self, model: str, timeout_seconds: float) -> dict[str, Any]:
        try:
            answer = self._client.get_model_config(
                model, as_json=True, client_timeout=timeout_seconds, headers=self._headers
            )
        except Exception as error:
            raise translate(error, model=model, url=self.url) from error
        config: dict[str, Any] = answer["config"]
        return config

    def index(self, timeout_seconds: float = INDEX_SECONDS) -> list[dict[str, Any]]:
        try:
            answer = self._client.get_model_repository_index(
                as_json=True, client_timeout=timeout_seconds, headers=self._headers
            )
        except Exception as error:
            raise translate(error, model="repository", url=self.url) from error
        return _only_models(answer.get("models", []))

    def statistics(self) -> list[dict[str, Any]]:
        try:
            answer = self._client.get_inference_statistics(
                as_json=True, client_timeout=INDEX_SECONDS, headers=self._headers
            )
        except Exception as error:
            raise translate(error, model="statistics", url=self.url) from error
        models: list[dict[str, Any]] = answer.get("model_stats", [])
        return models

    def close(self) -> None:
        self._client.close()


class _HttpTransport:
    """One tritonclient a thread: its gevent connections may not change threads."""

    def __init__(self, url: str, token: str | None = None) -> None:
        import tritonclient.http as triton

        self.url = url
        self._headers = _bearer(token)
        self._triton = triton
        self._local = threading.local()
        self._all: list[Any] = []
        self._lock = threading.Lock()

    def infer(self, call: Call, timeout_seconds: float) -> Answer:
        tensors = _tensors(self._triton, call)
        result = self._ask(
            call.model,
            timeout_seconds,
            lambda client: client.infer(**tensors, headers=self._headers),
        )
        try:
            return _answer(call, result, result.get_response().get("model_version", ""))
        except Exception as error:
            raise translate(error, model=call.model, url=self.url) from error

    def config(self, model: str, timeout_seconds: float) -> dict[str, Any]:
        config: dict[str, Any] = self._ask(
            model,
            timeout_seconds,
            lambda client: client.get_model_config(model, headers=self._headers),
        )
        return config

    def index(self, timeout_seconds: float = INDEX_SECONDS) -> list[dict[str, Any]]:
        rows = self._ask(
            "repository",
            timeout_seconds,
            lambda client: client.get_model_repository_index(headers=self._headers),
        )
        return _only_models(rows)

    def statistics(self) -> list[dict[str, Any]]:
        answer = self._ask(
            "statistics",
            INDEX_SECONDS,
            lambda client: client.get_inference_statistics(headers=self._headers),
        )
        models: list[dict[str, Any]] = answer.get("model_stats", [])
        return models

    def close(self) -> None:
        with self._lock:
            clients, self._all = self._all, []
        for client in clients:
            client.close()

    def _ask(self, model: str, timeout_seconds: float, question: Callable[[Any], Any]) -> Any:
        """Raises PresageError. The client's own timeout is per read and fixed at its making, so a
        timer of gevent's bounds the whole request.
        """
        import gevent

        timer = gevent.Timeout.start_new(timeout_seconds)
        try:
            return question(self._client())
        except gevent.Timeout as timeout:
            if timeout is not timer:
                raise
            # Its one connection may still get the late answer: never use it again.
            self._drop_client()
            late = TimeoutError(f"nothing within {timeout_seconds:.3g} s")
            raise translate(late, model=model, url=self.url) from timeout
        except Exception as error:
            raise translate(error, model=model, url=self.url) from error
        finally:
            timer.close()

    def _client(self) -> Any:
        client = getattr(self._local, "client", None)
        if client is None:
            _, address, tls = split_url(self.url)
            client = self._triton.InferenceServerClient(
                address, ssl=tls, connection_timeout=10.0, network_timeout=_LONGEST_CALL_SECONDS
            )
            self._local.client = client
            with self._lock:
                self._all.append(client)
        return client

    def _drop_client(self) -> None:
        client = getattr(self._local, "client", None)
        self._local.client = None
        if client is not None:
            with self._lock:
                self._all.remove(client)
            client.close()


class _AsyncGrpcTransport:
    def __init__(self, url: str, token: str | None = None) -> None:
        import tritonclient.grpc.aio as triton

        self.url = url
        self._headers = _bearer(token)
        self._triton = triton
        self._client = triton.InferenceServerClient(**_grpc_arguments(url, triton))

    async def infer(self, call: Call, timeout_seconds: float) -> Answer:
        try:
            result = await self._client.infer(
                **_tensors(self._triton, call),
                client_timeout=timeout_seconds,
                headers=self._headers,
            )
            return _answer(call, result, result.get_response().model_version)
        except Exception as error:
            raise translate(error, model=call.model, url=self.url) from error

    async def config(self, model: str, timeout_seconds: float) -> dict[str, Any]:
        try:
            answer = await self._client.get_model_config(
                model, as_json=True, client_timeout=timeout_seconds, headers=self._headers
            )
        except Exception as error:
            raise translate(error, model=model, url=self.url) from error
        config: dict[str, Any] = answer["config"]
        return config

    async def index(self, timeout_seconds: float = INDEX_SECONDS) -> list[dict[str, Any]]:
        try:
            answer = await self._client.get_model_repository_index(
                as_json=True, client_timeout=timeout_seconds, headers=self._headers
            )
        except Exception as error:
            raise translate(error, model="repository", url=self.url) from error
        return _only_models(answer.get("models", []))

    async def statistics(self) -> list[dict[str, Any]]:
        try:
            answer = await self._client.get_inference_statistics(
                as_json=True, client_timeout=INDEX_SECONDS, headers=self._headers
            )
        except Exception as error:
            raise translate(error, model="statistics", url=self.url) from error
        models: list[dict[str, Any]] = answer.get("model_stats", [])
        return models

    async def close(self) -> None:
        await self._client.close()


class _AsyncHttpTransport:
    def __init__(self, url: str, token: str | None = None) -> None:
        import tritonclient.http.aio as triton

        self.url = url
        self._headers = _bearer(token)
        _, address, tls = split_url(url)
        self._triton = triton
        self._client = triton.InferenceServerClient(
            address, ssl=tls, conn_timeout=_LONGEST_CALL_SECONDS
        )

    async def infer(self, call: Call, timeout_seconds: float) -> Answer:
        try:
            result = await asyncio.wait_for(
                self._client.infer(**_tensors(self._triton, call), headers=self._headers),
                timeout_seconds,
            )
            return _answer(call, result, result.get_response().get("model_version", ""))
        except Exception as error:
            raise translate(error, model=call.model, url=self.url) from error

    async def config(self, model: str, timeout_seconds: float) -> dict[str, Any]:
        try:
            config: dict[str, Any] = await asyncio.wait_for(
                self._client.get_model_config(model, headers=self._headers), timeout_seconds
            )
        except Exception as error:
            raise translate(error, model=model, url=self.url) from error
        return config

    async def index(self, timeout_seconds: float = INDEX_SECONDS) -> list[dict[str, Any]]:
        try:
            rows = await asyncio.wait_for(
                self._client.get_model_repository_index(headers=self._headers), timeout_seconds
            )
        except Exception as error:
            raise translate(error, model="repository", url=self.url) from error
        return _only_models(rows)

    async def statistics(self) -> list[dict[str, Any]]:
        try:
            answer = await asyncio.wait_for(
                self._client.get_inference_statistics(headers=self._headers), INDEX_SECONDS
            )
        except Exception as error:
            raise translate(error, model="statistics", url=self.url) from error
        models: list[dict[str, Any]] = answer.get("model_stats", [])
        return models

    async def close(self) -> None:
        await self._client.close()


def _only_models(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Triton takes any folder of its repository for a model, also where versions are staged."""
    return [row for row in rows if not str(row["name"]).startswith(".")]


def _grpc_arguments(url: str, triton: Any) -> dict[str, Any]:
    _, address, tls = split_url(url)
    return {
        "url": address,
        "ssl": tls,
        "channel_args": [
            ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
            # A server that comes back must be found within a retry, not after two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # How long a connection may take to come about; a lost SYN would cost 20 seconds.
            ("grpc.min_reconnect_backoff_ms", 3000),
            # A connection that the network forgot looks like a busy server until its calls'
            # deadlines. Only calls under way are watched: servers turn away who pings idly.
            # grpc waits for a ping as long as ping_timeout says (60 s), not keepalive_timeout.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),
            # Where a name stands for several servers (a headless service) requests go round
            # them; one connection would pin them all to one.
            ("grpc.lb_policy_name", "round_robin"),
        ],
    }
