"""Requests of no sense, over HTTP and gRPC: no crash, and the good ones between them stay right."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from clients import LogAnomalyClient
from tests.integration.faults.conftest import Promise
from tests.integration.faults.launched_server import Launched, memory_bytes, wait_until
from tests.integration.faults.retrying_load import PATIENT, RetryingLoad

FUZZERS = 4
GOOD_EVERY = 50
LARGEST_JSON_DIMENSION = 16
# 2^61 FP32 elements are more bytes than a vector holds; fewer would be allocated and zeroed first.
DEADLY = b'{"inputs":[{"name":"x","shape":[2305843009213693952],"datatype":"FP32","data":[]}]}'
MODELS = ("double", "log_anomaly", "log_anomaly_classifier")
PATHS = ("double", "log_anomaly", "log_anomaly_classifier", "nobody", "double/versions/9", "")
DTYPES = ("FP32", "INT64", "BYTES", "BOOL", "FP16", "INT8", "BF16", "", "FP33", "é")
NAMES = ("x", "text", "input_ids", "attention_mask", "", "X", "\0", "y" * 300)
NUMBERS = (0, 1, -1, 4, 8, 2**31, 2**31 - 1, 2**62, -(2**63), 3)
VALUES: tuple[object, ...] = (1, -1, 0.5, "a", "", None, True, [], {}, 1e400, 2**70, [[1], [2, 3]])


def _shape(chance: random.Random, *, json_text: bool = False) -> list[int]:
    if chance.random() < 0.5:
        return [chance.choice((0, 1, 2, 8, 9)), chance.choice((0, 1, 4, 5, 16, 600))]
    # Triton makes room for what JSON only announces; see the smallest deadly request.
    numbers = [n for n in NUMBERS if not json_text or -1 <= n <= LARGEST_JSON_DIMENSION]
    return [chance.choice(numbers) for _ in range(chance.randrange(6))]


def http_body(chance: random.Random) -> bytes:
    """JSON that nearly fits, JSON that does not, and bytes that are none."""
    inputs = []
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        tensor: dict[str, object] = {
            "name": chance.choice(NAMES),
            "shape": _shape(chance, json_text=True),
            "datatype": chance.choice(DTYPES),
            "data": [chance.choice(VALUES) for _ in range(chance.choice((0, 1, 4, 8, 64)))],
        }
        for key in list(tensor):
            if chance.random() < 0.08:
                tensor[key] = chance.choice(VALUES)
            elif chance.random() < 0.04:
                del tensor[key]
        if chance.random() < 0.05:
            tensor["parameters"] = {"binary_data_size": chance.choice(NUMBERS)}
        if chance.random() < 0.03:
            tensor["parameters"] = {
                "shared_memory_region": "none",
                "shared_memory_byte_size": chance.choice(NUMBERS),
            }
        inputs.append(tensor)
    document: dict[str, object] = {"inputs": inputs}
    if chance.random() < 0.1:
        document["outputs"] = [{"name": chance.choice(NAMES)}]
    if chance.random() < 0.1:
        document["parameters"] = {
            chance.choice(("priority", "timeout", "sequence_id", "sequence_start")): chance.choice(
                (*NUMBERS[:6], True, "a")
            )
        }
    body = json.dumps(document).encode()
    if chance.random() < 0.2:
        body = bytearray(body)
        for _ in range(chance.randrange(1, 8)):
            body[chance.randrange(len(body))] = chance.randrange(256)
    if chance.random() < 0.05:
        body = chance.randbytes(chance.randrange(200))
    return bytes(body)


def http_request(chance: random.Random) -> bytes:
    body = http_body(chance)
    length = len(body) if chance.random() < 0.97 else chance.choice((0, 1, len(body) // 2))
    head = f"POST /v2/models/{chance.choice(PATHS)}/infer HTTP/1.1\r\nHost: x\r\n"
    if chance.random() < 0.1:
        header = chance.choice((0, 1, length, length + 1, -1, 2**31, 2**63, "a"))
        head += f"Inference-Header-Content-Length: {header}\r\n"
    if chance.random() < 0.03:
        head += f"Content-Encoding: {chance.choice(('gzip', 'deflate', 'x'))}\r\n"
    return f"{head}Connection: close\r\nContent-Length: {length}\r\n\r\n".encode() + body


def grpc_message(chance: random.Random) -> bytes:
    request = service_pb2.ModelInferRequest(
        model_name=chance.choice(PATHS), model_version=chance.choice(("", "1", "9", "-1", "a"))
    )
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        tensor = request.inputs.add(
            name=chance.choice(NAMES), datatype=chance.choice(DTYPES), shape=_shape(chance)
        )
        if chance.random() < 0.6:
            raw = chance.randbytes(chance.choice((0, 1, 4, 16, 64, 128)))
            if tensor.datatype == "BYTES" and chance.random() < 0.5:
                raw = struct.pack("<I", chance.choice((0, 4, 2**32 - 1, len(raw)))) + raw
            request.raw_input_contents.append(raw)
        elif chance.random() < 0.5:
            tensor.contents.fp32_contents.extend([chance.random()] * chance.choice((1, 4, 9)))
            tensor.contents.int64_contents.extend([1] * chance.choice((0, 4)))
    message = request.SerializeToString()
    if chance.random() < 0.2 and message:
        damaged = bytearray(message)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        message = bytes(damaged)
    return message


def send_http(address: str, request: bytes) -> None:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.settimeout(20)
        try:
            connection.sendall(request)
            while connection.recv(65536):
                pass
        except ConnectionError:
            return


def grpc_sender(address: str) -> Callable[[bytes], None]:
    channel = grpc.insecure_channel(address)
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def send(message: bytes) -> None:
        try:
            call(message, timeout=20)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError(f"hangs: {message!r}") from error

    return send


class Fuzzer:
    """One sender of nonsense over both protocols, with a good request now and then."""

    def __init__(self, server: Launched, expected: dict[str, float], seed: int) -> None:
        self._http = server.state["http_url"]
        self._url = server.state["grpc_url"]
        self._send_grpc = grpc_sender(self._url)
        self._expected = expected
        self._chance = random.Random(20_241 + seed)
        self.good = self.wrong = 0

    def send(self, count: int) -> None:
        """Raises TimeoutError where the server leaves a request hanging."""
        lines = list(self._expected)
        with LogAnomalyClient(f"grpc://{self._url}", PATIENT) as client:
            for number in range(count):
                if number % 2:
                    send_http(self._http, http_request(self._chance))
                else:
                    self._send_grpc(grpc_message(self._chance))
                if number % GOOD_EVERY == 0:
                    line = self._chance.choice(lines)
                    [verdict] = client.classify([line])
                    self.good += 1
                    self.wrong += not np.isclose(verdict.score, self._expected[line], atol=1e-4)


@pytest.mark.parametrize(
    "count", [1_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])]
)
@pytest.mark.promise(
    fault="100,000 fuzzed HTTP/gRPC requests (shapes, dtypes, sizes, bytes)",
    promise="0 crashes, 0 wrong answers to the good requests between them, memory growth < 5%",
)
def test_nonsense_crashes_nothing(
    count: int, server: Launched, expected_scores: dict[str, float], promise: Promise
) -> None:
    pid = server.server_pid
    stubs = {stub.pid for model in MODELS for stub in server.stubs(model)}
    fuzzers = [Fuzzer(server, expected_scores, seed) for seed in range(FUZZERS)]
    # Memory counts from where every kind of request has been seen.
    warm = count // 4
    with ThreadPoolExecutor(FUZZERS) as pool:
        list(pool.map(lambda one: one.send(warm // FUZZERS), fuzzers))
        warm_bytes = memory_bytes(server)
        list(pool.map(lambda one: one.send((count - warm) // FUZZERS), fuzzers))
    growth = memory_bytes(server) / warm_bytes - 1
    good, wrong = sum(one.good for one in fuzzers), sum(one.wrong for one in fuzzers)
    crashed = server.server_pid != pid or not stubs <= {
        stub.pid for model in MODELS for stub in server.stubs(model)
    }
    promise.measured(
        f"{count:,} requests: {0 if not crashed else 'some'} crashes, {wrong} of {good:,} good"
        f" answers wrong, memory {growth:+.1%} after the first quarter"
    )
    assert not crashed, server.log()[-2000:]
    assert wrong == 0
    assert server.ready
    assert growth < 0.05 if count >= 100_000 else growth < 0.25


@pytest.mark.promise(
    fault="one JSON request that announces 2^61 elements (kills tritonserver 2.51)",
    promise="the server is replaced, retrying clients see 0 failures",
)
def test_the_smallest_deadly_request_costs_a_restart(
    server: Launched, expected_scores: dict[str, float], promise: Promise
) -> None:
    """A limit of tritonserver itself: its HTTP port is for clients of one's own, not for strangers.

    The day this fails because nothing dies, the exception in ``_shape`` goes too.
    """
    state, pid = server.state, server.server_pid
    head = f"POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(DEADLY)}"
    with RetryingLoad([f"grpc://{state['grpc_url']}"], expected_scores, callers=8) as load:
        send_http(state["http_url"], f"{head}\r\n\r\n".encode() + DEADLY)
        began = time.monotonic()
        wait_until(lambda: server.server_pid != pid and server.ready, 120, "another server")
        seconds = time.monotonic() - began
    assert load.failures == {}
    assert load.wrong == 0
    promise.measured(f"another server after {seconds:.1f} s, 0 failed, 0 wrong")
