"""How long a database is waited for, and how long it waits for us: nothing else bounds one that
accepts and says nothing, nor a transaction whose client the network forgot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from contract.errors import ServerUnavailableError

ANSWER_SECONDS = 10.0
"""Of one statement; libpq alone would wait for as long as the kernel keeps the connection."""


_SERVER_LIMITS = """SELECT
set_config('idle_in_transaction_session_timeout', %(ms)s, false),
set_config('statement_timeout', %(ms)s, false),
set_config('tcp_keepalives_idle', '60', false),
set_config('tcp_keepalives_interval', '10', false),
set_config('tcp_keepalives_count', '3', false)"""


def bound_answers(engine: sa.Engine, seconds: float = ANSWER_SECONDS) -> None:
    """A statement without an answer by then is an OperationalError, its connection closed; the
    server, too, gives up a transaction by then. Its rows are ours to write again, which would
    otherwise wait for it until the kernel notices that nobody is there: hours.
    """
    import psycopg

    class BoundedConnection(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            began = time.monotonic()
            limit = seconds if timeout is None else min(timeout, seconds)
            try:
                return super().wait(gen, interval, limit)
            except psycopg.OperationalError as error:
                if time.monotonic() - began < limit:
                    raise
                # An answer that comes late must not be taken for the next statement's.
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {limit:g} s") from error

    @sa.event.listens_for(engine, "do_connect")
    def connect(_: Any, __: Any, given: Any, named: Any) -> Any:
        connection = BoundedConnection.connect(*given, **named)
        # Within a transaction they would go with the first rollback.
        connection.autocommit = True
        connection.execute(_SERVER_LIMITS, {"ms": str(round(seconds * 1000))})
        connection.autocommit = False
        return connection


class Patience:
    """After a database kept somebody waiting, others are told so at once, and one asks again every
    ``again_seconds``: threads that wait are needed for what does not need the database.

    Example::

        with patience.waiting():
            ask()
    """

    def __init__(
        self,
        *,
        slow_seconds: float = 2.0,
        again_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slow_seconds = slow_seconds
        self._again_seconds = again_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._is_away = False
        self._asks_again = False
        self._away_until = 0.0

    def enter(self) -> float:
        """The moment; pass it to ``leave``. Raises ServerUnavailableError: it is away just now."""
        now = self._clock()
        with self._lock:
            if self._is_away:
                if self._asks_again or now < self._away_until:
                    raise ServerUnavailableError("the database does not answer")
                self._asks_again = True
        return now

    def leave(self, entered: float, *, failed: bool) -> None:
        """failed: it was away. What failed at once costs nobody time, and may be tried at once."""
        now = self._clock()
        with self._lock:
            self._asks_again = False
            self._is_away = failed and (self._is_away or now - entered >= self._slow_seconds)
            self._away_until = now + self._again_seconds
