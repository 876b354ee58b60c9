"""Whole job logs composed from signatures and harmless lines, each line with what it proves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.train_failure_rca.signatures import LabelledLine, Library, Signature, fill


@dataclass(frozen=True)
class ComposedLog:
    """``root`` is the label of the first proof; None for healthy and unknown failures."""

    lines: tuple[LabelledLine, ...]
    root: str | None
    failed: bool

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    @property
    def labels(self) -> frozenset[str]:
        return frozenset().union(*(line.labels for line in self.lines))


def compose(
    generator: np.random.Generator,
    library: Library,
    signature: Signature,
    cascades: Sequence[Signature],
) -> ComposedLog:
    """A job that ran, failed by ``signature``, and was torn down."""
    lines = _running(generator, library, most=18)
    lines += _block(generator, signature)
    others = [c for c in cascades if not c.labels & signature.labels]
    if others and generator.random() < 0.3:
        if generator.random() < 0.5:
            lines += _noise(generator, library, "progress", 2)
        lines += _block(generator, others[generator.integers(len(others))])
    if generator.random() < 0.6:
        lines += _noise(generator, library, "teardown", 4)
    proofs = [line for line in lines if line.labels]
    first = next(iter(sorted(signature.labels & proofs[0].labels)), None)
    return ComposedLog(_dressed(generator, lines), first, True)


def compose_without_cause(
    generator: np.random.Generator, library: Library, *, failed: bool
) -> ComposedLog:
    """A healthy job, or one that failed without saying why."""
    lines = _running(generator, library, most=30)
    lines += _noise(generator, library, "look-alike", 4)
    generator.shuffle(lines)  # type: ignore[arg-type]
    if failed:
        lines += _noise(generator, library, "unknown-failure", 2) or [LabelledLine("Aborted")]
        lines += _noise(generator, library, "teardown", 3)
    elif generator.random() < 0.7:
        lines += _noise(generator, library, "end-healthy", 2)
    return ComposedLog(_dressed(generator, lines), None, failed)


def _running(generator: np.random.Generator, library: Library, *, most: int) -> list[LabelledLine]:
    lines = _noise(generator, library, "banner", 6)
    lines += _noise(generator, library, "progress", most)
    extra = _noise(generator, library, "look-alike", 2)
    for line in extra:
        lines.insert(int(generator.integers(len(lines) + 1)), line)
    return lines


def _noise(
    generator: np.random.Generator, library: Library, kind: str, most: int
) -> list[LabelledLine]:
    templates = library.noise[kind]
    count = int(generator.integers(0, most + 1))
    # A job repeats one or two forms of progress, not all of them.
    few = [templates[i] for i in generator.integers(len(templates), size=2)]
    pool = few if kind == "progress" else templates
    return [
        LabelledLine(fill(pool[generator.integers(len(pool))], generator)) for _ in range(count)
    ]


def _block(generator: np.random.Generator, signature: Signature) -> list[LabelledLine]:
    lines = [LabelledLine(fill(line.text, generator), line.labels) for line in signature.lines]
    starts_inside = lines[0].text.startswith("  File")
    is_exception = any("Error" in line.text for line in lines)
    if starts_inside or (is_exception and generator.random() < 0.4):
        frames = [LabelledLine("Traceback (most recent call last):")]
        for _ in range(int(generator.integers(0, 4))):
            frames.append(
                LabelledLine(fill('  File "{path}.py", line {int}, in <module>', generator))
            )
            frames.append(LabelledLine(str(generator.choice(_CALLS))))
        lines = frames + lines
    return lines


_CALLS = (
    "    main(args)",
    "    trainer.fit(model, datamodule=data)",
    "    return self._call_impl(*args, **kwargs)",
    "    loss = model(**batch).loss",
    "    return fn(*args, **kwargs)",
    "    self.run_step(batch, step)",
)


def _dressed(
    generator: np.random.Generator, lines: Sequence[LabelledLine]
) -> tuple[LabelledLine, ...]:
    """All lines in the form some collector ships them."""
    kind = generator.random()
    dress: Callable[[str], str]
    if kind < 0.12:
        key = str(generator.choice(["message", "log", "msg"]))
        dress = lambda text: json.dumps({key: text, "stream": "stderr"}, ensure_ascii=False)  # noqa: E731
    elif kind < 0.27:
        rank = generator.integers(8)
        dress = lambda text: f"[rank{rank}]: {text}"  # noqa: E731
    elif kind < 0.40:
        prefix = fill("{time},{int} ", generator)
        dress = lambda text: prefix + text  # noqa: E731
    else:
        return tuple(lines)
    return tuple(LabelledLine(dress(line.text), line.labels) for line in lines)
