"""Whole job logs composed from the catalogue, each with its labels, its root and their lines.

A job runs (or never gets so far), says something harmless that looks like a cause, fails by one
family or two, drags other ranks along, and is taken down; then the log is shipped in some form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.train_failure_rca.corpus.catalogue import (
    CASCADE,
    HEALTHY,
    LOOK_ALIKE,
    PLACES,
    TEARDOWN,
    UNKNOWN,
    Catalogue,
    Family,
)
from training.train_failure_rca.corpus.description import describe_pod
from training.train_failure_rca.corpus.dress import choose_form, dress
from training.train_failure_rca.corpus.labels import LABELS
from training.train_failure_rca.corpus.messages import (
    DraftLine,
    LabelledLine,
    Messages,
    interleave,
)

_CHINESE_SHARE = 0.2
_TAIL_SHARE = 0.22
_LONG_SHARE = 0.12
_CASCADE_SHARE = 0.35
_TEARDOWN_SHARE = 0.6
_SEVERAL_RANKS_SHARE = 0.3
# Before its first step a job has nothing to report.
_EARLY = ("Image_Env_Error", "Config_Error", "CUDA_Driver_Mismatch", "Checkpoint_Error")
_EARLY_SHARE = 0.65
# What really follows what; other pairs happen, too.
_NEXT = {
    "OOM": ("DataLoader_Stuck", "Checkpoint_Error"),
    "CUDA_Driver_Mismatch": ("Image_Env_Error",),
    "Disk_Full": ("Checkpoint_Error", "DataLoader_Stuck"),
    "Permission_Denied": ("Checkpoint_Error", "Config_Error", "Image_Env_Error"),
    "Network_Timeout": ("Checkpoint_Error", "Image_Env_Error", "Config_Error"),
    "GPU_Hardware_Fault": ("Network_Timeout", "Checkpoint_Error", "CUDA_Driver_Mismatch"),
    "Network_Link_Flap": ("Network_Timeout",),
    "Storage_Quota": ("Checkpoint_Error", "Disk_Full"),
    "Image_Env_Error": ("Config_Error",),
    "DataLoader_Stuck": ("Network_Timeout",),
}
_LIKELY_SHARE = 0.7
_PLATFORM_TRIES = 3


@dataclass(frozen=True)
class ComposedLog:
    """``root`` is the label of the first cause, None where there is none; where its text proves
    two labels at once either may be called the root: ``root_labels``.

    ``kind`` is "healthy", "unknown", "one cause" or "two causes" (a cascade is no second cause);
    ``families`` are those of the causes and cascades, in order.
    """

    lines: tuple[LabelledLine, ...]
    root: str | None
    root_labels: frozenset[str]
    kind: str
    form: str
    families: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    @property
    def labels(self) -> frozenset[str]:
        return frozenset[str]().union(*(line.labels for line in self.lines))

    @property
    def failed(self) -> bool:
        return self.kind != "healthy"

    @property
    def decisive(self) -> dict[int, frozenset[str]]:
        """{line number, from 1: the labels it proves}."""
        return {n: line.labels for n, line in enumerate(self.lines, start=1) if line.labels}


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of logs; the rest fails by one cause."""

    two_causes: float = 0.08
    healthy: float = 0.16
    unknown: float = 0.09


def compose_logs(
    generator: np.random.Generator, count: int, families: Catalogue, mix: Mix | None = None
) -> list[ComposedLog]:
    """``count`` logs in random order, the same for a generator's state.

    Labels come evenly, and the families of a label in turn, so that none is missed by chance.
    """
    mix = mix or Mix()
    kinds = generator.choice(
        ["two causes", "healthy", "unknown", "one cause"],
        size=count,
        p=[
            mix.two_causes,
            mix.healthy,
            mix.unknown,
            1 - mix.two_causes - mix.healthy - mix.unknown,
        ],
    )
    composer = _Composer(generator, families)
    return [composer.compose(str(kind)) for kind in kinds]


def _by_language(families: Sequence[Family]) -> dict[bool, tuple[Family, ...]]:
    """{Chinese log: the families that may stand in it}."""
    english = tuple(f for f in families if any(not w.chinese for w in f.wordings))
    return {False: english, True: tuple(families)}


def _of_platform(families: Sequence[Family], causes: Sequence[Family]) -> Sequence[Family]:
    """Those that print on the causes' accelerators, all of them where there is none."""
    npu = any("npu" in cause.tags for cause in causes)
    return tuple(f for f in families if ("npu" in f.tags) == npu) or families


class _Turns:
    """The families of a group, each before any comes again, in an order drawn anew each round."""

    def __init__(self, generator: np.random.Generator, families: Sequence[Family]) -> None:
        self._generator = generator
        self._families = families
        self._left: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._families)

    def next(self) -> Family:
        if not self._left:
            self._left = [int(i) for i in self._generator.permutation(len(self._families))]
        return self._families[self._left.pop()]


class _Composer:
    def __init__(self, generator: np.random.Generator, families: Catalogue) -> None:
        self._generator = generator
        self._turns = {label: _Turns(generator, families.group(label)) for label in LABELS}
        self._unknown = _Turns(generator, families.group(UNKNOWN))
        self._labels = [label for label in LABELS if self._turns[label]]
        self._order: list[str] = []
        self._cascades = families.group(CASCADE)
        self._endings = families.group(TEARDOWN)
        self._job_endings = tuple(f for f in self._endings if not f.tags & {"event", "state"})
        # An English log does not report in Chinese; a Chinese one often does in English.
        self._look_alikes = _by_language(families.group(LOOK_ALIKE))
        self._harmless = {place: _by_language(families.tagged(HEALTHY, place)) for place in PLACES}

    def compose(self, kind: str) -> ComposedLog:
        generator = self._generator
        messages = Messages(generator, chinese=generator.random() < _CHINESE_SHARE)
        causes = self._causes(kind)
        form = self._form(causes)
        if form == "describe":
            draft, used = self._described(messages, causes), list(causes)
        elif form == "dmesg":
            draft, used = self._kernel_log(messages, causes), list(causes)
        else:
            draft, used = self._job_log(messages, causes, form)
        lines = dress(generator, draft, form, messages.slots)
        proving = [family for family in used if family.labels]
        root = proving[0] if proving else None
        return ComposedLog(
            lines,
            root.labels[0] if root else None,
            frozenset(root.labels) if root else frozenset(),
            kind,
            form,
            tuple(family.name for family in used),
        )

    def _causes(self, kind: str) -> list[Family]:
        """The families a log fails by, the root first."""
        if kind == "healthy" or (kind == "unknown" and not self._unknown):
            return []
        if kind == "unknown":
            return [self._unknown.next()]
        if not self._order:
            self._order = [str(label) for label in self._generator.permutation(self._labels)]
        first = self._turns[self._order.pop()].next()
        if kind == "one cause":
            return [first]
        likely = [x for x in _NEXT.get(first.group, ()) if self._turns[x]]
        others = [label for label in self._labels if label not in first.labels]
        if likely and self._generator.random() < _LIKELY_SHARE:
            others = likely
        if not others:
            return [first]
        turns = self._turns[others[self._generator.integers(len(others))]]
        second = turns.next()
        # One node has one kind of accelerator; in a few tries its like is found or there is none.
        for _ in range(_PLATFORM_TRIES):
            if ("npu" in second.tags) == ("npu" in first.tags):
                break
            second = turns.next()
        return [first, second]

    def _form(self, causes: Sequence[Family]) -> str:
        """As the first cause's program is read: a pod's description, the kernel's log, a job's."""
        chance = self._generator.random()
        programs = [family.tags for family in causes]
        if causes and all(tags & {"event", "state"} for tags in programs) and chance < 0.7:
            return "describe"
        if causes and all("kernel" in tags for tags in programs) and chance < 0.5:
            return "dmesg"
        if not causes and chance < 0.12:
            return "describe" if chance < 0.06 else "dmesg"
        return choose_form(self._generator)

    def _job_log(
        self, messages: Messages, causes: Sequence[Family], form: str
    ) -> tuple[list[DraftLine], list[Family]]:
        """A job's own output, with the kernel's or the cluster's lines among it."""
        generator = self._generator
        ranks = int(generator.integers(2, 17)) if form == "ranks" else 1
        is_tail = bool(causes) and generator.random() < _TAIL_SHARE
        lines: list[DraftLine] = []
        if is_tail:
            lines += self._running(messages, int(generator.integers(0, 5)), ranks)
        else:
            lines += messages.write_one_of(
                self._harmless["head"][messages.chinese], int(generator.integers(0, 4)), ranks=1
            )
            early = causes and causes[0].group in _EARLY and generator.random() < _EARLY_SHARE
            lines += self._running(messages, 0 if early else self._length(), ranks)
            lines = self._with_look_alikes(messages, lines, int(generator.integers(0, 4)))
        if not causes:
            lines = self._with_look_alikes(messages, lines, int(generator.integers(1, 7)))
            if generator.random() < 0.7:
                lines += messages.write_one_of(self._harmless["end"][messages.chinese], 1)
            return lines, []
        used: list[Family] = []
        # Causes happen on one rank or on many; what follows comes from the others.
        rank = int(generator.integers(ranks))
        for number, cause in enumerate(causes):
            if number and generator.random() < 0.5:
                lines += self._running(messages, int(generator.integers(1, 9)), ranks)
            lines += self._failure(messages, cause, rank, ranks)
            used.append(cause)
        known_pod = any(cause.tags & {"event", "state", "kube"} for cause in causes)
        known = any(cause.labels for cause in causes)
        if known and self._cascades and generator.random() < self._cascade_share(causes):
            if not is_tail and generator.random() < 0.4:
                lines += self._running(messages, int(generator.integers(1, 12)), ranks)
            victims = _of_platform(self._cascades, causes)
            for _ in range(int(generator.integers(1, 4))):
                cascade = victims[int(generator.integers(len(victims)))]
                other = (rank + 1 + int(generator.integers(15))) % 16 if ranks > 1 else 0
                lines += messages.write(cascade, rank=other)
                used.append(cascade)
        if generator.random() < _TEARDOWN_SHARE:
            endings = self._endings if known_pod else self._job_endings
            lines += messages.write_one_of(
                _of_platform(endings, causes), int(generator.integers(1, 3)), ranks=ranks
            )
        return lines, used

    def _failure(self, messages: Messages, cause: Family, rank: int, ranks: int) -> list[DraftLine]:
        """The cause's block; among several ranks their lines mix, or more than one prints it."""
        generator = self._generator
        block = messages.write(cause, rank=rank)
        if ranks == 1 or generator.random() > _SEVERAL_RANKS_SHARE:
            return block
        if generator.random() < 0.5:
            other = (rank + 1) % ranks
            return interleave(generator, block, messages.write(cause, rank=other))
        beside = self._running(messages, int(generator.integers(1, 5)), ranks)
        return interleave(generator, block, beside)

    def _cascade_share(self, causes: Sequence[Family]) -> float:
        if any(cause.tags & {"event", "state", "pip"} for cause in causes):
            return 0.0
        return _CASCADE_SHARE * (0.4 if causes[0].group in _EARLY else 1.0)

    def _length(self) -> int:
        """Reports of progress before the failure."""
        generator = self._generator
        if generator.random() < _LONG_SHARE:
            return int(generator.integers(150, 500))
        return int(generator.exponential(35))

    def _running(self, messages: Messages, count: int, ranks: int) -> list[DraftLine]:
        """``count`` reports of progress with a few notes and warnings among them."""
        generator = self._generator
        progress = self._harmless["progress"][messages.chinese]
        if not progress or not count:
            return []
        # A job reports in one form, sometimes two, never in all of them.
        own = [
            progress[i]
            for i in generator.integers(len(progress), size=1 + (generator.random() < 0.25))
        ]
        lines: list[DraftLine] = []
        for chance in generator.random(count):
            lines += messages.write_one_of(own, 1, ranks=ranks)
            if chance < 0.06:
                lines += messages.write_one_of(self._of_a_job(messages, "info"), 1, ranks=ranks)
            elif chance < 0.09:
                lines += messages.write_one_of(self._of_a_job(messages, "warning"), 1, ranks=ranks)
        return lines

    def _of_a_job(self, messages: Messages, place: str) -> list[Family]:
        return [
            family
            for family in self._harmless[place][messages.chinese]
            if "kernel" not in family.tags
        ]

    def _with_look_alikes(
        self, messages: Messages, lines: Sequence[DraftLine], count: int
    ) -> list[DraftLine]:
        """The lines with whole look-alike messages put between whole messages."""
        result = list(lines)
        for _ in range(count):
            block = messages.write_one_of(self._look_alikes[messages.chinese], 1)
            borders = [
                i
                for i in range(len(result) + 1)
                if i in (0, len(result)) or result[i - 1].message != result[i].message
            ]
            place = borders[self._generator.integers(len(borders))]
            result[place:place] = block
        return result

    def _kernel_log(self, messages: Messages, causes: Sequence[Family]) -> list[DraftLine]:
        """What dmesg prints: harmless lines around the causes, which come in order."""
        generator = self._generator
        harmless = [
            family
            for family in (
                *self._harmless["info"][messages.chinese],
                *self._look_alikes[messages.chinese],
            )
            if "kernel" in family.tags
        ]
        lines: list[DraftLine] = []
        for cause in causes:
            lines += messages.write_one_of(harmless, int(generator.integers(0, 12)))
            lines += messages.write(cause)
        return lines + messages.write_one_of(harmless, int(generator.integers(not causes, 8)))

    def _described(self, messages: Messages, causes: Sequence[Family]) -> list[DraftLine]:
        """``kubectl describe pod``: a head, the container's state, the events."""
        generator = self._generator
        pod = describe_pod(generator, messages.slots, chinese=messages.chinese)
        states = [family for family in causes if "state" in family.tags]
        events = [family for family in causes if "event" in family.tags]
        lines = [DraftLine(text) for text in pod.head]
        for family in states:
            lines += messages.write(family)
        if not states:
            lines.append(
                DraftLine(
                    "    State:          Waiting" if causes else "    State:          Running"
                )
            )
        lines += [DraftLine(text) for text in (*pod.between, *pod.events)]
        # Each event once, in the order in which a pod lives through them.
        harmless = self._harmless["describe"][messages.chinese]
        count = min(len(harmless), int(generator.integers(not events, 5)))
        for index in sorted(generator.permutation(len(harmless))[:count]):
            lines += messages.write(harmless[index])
        for family in events:
            lines += messages.write(family)
        if causes and generator.random() < 0.3:
            ends = [family for family in self._endings if "event" in family.tags]
            lines += messages.write_one_of(ends, 1)
        return lines
