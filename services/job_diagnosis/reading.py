"""``LogReader``: an upload of any size, piece by piece, into a masked log of at most 20 MB."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from clients.thinning import LogThinner
from contract.errors import RequestRefusedError
from services.job_diagnosis.secrets import mask_secrets
from services.log_pipeline.event import read_document
from services.log_pipeline.lines import Oddities

_GZIP = b"\x1f\x8b"
_UNPACK_AT_ONCE = 1 << 20
_SAMPLE_BYTES = 1 << 16
_BINARY_SHARE = 0.1
_INVALID_SHARE = 0.3
_FEW = 8
_LONGEST_DOCUMENT_BYTES = 1 << 20
_CONTROL = bytes([*range(9), *range(14, 27), *range(28, 32), 127])
_PRINTABLE = re.compile(rb"[!-~]")
# Where loggers put a traceback beside the message; the model's front looks there too.
_DETAILS = ("exc_info", "exception", "traceback", "stack_trace", "stack", "error")


@dataclass(frozen=True)
class ReadLog:
    """text: masked, at most 20 MB of whole lines. line_numbers: as ``ThinnedLog.line_numbers``.

    log_sha256, size_bytes: of the whole log as it came, unpacked. node: that its documents name.
    """

    text: bytes
    line_numbers: Sequence[int]
    log_sha256: str
    size_bytes: int
    secrets: int
    node: str | None
    odd: Oddities


class LogReader:
    """Feed it, then ``finish`` it. One thread at a time; memory stays below some 150 MB.

    json_lines: each line is a document as Filebeat, Fluent Bit and Elasticsearch write them.

    Raises RequestRefusedError: 413 beyond ``largest_bytes`` (unpacked), 400 broken gzip, 422 empty
    or not text.
    """

    def __init__(
        self, *, largest_bytes: int, json_lines: bool = False, now: Callable[[], float]
    ) -> None:
        self._largest_bytes = largest_bytes
        self._now = now
        self._digest = hashlib.sha256()
        self._thinner = LogThinner()
        self._documents = _Documents(now) if json_lines else None
        self._unpacker: Any = None
        self._start: bytes | None = b""
        self._sample: bytes | None = b""
        self._has_text = False
        self.size_bytes = 0
        """Unpacked, so far."""

    @property
    def node(self) -> str | None:
        """That the documents read so far name."""
        return None if self._documents is None else self._documents.node

    def feed(self, piece: bytes) -> None:
        if self._start is not None:
            # gzip is known by its first two bytes, whatever the sender calls it.
            piece = self._start + piece
            if len(piece) < len(_GZIP):
                self._start = piece
                return
            self._start = None
            if piece.startswith(_GZIP):
                self._unpacker = zlib.decompressobj(31)
        if self._unpacker is None:
            self._take(piece)
            return
        while piece:
            try:
                part = self._unpacker.decompress(piece, _UNPACK_AT_ONCE)
            except zlib.error as error:
                raise _broken_gzip(str(error)) from error
            self._take(part)
            piece = self._unpacker.unconsumed_tail
            if self._unpacker.eof and not piece:
                # gzip members may follow one another; what is none is padding.
                piece = self._unpacker.unused_data.lstrip(b"\0")
                if piece:
                    self._unpacker = zlib.decompressobj(31)

    def finish(self, extra: Sequence[str] = (), beside: Sequence[str] = ()) -> ReadLog:
        """extra: lines that follow the log: events, an exit code, a reason.

        beside: further lines that are no part of it: the same log is known again without them.
        """
        if self._start:
            self._take(self._start)
        if self._unpacker is not None and not self._unpacker.eof:
            raise _broken_gzip("it ends too early")
        if self._sample is not None:
            self._check_is_text(self._sample)
        if extra:
            self._take(b"\n" + "\n".join(extra).encode("utf-8", "replace"))
        if self._documents is not None:
            self._thinner.feed(self._documents.rest())
        if beside:
            self._thinner.feed(b"\n" + "\n".join(beside).encode("utf-8", "replace"))
        thinned = self._thinner.finish()
        # As the server sees it: U+3000 is blank too.
        if not self._has_text and not _readable(thinned.text).strip():
            raise RequestRefusedError(
                "the log is empty",
                status=422,
                reason="empty_log",
                expected="at least one line of text",
                next_command="curl --data-binary @job.log …",
            )
        text, secrets = mask_secrets(thinned.text)
        return ReadLog(
            text=text,
            line_numbers=thinned.line_numbers,
            log_sha256=self._digest.hexdigest(),
            size_bytes=self.size_bytes,
            secrets=secrets,
            node=self.node,
            odd=Oddities() if self._documents is None else self._documents.odd,
        )

    def _take(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self.size_bytes > self._largest_bytes:
            raise RequestRefusedError(
                "the log is too large",
                status=413,
                reason="body_size",
                expected=f"at most {self._largest_bytes:,} bytes, unpacked",
                next_command="send its end, where it says why it died",
            )
        self._digest.update(piece)
        self._has_text = self._has_text or _PRINTABLE.search(piece) is not None
        if self._sample is not None:
            self._sample += piece[:_SAMPLE_BYTES]
            if len(self._sample) >= _SAMPLE_BYTES:
                self._check_is_text(self._sample)
                self._sample = None
        self._thinner.feed(piece if self._documents is None else self._documents.read(piece))

    @staticmethod
    def _check_is_text(sample: bytes) -> None:
        if not sample:
            return
        control = len(sample) - len(sample.translate(None, _CONTROL))
        text = sample.decode("utf-8", "replace")
        invalid = 0 if sample.isascii() else text.count("\ufffd")
        is_blank = not text.replace("\0", " ").strip()
        if (control > max(_FEW, _BINARY_SHARE * len(sample)) and not is_blank) or (
            invalid > max(_FEW, _INVALID_SHARE * len(text))
        ):
            raise RequestRefusedError(
                "this is no text",
                status=422,
                reason="binary_log",
                expected="a log in UTF-8, perhaps gzipped",
                got=f"{control} control bytes and {invalid} invalid ones of {len(sample)}",
            )


class _Documents:
    """JSON lines → log lines, each where its document was; a line that is no JSON stays."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._pending = b""
        self.node: str | None = None
        self.odd = Oddities()

    def read(self, piece: bytes) -> bytes:
        *lines, self._pending = (self._pending + piece).split(b"\n")
        if len(self._pending) > _LONGEST_DOCUMENT_BYTES:
            # No document is that long: whatever it is, it goes on as it is.
            self.odd["long"] += 1
            lines.append(self._pending)
            self._pending = b""
            return b"\n".join(self._line(line) for line in lines)
        return b"".join(self._line(line) + b"\n" for line in lines)

    def rest(self) -> bytes:
        return self._line(self._pending)

    def _line(self, raw: bytes) -> bytes:
        if not raw.strip():
            return b""
        try:
            document = orjson.loads(raw)
        except ValueError:
            self.odd["no_json"] += 1
            return raw
        if not isinstance(document, dict):
            self.odd["no_object"] += 1
            return raw
        found = document.get("_source")
        if isinstance(found, dict):
            document = found
        event = read_document(document, "", self._now(), self.odd)
        node = event.kubernetes.get("node")
        if self.node is None and isinstance(node, str):
            self.node = node
        details, message = _details(document), _message(document)
        if details or (isinstance(message, str) and "\n" in message):
            # The front unfolds it into its lines, all of this one's number.
            return orjson.dumps({"message": message, **details})
        return event.line


def _details(document: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: document[name] for name in _DETAILS if document.get(name)}
    for name in ("error.stack_trace", "error.message"):
        if document.get(name):
            found["error"] = document[name]
            break
    return found


def _message(document: Mapping[str, Any]) -> Any:
    return next((document[name] for name in ("message", "log", "msg") if name in document), "")


def _readable(text: bytes) -> str:
    return text.decode("utf-8", "replace").replace("\0", " ")


def _broken_gzip(why: str) -> RequestRefusedError:
    return RequestRefusedError("the gzip is broken", status=400, reason="body", got=why)
