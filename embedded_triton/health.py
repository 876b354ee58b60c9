"""What is up and what is not, as the supervisor knows it: read by its endpoint, `status`, tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from enum import Enum
from typing import Any

from embedded_triton.supervisor_metrics import SupervisorMetrics


class ModelState(Enum):
    UP = "up"
    FAILING = "failing"
    RESTARTING = "restarting"
    BROKEN = "broken"
    """Given up: it stays unloaded until somebody mends it."""
    UNLOADED = "unloaded"
    """By an operator: not served, and nobody's fault."""


class Health:
    """Written by the supervisor's thread, read by others."""

    def __init__(self, models: Iterable[str], metrics: SupervisorMetrics) -> None:
        self._lock = threading.Lock()
        self._metrics = metrics
        self._states: dict[str, tuple[ModelState, str]] = {}
        self._server_down: str | None = None
        for model in models:
            self.set(model, ModelState.UP)

    def set(self, model: str, state: ModelState, reason: str = "") -> None:
        with self._lock:
            self._states[model] = (state, " ".join(reason.split())[:300])
        self._tell()

    def know(self, model: str) -> None:
        """A model that was loaded later."""
        if not self.knows(model):
            self.set(model, ModelState.UP)

    def knows(self, model: str) -> bool:
        with self._lock:
            return model in self._states

    def state(self, model: str) -> ModelState:
        with self._lock:
            return self._states.get(model, (ModelState.UP, ""))[0]

    def names(self, state: ModelState | None = None) -> list[str]:
        """All models, or those in one state."""
        with self._lock:
            return sorted(
                name for name, (own, _) in self._states.items() if state is None or own is state
            )

    def server_down(self, reason: str) -> None:
        with self._lock:
            self._server_down = reason
        self._tell()

    def server_up(self) -> None:
        with self._lock:
            self._server_down = None
        self._tell()

    def why_not_ready(self, model: str | None = None) -> list[str]:
        """Empty: ready. Of one model, or of all that an operator did not unload.

        Raises KeyError: no such model.
        """
        with self._lock:
            if model is not None and model not in self._states:
                raise KeyError(model)
            chosen = self._states if model is None else {model: self._states[model]}
            good = {ModelState.UP} if model is not None else {ModelState.UP, ModelState.UNLOADED}
            reasons = [
                f"{name}: {state.value}" + (f" ({reason})" if reason else "")
                for name, (state, reason) in sorted(chosen.items())
                if state not in good
            ]
            if self._server_down is not None:
                reasons.insert(0, f"tritonserver: {self._server_down}")
            return reasons

    def document(self) -> dict[str, Any]:
        """For `status`: ready, the reasons, and each model's state."""
        reasons = self.why_not_ready()
        with self._lock:
            return {
                "ready": not reasons,
                "reasons": reasons,
                "models": {
                    name: {"state": state.value, "reason": reason}
                    for name, (state, reason) in sorted(self._states.items())
                },
            }

    def _tell(self) -> None:
        with self._lock:
            server_up = self._server_down is None
            states = {name: state for name, (state, _) in self._states.items()}
        for name, state in states.items():
            self._metrics.up(name, server_up and state is ModelState.UP)
        self._metrics.ready(not self.why_not_ready())
