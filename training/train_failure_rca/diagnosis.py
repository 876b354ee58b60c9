"""From the probabilities of a log's windows to its causes, in order, with their evidence.

Runs inside tritonserver: numpy, stdlib and training.text.text_batch only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.text.text_batch import MaskedTokenizer
from training.train_failure_rca.reading import LogLine, read_lines
from training.train_failure_rca.signatures import with_hint
from training.train_failure_rca.suspicion import is_failure, is_suspicious
from training.train_failure_rca.windows import Window, goes_on, keep_lines, make_windows

EVIDENCE_LINES = 4
_EVIDENCE_WINDOWS = 3
# A further window counts where it is at least this share as sure as the surest.
_WINDOW_SHARE = 0.7
# Below every threshold.
_SHARE_OF_THE_LIVING = np.float32(0.25)
# A line proves a cause when, alone, it is at least this share as likely as the best line.
_LINE_SHARE = 0.5
# Calm words never prove: a line must sound like something, or stand far above the others.
_CALM_PENALTY = 0.5
_FOLLOWING_LABEL = "Network_Timeout"
# What the living ranks print when another has died; a service that does not answer reads otherwise.
_FOLLOWS_A_DEATH = re.compile(
    r"by peer|by remote|[Ww]atchdog|remote process|peer "
    r"|Timed out waiting \d+ ?ms for (?:recv|send)"
    r"|[Rr]endezvous|heartbeat|collective|ProcessGroup|WorkNCCL|NCCL|gloo|HCCL|hccl|allreduce"
    r"|all_reduce|ALLREDUCE|barrier|[Bb]roken pipe|ncclRemoteError|socketPollConnect|store|ranks?\b"
    r"|stragglers?|horovod|心跳|集合通信|对端|其他 ?rank",
)

Probabilities = Callable[[Sequence[str]], np.ndarray]
"""Texts → float32 (len(texts), labels)."""


@dataclass
class Reading:
    """One log on its way through the front. ``alive``: the job outlived whatever it complained of.

    by_window: float32 (windows, labels)
    """

    windows: list[Window]
    failed: bool
    alive: bool
    by_window: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (labels,): a cause is as likely as in the window that shows it best."""
        assert self.by_window is not None
        return self.weigh(pool(self.by_window))

    def weigh(self, probabilities: np.ndarray) -> np.ndarray:
        """What a job outlived was seldom a cause."""
        return probabilities * _SHARE_OF_THE_LIVING if self.alive else probabilities


@dataclass(frozen=True)
class FoundCause:
    label: int
    probability: float
    evidence: tuple[LogLine, ...]


def read(log: str, tokenizer: MaskedTokenizer) -> Reading:
    """The log's windows, and whether it says itself that it failed. A log without text has one."""
    lines = read_lines(log)
    kept = keep_lines(lines)
    windows = make_windows(kept, tokenizer) or [Window((LogLine(1, " "),), " ")]
    alive = goes_on(lines)
    failed = not alive and any(is_failure(one.line.text) for one in kept)
    return Reading(windows, failed, alive)


def pool(by_window: np.ndarray) -> np.ndarray:
    """float32 (windows, labels) → (labels,)."""
    return np.asarray(by_window.max(axis=0))


def find_causes(
    reading: Reading, labels: Sequence[str], thresholds: np.ndarray, classify: Probabilities
) -> list[FoundCause]:
    """Causes at or above their thresholds (float32 (labels,)), the root first."""
    probabilities = reading.probabilities
    found = [int(index) for index in np.flatnonzero(probabilities >= thresholds)]
    if not found:
        return []
    candidates = {label: _candidates(reading, label, float(thresholds[label])) for label in found}
    texts = list(dict.fromkeys(line.text for lines in candidates.values() for line in lines))
    row_of = dict(zip(texts, classify([with_hint(text) for text in texts]), strict=True))
    causes = [
        FoundCause(label, float(probabilities[label]), _proofs(lines, label, row_of))
        for label, lines in candidates.items()
    ]
    return sorted(causes, key=lambda cause: _rank(cause, labels, alone=len(causes) == 1))


def _rank(cause: FoundCause, labels: Sequence[str], *, alone: bool) -> tuple[bool, int, float]:
    """Causes before what other ranks print about them, then the earliest; not the loudest."""
    follows = (
        not alone
        and labels[cause.label] == _FOLLOWING_LABEL
        and all(_FOLLOWS_A_DEATH.search(line.text) for line in cause.evidence)
    )
    return follows, cause.evidence[0].number, -cause.probability


def _candidates(reading: Reading, label: int, threshold: float) -> list[LogLine]:
    """The lines of the windows that show the label best, and of the first that shows it."""
    assert reading.by_window is not None
    column = reading.by_window[:, label]
    best = [
        int(i)
        for i in np.argsort(-column, kind="stable")[:_EVIDENCE_WINDOWS]
        if column[i] >= _WINDOW_SHARE * column.max()
    ]
    first = int(np.flatnonzero(column >= min(threshold, float(column.max())))[0])
    # One number may stand for several lines: a message of JSON.
    lines = {
        (line.number, line.text): line
        for index in sorted({*best, first})
        for line in reading.windows[index].lines
    }
    return sorted(lines.values(), key=lambda line: line.number)


def _proofs(
    lines: Sequence[LogLine], label: int, row_of: dict[str, np.ndarray]
) -> tuple[LogLine, ...]:
    """The lines that prove the label, in order: the likeliest ones when classified alone."""
    scores = np.array(
        [
            float(row_of[line.text][label]) * (1 if is_suspicious(line.text) else _CALM_PENALTY)
            for line in lines
        ]
    )
    order = np.argsort(-scores, kind="stable")
    proving = [int(i) for i in order if scores[i] >= _LINE_SHARE * scores.max()]
    return tuple(lines[i] for i in sorted(proving[:EVIDENCE_LINES]))
