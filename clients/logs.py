"""``LogAnomalyClient``: is this log line abnormal?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from clients._base import AsyncCaller, SyncCaller
from clients._transport import Answer
from clients.results import LogVerdict
from clients.texts import (
    batch_size_of,
    check_texts,
    manifest_call,
    plan_texts,
    read_manifest_answer,
    rows_of,
)
from contract.errors import ServerAnswerError

MODEL = "log_anomaly"
_OUTPUTS = ("label", "score", "threshold")


def decode(answers: list[Answer], count: int, errors: dict[int, str]) -> list[LogVerdict]:
    """Verdicts beside their lines. Raises ServerAnswerError."""
    expected = count - len(errors)
    labels = rows_of(answers, "label", expected).reshape(-1)
    scores = rows_of(answers, "score", expected).reshape(-1)
    thresholds = rows_of(answers, "threshold", expected).reshape(-1)
    # One request is answered by one version; a swap may fall between two requests.
    versions = [answer.model_version for answer in answers for _ in answer.outputs["score"]]
    verdicts = []
    row = 0
    for index in range(count):
        if index in errors:
            nan = float("nan")
            verdicts.append(LogVerdict(None, nan, nan, error=errors[index]))
            continue
        verdicts.append(
            LogVerdict(
                _label(labels[row]),
                float(scores[row]),
                float(thresholds[row]),
                model_version=versions[row],
            )
        )
        row += 1
    return verdicts


def _label(raw: Any) -> Literal["normal", "anomaly"]:
    name = raw.decode() if isinstance(raw, bytes) else str(raw)
    if name == "normal" or name == "anomaly":
        return "anomaly" if name == "anomaly" else "normal"
    raise ServerAnswerError(f"{MODEL}: unknown label", expected="normal or anomaly", got=name)


class LogAnomalyClient(SyncCaller):
    """Classifies log lines, as shipped or bare.

    Example::

        with LogAnomalyClient() as client:
            [verdict] = client.classify(["EDAC MC0: 1 UE memory read error"])
    """

    def describe(self) -> dict[str, Any]:
        """The served version's manifest: labels, thresholds, settings, quality."""
        return read_manifest_answer(MODEL, self._run([manifest_call(MODEL)])[0])

    def classify(
        self,
        texts: Iterable[str | bytes],
        *,
        on_error: str = "raise",
        deadline_seconds: float | None = None,
    ) -> list[LogVerdict]:
        """One verdict a line, in order; a blank line is normal.

        deadline_seconds: of this call; None is the policy's.

        Raises TextError, ServerError and its subclasses.
        """
        deadline = self.policy.deadline(deadline_seconds)
        encoded, errors = check_texts(texts, on_error, blank_allowed=True)
        size = batch_size_of(self._config(MODEL, deadline))
        calls = plan_texts(MODEL, encoded, errors, _OUTPUTS, max_batch_size=size)
        return decode(self._run(calls, deadline), len(encoded), errors)


class AsyncLogAnomalyClient(AsyncCaller):
    """The async twin of LogAnomalyClient."""

    async def describe(self) -> dict[str, Any]:
        return read_manifest_answer(MODEL, (await self._run([manifest_call(MODEL)]))[0])

    async def classify(
        self,
        texts: Iterable[str | bytes],
        *,
        on_error: str = "raise",
        deadline_seconds: float | None = None,
    ) -> list[LogVerdict]:
        """See LogAnomalyClient.classify."""
        deadline = self.policy.deadline(deadline_seconds)
        encoded, errors = check_texts(texts, on_error, blank_allowed=True)
        size = batch_size_of(await self._config(MODEL, deadline))
        calls = plan_texts(MODEL, encoded, errors, _OUTPUTS, max_batch_size=size)
        return decode(await self._run(calls, deadline), len(encoded), errors)
