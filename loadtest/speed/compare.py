"""Eager PyTorch, torch.compile, ONNX Runtime in process and every published target, side by side.

One interleaved run: in each round every side answers the same questions once, one after another,
so that whatever disturbs the machine disturbs all alike. Callers, servers and baseline share it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from contract.errors import ArtifactMissingError, PresageError, ServerSetupError
from export.target import TARGETS
from loadtest.eager_process import EagerCaller, EagerProcess
from loadtest.http_load import http_request
from loadtest.served import Arrays, ServedModel
from loadtest.speed.check import Checked, ask, check_side, eager_answers
from loadtest.speed.infer_message import infer_message
from loadtest.speed.presage_server import UNCACHED, PresageServer, presage_server
from loadtest.speed.questions import BERT_TARGETS, CompareSettings, Question
from loadtest.speed.side import EagerSide, InProcessSide, OnnxSession, PresageSide, Rounds, Side

WARM_UP_SECONDS = 1.0
_CHECKED_REQUESTS = 8
_IN_PROCESS_ROWS = 64
_PRIMER_ROWS = 128
_PRIMING_CALLERS = 3
_KEPT_MESSAGES = 50_000

Report = Callable[[str], None]


@dataclass
class Comparison:
    """One question and what every side made of it. absent: {side: why it was not measured}."""

    name: str
    title: str
    concurrency: int
    unit: str
    targets: dict[str, float]
    note: str = ""
    threads: int = 0
    sides: list[tuple[str, str, Rounds]] = field(default_factory=list)
    checked: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


class Sides:
    """What is started for one question, and stopped with ``stack``."""

    def __init__(
        self, question: Question, served: ServedModel, settings: CompareSettings, tell: Report
    ) -> None:
        self.question, self.served, self.settings, self.tell = question, served, settings, tell
        self.stack = contextlib.ExitStack()
        self.sides: list[Side] = []
        self.checked: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self.threads = 0
        self.answered: list[tuple[Arrays, dict[str, Any]]] = []
        self.eager: EagerProcess | None = None

    def open(self) -> None:
        self._eager()
        self._compiled()
        self._in_process()
        targets = BERT_TARGETS if self.question.bert else tuple(TARGETS)
        for target in targets:
            self._presage(target)

    def _folders(self, target: str = "cpu") -> tuple[Path, Path]:
        settings = self.settings
        if self.question.bert:
            return settings.bert.repository(target), settings.bert.artifacts
        return settings.repository_of(target), settings.artifacts

    def _eager(self) -> None:
        self.tell("eager baseline")
        self.eager = self.stack.enter_context(self._baseline(compiled=False))
        side = EagerSide(
            "eager PyTorch, FastAPI", self.eager, self._bodies(), self.question.concurrency
        )
        side.warm_up(WARM_UP_SECONDS)
        rates = {}
        for count in sorted({1, len(os.sched_getaffinity(0))}):
            self.eager.set_threads(count)
            side.warm_up(WARM_UP_SECONDS / 2)
            rates[count] = side.rate(self.settings.seconds / 2)
        self.threads = max(rates, key=rates.__getitem__)
        self.eager.set_threads(self.threads)
        self.sides.append(side)
        first = next(iter(self.question.requests.values()))
        asked = list(itertools.islice(first(), min(_CHECKED_REQUESTS, self.question.concurrency)))
        self.answered = eager_answers(self.served, self.eager, asked)

    def _baseline(self, *, compiled: bool) -> EagerProcess:
        """Of whatever repository has the model: it reads the run, not the export."""
        repository = self.served.folder.parent.parent
        _, artifacts = self._folders()
        return EagerProcess(repository, artifacts, compiled=compiled, models=(self.question.model,))

    def _compiled(self) -> None:
        name = "torch.compile, FastAPI"
        if not self.settings.compiled:
            self.absent[name] = "not asked for (--no-compile)"
            return
        self.tell("torch.compile")
        try:
            process = self.stack.enter_context(self._baseline(compiled=True))
            process.set_threads(self.threads)
            side = EagerSide(name, process, self._bodies(), self.question.concurrency)
            side.warm_up(WARM_UP_SECONDS)
        except PresageError as error:
            self.absent[name] = str(error)[:200]
            return
        self.sides.append(side)

    def _in_process(self) -> None:
        """The fp32 file of target cpu, one session a thread of this process."""
        threads = len(os.sched_getaffinity(0))
        path = self._onnx_file()
        if path is None:
            self.absent["ONNX Runtime in process"] = "no fp32 model.onnx of target cpu"
            return
        session = OnnxSession(str(path))
        if self.served.reads_text:
            answer, batches = self._text_in_process(session)
            self.sides.append(
                InProcessSide(
                    f"ONNX Runtime in process, {_IN_PROCESS_ROWS} texts a call",
                    answer,
                    batches,
                    threads=threads,
                )
            )
            return
        rows = _batches(next(iter(self.question.requests.values()))(), _IN_PROCESS_ROWS)
        self.sides.append(
            InProcessSide(
                f"ONNX Runtime in process, {_IN_PROCESS_ROWS} rows a call",
                session,
                rows,
                threads=threads,
            )
        )

    def _onnx_file(self) -> Path | None:
        graph = self.served.manifest.graph.triton_name
        for target in ("cpu", "cpu-openvino"):  # the same fp32 file
            folder = self._folders(target)[0] / graph
            versions = [path for path in folder.glob("[0-9]*") if path.name.isdigit()]
            if versions:
                return max(versions, key=lambda path: int(path.name)) / "model.onnx"
        return None

    def _text_in_process(
        self, session: OnnxSession
    ) -> tuple[Callable[[Any], object], Iterator[tuple[Any, int]]]:
        """The run's own front before the session; what it read before is forgotten."""
        import importlib

        manifest = self.served.manifest
        assert manifest.front is not None
        names = [tensor.name for tensor in manifest.graph.inputs]

        def classify(chunks: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
            return [session(dict(zip(names, chunk, strict=True)))[0] for chunk in chunks]

        module = importlib.import_module(manifest.front.module)
        front = module.Front(self.served.artifact.path, classify)
        front.batcher.cache_size = 0
        wanted = frozenset(self.question.outputs)
        rows = _IN_PROCESS_ROWS if self.question.concurrency >= _IN_PROCESS_ROWS else 8
        questions = self.question.requests["off"]()

        def batches() -> Iterator[tuple[Any, int]]:
            while True:
                yield list(itertools.islice(questions, rows)), rows

        return lambda batch: front.answer(batch, wanted), batches()

    def _presage(self, target: str) -> None:
        name = f"Presage {target}"
        repository, _ = self._folders(target)
        self.tell(name)
        try:
            server = self.stack.enter_context(presage_server(repository, (self.question.model,)))
        except ArtifactMissingError:
            self.absent[name] = f"not published in {repository}"
            return
        except ServerSetupError as error:
            self.absent[name] = str(error)[:200]
            return
        for caches, requests in self.question.requests.items():
            model = self.question.model + (UNCACHED if caches == "off" else "")
            self._check(name, server, model, target)
            if caches == "on" and self.question.primer is not None:
                prime(server, model, self.question.primer)
            messages = self._messages(model, requests())
            side = PresageSide(
                name,
                caches,
                server,
                model,
                messages,
                self.question.concurrency,
                reads_text=self.served.reads_text,
            )
            side.warm_up(WARM_UP_SECONDS)
            if caches == "off" and server.text_counters(model).get("cache", 0):
                self.absent[f"{name}, caches off"] = (
                    "this version's front cannot forget: publish it again"
                )
                continue
            self.sides.append(side)

    def _messages(self, model: str, requests: Iterator[Arrays]) -> Iterator[bytes]:
        """Serialised; a text that comes again is not serialised again: callers share the cores."""
        known: dict[bytes, bytes] = {}
        for inputs in requests:
            text = inputs["text"][0, 0] if self.served.reads_text else None
            message = known.get(text) if text is not None else None
            if message is None:
                message = infer_message(model, inputs, self.question.outputs)
                if text is not None and len(known) < _KEPT_MESSAGES:
                    known[text] = message
            yield message

    def _check(self, name: str, server: PresageServer, model: str, target: str) -> None:
        checked: Checked = check_side(
            self.served,
            model,
            server.grpc_address,
            self.answered,
            reduced=target != "cpu",
        )
        self.checked[f"{name} ({model})"] = str(checked)

    def _bodies(self) -> Iterator[bytes]:
        path = f"/predict/{self.question.model}"
        requests = next(iter(self.question.requests.values()))
        return (http_request(path, EagerCaller.body(inputs)) for inputs in requests())


def compare_question(
    question: Question,
    served: ServedModel,
    settings: CompareSettings,
    *,
    tell: Report = lambda _: None,
    step_done: Callable[[], object] = lambda: None,
) -> Comparison:
    """Start every side, check its answers, run the rounds, stop everything.

    Raises:
        ServerAnswerError: a request failed, or a side does not answer as eager does.
        ServerSetupError: the eager baseline does not start.
    """
    sides = Sides(question, served, settings, tell)
    with sides.stack:
        sides.open()
        tell("rounds")
        for _ in range(settings.rounds):
            for side in sides.sides:
                side.run(settings.seconds)
            step_done()
    return Comparison(
        question.name,
        question.title,
        question.concurrency,
        question.unit,
        question.targets,
        note=question.note,
        threads=sides.threads,
        sides=[(side.name, side.caches, side.rounds) for side in sides.sides],
        checked=sides.checked,
        absent=sides.absent,
    )


def prime(server: PresageServer, model: str, lines: Sequence[bytes]) -> None:
    """Let every instance of a front read lines that it would have read before, as a service does:
    as many callers as it has instances ask the same. Raises ServerAnswerError."""
    columns = [
        np.array(lines[start : start + _PRIMER_ROWS], dtype=object).reshape(-1, 1)
        for start in range(0, len(lines), _PRIMER_ROWS)
    ]

    def read(_: int) -> None:
        client: Any = triton.InferenceServerClient(server.grpc_address)
        try:
            for column in columns:
                ask(client, model, {"text": column}, ("score",))
        finally:
            client.close()

    with ThreadPoolExecutor(_PRIMING_CALLERS) as pool:
        list(pool.map(read, range(_PRIMING_CALLERS)))


def _batches(rows: Iterator[Arrays], size: int) -> Iterator[tuple[Arrays, int]]:
    while True:
        some = list(itertools.islice(rows, size))
        yield {name: np.concatenate([one[name] for one in some]) for name in some[0]}, size


def as_json(comparisons: Sequence[Comparison]) -> str:
    """Everything measured, for a program to read."""
    return json.dumps(
        [
            {
                **{key: value for key, value in vars(one).items() if key != "sides"},
                "sides": [
                    {"side": name, "caches": caches, **vars(rounds)}
                    for name, caches, rounds in one.sides
                ],
            }
            for one in comparisons
        ],
        indent=1,
    )
