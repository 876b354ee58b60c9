"""A call's own deadline holds for all that it asks, also for what it asks once per client."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

import clients
from clients.policy import CallPolicy
from contract.errors import ServerError

PATIENT = CallPolicy(attempts=3, deadline_seconds=20.0)
QUESTIONS: dict[str, Any] = {
    "MetricForecastClient": lambda client: client.forecast(
        [[1.0] * 40], step_seconds=300, deadline_seconds=0.5
    ),
    "LogAnomalyClient": lambda client: client.classify(["disk failed"], deadline_seconds=0.5),
    "TrainFailureRCAClient": lambda client: client.diagnose(["boom"], deadline_seconds=0.5),
}


@pytest.fixture
def silent_address() -> Iterator[str]:
    """It takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        yield f"{host}:{port}"


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("way", ["", "Async"])
def test_it_holds_where_nobody_answers(
    way: str, name: str, scheme: str, silent_address: str
) -> None:
    make, ask = getattr(clients, way + name), QUESTIONS[name]
    url = f"{scheme}://{silent_address}"

    async def ask_async() -> None:
        async with make(url, PATIENT) as client:
            await ask(client)

    def ask_here() -> None:
        with make(url, PATIENT) as client:
            ask(client)

    began = time.monotonic()
    with pytest.raises(ServerError):
        asyncio.run(ask_async()) if way else ask_here()
    assert time.monotonic() - began < 10.0
