"""One small inference per model, and what its outcome is evidence of.

A Python model whose process was killed stays "ready" for Triton while every request fails. An
overloaded model refuses canaries too, and lives: only some outcomes speak of death.
"""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Any

from contract.canary_inputs import canary_inputs
from contract.errors import DeadlineExceededError, ServerError, ServerUnavailableError
from embedded_triton.http_control import HttpControl

_BUSY = re.compile(r"exceeds maximum queue size|request timeout expired", re.IGNORECASE)
_UNHEALTHY = re.compile(r"stub process '(?P<instance>[^']*)' is not healthy", re.IGNORECASE)
_MISSING = re.compile(r"unknown model|not found|no available versions|is not ready", re.IGNORECASE)
_WORKERS = 8


class Verdict(Enum):
    """What a canary came back with."""

    ANSWERED = "answered"
    BUSY = "busy"
    """Its queue is full: alive."""
    SLOW = "slow"
    """No answer in time: overload, unless nothing else is answered either."""
    UNHEALTHY = "unhealthy"
    """Triton itself says that a model's process is gone."""
    MISSING = "missing"
    """Not loaded."""
    ERROR = "error"
    """The model answered with an error: alive, not well."""
    UNREACHABLE = "unreachable"
    """Nobody listens: a matter of the server, not of the model."""


@dataclass(frozen=True)
class Canary:
    """One canary's outcome. ``instance`` is the one that Triton calls not healthy."""

    model: str
    verdict: Verdict
    reason: str = ""
    instance: str = ""
    seconds: float = 0.0


def judge(model: str, error: ServerError | None, seconds: float = 0.0) -> Canary:
    if error is None:
        return Canary(model, Verdict.ANSWERED, seconds=seconds)
    reason = error.got or str(error)
    unhealthy = _UNHEALTHY.search(reason)
    if unhealthy is not None:
        return Canary(model, Verdict.UNHEALTHY, reason, unhealthy["instance"], seconds)
    if isinstance(error, DeadlineExceededError):
        verdict = Verdict.SLOW
    elif isinstance(error, ServerUnavailableError):
        verdict = Verdict.UNREACHABLE
    elif _BUSY.search(reason):
        verdict = Verdict.BUSY
    elif _MISSING.search(reason) and f"'{model}'" in reason:
        # Of another name, a front says so of its classifier.
        verdict = Verdict.MISSING
    else:
        verdict = Verdict.ERROR
    return Canary(model, verdict, reason, seconds=seconds)


def ask_canary(control: HttpControl, name: str, *, timeout: float = 30.0) -> str | None:
    """None when the model answered, else the reason it did not."""
    try:
        control.infer(name, canary_inputs(control.config(name)), timeout=timeout)
    except ServerError as error:
        return error.got or str(error)
    return None


class CanaryRunner:
    """Canaries side by side, at most one a model in flight: a hung one delays no other."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._pool = ThreadPoolExecutor(_WORKERS, "canary")
        self._inputs: dict[str, list[dict[str, Any]]] = {}
        self._running: dict[str, Future[Canary]] = {}

    def ask(self, control: HttpControl, model: str) -> None:
        if model not in self._running:
            self._running[model] = self._pool.submit(self._ask, control, model)

    def finished(self) -> list[Canary]:
        done = [model for model, job in self._running.items() if job.done()]
        return [self._running.pop(model).result() for model in done]

    def forget(self) -> None:
        """Of a server that is no more: its late answers say nothing of the next one."""
        self._running.clear()
        self._inputs.clear()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, control: HttpControl, model: str) -> Canary:
        started = monotonic()
        error: ServerError | None = None
        try:
            if model not in self._inputs:
                config = control.config(model, timeout=self.timeout_seconds)
                self._inputs[model] = canary_inputs(config)
            control.infer(model, self._inputs[model], timeout=self.timeout_seconds)
        except ServerError as raised:
            error = raised
            # A new version may ask for other inputs.
            self._inputs.pop(model, None)
        return judge(model, error, monotonic() - started)
