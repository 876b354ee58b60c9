"""Keeps a tritonserver serving: sees what died, starts exactly that again, gives up on what cannot.

What Triton 2.51 does not do itself: a killed stub is never replaced, a stopped server is never
missed, and the ready endpoint stays true through both. Death is told by evidence (a zombie, a
stopped process, Triton's own "not healthy"), never by slowness alone: an overloaded server lives.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from contract.errors import ServerError
from embedded_triton.backoff import RestartHistory, RestartPolicy
from embedded_triton.canary import Canary, CanaryRunner, Verdict
from embedded_triton.health import Health, ModelState
from embedded_triton.http_control import HttpControl
from embedded_triton.repair import Background, reload_model
from embedded_triton.repository import ON_TRIAL, RepositoryModel
from embedded_triton.stubs import SHARED_MEMORY, ProcessTable, ServerProcesses, Stub
from embedded_triton.supervisor_metrics import SERVER, SupervisorMetrics

_INDEX_SECONDS = 1.0


@dataclass(frozen=True)
class SupervisorPolicy:
    """``stuck_seconds``: so long without one finished request, while canaries wait, is death."""

    look_seconds: float = 0.25
    canary_interval_seconds: float = 2.0
    canary_timeout_seconds: float = 5.0
    stopped_seconds: float = 1.0
    hung_seconds: float = 10.0
    stuck_seconds: float = 30.0
    errors_before_failing: int = 3
    leftover_seconds: float = 5.0
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


class SupervisedServer(Protocol):
    """What the supervisor needs of an EmbeddedServer."""

    models: list[RepositoryModel]
    server_pid: int | None

    @property
    def control(self) -> HttpControl: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def restart(self, without: frozenset[str] = frozenset()) -> dict[str, str]: ...


class CrashLoopError(ServerError):
    """The server itself ended too often: it stays down."""


class Supervisor:
    """Call ``run`` in the thread that owns the server; everything it waits for is elsewhere.

    clock, sleep, processes, canaries, background: replaced in tests.
    """

    def __init__(
        self,
        server: SupervisedServer,
        policy: SupervisorPolicy | None = None,
        *,
        say: Callable[[str], None] = print,
        on_restart: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        processes: ProcessTable | None = None,
        canaries: CanaryRunner | None = None,
        background: Callable[[str, Callable[[], str | None]], Background] = Background,
    ) -> None:
        self.policy = policy or SupervisorPolicy()
        self.metrics = SupervisorMetrics()
        self.health = Health([model.name for model in server.models], self.metrics)
        self._server = server
        self._say = say
        self._on_restart = on_restart
        self._clock = clock
        self._sleep = sleep
        self._processes = processes or ProcessTable()
        self._canaries = canaries or CanaryRunner(self.policy.canary_timeout_seconds)
        self._background = background
        self._histories: dict[str, RestartHistory] = {}
        self._repair: Background | None = None
        self._liveness: Background | None = None
        self._wanted: dict[str, tuple[str, float]] = {}
        self._handled: set[int] = set()
        self._leftovers: dict[Stub, float] = {}
        self._slow_since: dict[str, tuple[float, int]] = {}
        self._errors: dict[str, int] = {}
        self._next_canaries = self._next_liveness = 0.0
        self._stopped_since: float | None = None
        self._last_live = clock()

    def run(self, until: threading.Event | None = None) -> None:
        """Look until ``until`` is set. Raises CrashLoopError."""
        until = until or threading.Event()
        while not until.is_set():
            self.look()
            until.wait(self.policy.look_seconds)

    def close(self) -> None:
        self._canaries.close()

    def look(self) -> None:
        """One round; returns soon unless the server itself must be started again."""
        now = self._clock()
        processes = self._processes.look(self._server.server_pid or 0)
        cause = self._server_cause(now, processes)
        if cause is not None:
            self._restart_server(cause)
            return
        self._look_at_stubs(processes, now)
        self._look_at_canaries(now)
        self._repair_next(processes, now)
        self._end_leftovers(processes, now)

    # -- the server ------------------------------------------------------------------------------

    def _server_cause(self, now: float, processes: ServerProcesses) -> str | None:
        """Why the server must be replaced, or None."""
        code = self._server.poll()
        if code is not None:
            return f"ended with {code}"
        if processes.crashing:
            return "crashed"
        if not processes.stopped:
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        elif now - self._stopped_since >= self.policy.stopped_seconds:
            return "stopped"
        if self._liveness is not None and self._liveness.done:
            if self._liveness.result is None:
                self._last_live = now
            self._liveness = None
        if self._liveness is None and now >= self._next_liveness:
            self._next_liveness = now + 1.0
            control = self._server.control
            self._liveness = self._background(
                "liveness", lambda: None if control.is_live() else "not live"
            )
        if now - self._last_live >= self.policy.hung_seconds:
            return "hung"
        return None

    def _restart_server(self, cause: str) -> None:
        """Kill what is left, start anew after the back-off. Raises CrashLoopError."""
        noticed = self._clock()
        self.health.server_down(cause)
        self._canaries.forget()
        self._repair = self._liveness = None
        self._server.kill()
        broken = frozenset(self.health.names(ModelState.BROKEN))
        failures: dict[str, str] | None = None
        while failures is None:
            failures = self._start_server(cause, broken)
        self._forget_processes()
        for model in self.health.names():
            if model not in broken:
                self.health.set(model, ModelState.UP)
        for model, reason in failures.items():
            self._want(model, reason, self._clock())
        self._last_live = self._clock()
        seconds = self._clock() - noticed
        self.health.server_up()
        self.metrics.recovered(SERVER, seconds)
        self._on_restart()
        self._say(f"tritonserver serves again after {seconds:.1f} s")

    def _start_server(self, cause: str, without: frozenset[str]) -> dict[str, str] | None:
        """Models that do not load and why; None: the server itself does not start."""
        history = self._history(SERVER)
        if history.is_crash_loop(self._clock()):
            self._give_up_server(history, cause)
        self._say(f"tritonserver {cause}: starting it again")
        not_before = history.not_before(self._clock())
        while (left := not_before - self._clock()) > 0:
            self._sleep(left)
        history.record(self._clock())
        self.metrics.restarted(SERVER, cause.split(" with ")[0])
        try:
            return self._server.restart(without=without)
        except ServerError as error:
            self._say(f"tritonserver does not start: {error}")
            return None

    def _give_up_server(self, history: RestartHistory, cause: str) -> None:
        self.metrics.crash_loop(SERVER)
        policy = history.policy
        raise CrashLoopError(
            "tritonserver does not stay up",
            expected=f"fewer than {policy.crash_loop_restarts} restarts in"
            f" {policy.window_seconds:.0f} s",
            got=cause,
            next_command="read tritonserver.log in the run folder, then start it again:"
            " python -m embedded_triton up --detach",
        )

    def _forget_processes(self) -> None:
        self._wanted.clear()
        self._handled.clear()
        self._leftovers.clear()
        self._slow_since.clear()
        self._errors.clear()
        self._stopped_since = None

    # -- the models ------------------------------------------------------------------------------

    def _look_at_stubs(self, processes: ServerProcesses, now: float) -> None:
        for stub in processes.alive:
            if not stub.model.endswith(ON_TRIAL):
                self.health.know(stub.model)
        for stubs, cause in ((processes.dead, "process killed"), (processes.halted, "stopped")):
            for stub in stubs:
                if self.health.state(stub.model) is ModelState.BROKEN:
                    self._handled.add(stub.pid)
                if stub.pid in self._handled or stub in self._leftovers:
                    continue
                if stub in processes.dead and not self._is_served(stub):
                    self._handled.add(stub.pid)
                    continue
                self._want(stub.model, cause, now)

    def _is_served(self, stub: Stub) -> bool:
        """A version that Triton refuses or retires ends too, and nobody misses its process."""
        try:
            rows = self._server.control.index(timeout=_INDEX_SECONDS)
        except ServerError:
            return True
        served = {(row["name"], row.get("version")) for row in rows if row.get("state") == "READY"}
        return (stub.model, stub.version) in served

    def _look_at_canaries(self, now: float) -> None:
        for canary in self._canaries.finished():
            self.metrics.canary(canary)
            self._take(canary, now)
        if now < self._next_canaries:
            return
        self._next_canaries = now + self.policy.canary_interval_seconds
        busy = self._repair.name if self._repair is not None else ""
        for model in self.health.names():
            if model != busy:
                self._canaries.ask(self._server.control, model)

    def _take(self, canary: Canary, now: float) -> None:
        """Decide what a canary is evidence of."""
        model, state = canary.model, self.health.state(canary.model)
        if self._repair is not None and self._repair.name == model:
            return
        if canary.verdict is not Verdict.SLOW:
            self._slow_since.pop(model, None)
        if canary.verdict is not Verdict.ERROR:
            self._errors.pop(model, None)
        if canary.verdict is Verdict.ANSWERED:
            if state is not ModelState.UP and model not in self._wanted:
                if state is ModelState.BROKEN:
                    self._history(model).forgive()
                    self._say(f"{model} was mended and serves again")
                self.health.set(model, ModelState.UP)
        elif canary.verdict is Verdict.UNHEALTHY:
            # A front passes on what Triton says of its classifier: that one is to be restarted.
            name = canary.instance.rsplit("_", 2)[0]
            self._want(name if self.health.knows(name) else model, "not healthy", now)
            self.health.set(model, ModelState.FAILING, canary.reason)
        elif canary.verdict is Verdict.MISSING:
            if state is ModelState.UP and model not in self._wanted:
                self.health.set(model, ModelState.UNLOADED, canary.reason)
        elif canary.verdict is Verdict.ERROR:
            self._errors[model] = self._errors.get(model, 0) + 1
            if self._errors[model] >= self.policy.errors_before_failing and state is ModelState.UP:
                self._say(f"{model} answers its canary with an error: {canary.reason}")
                self.health.set(model, ModelState.FAILING, canary.reason)
        elif canary.verdict is Verdict.SLOW:
            self._take_slow(model, now)

    def _take_slow(self, model: str, now: float) -> None:
        """Overload finishes requests, a stuck model does not."""
        try:
            progress = self._server.control.progress(model)
        except ServerError:
            return
        since, before = self._slow_since.get(model, (now, progress))
        if progress != before:
            since = now
        self._slow_since[model] = (since, progress)
        if now - since >= self.policy.stuck_seconds:
            self._want(model, "stuck", now)

    def _want(self, model: str, cause: str, now: float) -> None:
        """Note that a model needs a restart: when its back-off is over."""
        if model in self._wanted or model.endswith(ON_TRIAL):
            return
        if self.health.state(model) is ModelState.BROKEN:
            return
        if self._repair is not None and self._repair.name == model:
            return
        history = self._history(model)
        self.health.set(model, ModelState.FAILING, cause)
        if history.is_crash_loop(now):
            self._give_up_model(model, cause)
            return
        self._wanted[model] = (cause, history.not_before(now))

    def _give_up_model(self, model: str, cause: str) -> None:
        policy = self.policy.restarts
        reason = (
            f"{cause}; restarted {policy.crash_loop_restarts} times in"
            f" {policy.window_seconds:.0f} s, stays down"
        )
        self.metrics.crash_loop(model)
        self.health.set(model, ModelState.BROKEN, reason)
        self._say(f"{model}: {reason}; mend it, then load it or start anew")
        control = self._server.control

        def take_out() -> str | None:
            # Unloaded, callers are refused at once, and Triton's own ready endpoint says so too.
            with contextlib.suppress(ServerError):
                control.unload(model)
            return None

        self._background(f"{model} out", take_out)

    def _repair_next(self, processes: ServerProcesses, now: float) -> None:
        if self._repair is not None:
            if not self._repair.done:
                return
            self._finish_repair(self._repair, now)
            self._repair = None
        fronts = {model.name for model in self._server.models if model.is_front}
        # Classifiers before the fronts that ask them.
        for model in sorted(self._wanted, key=lambda name: (name in fronts, name)):
            cause, not_before = self._wanted[model]
            if now >= not_before:
                self._start_repair(model, cause, processes, now)
                return

    def _start_repair(self, model: str, cause: str, processes: ServerProcesses, now: float) -> None:
        del self._wanted[model]
        self._history(model).record(now)
        self.metrics.restarted(model, cause)
        self.health.set(model, ModelState.RESTARTING, cause)
        self._say(f"{model}: {cause}, loading it again")
        for stub in processes.dead | processes.halted | processes.alive:
            if stub.model != model:
                continue
            self._handled.add(stub.pid)
            if stub in processes.halted:
                # It would hold up the unload for ever.
                _kill(stub.pid)
            if stub in processes.alive:
                # What still computes may finish; Triton forgets to end it after a sibling's death.
                self._leftovers[stub] = now + self.policy.leftover_seconds
            else:
                _remove_region(stub)
        control = self._server.control
        self._repair = self._background(model, lambda: reload_model(control, model))
        self._repair.started = now

    def _finish_repair(self, repair: Background, now: float) -> None:
        seconds = now - repair.started
        if repair.result is None:
            self.health.set(repair.name, ModelState.UP)
            self.metrics.recovered(repair.name, seconds)
            self._say(f"{repair.name} serves again after {seconds:.1f} s")
            return
        self._say(f"{repair.name} does not come back: {repair.result}")
        self._repair = None
        self._want(repair.name, repair.result, now)

    def _end_leftovers(self, processes: ServerProcesses, now: float) -> None:
        for stub, due in list(self._leftovers.items()):
            if stub not in processes.alive:
                del self._leftovers[stub]
                _remove_region(stub)
            elif now >= due and self._repair is None:
                _kill(stub.pid)

    def _history(self, name: str) -> RestartHistory:
        return self._histories.setdefault(name, RestartHistory(self.policy.restarts))


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _remove_region(stub: Stub) -> None:
    """Nobody else will: shared memory of a killed stub is lost until the next boot."""
    if "/" not in stub.region:
        with contextlib.suppress(OSError):
            (SHARED_MEMORY / stub.region).unlink()
