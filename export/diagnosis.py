"""Why a rung failed: the ways exports go wrong, recognised in the answers themselves.

``3 of 512 decisions flipped`` tells that an export is broken; ``the horizon is reversed`` tells
what to mend. Each probe compares failed answers with what eager's would be if that had happened.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from contract.manifest import Tolerance
from export.difference import row_scale, scaled_difference
from export.grid import Cell, Question, Reference
from export.ladder import Rung
from training.spec import Arrays

# Probing is for failures only; this bounds it on large grids.
_LARGEST_BATCH = 8
_CAUSES_KEPT = 3
# A scale this near to 1 is not told from rounding.
_SCALE_SEEN = 1e-5
_SUM_ROUNDING = 0.01


@dataclass(frozen=True)
class Answer:
    """What a rung answered to one question; ``fails`` its tolerance, or ``raised``."""

    question: Question
    outputs: Arrays
    fails: bool
    raised: bool


def causes_in_answers(reference: Reference, rung: Rung) -> list[str]:
    """Ask the small questions again; the causes their answers show, the surest first."""
    answers = [
        _ask(reference, rung, question)
        for question in reference.questions
        if question.rows <= _LARGEST_BATCH
    ]
    found = [*_baked_axes(answers)]
    good = [answer for answer in answers if not answer.raised]
    for tensor in reference.candidate.graph.outputs:
        if tensor.dtype.startswith("FP"):
            found += _tensor_causes(reference, tensor.name, good)
    if not found:
        found += _sensitive_to(good)
    return list(dict.fromkeys(found))[:_CAUSES_KEPT]


def _ask(reference: Reference, rung: Rung, question: Question) -> Answer:
    try:
        outputs = rung.run(question.inputs)
    except Exception:  # whatever a broken export raises
        return Answer(question, {}, fails=True, raised=True)
    if any(outputs[name].shape != want.shape for name, want in question.outputs.items()):
        return Answer(question, outputs, fails=True, raised=True)
    fails = any(
        not _agrees(reference, question, name, outputs[name], reference.candidate.tolerances[name])
        for name in question.outputs
    )
    return Answer(question, outputs, fails, raised=False)


def _agrees(
    reference: Reference, question: Question, name: str, got: np.ndarray, tolerance: Tolerance
) -> bool:
    scale = row_scale(reference.candidate.graph, question.inputs, tolerance)
    delta, _, mismatched = scaled_difference(question.outputs[name], got, scale)
    return bool(not mismatched.any() and delta.max(initial=0.0) <= tolerance.maximum)


def _baked_axes(answers: list[Answer]) -> Iterator[str]:
    """Only one batch size (or length) is answered at all, whatever the other axis is."""
    axes: tuple[tuple[str, Callable[[Cell], int]], ...] = (
        ("batch", lambda cell: cell.batch),
        ("length", lambda cell: cell.length),
    )
    for name, size in axes:
        failed = {size(one.question.cell) for one in answers if one.raised}
        answered = {size(one.question.cell) for one in answers if not one.raised}
        if failed and len(answered - failed) == 1 and len(answered) == 1:
            yield f"the {name} axis is baked at {answered.pop()}"
        elif failed and not answered & failed and max(answered, default=0) < min(failed):
            yield f"the {name} axis is baked: no more than {max(answered, default=0)} is accepted"


def _tensor_causes(reference: Reference, name: str, answers: list[Answer]) -> Iterator[str]:
    """What one output tensor shows over all answers that failed by their values."""
    tolerance = reference.candidate.tolerances[name]
    wrong = [
        one
        for one in answers
        if not _agrees(reference, one.question, name, one.outputs[name], tolerance)
    ]
    if not wrong:
        return
    if any(not np.isfinite(one.outputs[name]).all() for one in wrong if _finite(one, name)):
        yield f"{name} overflows to NaN or infinity"
        return

    def explains(change: Callable[[np.ndarray], np.ndarray]) -> bool:
        """Would every failed answer be right if eager's answers were changed so?"""
        return all(
            _agrees(reference, _changed(one.question, name, change), name, one.outputs[name], loose)
            for one in wrong
        )

    loose = tolerance.model_copy(update={"maximum": max(tolerance.maximum, 1e-6) * 2})
    first = wrong[0].question.outputs[name]
    if first.ndim == 3 and first.shape[1] > 1:
        if explains(lambda values: values[:, ::-1]):
            yield f"{name}: the horizon is reversed"
            return
        if explains(lambda values: np.roll(values, 1, axis=1)):
            yield f"{name}: the horizon is shifted by one step"
            return
    yield from _columns(reference, name, wrong, explains)
    want, got = _sums(wrong, name)
    if want is not None and got is not None:
        if got < _SUM_ROUNDING < want:
            yield f"{name} sum to 1 where eager's do not: softmax in place of sigmoid"
        elif want < _SUM_ROUNDING < got:
            yield f"{name} do not sum to 1 where eager's do: sigmoid in place of softmax"
    # Within a reduced precision's wide limits almost any factor near 1 would "explain" the rest.
    if not reference.candidate.target.reduced:
        yield from _scaled(name, wrong, explains)


def _columns(
    reference: Reference,
    name: str,
    wrong: list[Answer],
    explains: Callable[[Callable[[np.ndarray], np.ndarray]], bool],
) -> Iterator[str]:
    """The last axis (labels, quantiles) in another order, or one of them in place of another."""
    columns = wrong[0].question.outputs[name].shape[-1]
    if columns < 2:
        return
    want = np.concatenate([_flat(one.question.outputs[name]) for one in wrong])
    got = np.concatenate([_flat(one.outputs[name]) for one in wrong])
    distance = np.abs(got[:, :, None] - want[:, None, :]).mean(axis=0)
    order = distance.argmin(axis=1)
    if (order == np.arange(columns)).all() or not explains(lambda values: values[..., order]):
        return
    names = _column_names(reference, name, columns)
    moved = [
        f"{names[place]} is eager's {names[source]}"
        for place, source in enumerate(order)
        if place != source
    ]
    if sorted(order) == list(range(columns)):
        yield f"columns of {name} are swapped: {', '.join(moved[:4])}"
    else:
        yield f"a column of {name} repeats another: {', '.join(moved[:4])}"


def _column_names(reference: Reference, name: str, columns: int) -> list[str]:
    manifest = reference.candidate.artifact.manifest
    if len(manifest.labels) == columns:
        return list(manifest.labels)
    quantiles = manifest.graph.parameters.get("quantiles", "").split(",")
    if len(quantiles) == columns:
        return [f"quantile {quantile}" for quantile in quantiles]
    return [f"column {index}" for index in range(columns)]


def _scaled(
    name: str,
    wrong: list[Answer],
    explains: Callable[[Callable[[np.ndarray], np.ndarray]], bool],
) -> Iterator[str]:
    """All of it times one number, or its deviation from the row's own mean times one."""
    want = np.concatenate([_rows(one.question.outputs[name]) for one in wrong[:1]])
    got = np.concatenate([_rows(one.outputs[name]) for one in wrong[:1]])
    factor = _factor(want, got)
    if abs(factor - 1) > _SCALE_SEEN and explains(lambda values: values * factor):
        yield f"{name} is scaled by {factor:.6g}: a scaling constant is off"
        return
    offset = float(np.median(got - want))
    if offset and explains(lambda values: values + offset):
        yield f"{name} is shifted by {offset:.3g}: an offset is wrong"


def _factor(want: np.ndarray, got: np.ndarray) -> float:
    norm = float((want * want).sum())
    return float((want * got).sum()) / norm if norm > 0 else 1.0


def _sensitive_to(answers: list[Answer]) -> Iterator[str]:
    """Which questions fail: only padded ones, only long ones, only certain edge rows."""
    failed = [one for one in answers if one.fails]
    passed = [one for one in answers if not one.fails]
    if not failed or not passed:
        return
    golden_failed = [one for one in failed if not one.question.cell.edge]
    golden_passed = [one for one in passed if not one.question.cell.edge]
    if all(_has_missing(one) for one in failed) and not all(_has_missing(one) for one in passed):
        yield "only rows with padding or missing values differ: the mask is dropped or ignored"
        return
    if not golden_failed:
        names = sorted({one.question.cell.edge for one in failed})
        yield f"only edge rows differ: {', '.join(names)}"
        return
    shortest = min(one.question.cell.length for one in golden_failed)
    longest = max((one.question.cell.length for one in golden_passed), default=0)
    if longest and longest < shortest:
        yield f"only rows longer than {longest} differ"
    batches = {one.question.cell.batch for one in golden_failed}
    if 1 not in batches and any(one.question.cell.batch == 1 for one in golden_passed):
        yield "only batches of several rows differ: an operator mixes the rows of a batch"


def _has_missing(answer: Answer) -> bool:
    """A row with a missing value (NaN), or with a position that its mask leaves out."""
    return any(
        bool(np.isnan(array).any())
        if np.issubdtype(array.dtype, np.floating)
        else name.endswith("mask") and bool((array == 0).any())
        for name, array in answer.question.inputs.items()
    )


def _sums(wrong: list[Answer], name: str) -> tuple[float | None, float | None]:
    """Median distance of a row's sum from 1: eager's, and the answer's."""
    if any(one.question.outputs[name].ndim != 2 for one in wrong):
        return None, None
    pairs = [
        [np.abs(values.astype(np.float64).sum(axis=-1) - 1).ravel() for values in both]
        for both in ((one.question.outputs[name], one.outputs[name]) for one in wrong)
    ]
    want, got = (np.concatenate(list(column)) for column in itertools.zip_longest(*pairs))
    return float(np.median(want)), float(np.median(got))


def _changed(question: Question, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Question:
    outputs = dict(question.outputs)
    outputs[name] = change(outputs[name].astype(np.float64))
    return Question(question.cell, question.inputs, outputs, question.decisions)


def _finite(answer: Answer, name: str) -> bool:
    return bool(np.isfinite(answer.question.outputs[name]).all())


def _flat(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64)).reshape(-1, values.shape[-1])


def _rows(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64)).reshape(len(values), -1)
