"""Draws training examples from logs: windows as the front reads them, excerpts, single lines.

A window is labelled by the proofs it holds, so that a traceback's upper half proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from training.text.text_batch import MaskedTokenizer
from training.text.trainer import Sampler, TextExample
from training.train_failure_rca.corpus import LABELS
from training.train_failure_rca.data import JobLog, target_of
from training.train_failure_rca.reading import LogLine, read_lines
from training.train_failure_rca.signatures import with_hint
from training.train_failure_rca.suspicion import is_suspicious
from training.train_failure_rca.windows import keep_lines, make_windows, windows_of

# Shares of the draws that show no cause: without them every surprise becomes somebody's fault.
_WITHOUT_CAUSE_SHARE = 0.4
# Of the rest: proving lines alone, and with a few neighbours. Both teach faster than full windows,
# where the proof is one line among many.
_SINGLE_LINE_SHARE = 0.3
_EXCERPT_SHARE = 0.35
_MOST_NEIGHBOURS = 4
# Of the draws without a cause: full windows, and single lines that sound like one.
_CALM_WINDOW_SHARE, _LOUD_LINE_SHARE = 0.4, 0.25
# Real logs are few and all the more worth.
_REAL_SHARE = 0.3
# Of the draws that show what lines are known for: in the others the model must do without.
_HINTED_SHARE = 0.6


@dataclass(frozen=True)
class _Example:
    """The same lines with what they are known for, and without."""

    hinted: str
    plain: str
    target: tuple[float, ...]

    def draw(self, generator: np.random.Generator) -> TextExample:
        hinted = generator.random() < _HINTED_SHARE
        return TextExample(self.hinted if hinted else self.plain, self.target)


@dataclass
class _Pool:
    """Examples of one source, by label and by how much of the log they show."""

    windows: dict[str, list[_Example]] = field(default_factory=lambda: {x: [] for x in LABELS})
    excerpts: dict[str, list[_Example]] = field(default_factory=lambda: {x: [] for x in LABELS})
    single: dict[str, list[_Example]] = field(default_factory=lambda: {x: [] for x in LABELS})
    calm_windows: list[_Example] = field(default_factory=list)
    calm_excerpts: list[_Example] = field(default_factory=list)
    loud_lines: list[_Example] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        return [label for label in LABELS if self.windows[label]]

    def add(self, log: JobLog, tokenizer: MaskedTokenizer, cut: np.random.Generator) -> None:
        kept = keep_lines(read_lines(log.text))
        for window in make_windows(kept, tokenizer):
            _sort_in(_example(window.lines, log.decisive), self.windows, self.calm_windows)
        lines = [one.line for one in kept]
        for position, line in enumerate(lines):
            before, after = cut.integers(0, _MOST_NEIGHBOURS + 1, size=2)
            near = _example(lines[max(0, position - before) : position + after + 1], log.decisive)
            if log.decisive.get(line.number):
                _sort_in(near, self.excerpts, [])
                _sort_in(_example([line], log.decisive), self.single, [])
            elif is_suspicious(line.text):
                self.loud_lines.append(_example([line], {}))
                if not any(near.target):
                    self.calm_excerpts.append(near)

    def draw(self, generator: np.random.Generator) -> TextExample:
        kind, form = generator.random(2)
        if kind < _WITHOUT_CAUSE_SHARE and self.calm_windows:
            pool = self.calm_windows
            if form > _CALM_WINDOW_SHARE:
                loud = form < _CALM_WINDOW_SHARE + _LOUD_LINE_SHARE
                pool = (self.loud_lines if loud else self.calm_excerpts) or pool
        else:
            label = self.labels[generator.integers(len(self.labels))]
            pool = self.windows[label]
            if form < _SINGLE_LINE_SHARE:
                pool = self.single[label] or pool
            elif form < _SINGLE_LINE_SHARE + _EXCERPT_SHARE:
                pool = self.excerpts[label] or pool
        return pool[generator.integers(len(pool))].draw(generator)


def make_sampler(
    composed: Sequence[JobLog],
    real: Sequence[JobLog],
    rows: Sequence[JobLog],
    tokenizer: MaskedTokenizer,
    *,
    progress: bool,
) -> Sampler:
    """Draws labels evenly from composed and real logs; ``rows`` are a user's own labelled texts."""
    cut = np.random.default_rng(len(composed))
    pools: list[_Pool] = []
    for logs in (composed, real):
        pool = _Pool()
        for log in tqdm(logs, desc="windows", unit="log", disable=not progress):
            pool.add(log, tokenizer, cut)
        pools.append(pool)
    for row in rows:
        # Where in the text the proof lies is not said: its largest window carries the labels.
        window = max(windows_of(row.text, tokenizer), key=lambda w: len(w.text))
        plain = "\n".join(line.text for line in window.lines)
        example = _Example(window.text, plain, target_of(row.labels))
        _sort_in(example, pools[0].windows, pools[0].calm_windows)

    def sample(generator: np.random.Generator, count: int) -> list[TextExample]:
        known = bool(pools[1].labels)
        return [
            pools[int(known and chance < _REAL_SHARE)].draw(generator)
            for chance in generator.random(count)
        ]

    return sample


def _example(lines: Sequence[LogLine], proofs: Mapping[int, frozenset[str]]) -> _Example:
    labels = frozenset[str]().union(*(proofs.get(line.number, ()) for line in lines))
    texts = [line.text for line in lines]
    hinted = "\n".join(map(with_hint, texts))
    return _Example(hinted, "\n".join(texts), target_of(labels))


def _sort_in(
    example: _Example, by_label: dict[str, list[_Example]], without: list[_Example]
) -> None:
    for label, present in zip(LABELS, example.target, strict=True):
        if present:
            by_label[label].append(example)
    if not any(example.target):
        without.append(example)
