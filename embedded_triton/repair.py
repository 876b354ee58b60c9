"""Loading a dead model again, and doing such things beside the supervisor's thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from contract.errors import ServerError
from embedded_triton.canary import ask_canary
from embedded_triton.http_control import HttpControl

_LOAD_SECONDS = 60.0
_CANARY_SECONDS = 10.0
_PAUSE_SECONDS = 0.1


class Background:
    """``work`` in a thread of its own; ``result`` is what it returned, once ``done``."""

    def __init__(self, name: str, work: Callable[[], str | None]) -> None:
        self.name = name
        self.result: str | None = None
        self.started = 0.0
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except ServerError as error:
            self.result = error.got or str(error)


def reload_model(control: HttpControl, model: str) -> str | None:
    """Unload and load: a load alone does nothing to a model that Triton takes for ready.

    None once the model answers, else why it does not.
    """
    with contextlib.suppress(ServerError):
        control.unload(model)
    try:
        control.load(model, timeout=_LOAD_SECONDS)
    except ServerError as error:
        return " ".join((error.got or str(error)).split())
    deadline = time.monotonic() + _CANARY_SECONDS
    while (reason := ask_canary(control, model, timeout=_CANARY_SECONDS)) is not None:
        if time.monotonic() > deadline:
            return reason
        time.sleep(_PAUSE_SECONDS)
    return None
