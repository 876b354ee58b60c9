"""Before a side is timed: does it answer as eager PyTorch does?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from contract.errors import ServerAnswerError
from loadtest.eager_process import EagerProcess
from loadtest.served import Arrays, ServedModel
from loadtest.wire_tensors import request_tensors

# A reduced precision may flip what lies this near to its threshold, as in the export gate.
ALLOWED_FLIP_MARGIN = 0.05
_LARGEST_DIFFERENCE = {"exact": 1e-3, "reduced": 0.1}
_DEADLINE_SECONDS = 120.0


@dataclass(frozen=True)
class Checked:
    """requests asked of both; worst difference of a probability (of a forecast: in units of its
    window's spread); decisions that differ, all within the margin."""

    requests: int
    worst: float
    flipped: int

    def __str__(self) -> str:
        return f"{self.requests} asked, worst difference {self.worst:.1e}, {self.flipped} flipped"


def eager_answers(
    model: ServedModel, eager: EagerProcess, questions: Sequence[Arrays]
) -> list[tuple[Arrays, dict[str, Any]]]:
    """Each question with the baseline's answer. Raises ServerAnswerError."""
    with eager.caller(model.name) as caller:
        path = f"/predict/{model.name}"
        return [
            (inputs, json.loads(caller.send("POST", path, caller.body(inputs))))
            for inputs in questions
        ]


def check_side(
    model: ServedModel,
    name: str,
    grpc_address: str,
    answered: Sequence[tuple[Arrays, dict[str, Any]]],
    *,
    reduced: bool,
) -> Checked:
    """Ask ``name`` of the server what eager has answered.

    Raises:
        ServerAnswerError: they differ by more than the precision explains.
    """
    worst, flipped = 0.0, 0
    allowed = _LARGEST_DIFFERENCE["reduced" if reduced else "exact"]
    client: Any = triton.InferenceServerClient(grpc_address)
    try:
        for inputs, told in answered:
            served = ask(client, name, inputs, model.outputs)
            difference, flips = _compare(model, inputs, told, served)
            worst, flipped = max(worst, difference), flipped + flips
            if difference > allowed or (flips and not reduced):
                raise ServerAnswerError(
                    f"{name}: an answer is not eager PyTorch's; nothing was timed",
                    where=grpc_address,
                    expected=f"a difference of at most {allowed:g}",
                    got=f"{difference:.3g}, {flips} decisions flipped",
                    next_command=f"python -m export verify {model.name}",
                )
    finally:
        client.close()
    return Checked(len(answered), worst, flipped)


def ask(client: Any, name: str, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
    """One request through tritonclient. Raises ServerAnswerError."""
    tensors = request_tensors(triton, inputs)
    wanted = [triton.InferRequestedOutput(output) for output in outputs]
    try:
        answer = client.infer(name, tensors, outputs=wanted, client_timeout=_DEADLINE_SECONDS)
    except triton.InferenceServerException as error:
        raise ServerAnswerError(f"{name}: a checked request failed", got=str(error)) from error
    return {output: answer.as_numpy(output) for output in outputs}


def _compare(
    model: ServedModel, inputs: Arrays, told: dict[str, Any], served: Arrays
) -> tuple[float, int]:
    """The largest difference of this answer, and how many decisions it flips."""
    if "probabilities" in served:
        theirs = np.array(told["probabilities"], dtype=np.float64)
        ours = served["probabilities"].astype(np.float64)
        manifest = model.manifest
        limits = np.array([manifest.thresholds[label] for label in manifest.labels])
        two = len(limits) == 2
        # Of two labels the last one's threshold decides alone.
        high = (slice(None), slice(-1, None) if two else slice(None))
        flips = (ours[high] >= limits[high[1]]) != (theirs[high] >= limits[high[1]])
        sure = np.abs(theirs[high] - limits[high[1]]) > ALLOWED_FLIP_MARGIN
        worst = float(np.abs(ours - theirs).max())
        return (1.0 if (flips & sure).any() else worst), int(flips.sum())
    theirs = np.array(told["forecast"], dtype=np.float64)
    window = inputs["series"].astype(np.float64)
    spread = max(float(np.nanmax(window) - np.nanmin(window)), 1e-9)
    return float(np.abs(served["forecast"] - theirs).max() / spread), 0
