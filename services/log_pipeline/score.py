"""``score``: every line of files or a pipe, as fast as they can be read."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from services.log_pipeline.classifier import Answers, Form, LineClassifier
from services.log_pipeline.joining import TracebackJoiner, as_line
from services.log_pipeline.lines import Oddities, open_log, read_blocks, split_lines
from services.log_pipeline.templates import TemplateBook, template_id

Output = Literal["anomalies", "all", "summary"]
_SHOWN_TEMPLATES = 10


@dataclass
class Summary:
    """What became of the lines; ``seconds`` is wall time."""

    lines: int = 0
    anomalies: int = 0
    seconds: float = 0.0
    odd: Oddities = field(default_factory=Oddities)

    def record(self, classifier: LineClassifier, book: TemplateBook) -> dict[str, Any]:
        """As JSON can hold it."""
        looked = classifier.look_ups
        return {
            "lines": self.lines,
            "anomalies": self.anomalies,
            "templates": len(book),
            "seconds": self.seconds,
            "masked": looked.masked,
            "asked": looked.asked,
            "odd": dict(self.odd),
        }

    def text(self, classifier: LineClassifier, book: TemplateBook) -> str:
        looked = classifier.look_ups
        rate = self.lines / self.seconds if self.seconds else 0.0
        parts = [
            f"{self.lines:,} lines in {self.seconds:.1f} s ({rate:,.0f} lines/s), "
            f"{self.anomalies:,} anomalies of {len(book):,} templates; "
            f"{looked.masked:,} masked, {looked.asked:,} asked"
        ]
        if self.odd:
            parts.append("odd: " + ", ".join(f"{k} {v:,}" for k, v in sorted(self.odd.items())))
        parts += [
            f"{row['count']:>9,}× {row['source']}: {row['template'][:100]}"
            for row in sorted(book.top(len(book)), key=lambda row: -row["count"])[:_SHOWN_TEMPLATES]
        ]
        return "\n".join(parts)


class Scorer:
    """Classifies the lines of logs and writes what was asked for to ``out``.

    join: the lines of a traceback are one event (each of them gets the event's answer)
    """

    def __init__(
        self,
        classifier: LineClassifier,
        out: IO[bytes],
        output: Output = "anomalies",
        *,
        join: bool = False,
    ) -> None:
        self.classifier = classifier
        self.summary = Summary()
        self.book = TemplateBook()
        self._out = out
        self._output = output
        self._join = join

    def score(self, path: Path | str, stream: IO[bytes] | None = None) -> None:
        """One log to its end. Raises InputError (cannot be opened), ServerError."""
        started = time.perf_counter()
        source = "stdin" if str(path) == "-" else str(path)
        odd = self.summary.odd
        number = 1
        with stream or open_log(path) as opened:
            blocks = (split_lines(block, odd) for block in read_blocks(opened, odd))
            for events in _events(blocks, self._join):
                number = self._score_events(source, events, number)
        self._out.flush()
        self.summary.seconds += time.perf_counter() - started

    def _score_events(
        self, source: str, events: Sequence[bytes] | Sequence[list[bytes]], number: int
    ) -> int:
        """The number of the line after them."""
        if self._join:
            lines = [as_line(event) for event in events]  # type: ignore[arg-type]
            sizes: Iterable[int] = map(len, events)
        else:
            lines, sizes = list(events), ()  # type: ignore[arg-type]
        answers = self.classifier.classify(lines)
        count = sum(sizes) if self._join else len(lines)
        starts = _starts(events, number) if self._join else range(number, number + count)
        self._note(source, lines, answers)
        if self._output == "all":
            self._write_all(answers, starts, events)
        elif self._output == "anomalies":
            self._write_anomalies(source, lines, answers, starts)
        self.summary.lines += count
        return number + count

    def _note(self, source: str, lines: Sequence[bytes], answers: Answers) -> None:
        counts = answers.counts()
        anomalies = answers.anomalies()
        self.summary.anomalies += len(anomalies)
        example: dict[int, int] = {}
        for index in anomalies:
            example.setdefault(int(answers.codes[index]), int(index))
        for code, index in example.items():
            form = answers.forms[code]
            self.book.add(
                source, form.masked, int(counts[code]), example=lines[index], score=form.score
            )
        for form, lines_of_form in zip(answers.forms, counts, strict=True):
            if form.score != form.score:  # NaN: nothing there to ask about
                self.summary.odd["blank"] += int(lines_of_form)

    def _write_all(
        self,
        answers: Answers,
        starts: Sequence[int],
        events: Sequence[bytes] | Sequence[list[bytes]],
    ) -> None:
        tails = [_tail(form) for form in answers.forms]
        codes = answers.codes.tolist()
        if self._join:
            parts = [
                b'{"line":%d%b' % (start + offset, tails[code])
                for start, code, event in zip(starts, codes, events, strict=True)
                for offset in range(len(event))
            ]
        else:
            parts = [
                b'{"line":%d%b' % (start, tails[code])
                for start, code in zip(starts, codes, strict=True)
            ]
        self._out.write(b"".join(parts))

    def _write_anomalies(
        self, source: str, lines: Sequence[bytes], answers: Answers, starts: Sequence[int]
    ) -> None:
        ids: dict[int, str] = {}
        for index in answers.anomalies():
            code = int(answers.codes[index])
            form = answers.forms[code]
            if code not in ids:
                ids[code] = template_id(form.masked)
            record = {
                "source": source,
                "line": starts[int(index)],
                "label": "anomaly",
                "score": form.score,
                "template": ids[code],
                "text": lines[index].decode("utf-8", "replace"),
            }
            self._out.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def _events(
    blocks: Iterable[list[bytes]], join: bool
) -> Iterator[Sequence[bytes] | Sequence[list[bytes]]]:
    if not join:
        yield from blocks
        return
    joiner = TracebackJoiner()
    for lines in blocks:
        yield joiner.feed(lines)
    yield joiner.flush()


def _starts(events: Sequence[bytes] | Sequence[list[bytes]], number: int) -> list[int]:
    starts = []
    for event in events:
        starts.append(number)
        number += len(event)
    return starts


def _tail(form: Form) -> bytes:
    if form.score != form.score:
        return b',"label":null,"score":null}\n'
    label = b"anomaly" if form.is_anomaly else b"normal"
    return b',"label":"%b","score":%b}\n' % (label, orjson.dumps(round(form.score, 7)))


def run_score(
    classifier: LineClassifier,
    paths: Sequence[str],
    output: Output,
    *,
    join: bool,
    json_summary: bool = False,
) -> int:
    """The command. Exit code 0; anomalies are no failure."""
    scorer = Scorer(classifier, sys.stdout.buffer, output, join=join)
    for path in paths or ["-"]:
        scorer.score(path)
    if json_summary:
        told = orjson.dumps(scorer.summary.record(classifier, scorer.book))
        sys.stdout.buffer.write(told + b"\n")
        sys.stdout.buffer.flush()
    print(scorer.summary.text(classifier, scorer.book), file=sys.stderr)
    return 0
