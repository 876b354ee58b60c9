"""The supervisor's decisions, with a fake clock, a fake server and fake processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contract.errors import (
    DeadlineExceededError,
    ServerAnswerError,
    ServerSetupError,
    ServerUnavailableError,
)
from embedded_triton.backoff import RestartPolicy
from embedded_triton.canary import Canary, Verdict, judge
from embedded_triton.health import ModelState
from embedded_triton.repository import RepositoryModel
from embedded_triton.stubs import ServerProcesses, Stub
from embedded_triton.supervisor import CrashLoopError, Supervisor, SupervisorPolicy

FRONT, GRAPH = "log_anomaly", "log_anomaly_classifier"
POLICY = SupervisorPolicy(
    look_seconds=1.0,
    restarts=RestartPolicy(first_delay_seconds=1.0, crash_loop_restarts=3, window_seconds=60.0),
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeControl:
    """Answers as told: ``load_error`` refuses loads, ``live`` and ``finished`` are facts."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.load_error: str | None = None
        self.live = True
        self.finished = 0

    def is_live(self) -> bool:
        return self.live

    def load(self, name: str, *, timeout: float = 1.0) -> None:
        self.calls.append(f"load {name}")
        if self.load_error is not None:
            raise ServerAnswerError("refused", got=self.load_error)

    def unload(self, name: str) -> None:
        self.calls.append(f"unload {name}")

    def index(self, *, timeout: float = 1.0) -> list[dict[str, str]]:
        return [{"name": n, "version": "1", "state": "READY"} for n in (GRAPH, FRONT)] + [
            {"name": GRAPH, "version": "2", "state": "LOADING"}
        ]

    def config(self, name: str, *, timeout: float = 1.0) -> dict[str, object]:
        return {}

    def infer(self, name: str, inputs: object, *, timeout: float = 1.0) -> None:
        return None

    def progress(self, name: str) -> int:
        return self.finished


class FakeServer:
    def __init__(self) -> None:
        self.models = [RepositoryModel(GRAPH, "onnxruntime", (1,))]
        self.models.append(RepositoryModel(FRONT, "python", (1,)))
        self.server_pid: int | None = 10
        self.control = FakeControl()
        self.code: int | None = None
        self.restarts: list[frozenset[str]] = []
        self.kills = 0
        self.start_error = False
        self.failures: dict[str, str] = {}

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.kills += 1

    def restart(self, without: frozenset[str] = frozenset()) -> dict[str, str]:
        self.restarts.append(without)
        if self.start_error:
            raise ServerSetupError("it does not come up")
        self.code = None
        self.server_pid = (self.server_pid or 0) + 1
        return self.failures


class FakeProcesses:
    def __init__(self) -> None:
        self.seen = ServerProcesses()

    def look(self, server_pid: int) -> ServerProcesses:
        return self.seen


class FakeCanaries:
    """``arrive`` is handed over at the next look."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.arrived: list[Canary] = []

    def ask(self, control: object, model: str) -> None:
        self.asked.append(model)

    def finished(self) -> list[Canary]:
        arrived, self.arrived = self.arrived, []
        return arrived

    def forget(self) -> None:
        self.arrived.clear()

    def close(self) -> None:
        pass


class AtOnce:
    """Background work that is done when it is made."""

    def __init__(self, name: str, work: Callable[[], str | None]) -> None:
        self.name = name
        self.started = 0.0
        self.done = True
        self.result = work()


class World:
    def __init__(self) -> None:
        self.clock, self.server = Clock(), FakeServer()
        self.processes, self.canaries = FakeProcesses(), FakeCanaries()
        self.said: list[str] = []
        self.supervisor = Supervisor(
            self.server,  # type: ignore[arg-type]
            POLICY,
            say=self.said.append,
            clock=self.clock,
            sleep=self.clock.sleep,
            processes=self.processes,  # type: ignore[arg-type]
            canaries=self.canaries,  # type: ignore[arg-type]
            background=AtOnce,  # type: ignore[arg-type]
        )
        self.health = self.supervisor.health

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.supervisor.look()
            self.clock.sleep(POLICY.look_seconds)

    def canary(self, model: str, verdict: Verdict, reason: str = "", instance: str = "") -> None:
        self.canaries.arrived.append(Canary(model, verdict, reason, instance))
        self.look()

    def kill(self, model: str, pid: int, version: str = "1") -> None:
        """One stub more is a zombie."""
        dead = self.processes.seen.dead | {Stub(pid, model, version, f"region_{pid}")}
        self.processes.seen = replace(self.processes.seen, dead=dead)

    def metric(self, line: str) -> float:
        for row in self.supervisor.metrics.text().decode().splitlines():
            if row.startswith(line + " "):
                return float(row.rsplit(" ", 1)[1])
        return 0.0


@pytest.fixture
def world() -> World:
    return World()


def restarts_of(world: World, model: str) -> int:
    return world.server.control.calls.count(f"load {model}")


def test_an_untroubled_server_is_left_alone(world: World) -> None:
    world.look(20)
    assert world.server.control.calls == []
    assert world.server.restarts == []
    assert world.health.why_not_ready() == []
    assert {FRONT, GRAPH} == set(world.canaries.asked)
    # Every two seconds, not at every look.
    assert world.canaries.asked.count(FRONT) == 10
    assert world.said == []


def test_a_zombie_is_unloaded_and_loaded_once(world: World) -> None:
    world.kill(GRAPH, 20)
    world.look(10)
    assert world.server.control.calls == [f"unload {GRAPH}", f"load {GRAPH}"]
    assert world.health.why_not_ready() == []
    restarts = 'presage_supervisor_restarts_total{cause="process killed",model="%s"}'
    assert world.metric(restarts % GRAPH) == 1


def test_a_version_that_is_refused_ends_and_the_served_one_is_left_alone(world: World) -> None:
    world.kill(GRAPH, 20, version="2")
    world.look(10)
    assert world.server.control.calls == []
    assert world.health.why_not_ready() == []


def test_readiness_is_false_while_a_model_is_restarted(world: World) -> None:
    world.server.control.load_error = "out of memory"
    world.kill(GRAPH, 20)
    world.look()
    [reason] = world.health.why_not_ready()
    assert GRAPH in reason
    assert world.metric("presage_supervisor_ready") == 0
    world.server.control.load_error = None
    world.look(5)
    assert world.health.why_not_ready() == []
    assert world.metric("presage_supervisor_ready") == 1


def test_the_classifier_is_loaded_before_its_front(world: World) -> None:
    world.kill(FRONT, 20)
    world.kill(GRAPH, 21)
    world.look(5)
    loads = [call for call in world.server.control.calls if call.startswith("load")]
    assert loads == [f"load {GRAPH}", f"load {FRONT}"]


def test_further_restarts_wait_twice_as_long_each(world: World) -> None:
    times, begun = [], world.clock.now
    for pid in (20, 21, 22):
        before = restarts_of(world, GRAPH)
        world.kill(GRAPH, pid)
        while restarts_of(world, GRAPH) == before:
            world.look()
        times.append(world.clock.now - POLICY.look_seconds)
    first, second, third = times
    assert first == begun
    assert 1 <= second - first < 3
    assert 2 <= third - second < 4


def test_a_crash_loop_ends_down_and_is_said_once(world: World) -> None:
    for pid in range(20, 24):
        world.kill(GRAPH, pid)
        world.look(6)
    assert restarts_of(world, GRAPH) == POLICY.restarts.crash_loop_restarts
    assert world.server.control.calls[-1] == f"unload {GRAPH}"
    assert world.health.state(GRAPH) is ModelState.BROKEN
    assert sum("stays down" in line for line in world.said) == 1
    world.kill(GRAPH, 30)
    world.look(100)
    assert restarts_of(world, GRAPH) == POLICY.restarts.crash_loop_restarts
    assert sum("stays down" in line for line in world.said) == 1
    assert "stays down" in world.health.document()["models"][GRAPH]["reason"]
    assert world.metric(f'presage_supervisor_crash_loops_total{{model="{GRAPH}"}}') == 1


def test_a_broken_model_that_answers_again_is_watched_again(world: World) -> None:
    for pid in range(20, 24):
        world.kill(GRAPH, pid)
        world.look(6)
    world.look(2)
    world.canary(GRAPH, Verdict.ANSWERED)
    assert world.health.why_not_ready() == []
    world.kill(GRAPH, 40)
    world.look(2)
    assert world.health.why_not_ready() == []
    assert restarts_of(world, GRAPH) == POLICY.restarts.crash_loop_restarts + 1


def test_restarts_beyond_the_window_are_forgotten(world: World) -> None:
    for pid in range(20, 30):
        world.kill(GRAPH, pid)
        world.look(int(POLICY.restarts.window_seconds))
    assert world.health.state(GRAPH) is ModelState.UP
    assert restarts_of(world, GRAPH) == 10


@pytest.mark.parametrize("verdict", [Verdict.BUSY, Verdict.SLOW, Verdict.UNREACHABLE])
def test_overload_is_not_death(verdict: Verdict, world: World) -> None:
    for _ in range(100):
        world.server.control.finished += 1
        world.canary(GRAPH, verdict, "Exceeds maximum queue size")
    assert world.server.control.calls == []
    assert world.server.restarts == []
    assert world.health.why_not_ready() == []


def test_a_model_that_finishes_nothing_is_stuck(world: World) -> None:
    for _ in range(int(POLICY.stuck_seconds) - 1):
        world.canary(GRAPH, Verdict.SLOW)
    assert world.server.control.calls == []
    for _ in range(3):
        world.canary(GRAPH, Verdict.SLOW)
    assert restarts_of(world, GRAPH) == 1


def test_what_triton_calls_unhealthy_is_restarted_not_its_front(world: World) -> None:
    world.canary(FRONT, Verdict.UNHEALTHY, "Stub process … is not healthy", f"{GRAPH}_0_1")
    world.look(2)
    assert restarts_of(world, GRAPH) == 1
    assert restarts_of(world, FRONT) == 0


def test_errors_make_it_not_ready_but_restart_nothing(world: World) -> None:
    for _ in range(POLICY.errors_before_failing):
        assert world.health.why_not_ready() == []
        world.canary(GRAPH, Verdict.ERROR, "onnxruntime: no")
    assert world.health.why_not_ready() == [f"{GRAPH}: failing (onnxruntime: no)"]
    assert world.server.control.calls == []
    world.canary(GRAPH, Verdict.ANSWERED)
    assert world.health.why_not_ready() == []


def test_what_an_operator_unloaded_is_left_unloaded(world: World) -> None:
    world.canary(GRAPH, Verdict.MISSING, "Request for unknown model")
    world.look(5)
    assert world.health.state(GRAPH) is ModelState.UNLOADED
    assert world.server.control.calls == []
    assert world.health.why_not_ready() == []
    assert world.health.why_not_ready(GRAPH) != []


def test_a_version_on_trial_is_nobodys_business(world: World) -> None:
    world.kill(f"{GRAPH}__candidate", 20)
    world.look(5)
    assert world.server.control.calls == []
    assert world.health.why_not_ready() == []


def test_a_server_that_ended_is_started_again(world: World) -> None:
    world.server.code = 247
    world.look(3)
    assert world.server.restarts == [frozenset()]
    assert world.health.why_not_ready() == []
    assert (
        world.metric('presage_supervisor_restarts_total{cause="ended",model="tritonserver"}') == 1
    )


def test_a_stopped_server_is_replaced_soon(world: World) -> None:
    world.processes.seen = ServerProcesses(stopped=True)
    begun = world.clock.now
    while not world.server.restarts:
        world.look()
    assert world.clock.now - begun <= 5
    assert world.server.kills == 1


def test_a_short_stop_is_forgiven(world: World) -> None:
    for _ in range(5):
        world.processes.seen = ServerProcesses(stopped=True)
        world.look()
        world.processes.seen = ServerProcesses(stopped=False)
        world.look()
    assert world.server.restarts == []


def test_a_hung_server_is_replaced(world: World) -> None:
    world.look()
    world.server.control.live = False
    world.look(int(POLICY.hung_seconds) - 2)
    assert world.server.restarts == []
    world.look(4)
    assert len(world.server.restarts) == 1


def test_a_crashing_server_is_not_waited_for(world: World) -> None:
    world.processes.seen = ServerProcesses(crashing=True)
    world.look()
    assert world.server.kills == 1
    assert len(world.server.restarts) == 1


def test_a_server_that_does_not_stay_up_is_given_up(world: World) -> None:
    with pytest.raises(CrashLoopError, match="does not stay up"):  # noqa: PT012
        for _ in range(10):
            world.server.code = 1
            world.look()
    assert len(world.server.restarts) == POLICY.restarts.crash_loop_restarts
    assert world.health.why_not_ready() != []


def test_a_server_that_cannot_start_is_given_up(world: World) -> None:
    world.server.code, world.server.start_error = 1, True
    with pytest.raises(CrashLoopError):
        world.look()
    assert len(world.server.restarts) == POLICY.restarts.crash_loop_restarts


def test_one_model_that_does_not_load_costs_no_other(world: World) -> None:
    world.server.failures = {GRAPH: "model.onnx: not a model"}
    world.server.control.load_error = "model.onnx: not a model"
    world.server.code = 1
    world.look(60)
    assert len(world.server.restarts) == 1
    assert world.health.state(FRONT) is ModelState.UP
    assert world.health.state(GRAPH) is ModelState.BROKEN
    # A later restart of the server does not try it again.
    world.server.code = 1
    world.look()
    assert world.server.restarts[-1] == frozenset({GRAPH})


def refused(got: str) -> ServerAnswerError:
    return ServerAnswerError("tritonserver refuses", got=got)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, Verdict.ANSWERED),
        (refused("Exceeds maximum queue size"), Verdict.BUSY),
        (refused("Stub process 'double_0_1' is not healthy."), Verdict.UNHEALTHY),
        (refused("Request for unknown model: 'double' is not found"), Verdict.MISSING),
        (refused("Model 'double_classifier' is not ready."), Verdict.ERROR),
        (refused("onnxruntime: indices out of bounds"), Verdict.ERROR),
        (DeadlineExceededError("late"), Verdict.SLOW),
        (ServerUnavailableError("nobody"), Verdict.UNREACHABLE),
    ],
)
def test_what_a_canary_is_evidence_of(error: object, verdict: Verdict) -> None:
    canary = judge("double", error)  # type: ignore[arg-type]
    assert canary.verdict is verdict
    assert canary.instance == ("double_0_1" if verdict is Verdict.UNHEALTHY else "")
