"""Eager PyTorch's answer to every payload of a run, made before it, in a process of its own."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from contract.errors import ArtifactCorruptError
from loadtest.load.payloads import PayloadMix, payload_mix
from loadtest.load.plan import LoadPlan
from loadtest.served import Arrays, served_models
from training.data.source import find_data

# Rows that a closed loop asks at most before its payloads come again.
_CLOSED_LOOP_ROWS = 4_000
_CLOSED_LOOP_JOB_LOGS = 60
_ROWS_AT_ONCE = {"train_failure_rca": 4}
_ROWS = 64


@dataclass(frozen=True)
class AnsweredMix:
    """A mix with eager's answer to each item, {output name: (1, …)}."""

    mix: PayloadMix
    expected: list[Arrays]


def write_answers(plan: LoadPlan, *, progress: bool = True) -> None:
    """Make the payloads of a plan's models, answer them eagerly, write ``plan.answers_file``.

    Raises ArtifactError, DataFileError.
    """
    from loadtest.eager_baseline import EagerModel

    source = find_data(None if plan.data is None else Path(plan.data))
    asked = {flow.model for flow in plan.flows}
    answered: dict[str, AnsweredMix] = {}
    for model in served_models(Path(plan.repository), Path(plan.artifacts)):
        if model.name not in asked:
            continue
        rows = plan.rows_of(model.name)
        if plan.loop == "closed":
            slow = model.manifest.model in _ROWS_AT_ONCE
            rows = _CLOSED_LOOP_JOB_LOGS if slow else _CLOSED_LOOP_ROWS
        mix = payload_mix(
            model,
            source,
            rows=plan.pool_rows or max(1, rows),
            fresh=plan.fresh,
            complete=plan.pool_rows is not None,
            seed=plan.seed,
        )
        size = _ROWS_AT_ONCE.get(model.manifest.model, _ROWS)
        expected = _answers(EagerModel(model), mix.items, size, model.name, progress)
        answered[model.name] = AnsweredMix(mix, expected)
    with plan.answers_file.open("wb") as file:
        pickle.dump(answered, file)


def read_answers(path: Path) -> dict[str, AnsweredMix]:
    """What ``write_answers`` wrote, by model. For files of this run's own only: it is a pickle."""
    with path.open("rb") as file:
        answered: dict[str, AnsweredMix] = pickle.load(file)
    return answered


def _answers(
    eager: Any, items: Sequence[Arrays], size: int, name: str, progress: bool
) -> list[Arrays]:
    expected: list[Arrays] = []
    with tqdm(total=len(items), desc=f"eager {name}", unit="row", disable=not progress) as bar:
        for start in range(0, len(items), size):
            group = items[start : start + size]
            together = {key: np.concatenate([item[key] for item in group]) for key in group[0]}
            try:
                outputs = eager.answer(together)
            except ValueError as error:
                raise ArtifactCorruptError(
                    f"{name}: eager refuses a payload", got=str(error)
                ) from error
            expected += [
                {key: np.array(array[row : row + 1]) for key, array in outputs.items()}
                for row in range(len(group))
            ]
            bar.update(len(group))
    return expected
