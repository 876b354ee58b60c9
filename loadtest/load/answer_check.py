"""Every answer under load against eager's: by the manifest's tolerances, and every decision.

An answer that was seen before for the same rows is known by its bytes, so that checking costs the
load test little. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from export.agreement import AnswerComparison, compared, front_disagreement, graph_disagreement
from export.target import CPU, TARGETS
from loadtest.load.payloads import PayloadMix
from loadtest.load.reference import AnsweredMix
from loadtest.served import Arrays, ServedModel


class AnswerCheck:
    """Of one model. Each method returns what is wrong with an answer, "" where nothing is."""

    def __init__(self, model: ServedModel, answered: AnsweredMix) -> None:
        self._manifest = model.manifest
        self._reads_text = model.reads_text
        self.mix: PayloadMix = answered.mix
        self._expected = answered.expected
        report = model.parity_report()
        self._target = CPU if report is None else TARGETS[report["target"]]
        self._known: dict[tuple[tuple[int, ...], int], str] = {}

    def outputs(self, items: Sequence[int], raw: bytes, read: Callable[[], Arrays]) -> str:
        """raw: the answer as it came; read: it as {output name: (rows, …)}."""
        return self._once(items, raw, lambda: self._check(items, read()))

    def gateway(self, item: int, raw: bytes) -> str:
        """raw: the JSON that /predict answered."""
        return self._once((item,), raw, lambda: self._check_gateway(item, raw))

    def _once(self, items: Sequence[int], raw: bytes, check: Callable[[], str]) -> str:
        key = (tuple(items), hash(raw))
        verdict = self._known.get(key)
        if verdict is None:
            try:
                verdict = check()
            except (KeyError, ValueError, TypeError, IndexError) as error:
                verdict = f"not the answer's form: {error!r}"
            self._known[key] = verdict
        return verdict

    def _check(self, items: Sequence[int], outputs: Arrays) -> str:
        expected = _together([self._expected[item] for item in items])
        if self._reads_text:
            wrong = front_disagreement(self._manifest, self._target, expected, outputs)
        else:
            inputs = _together([self.mix.items[item] for item in items])
            wrong = graph_disagreement(self._manifest, self._target, inputs, expected, outputs)
        return wrong or ""

    def _check_gateway(self, item: int, raw: bytes) -> str:
        told = json.loads(raw)
        expected = self._expected[item]
        if not self._reads_text:
            return self._check((item,), self._told_forecast(told, expected))
        comparison = AnswerComparison()
        for name, want in _GATEWAY_TELLS[self._manifest.model](
            expected, self._manifest.labels
        ).items():
            comparison.compare(name, 0, want, _like(want, told[name]))
        return compared(comparison, self._manifest, self._target) or ""

    def _told_forecast(self, told: dict[str, Any], expected: Arrays) -> Arrays:
        """A forecaster's outputs as /predict tells them: the first step, quantiles by name."""
        quantiles = {float(name): value for name, value in told["quantiles"].items()}
        if told["next_value"] != quantiles[0.5]:
            raise ValueError("next_value is not the median")
        ordered = np.array([quantiles[q] for q in sorted(quantiles)], dtype=np.float32)
        sources = self._manifest.graph.parameters["sources"].split(",")
        source = np.array([sources.index(told["source"])], dtype=np.int32)
        return {
            "forecast": ordered.reshape(expected["forecast"].shape),
            "source": source.reshape(expected["source"].shape),
        }


def gateway_body(model: ServedModel, inputs: Arrays) -> bytes | None:
    """The /predict request that asks the same as the row; None: it cannot be asked that way."""
    if model.reads_text:
        return json.dumps({"text": inputs[model.inputs[0].name].item().decode()}).encode()
    values = inputs["series"][0].astype(np.float64)
    season = int(inputs["season_length"].item())
    # The gateway counts the season from the step, and refuses windows that say nothing.
    if season < 2 or 86_400 % season or np.isfinite(values).sum() < 3:
        return None
    numbers = [None if np.isnan(value) else value for value in values.tolist()]
    return json.dumps({"series": numbers, "step_seconds": 86_400 / season}).encode()


def _together(rows: Sequence[Arrays]) -> Arrays:
    if len(rows) == 1:
        return rows[0]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _line(expected: Arrays, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "label": expected["label"].item().decode(),
        "score": float(expected["score"].item()),
        "threshold": float(expected["threshold"].item()),
    }


def _diagnosis(expected: Arrays, labels: Sequence[str]) -> dict[str, Any]:
    diagnosis = json.loads(expected["diagnosis"].item())
    root = diagnosis["root"]
    probabilities = expected["probabilities"].reshape(-1).tolist()
    return {
        "root": root,
        "unknown": diagnosis["unknown"],
        "probabilities": dict(zip(labels, probabilities, strict=True)),
        "causes": [
            {
                "label": cause["label"],
                "probability": cause["probability"],
                "root": cause["label"] == root,
                "evidence": cause["evidence"],
                "action": cause["action"],
            }
            for cause in diagnosis["causes"]
        ],
    }


def _like(want: Any, have: Any) -> Any:
    """JSON writes 1.0 as 1 where it likes: a number is a number."""
    if isinstance(want, dict) and isinstance(have, dict):
        return {key: _like(want.get(key), value) for key, value in have.items()}
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        return [_like(one, other) for one, other in zip(want, have, strict=True)]
    if isinstance(want, float) and isinstance(have, int) and not isinstance(have, bool):
        return float(have)
    return have


# What /predict must tell of an answer, by model.
_GATEWAY_TELLS: dict[str, Callable[[Arrays, Sequence[str]], dict[str, Any]]] = {
    "log_anomaly": _line,
    "train_failure_rca": _diagnosis,
}
