"""``model.py`` of a text front: Triton's requests ⇄ ``Front.answer``, classifier over BLS.

Copied unchanged into each published version folder, where it finds ``manifest.json`` and its
``training`` modules. It asks the classifier version of its own number, so that one version's
tokenizer never meets another's weights.
"""

import importlib
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Of one call; more would only queue at the classifier.
CHUNKS_IN_FLIGHT = 8
METRICS_SECONDS = 0.25


# name → description, label, its values
_TEXT_COUNTERS = {
    "presage_text_rows_total": (
        "Texts answered: by the classifier, from the cache, or as a repeat in one batch.",
        "by",
        ("classifier", "cache", "repeat"),
    ),
    "presage_text_tokens_total": (
        "Tokens sent to the classifier: of texts, and padding.",
        "kind",
        ("text", "padding"),
    ),
}
_SECONDS = "presage_text_seconds_total"
# config.pbtxt's parameter → the text batcher's setting. `python -m loadtest tune` writes the first
# two; without an answer cache a load test measures the model, not the repetition of its logs.
_SETTINGS = {
    "text_chunk_tokens": "chunk_tokens",
    "text_chunk_rows": "chunk_rows",
    "text_cache_entries": "cache_size",
}
_TEXT_GAUGES = {
    "presage_text_cache_entries": "Distinct masked texts in the cache.",
    "presage_text_cache_hit_ratio": "Rows that needed no classifier, since the version's start.",
    "presage_text_padding_ratio": "Padding among the tokens sent, since the version's start.",
}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        # Before everything else: the server's working directory may hold another `training`.
        sys.path.insert(0, str(folder))
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        graph, front = manifest["graph"], manifest["front"]
        self._version = int(args["model_version"])
        # A version on trial is served under another name, and so is its classifier.
        parameters = json.loads(args["model_config"]).get("parameters", {})
        named = parameters.get("classifier", {}).get("string_value")
        self._classifier = named or graph["triton_name"]
        self._classifier_inputs = [tensor["name"] for tensor in graph["inputs"]]
        self._classifier_output = graph["outputs"][0]["name"]
        self._inputs = [(tensor["name"], tensor["optional"]) for tensor in front["inputs"]]
        self._outputs = [tensor["name"] for tensor in front["outputs"]]
        self._pool = ThreadPoolExecutor(CHUNKS_IN_FLIGHT, thread_name_prefix="classify")
        self._front = importlib.import_module(front["module"]).Front(folder, self._classify)
        for parameter, setting in _SETTINGS.items():
            value = parameters.get(parameter, {}).get("string_value")
            if value:
                setattr(self._front.batcher, setting, int(value))
        batcher = self._front.batcher
        batcher.chunk_rows = min(batcher.chunk_rows, graph["max_batch_size"])
        self._metrics = _TextMetrics(
            {
                "model": args["model_name"],
                "version": args["model_version"],
                # Each instance is a process with a cache of its own.
                "instance": args["model_instance_name"],
            },
            self._front.batcher,
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order; a bad request gets its own error."""
        parsed = [self._parse(request) for request in requests]
        good = [inputs for inputs in parsed if isinstance(inputs, dict)]
        requested = [frozenset(request.requested_output_names()) for request in requests]
        wanted = frozenset().union(*requested)
        try:
            answers: Any = iter(self._front.answer(good, wanted) if good else ())
        except _ClassifierError as failure:
            answers = iter([failure] * len(good))
        self._metrics.update_soon()
        return [
            self._respond(names, next(answers) if isinstance(inputs, dict) else inputs)
            for names, inputs in zip(requested, parsed, strict=True)
        ]

    def finalize(self) -> None:
        self._metrics.close()
        self._pool.shutdown(wait=False)

    def _parse(self, request: Any) -> Any:
        inputs = {}
        for name, optional in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                inputs[name] = tensor.as_numpy()
            elif not optional:
                return pb_utils.TritonError(
                    f"{name}: expected one tensor of this name, got none",
                    pb_utils.TritonError.INVALID_ARG,
                )
        return inputs

    def _respond(self, requested: frozenset[str], answer: Any) -> Any:
        if isinstance(answer, _ClassifierError):
            answer = pb_utils.TritonError(answer.message, answer.code)
        elif isinstance(answer, Exception):  # FrontError: the request's own fault
            answer = pb_utils.TritonError(str(answer), pb_utils.TritonError.INVALID_ARG)
        if isinstance(answer, pb_utils.TritonError):
            return pb_utils.InferenceResponse(output_tensors=[], error=answer)
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(answer[name]))
            for name in self._outputs
            if not requested or name in requested
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _classify(self, chunks: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
        return list(self._pool.map(self._classify_chunk, chunks))

    def _classify_chunk(self, chunk: tuple[np.ndarray, ...]) -> np.ndarray:
        request = pb_utils.InferenceRequest(
            model_name=self._classifier,
            model_version=self._version,
            inputs=[
                pb_utils.Tensor(name, np.ascontiguousarray(array))
                for name, array in zip(self._classifier_inputs, chunk, strict=True)
            ],
            requested_output_names=[self._classifier_output],
        )
        response = request.exec()
        if response.has_error():
            raise _ClassifierError(response.error())
        output = pb_utils.get_output_tensor_by_name(response, self._classifier_output)
        probabilities: np.ndarray = output.as_numpy()
        return probabilities


class _TextMetrics:
    """What the text batcher counted, on Triton's /metrics as ``presage_text_*``.

    At once after a pause, else up to ``METRICS_SECONDS`` late: each value set is a message to the
    server's process and back, together more than the answer to a repeat costs.
    """

    def __init__(self, labels: dict[str, str], batcher: Any) -> None:
        self._batcher = batcher
        self._due = 0.0
        self._waiting: threading.Timer | None = None
        self._lock = threading.Lock()
        self._counters: dict[str, Any] = {}
        self._counted: dict[str, int] = {}
        # A family lives as long as this object: Triton forgets it when Python does.
        self._families: list[Any] = []
        for name, (description, label, values) in _TEXT_COUNTERS.items():
            family = self._family(name, description, pb_utils.MetricFamily.COUNTER)
            for value in values:
                self._counters[value] = family.Metric(labels={**labels, label: value})
                self._counted[value] = 0
        spent = self._family(
            _SECONDS,
            "What the front spent masking, tokenizing and waiting for the classifier.",
            pb_utils.MetricFamily.COUNTER,
        )
        self._spent = {
            step: spent.Metric(labels={**labels, "step": step})
            for step in ("mask", "tokenize", "classify")
        }
        self._spent_before = dict.fromkeys(self._spent, 0.0)
        self._gauges: dict[str, Any] = {}
        for name, description in _TEXT_GAUGES.items():
            family = self._family(name, description, pb_utils.MetricFamily.GAUGE)
            self._gauges[name] = family.Metric(labels=labels)
            # A version that was loaded before under this name may have left its last value.
            self._gauges[name].set(0)

    def update_soon(self) -> None:
        """Now, or by a timer where the last time was just now."""
        now = time.monotonic()
        with self._lock:
            if now < self._due:
                if self._waiting is None:
                    self._waiting = threading.Timer(self._due - now, self._update_late)
                    self._waiting.daemon = True
                    self._waiting.start()
                return
            self._due = now + METRICS_SECONDS
            self._update(self._batcher)

    def close(self) -> None:
        with self._lock:
            if self._waiting is not None:
                self._waiting.cancel()

    def _update_late(self) -> None:
        with self._lock:
            self._waiting = None
            self._due = time.monotonic() + METRICS_SECONDS
            self._update(self._batcher)

    def _update(self, batcher: Any) -> None:
        """Bring every metric to what ``batcher`` (a TextBatcher) has counted."""
        values = {
            "classifier": batcher.misses,
            "cache": batcher.hits,
            "repeat": batcher.rows - batcher.hits - batcher.misses,
            "text": batcher.real_tokens,
            "padding": batcher.sent_tokens - batcher.real_tokens,
        }
        for name, value in values.items():
            if value > self._counted[name]:
                self._counters[name].increment(value - self._counted[name])
                self._counted[name] = value
        for step, seconds in batcher.seconds.items():
            if seconds > self._spent_before[step]:
                self._spent[step].increment(seconds - self._spent_before[step])
                self._spent_before[step] = seconds
        ratio = 1 - batcher.misses / batcher.rows if batcher.rows else 0.0
        self._gauges["presage_text_cache_entries"].set(batcher.cache_entries)
        self._gauges["presage_text_cache_hit_ratio"].set(ratio)
        self._gauges["presage_text_padding_ratio"].set(batcher.padding_waste)

    def _family(self, name: str, description: str, kind: Any) -> Any:
        family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        self._families.append(family)
        return family


class _ClassifierError(Exception):
    """The classifier refused a chunk; its own error (overloaded, not ready …) is passed on.

    Copied: Triton's object lies in the answer's shared memory. Handed on itself, and to several
    requests, it kills tritonserver (2.51, signal 11).
    """

    def __init__(self, error: Any) -> None:
        super().__init__(error.message())
        self.message = error.message()
        self.code = error.code()
