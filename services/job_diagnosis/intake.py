"""``Intake``: a request with a failed job's log, or where it lies → a record, or a promise."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import anyio
import anyio.to_thread
from starlette.concurrency import run_in_threadpool

from contract.errors import RequestRefusedError, ServerUnavailableError
from services.job_diagnosis.accepted import AcceptedLog, AcceptedLogs, JobFacts
from services.job_diagnosis.diagnosing import Diagnoser, PostponedError
from services.job_diagnosis.evidence import JobEvidence, Source
from services.job_diagnosis.node_events import NodeEvents
from services.job_diagnosis.reading import LogReader, ReadLog
from services.job_diagnosis.record import JobRecord, result_id_of
from services.job_diagnosis.results import ResultBook
from services.job_diagnosis.secrets import mask_words
from services.job_diagnosis.settings import JobSettings
from services.job_diagnosis.telemetry import Telemetry
from services.web.settings import WebSettings

_FEED_BYTES = 1 << 20
_LARGE_BYTES = 4 << 20
_FIND_SECONDS = 2.0
"""A database that takes longer to say whether a log is known is not waited for."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Outcome:
    """record: None while it waits; then ``result_id`` finds it later. replayed: known before."""

    result_id: str
    record: JobRecord | None
    replayed: bool = False


class Intake:
    """Reads logs, keeps them, and waits for their diagnosis; in the event loop.

    sources: by the name a reference gives
    node_events: of the job's node; None: nobody is asked
    """

    def __init__(
        self,
        settings: JobSettings,
        web: WebSettings,
        accepted: AcceptedLogs,
        diagnoser: Diagnoser,
        book: ResultBook,
        sources: Mapping[str, Source[Any]],
        telemetry: Telemetry,
        node_events: NodeEvents | None = None,
    ) -> None:
        self._web = web
        self._accepted = accepted
        self._diagnoser = diagnoser
        self._book = book
        self.sources = sources
        self._telemetry = telemetry
        self._node_events = node_events
        self._large = asyncio.Semaphore(settings.large_logs)
        self._claims: dict[str, asyncio.Lock] = {}

    async def upload(
        self, facts: JobFacts, pieces: AsyncIterator[bytes], wait_seconds: float
    ) -> Outcome:
        """Raises RequestRefusedError, OverloadedError, ServerAnswerError."""
        reader = self._reader(json_lines=facts.source == "json_lines")
        log = await self._read(reader, self._paced(pieces), facts=facts)
        return await self._diagnose(facts, log, wait_seconds)

    async def fetch(self, facts: JobFacts, reference: Any, wait_seconds: float) -> Outcome:
        """Raises, besides: InputError and ServerError of the source."""
        source = self.sources.get(reference.source)
        if source is None:
            raise RequestRefusedError(
                "this source is not set up here",
                status=422,
                reason="source",
                where="source",
                expected=f"one of {', '.join(sorted(self.sources)) or 'none'}",
                got=reference.source,
            )
        evidence: JobEvidence = await run_in_threadpool(source.fetch, reference)
        log = evidence.log
        pieces = iter((log,)) if isinstance(log, bytes) else log
        reader = self._reader(json_lines=False)
        facts = replace(
            facts,
            node=facts.node or _word(evidence.node),
            device=facts.device or _word(evidence.device),
            user=facts.user or _word(evidence.user),
        )
        read = await self._read(reader, _threaded(pieces), evidence.extra, facts=facts)
        return await self._diagnose(facts, read, wait_seconds)

    def _reader(self, *, json_lines: bool) -> LogReader:
        return LogReader(
            largest_bytes=self._web.largest_stream_bytes, json_lines=json_lines, now=time.time
        )

    async def _read(
        self,
        reader: LogReader,
        pieces: AsyncIterator[bytes],
        extra: tuple[str, ...] = (),
        *,
        facts: JobFacts,
    ) -> ReadLog:
        """In other threads, a megabyte at a time; few large ones beside each other."""
        held, holds_large = bytearray(), False
        try:
            async for piece in pieces:
                held += piece
                if len(held) >= _FEED_BYTES:
                    if not holds_large and reader.size_bytes > _LARGE_BYTES:
                        await self._large.acquire()
                        holds_large = True
                    await run_in_threadpool(reader.feed, bytes(held))
                    held.clear()

            def finish() -> ReadLog:
                if held:
                    reader.feed(bytes(held))
                return reader.finish(extra, self._seen_on_node(reader, facts))

            return await run_in_threadpool(finish)
        finally:
            if holds_large:
                self._large.release()

    def _seen_on_node(self, reader: LogReader, facts: JobFacts) -> tuple[str, ...]:
        if self._node_events is None:
            return ()
        node = facts.node or reader.node
        return self._node_events.lines(node, facts.started_at, facts.finished_at)

    async def _paced(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Whoever sends a byte a minute is sent away; our own work is not counted."""
        web, waited, size = self._web, 0.0, 0
        while True:
            asked = time.monotonic()
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            waited += time.monotonic() - asked
            size += len(piece)
            if waited > web.body_grace_seconds + size / web.body_bytes_per_second:
                raise RequestRefusedError(
                    "the log comes too slowly",
                    status=408,
                    reason="slow_body",
                    expected=f"{web.body_bytes_per_second} bytes a second",
                    got=f"{size} bytes in {waited:.0f} s",
                )
            yield piece

    async def _diagnose(self, facts: JobFacts, log: ReadLog, wait_seconds: float) -> Outcome:
        self._telemetry.read(facts.source, log)
        result_id = result_id_of(facts.job_id, log.log_sha256)
        facts = replace(
            facts,
            result_id=result_id,
            log_sha256=log.log_sha256,
            size_bytes=log.size_bytes,
            node=facts.node or _word(log.node),
        )
        # The same log of the same job at the same time: one looks, the others wait for it.
        claim = self._claims.setdefault(result_id, asyncio.Lock())
        try:
            async with claim:
                future = self._diagnoser.join(result_id)
                replayed = future is not None
                if future is None:
                    known = await self._known(result_id)
                    if known is not None:
                        self._telemetry.answered("replayed")
                        return Outcome(result_id, known, replayed=True)
                    kept = AcceptedLog(facts, log.text, list(log.line_numbers))
                    await run_in_threadpool(self._accepted.put, kept)
                    future = self._diagnoser.submit(result_id)
        finally:
            if not claim.locked():
                self._claims.pop(result_id, None)
        record = await _waited(future, wait_seconds)
        kind = "accepted" if record is None else "replayed" if replayed else "diagnosed"
        self._telemetry.answered(kind)
        return Outcome(result_id, record, replayed=replayed)

    async def _known(self, result_id: str) -> JobRecord | None:
        with anyio.move_on_after(_FIND_SECONDS):
            return await anyio.to_thread.run_sync(self._find, result_id, abandon_on_cancel=True)
        self._telemetry.failed("find", "deadline")
        return None

    def _find(self, result_id: str) -> JobRecord | None:
        try:
            return self._book.find(result_id)
        except ServerUnavailableError:
            # Nobody can say whether it is known; an answer twice is better than none.
            self._telemetry.failed("find", "unavailable")
            return None


async def _waited(future: Future[JobRecord], seconds: float) -> JobRecord | None:
    """None: not in time, or postponed. Raises what the future raises else."""
    waiting = asyncio.wrap_future(future)
    # Who stopped waiting does not want to hear of its error.
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(waiting)
    except (TimeoutError, PostponedError):
        return None


async def _threaded(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """An iterator that blocks, read in another thread. Raises what it raises."""
    end = object()
    while (piece := await run_in_threadpool(next, pieces, end)) is not end:
        assert isinstance(piece, bytes)
        yield piece


def _word(text: str | None) -> str | None:
    """A name that somebody else's system gave: one line, no secrets, bounded."""
    clean = mask_words(_CONTROL.sub(" ", text or "")).strip()[:253]
    return clean or None
