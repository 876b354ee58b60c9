"""What the load test asks: real series windows, log lines as they repeat, logs of failed jobs.

A model that is not known here by name is asked its golden rows or questions. No torch here.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.served import Arrays, ServedModel, text_of
from training.data.row_report import RowReport
from training.data.source import DataSource

# Words of these letters are masked by no pattern (no digits, no hex digits).
_LETTERS = "ghijklmnopqrstuvwxyz"
_WORD_LETTERS = 12
# Lines of one file that follow one another: bursts stay bursts.
_BLOCK_LINES = 50
_COMPOSED_LINES = 4_000
_COMPOSED_REPEAT_SHARE = 0.9
LARGEST_POOL = {"log_anomaly": 20_000, "train_failure_rca": 240}
_LARGEST_TEXT_POOL = 1_000
# Of texts that are all new: each costs eager a forward pass.
_LARGEST_FRESH_POOL = 2_000


@dataclass(frozen=True)
class PayloadMix:
    """One row a request, in the order in which they are asked, again and again.

    items: distinct rows, {input name: (1, …)}. order: int (requests,), indexes of items.
    told: for people: what it is, how much of it repeats, how long it is
    """

    model: str
    items: list[Arrays]
    order: np.ndarray
    told: str


def payload_mix(
    model: ServedModel,
    source: DataSource,
    *,
    rows: int,
    fresh: bool,
    complete: bool = False,
    seed: int = 0,
) -> PayloadMix:
    """About ``rows`` rows for a model, fewer where distinct ones are dear to make an answer for.

    fresh: no text comes twice, so that no cache can answer it
    complete: no number is missing; not every client can send NaN
    Raises DataFileError.
    """
    if not model.reads_text:
        return _golden_rows(model, rows, seed, complete=complete)
    largest = LARGEST_POOL.get(model.manifest.model, _LARGEST_TEXT_POOL)
    largest = min(largest, _LARGEST_FRESH_POOL) if fresh else largest
    texts, what = _TEXTS.get(model.manifest.model, _questions)(
        model, source, min(rows, largest), seed
    )
    if fresh:
        words = _new_words(random.Random(seed))
        texts = ["\n".join(_with_word(line, words) for line in t.split("\n")) for t in texts]
        what += ", a new word in each line"
    return _mix(model, texts, what)


def _golden_rows(model: ServedModel, rows: int, seed: int, *, complete: bool) -> PayloadMix:
    golden = model.artifact.golden()
    count = len(next(iter(golden.values())))
    items = [{name: array[i : i + 1] for name, array in golden.items()} for i in range(count)]
    if complete:
        items = [item for item in items if all(np.isfinite(array).all() for array in item.values())]
    order = np.random.default_rng(seed).permutation(len(items))
    forecast = model.manifest.model == "metric_forecast"
    what = "real windows, a quarter of them broken" if forecast else "golden rows"
    told = f"{len(items)} {what if not complete else 'complete rows'}"
    return PayloadMix(model.name, items, np.resize(order, max(rows, len(items))), told)


def _mix(model: ServedModel, texts: Sequence[str], what: str) -> PayloadMix:
    name = model.inputs[0].name
    index: dict[str, int] = {}
    order = np.array([index.setdefault(text, len(index)) for text in texts])
    items = [{name: np.array([[text.encode()]], dtype=object)} for text in index]
    repeated = 1 - len(set(_masked(model, index))) / len(texts)
    middle, high = np.quantile([len(text) for text in texts], [0.5, 0.95])
    return PayloadMix(
        model.name,
        items,
        order,
        f"{len(texts):,} {what}; {repeated:.0%} repeat an earlier one but for numbers; characters:"
        f" median {middle:,.0f}, p95 {high:,.0f}",
    )


def _masked(model: ServedModel, texts: Iterable[str]) -> list[str]:
    """As the front's cache sees them, where the model has a tokenizer that masks."""
    from training.text.text_batch import MaskedTokenizer

    path = model.artifact.path / "tokenizer.json"
    if not path.is_file():
        return list(texts)
    mask = MaskedTokenizer(path, max_tokens=model.manifest.graph.max_length).mask
    return [mask(text) for text in texts]


def _questions(
    model: ServedModel, source: DataSource, rows: int, seed: int
) -> tuple[list[str], str]:
    texts = [text_of(question) for question in model.questions]
    return list(itertools.islice(itertools.cycle(texts), max(rows, len(texts)))), "golden questions"


def _log_lines(
    model: ServedModel, source: DataSource, rows: int, seed: int
) -> tuple[list[str], str]:
    logs = None if source.root is None or source.origin == "file" else source.root / "logs"
    files = read_log_files(logs) if logs is not None and logs.is_dir() else []
    if files:
        lines, what = in_blocks(files, seed), f"lines of {len(files)} real logs"
    else:
        lines, what = _composed_lines(seed), "composed lines"
    return continued(lines, rows, seed, lambda texts: _masked(model, texts)), what


def read_log_files(folder: Path) -> list[list[str]]:
    """Lines of each log below a folder as they were shipped; a label in a line is left out."""
    from training.data.text_file import read_text
    from training.log_anomaly.systems import SYSTEM_FILES, read_bgl

    labelled = {file.path for file in SYSTEM_FILES if file.read is read_bgl}
    files = []
    for path in sorted(folder.rglob("*.log")):
        if str(path.relative_to(folder)) in labelled:
            lines = [row.text for row in read_bgl(path, RowReport())]
        else:
            lines = [line for line in read_text(path).split("\n") if line.strip()]
        if lines:
            files.append(lines)
    return files


def in_blocks(files: Sequence[Sequence[str]], seed: int) -> list[str]:
    """Every line once, in blocks that follow one another in their file: as systems share a bus."""
    blocks = [
        lines[start : start + _BLOCK_LINES]
        for lines in files
        for start in range(0, len(lines), _BLOCK_LINES)
    ]
    random.Random(seed).shuffle(blocks)
    return [line for block in blocks for line in block]


def continued(
    lines: Sequence[str],
    rows: int,
    seed: int,
    masked_of: Callable[[Sequence[str]], Sequence[str]],
) -> list[str]:
    """``rows`` lines: when they are used up they come again, and what was new then is new again.

    So the share of lines that a cache can answer stays that of the logs, however long the run.
    """
    if rows <= len(lines):
        return list(lines[:rows])
    distinct = list(dict.fromkeys(lines))
    masked = dict(zip(distinct, masked_of(distinct), strict=True))
    seen: set[str] = set()
    was_new = []
    for line in lines:
        was_new.append(masked[line] not in seen)
        seen.add(masked[line])
    words = _new_words(random.Random(seed))
    texts = list(lines)
    while len(texts) < rows:
        # In front: what follows the model's last token would make no difference to it.
        texts += [
            f"{next(words)} {line}" if new else line
            for line, new in zip(lines, was_new, strict=True)
        ]
    return texts[:rows]


def _composed_lines(seed: int) -> list[str]:
    """Lines of the vocabulary, few of them often: ranks fall as words' do in a text."""
    from training.log_anomaly.compose import Composer
    from training.log_anomaly.vocabulary import load_messages

    generator = np.random.default_rng(seed)
    composer = Composer(load_messages())
    distinct = round(_COMPOSED_LINES * (1 - _COMPOSED_REPEAT_SHARE))
    lines = [composer.draw(generator).text for _ in range(distinct)]
    shares = 1 / np.arange(1, distinct + 1)
    drawn = generator.choice(distinct, _COMPOSED_LINES, p=shares / shares.sum())
    return [lines[i] for i in drawn]


def _job_logs(
    model: ServedModel, source: DataSource, rows: int, seed: int
) -> tuple[list[str], str]:
    """Golden questions, the data folder's examples, real programs' output, composed logs."""
    from training.train_failure_rca.corpus import load_catalogue
    from training.train_failure_rca.data import compose_job_logs, read_examples, read_provoked

    generator = random.Random(seed)
    texts = [text_of(question) for question in model.questions]
    texts += [log.text for log in read_examples(source)[0]]
    real = [log.text for log in read_provoked()]
    generator.shuffle(real)
    rest = max(0, rows - len(texts))
    texts += real[: rest // 2]
    composed = max(0, rows - len(texts))
    texts += [log.text for log in compose_job_logs(load_catalogue(), seed, composed)]
    texts = [text for text in dict.fromkeys(texts) if text.strip()]
    generator.shuffle(texts)
    return texts, f"job logs ({composed} composed, the others of real programs)"


def _new_words(generator: random.Random) -> Iterator[str]:
    while True:
        yield "".join(generator.choices(_LETTERS, k=_WORD_LETTERS))


def _with_word(line: str, words: Iterator[str]) -> str:
    return f"{next(words)} {line}" if line.strip() else line


_TEXTS: dict[str, Callable[[ServedModel, DataSource, int, int], tuple[list[str], str]]] = {
    "log_anomaly": _log_lines,
    "train_failure_rca": _job_logs,
}
