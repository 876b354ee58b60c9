"""One archived log → one parquet partition: all of it, or nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from contract.errors import InputError
from services.log_pipeline.classifier import LineClassifier
from services.log_pipeline.event import read_document
from services.log_pipeline.lines import Oddities, clean_event, open_log, read_blocks, split_lines
from services.log_pipeline.templates import template_id

_TEXT_COLUMNS = ("message", "log", "msg", "text")
_JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
_PACKED_SUFFIXES = {".gz", ".zst"}
_PARQUET_ROWS = 32_768
_SOURCE_KEY = b"presage_source"
ODD_KEY = b"presage_odd"


@dataclass(frozen=True)
class Scored:
    """What became of one archive."""

    source: str
    partition: str
    lines: int
    anomalies: int


def partition_of(source: Path, output: Path) -> Path:
    """Named by the source's path, so that an archive is never there twice."""
    name = hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:16]
    return output / f"part-{name}.parquet"


def is_done(source: Path, output: Path) -> bool:
    """Whether the partition is there, and of this very file (size and time)."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(partition_of(source, output)).metadata or {}
    except (OSError, pyarrow.ArrowInvalid):
        return False
    return bool(metadata.get(_SOURCE_KEY) == _fingerprint(source))


def score_archive(source: Path, output: Path, classifier: LineClassifier) -> Scored:
    """Write the partition of one archive: columns line, label, score, template, text.

    ``text`` is that of the anomalies; ``line`` counts from 1. The file appears by one rename.

    Raises InputError: it cannot be read. ServerError: nobody answers.
    """
    import pyarrow
    import pyarrow.parquet

    odd = Oddities()
    fingerprint = _fingerprint(source)
    partition = partition_of(source, output)
    output.mkdir(parents=True, exist_ok=True)
    temporary = partition.with_suffix(f".{os.getpid()}.tmp")
    schema = pyarrow.schema(
        [
            ("line", pyarrow.int64()),
            ("label", pyarrow.dictionary(pyarrow.int8(), pyarrow.string())),
            ("score", pyarrow.float32()),
            ("template", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
            ("text", pyarrow.string()),
        ],
        metadata={
            _SOURCE_KEY: fingerprint,
            b"presage_path": str(source).encode(),
            b"presage_model": classifier.describe_model().encode(),
        },
    )
    number, anomalies = 0, 0
    try:
        with pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for lines in read_archive(source, odd):
                table, found = _table(lines, number, classifier, schema)
                writer.write_table(table)
                number += len(lines)
                anomalies += found
            writer.add_key_value_metadata({ODD_KEY.decode(): orjson.dumps(dict(odd)).decode()})
        temporary.replace(partition)
    finally:
        temporary.unlink(missing_ok=True)
    return Scored(str(source), str(partition), number, anomalies)


def read_archive(source: Path, odd: Oddities) -> Iterator[list[bytes]]:
    """Blocks of lines of a text, JSON-lines (each also .gz, .zst) or parquet file."""
    suffixes = [suffix for suffix in source.suffixes if suffix not in _PACKED_SUFFIXES]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".parquet":
        yield from _read_parquet(source, odd)
        return
    try:
        with open_log(source) as stream:
            for block in read_blocks(stream, odd):
                lines = split_lines(block, odd)
                yield [_message(line, odd) for line in lines] if kind in _JSON_SUFFIXES else lines
    # zlib and zstandard have errors of their own for what is cut off or damaged.
    except (OSError, EOFError) as error:
        raise InputError("the archive cannot be read", where=str(source), got=str(error)) from error
    except Exception as error:
        if type(error).__name__ not in {"ZstdError", "error"}:
            raise
        raise InputError("the archive cannot be read", where=str(source), got=str(error)) from error


def _message(line: bytes, odd: Oddities) -> bytes:
    try:
        document = orjson.loads(line)
    except ValueError:
        odd["bad_item"] += 1
        return line
    if not isinstance(document, dict):
        odd["bad_item"] += 1
        return line
    return read_document(document, "", 0.0, odd).line


def _read_parquet(source: Path, odd: Oddities) -> Iterator[list[bytes]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            names = file.schema_arrow.names
            column = next((name for name in _TEXT_COLUMNS if name in names), None)
            if column is None:
                raise InputError(
                    "the archive has no text",
                    where=str(source),
                    expected=f"a column {', '.join(_TEXT_COLUMNS)}",
                    got=", ".join(names),
                )
            for batch in file.iter_batches(_PARQUET_ROWS, columns=[column]):
                yield [clean_event(_text(value), odd) for value in batch.column(0).to_pylist()]
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise InputError("the archive cannot be read", where=str(source), got=str(error)) from error


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _table(
    lines: Sequence[bytes], number: int, classifier: LineClassifier, schema: Any
) -> tuple[Any, int]:
    import numpy as np
    import pyarrow

    answers = classifier.classify(lines)
    scores = np.array([form.score for form in answers.forms], dtype=np.float32)
    flags = np.array([form.is_anomaly for form in answers.forms], dtype=np.int8)
    blank = np.isnan(scores)
    codes = answers.codes
    ids = [template_id(form.masked) for form in answers.forms]
    anomalies = answers.anomalies()
    texts: list[str | None] = [None] * len(lines)
    for index in anomalies.tolist():
        texts[index] = lines[index].decode("utf-8", "replace")
    nothing = blank[codes] if len(codes) else np.empty(0, bool)
    columns = [
        pyarrow.array(np.arange(number + 1, number + 1 + len(lines))),
        pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(flags[codes] if len(codes) else flags, mask=nothing),
            ["normal", "anomaly"],
        ),
        pyarrow.array(scores[codes] if len(codes) else scores, mask=nothing),
        pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(codes), pyarrow.array(ids, pyarrow.string())
        ),
        pyarrow.array(texts, pyarrow.string()),
    ]
    return pyarrow.Table.from_arrays(columns, schema=schema), len(anomalies)


def _fingerprint(source: Path) -> bytes:
    try:
        status = source.stat()
    except OSError as error:
        raise InputError(
            "the archive cannot be read", where=str(source), got=error.strerror or str(error)
        ) from error
    return orjson.dumps([str(source.absolute()), status.st_size, status.st_mtime_ns])
