"""Locust users of the running server: gRPC through tritonclient, raw KServe v2 over HTTP, and the
gateway's /predict. Every answer is checked.

Run it by ``python -m loadtest run``, or with Locust's web page by ``python -m loadtest ui``: what
is asked, and how, stands in the plan that PRESAGE_LOADTEST_PLAN names.
"""

# ruff: noqa: E402
from __future__ import annotations

# Before anything imports grpc: its own threads and gevent's greenlets deadlock each other
# (https://github.com/grpc/grpc/issues/4629).
import grpc.experimental.gevent

grpc.experimental.gevent.init_gevent()

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

import gevent
import numpy as np
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from gevent.event import Event
from locust import FastHttpUser, LoadTestShape, User, events, task

from contract.errors import ServerAnswerError
from loadtest.load.answer_check import AnswerCheck, gateway_body
from loadtest.load.figures import latency_milliseconds
from loadtest.load.open_loop import OpenLoop, Sent
from loadtest.load.plan import GATEWAY_MODELS, PLAN_VARIABLE, Flow, LoadPlan
from loadtest.load.recorder import ANSWERED, ERROR, WRONG, Recorder
from loadtest.load.reference import read_answers
from loadtest.load.shapes import arrivals
from loadtest.served import Arrays, served_models
from loadtest.wire_tensors import request_tensors

PLAN = LoadPlan.of_environment()
MODELS = {m.name: m for m in served_models(Path(PLAN.repository), Path(PLAN.artifacts))}
CHECKS = {
    name: AnswerCheck(MODELS[name], answered)
    for name, answered in read_answers(PLAN.answers_file).items()
}
# The web page's run has no end of its own, and no records.
HEADLESS = os.environ.get(PLAN_VARIABLE + "_UI") != "1"
RECORDER = Recorder()
BEGUN = Event()
_SETTLE_SECONDS = 0.5
_NEXT_LOOK_SECONDS = 0.2
_BREAK_SHARE = 0.01


class Asking:
    """One flow: whose turn it is among the payloads, and how an answer is judged."""

    def __init__(self, number: int, flow: Flow) -> None:
        self.number = number
        self.flow = flow
        self.model = MODELS[flow.model]
        self.check = CHECKS[flow.model]
        order = self.check.mix.order.tolist()
        if flow.channel == "gateway":
            bodies = {i: gateway_body(self.model, self.check.mix.items[i]) for i in set(order)}
            self.bodies = {i: body for i, body in bodies.items() if body is not None}
            order = [item for item in order if item in self.bodies]
        # Flows of one model start at different places, or one's cache would answer the other's.
        shift = number * len(order) // max(1, len(PLAN.flows))
        self._turn = itertools.cycle(order[shift:] + order[:shift])
        self.loop: OpenLoop | None = None

    def next_items(self) -> tuple[int, ...]:
        return tuple(itertools.islice(self._turn, self.flow.rows))

    def inputs(self, items: tuple[int, ...]) -> Arrays:
        rows = [self.check.mix.items[item] for item in items]
        if len(rows) == 1:
            return rows[0]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


class FlowUser(User):
    """What all users share: when they ask, in an open or a closed loop."""

    abstract = True
    asking: ClassVar[Asking]

    @task
    def ask_next(self) -> None:
        loop = self.asking.loop
        if PLAN.loop == "closed":
            if HEADLESS:
                BEGUN.wait()
            sent = time.monotonic()
            answer = self.ask(sent)
            # The web page's run may be as long as anybody likes.
            if not HEADLESS:
                return
            RECORDER.note(
                self.asking.number,
                answer.outcome,
                due=sent,
                sent=sent,
                done=answer.done,
                message=answer.message,
            )
            return
        BEGUN.wait()
        if loop is None or not loop.step(self.ask):
            gevent.sleep(_NEXT_LOOK_SECONDS)

    def ask(self, due: float) -> Sent:
        raise NotImplementedError


class GrpcUser(FlowUser):
    """KServe v2 over gRPC; one channel for all users of a model."""

    abstract = True
    client: ClassVar[Any]

    def ask(self, due: float) -> Sent:
        asking = self.asking
        items = asking.next_items()
        inputs = request_tensors(triton, asking.inputs(items))
        outputs = [triton.InferRequestedOutput(name) for name in asking.model.outputs]
        failure: Exception | None = None
        outcome, size = ANSWERED, 0
        try:
            answer = self.client.infer(
                asking.model.name, inputs, outputs=outputs, client_timeout=PLAN.deadline_seconds
            )
            done = time.monotonic()
            response = answer.get_response()
            size = response.ByteSize()
            raw = b"\0".join(response.raw_output_contents)
            wrong = asking.check.outputs(
                items,
                raw,
                lambda: {name: answer.as_numpy(name) for name in asking.model.outputs},
            )
            if wrong:
                outcome, failure = WRONG, ServerAnswerError(f"wrong answer: {wrong}")
        except triton.InferenceServerException as error:
            done = time.monotonic()
            outcome, failure = ERROR, error
        self.environment.events.request.fire(
            request_type="gRPC",
            name=asking.model.name,
            response_time=(done - due) * 1000,
            response_length=size,
            exception=failure,
            context={},
        )
        return Sent(outcome, done, "" if failure is None else str(failure))


class HttpUser(FlowUser, FastHttpUser):
    """By Locust's own client."""

    abstract = True
    host = f"http://{PLAN.http_address}"
    network_timeout = PLAN.deadline_seconds
    connection_timeout = PLAN.deadline_seconds

    def post(self, path: str, body: bytes, headers: dict[str, str], due: float, judge: Any) -> Sent:
        """judge: (response) → what is wrong with it, "" where nothing is."""
        flow = self.asking.flow
        with self.client.post(
            path, data=body, headers=headers, name=flow.model, catch_response=True
        ) as response:
            done = time.monotonic()
            response.request_meta["request_type"] = flow.channel
            response.request_meta["response_time"] = (done - due) * 1000
            if response.status_code != 200:
                text = (response.text or str(response.error or "no answer"))[:300]
                message = f"HTTP {response.status_code}: {text}"
                response.failure(message)
                return Sent(ERROR, done, message)
            wrong = judge(response)
            if wrong:
                response.failure(f"wrong answer: {wrong}")
                return Sent(WRONG, done, f"wrong answer: {wrong}")
            response.success()
            return Sent(ANSWERED, done)


class KServeHttpUser(HttpUser):
    """KServe v2 over HTTP as it is written, with binary tensors."""

    abstract = True

    def ask(self, due: float) -> Sent:
        asking = self.asking
        items = asking.next_items()
        names = asking.model.outputs
        body, json_size = triton_http.InferenceServerClient.generate_request_body(
            request_tensors(triton_http, asking.inputs(items)),
            outputs=[triton_http.InferRequestedOutput(name) for name in names],
        )
        headers = {"Content-Type": "application/octet-stream"}
        if json_size is not None:
            headers["Inference-Header-Content-Length"] = str(json_size)

        def judge(response: Any) -> str:
            raw: bytes = response.content

            def read() -> Arrays:
                length = response.headers.get("Inference-Header-Content-Length")
                answer = triton_http.InferenceServerClient.parse_response_body(
                    raw, header_length=None if length is None else int(length)
                )
                return {name: answer.as_numpy(name) for name in names}

            return asking.check.outputs(items, raw, read)

        return self.post(f"/v2/models/{asking.model.name}/infer", body, headers, due, judge)


class GatewayUser(HttpUser):
    """One question to the gateway's /predict, as the seed's users ask."""

    abstract = True

    def ask(self, due: float) -> Sent:
        asking = self.asking
        (item,) = asking.next_items()
        api = GATEWAY_MODELS[asking.model.name][0]
        return self.post(
            f"http://127.0.0.1:{PLAN.gateway_ports[api]}/predict",
            asking.bodies[item],
            {"Content-Type": "application/json"},
            due,
            lambda response: asking.check.gateway(item, response.content),
        )


_CHANNELS: dict[str, type] = {"gRPC": GrpcUser, "HTTP": KServeHttpUser, "gateway": GatewayUser}
ASKING: list[Asking] = []
CLIENTS: list[Any] = []
for _flow in PLAN.flows:
    _asking = Asking(len(ASKING), _flow)
    ASKING.append(_asking)
    _class = "".join(word.title() for word in _flow.model.split("_")) + _flow.channel.title()
    _facts: dict[str, Any] = {"asking": _asking}
    if _flow.channel == "gRPC":
        CLIENTS.append(triton.InferenceServerClient(PLAN.grpc_address))
        _facts["client"] = CLIENTS[-1]
    if PLAN.loop == "open":
        _facts["fixed_count"] = PLAN.senders
    globals()[_class] = type(_class, (_CHANNELS[_flow.channel],), _facts)


class _PlannedShape(LoadTestShape):
    """Users, and the run's end."""

    abstract = not HEADLESS

    def tick(self) -> tuple[int, float] | None:
        if not BEGUN.is_set():
            return self._users(PLAN.stages[0].factor)
        seconds = time.monotonic() - RECORDER.begin
        if PLAN.loop == "closed":
            return None if seconds >= PLAN.seconds else self._users(_factor_at(seconds))
        finished = all(asking.loop is not None and asking.loop.is_finished for asking in ASKING)
        if seconds >= PLAN.seconds and finished:
            return None
        if seconds >= PLAN.seconds + PLAN.give_up_seconds + PLAN.deadline_seconds:
            return None
        if _is_broken(seconds):
            return None
        return self._users(1.0)

    def _users(self, factor: float) -> tuple[int, float]:
        if PLAN.loop == "open":
            count = PLAN.senders * len(PLAN.flows)
        else:
            count = max(1, round(PLAN.senders * factor))
        return count, float(max(count, 100))


def _factor_at(seconds: float) -> float:
    for stage in PLAN.stages:
        seconds -= stage.seconds
        if seconds < 0:
            return stage.factor
    return PLAN.stages[-1].factor


def _is_broken(seconds: float) -> bool:
    """Whether the stage that ended last, a moment ago, is one that the server did not follow."""
    if PLAN.shape != "ramp":
        return False
    start = 0.0
    for stage in PLAN.stages:
        end = start + stage.seconds
        if end + _SETTLE_SECONDS > seconds:
            return False
        if stage.name not in _looked_at:
            _looked_at.add(stage.name)
            records = RECORDER.records()
            chosen = records.of((records.due >= start) & (records.due < end))
            bad = len(chosen) - chosen.count(ANSWERED)
            p99 = latency_milliseconds(chosen)[2]
            if bad > _BREAK_SHARE * len(chosen) or (0 < PLAN.break_milliseconds < p99):
                return True
        start = end
    return False


_looked_at: set[str] = set()


@events.spawning_complete.add_listener
def _begin(**_: object) -> None:
    if BEGUN.is_set():
        return
    RECORDER.begin = time.monotonic() + (_SETTLE_SECONDS if PLAN.loop == "open" else 0.0)
    for asking in ASKING:
        due = arrivals(
            PLAN.stages,
            asking.flow.rate_per_second,
            PLAN.process,
            np.random.default_rng([PLAN.seed, asking.number]),
        )
        asking.loop = OpenLoop(
            asking.number,
            due,
            RECORDER,
            begin=RECORDER.begin,
            give_up_seconds=PLAN.give_up_seconds,
        )
    BEGUN.set()


@events.quitting.add_listener
def _write_summary(**_: object) -> None:
    if not HEADLESS:
        return
    ended = time.monotonic()
    until = min(ended, RECORDER.begin + PLAN.seconds)
    for asking in ASKING:
        if asking.loop is not None and PLAN.loop == "open":
            asking.loop.give_up_rest(until)
    records = RECORDER.records()
    records.write(PLAN.records_file)
    summary = {
        "begin": RECORDER.begin,
        "seconds": until - RECORDER.begin,
        "requests": len(records),
        "first_messages": records.first_messages,
        "told": {name: check.mix.told for name, check in CHECKS.items()},
    }
    PLAN.summary_file.write_text(json.dumps(summary), encoding="utf-8")


@events.quit.add_listener
def _leave(exit_code: int, **_: object) -> None:
    # grpc's threads keep the interpreter from ending in its own way, and a client that is left to
    # __del__ can hang and ignore SIGTERM.
    for client in CLIENTS:
        client.close()
    os._exit(exit_code)
