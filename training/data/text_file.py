"""Reads a text file as lines, plain or gzipped, whatever its encoding's faults."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from contract.errors import DataFileError


def read_text(path: Path, *, nul: str = " ") -> str:
    """The whole file; BOM dropped, CRLF as LF, invalid UTF-8 replaced by U+FFFD, NUL by ``nul``.

    Raises:
        DataFileError: no such file, or a broken gzip stream.
    """
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(
            "file cannot be read", where=str(path), expected="a text file", got=str(error)
        ) from error
    text = raw.decode("utf-8-sig", errors="replace")
    return text.replace("\x00", nul).replace("\r\n", "\n").replace("\r", "\n")
