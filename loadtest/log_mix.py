"""``LogMix``: real log lines with their own repetition and lengths, as a fleet sends them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.text.text_batch import MaskedTokenizer

# Words of these letters are masked by no pattern (no digits, no hex digits).
LETTERS = "ghijklmnopqrstuvwxyz"
_WORD_LETTERS = 9


@dataclass(frozen=True)
class LogMix:
    """lines: of all systems, each system's in its own order. first: is it the first of its form?

    tokens: of each line, as the model reads it
    """

    lines: tuple[bytes, ...]
    first: tuple[bool, ...]
    tokens: tuple[int, ...]
    source: str
    # One line of each form that comes more than once: what a cache has read before.
    primer: tuple[bytes, ...] = ()

    @property
    def new_share(self) -> float:
        """Share of the lines whose masked form was not there before: what no cache can answer."""
        return sum(self.first) / len(self.lines)

    def real(self, seed: int) -> Iterator[bytes]:
        """Endless, and never more repetitive than the files: each time round, what was the first
        of its form is the first of a new one (it gets a word of its own)."""
        draw = random.Random(seed)
        for line, first in itertools.cycle(zip(self.lines, self.first, strict=True)):
            if first:
                # In front: what follows the model's last token would make no difference to it.
                yield "".join(draw.choices(LETTERS, k=_WORD_LETTERS)).encode() + b" " + line
            else:
                yield line

    def seen(self) -> Iterator[bytes]:
        """Endless: the lines whose form was there before, so that a primed cache knows them all."""
        known = [line for line, first in zip(self.lines, self.first, strict=True) if not first]
        return itertools.cycle(known or self.lines)

    def __str__(self) -> str:
        forms = sum(self.first)
        return (
            f"{self.source}: {len(self.lines):,} lines in {forms:,} masked forms, so that "
            f"{self.new_share:.1%} of the lines are the first of theirs; "
            f"{np.mean(self.tokens):.0f} tokens a line "
            f"({np.quantile(self.tokens, 0.1):.0f}–{np.quantile(self.tokens, 0.9):.0f} for 8 of 10)"
        )


def mix_logs(
    systems: Sequence[Sequence[bytes]], tokenizer: MaskedTokenizer, source: str, *, seed: int = 0
) -> LogMix:
    """Merge systems at random, as many sources at once are; each keeps its own order."""
    order = [number for number, lines in enumerate(systems) for _ in lines]
    random.Random(seed).shuffle(order)
    following = [iter(lines) for lines in systems]
    lines = tuple(next(following[number]) for number in order)
    masked = [tokenizer.mask(line.decode("utf-8", "replace")) for line in lines]
    seen: set[str] = set()
    first = []
    primer: dict[str, bytes] = {}
    for form, line in zip(masked, lines, strict=True):
        first.append(form not in seen)
        if form in seen:
            primer.setdefault(form, line)
        seen.add(form)
    tokens = tuple(map(len, tokenizer.encode(masked)))
    return LogMix(lines, tuple(first), tokens, source, tuple(primer.values()))


def read_mix(folder: Path, tokenizer: MaskedTokenizer, otherwise: Sequence[str]) -> LogMix:
    """Every ``*.log`` below ``folder``, one system a file; lines of ``otherwise`` without any."""
    files = sorted(folder.rglob("*.log")) if folder.is_dir() else []
    systems = [[line for line in path.read_bytes().splitlines() if line.strip()] for path in files]
    if any(systems):
        return mix_logs(systems, tokenizer, f"{len(files)} systems of {folder.name}/")
    lines = [text.encode() for text in otherwise if text.strip()]
    return mix_logs([lines], tokenizer, f"no *.log in {folder}: the run's own golden lines")


def job_logs(texts: Sequence[str], lines: int) -> list[str]:
    """Job logs of exactly so many lines: the ends of long ones, and short ones after themselves."""
    logs = []
    for text in texts:
        own = [line for line in text.splitlines() if line.strip()]
        if own:
            logs.append("\n".join((own * -(-lines // len(own)))[-lines:]))
    return logs


def new_logs(logs: Sequence[str], seed: int) -> Iterator[bytes]:
    """Endless logs of which no line came before: each has a word of its own."""
    draw = random.Random(seed)
    for log in itertools.cycle(logs):
        yield "\n".join(
            f"{line} {''.join(draw.choices(LETTERS, k=_WORD_LETTERS))}" for line in log.split("\n")
        ).encode()


def restarted_logs(logs: Sequence[str], seed: int) -> Iterator[bytes]:
    """Endless logs of the same jobs, started again: each digit that follows a digit is another."""
    draw = np.random.default_rng(seed)
    for log in itertools.cycle(logs):
        letters = np.frombuffer(log.encode(), np.uint8).copy()
        is_digit = (letters >= 48) & (letters <= 57)
        places = np.flatnonzero(is_digit[1:] & is_digit[:-1]) + 1
        letters[places] = draw.integers(48, 58, len(places), dtype=np.uint8)
        yield letters.tobytes()
