"""``TracebackJoiner``: the lines of one traceback are one event, and share its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.log_pipeline.lines import MAXIMUM_LINE_BYTES

_MOST_LINES = 500
"""Of one event: a file that is indented throughout is no traceback."""
# Python opens with this line, its frames are indented, and the exception itself is not.
_PYTHON = re.compile(rb"(?:^|[^\w])Traceback \(most recent call last\):\s*$")
_CHAINED = (
    b"During handling of the above exception",
    b"The above exception was the direct cause",
)
# Java: frames are indented; these are not always.
_JAVA = (b"Caused by: ", b"Suppressed: ", b"... ")


class TracebackJoiner:
    """Lines in, events out; what may still go on is held back until ``flush``.

    An event is its first line and the continuation lines after it: those that begin with a blank,
    ``Caused by:`` and ``... 12 more`` of Java, and after ``Traceback (most recent call last):``
    everything up to and including the first line that is not indented, chained tracebacks too.
    """

    def __init__(self) -> None:
        self._open: list[bytes] = []
        self._in_traceback = False
        self._chained = False

    def feed(self, lines: Sequence[bytes]) -> list[list[bytes]]:
        """The events that ended, each a list of its lines, in order."""
        ended: list[list[bytes]] = []
        for line in lines:
            if self._open and self._continues(line):
                self._open.append(line)
            else:
                if self._open:
                    ended.append(self._open)
                self._open = [line]
                self._in_traceback = bool(_PYTHON.search(line))
                self._chained = False
        return ended

    def flush(self) -> list[list[bytes]]:
        """The event held back, if there is one."""
        ended = [self._open] if self._open else []
        self._open, self._in_traceback, self._chained = [], False, False
        return ended

    def _continues(self, line: bytes) -> bool:
        if len(self._open) >= _MOST_LINES:
            return False
        if self._in_traceback:
            # The exception's own line is the last, unless another traceback is chained to it.
            self._in_traceback = line[:1] in (b" ", b"\t")
            self._chained = not self._in_traceback
            return True
        if self._chained:
            if not line.strip() or line.startswith(_CHAINED):
                return True
            if _PYTHON.search(line):
                self._in_traceback, self._chained = True, False
                return self._open[-1] == b"" or self._open[-1].startswith(_CHAINED)
        return (line[:1] in (b" ", b"\t") and bool(line.strip())) or line.startswith(_JAVA)


def as_line(event: Sequence[bytes]) -> bytes:
    """One event as the one line that is classified; what its length cuts off is its middle part.

    The last line of a traceback names the exception, so it is kept.
    """
    joined = b" ".join(event)
    if len(joined) <= MAXIMUM_LINE_BYTES:
        return joined
    last = event[-1][-MAXIMUM_LINE_BYTES // 2 :]
    return joined[: MAXIMUM_LINE_BYTES - len(last) - 1] + b" " + last
