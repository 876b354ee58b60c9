"""``TrainFailureRCAClient``: why did this training job die?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from clients._base import AsyncCaller, SyncCaller
from clients._transport import Answer
from clients.policy import Deadline
from clients.results import Cause, Diagnosis, EvidenceLine
from clients.texts import (
    batch_size_of,
    check_texts,
    manifest_call,
    plan_texts,
    read_manifest_answer,
    rows_of,
)
from clients.thinning import ThinnedLog, thin
from contract.errors import ServerAnswerError, TextError

MODEL = "train_failure_rca"
_OUTPUTS = ("probabilities", "diagnosis")


def check_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0 < threshold < 1:
        raise TextError(
            "threshold is no probability", expected="between 0 and 1", got=repr(threshold)
        )


def decode(
    answers: list[Answer],
    labels: Sequence[str],
    logs: Sequence[ThinnedLog],
    errors: dict[int, str],
) -> list[Diagnosis]:
    """Diagnoses beside their logs, line numbers those of the original. Raises ServerAnswerError."""
    expected = len(logs) - len(errors)
    texts = rows_of(answers, "diagnosis", expected).reshape(-1)
    probabilities = rows_of(answers, "probabilities", expected)
    diagnoses = []
    row = 0
    for index, log in enumerate(logs):
        if index in errors:
            diagnoses.append(Diagnosis([], None, False, {}, "", error=errors[index]))
            continue
        try:
            answer = json.loads(texts[row])
            causes = [_cause(cause, log) for cause in answer["causes"]]
            by_label = {
                label: float(p) for label, p in zip(labels, probabilities[row], strict=True)
            }
            diagnoses.append(
                Diagnosis(
                    causes,
                    answer["root"],
                    bool(answer["unknown"]),
                    by_label,
                    answers[0].model_version,
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ServerAnswerError(
                f"{MODEL}: unreadable diagnosis", where=f"log {index}", got=repr(error)
            ) from error
        row += 1
    return diagnoses


def _cause(stored: dict[str, Any], log: ThinnedLog) -> Cause:
    evidence = tuple(
        EvidenceLine(log.original(int(line["line_number"])), line["text"])
        for line in stored["evidence"]
    )
    return Cause(stored["label"], float(stored["probability"]), evidence, dict(stored["action"]))


class TrainFailureRCAClient(SyncCaller):
    """Diagnoses the logs of failed training jobs.

    Example::

        with TrainFailureRCAClient() as client:
            [diagnosis] = client.diagnose([Path("job.log").read_text()])
            print(diagnosis.root, diagnosis.causes[0].evidence)
    """

    _labels: list[str] | None = None

    def describe(self, deadline: Deadline | None = None) -> dict[str, Any]:
        """The served version's manifest: labels, thresholds, settings, quality."""
        return read_manifest_answer(MODEL, self._run([manifest_call(MODEL)], deadline)[0])

    def diagnose(
        self,
        logs: Iterable[str | bytes],
        threshold: float | None = None,
        *,
        on_error: str = "raise",
        deadline_seconds: float | None = None,
    ) -> list[Diagnosis]:
        """One diagnosis a log, in order; logs over 20 MB are thinned first.

        deadline_seconds: of this call; None is the policy's.

        Raises:
            TextError: a bad log or threshold. ServerError and its subclasses.
        """
        deadline = self.policy.deadline(deadline_seconds)
        check_threshold(threshold)
        encoded, errors = check_texts(logs, on_error)
        thinned = [thin(log) for log in encoded]
        if self._labels is None:
            self._labels = list(self.describe(deadline)["labels"])
        calls = plan_texts(
            MODEL,
            [log.text for log in thinned],
            errors,
            _OUTPUTS,
            max_batch_size=batch_size_of(self._config(MODEL, deadline)),
            threshold=threshold,
        )
        answers = self._run(calls, deadline)
        return decode(answers, self._labels, thinned, errors)


class AsyncTrainFailureRCAClient(AsyncCaller):
    """The async twin of TrainFailureRCAClient."""

    _labels: list[str] | None = None

    async def describe(self, deadline: Deadline | None = None) -> dict[str, Any]:
        return read_manifest_answer(MODEL, (await self._run([manifest_call(MODEL)], deadline))[0])

    async def diagnose(
        self,
        logs: Iterable[str | bytes],
        threshold: float | None = None,
        *,
        on_error: str = "raise",
        deadline_seconds: float | None = None,
    ) -> list[Diagnosis]:
        """See TrainFailureRCAClient.diagnose."""
        deadline = self.policy.deadline(deadline_seconds)
        check_threshold(threshold)
        encoded, errors = check_texts(logs, on_error)
        thinned = [thin(log) for log in encoded]
        if self._labels is None:
            self._labels = list((await self.describe(deadline))["labels"])
        calls = plan_texts(
            MODEL,
            [log.text for log in thinned],
            errors,
            _OUTPUTS,
            max_batch_size=batch_size_of(await self._config(MODEL, deadline)),
            threshold=threshold,
        )
        answers = await self._run(calls, deadline)
        return decode(answers, self._labels, thinned, errors)
