"""``TemplateBook``: anomalies by template (their masked text); bounded; first and last seen."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

_LONGEST = 500
"""Characters of a template or an example that are kept: enough to know it by."""
SURGE_WINDOW_SECONDS = 300.0
_BUCKET_SECONDS = 10.0


@dataclass
class Template:
    """One anomalous template of one source. Times are Unix seconds of the lines themselves."""

    id: str
    text: str
    source: str
    example: str
    score: float
    first_seen: float
    last_seen: float
    count: int = 0
    # (bucket start, count) of the last window, oldest first.
    recent: deque[tuple[float, int]] = field(default_factory=deque)

    def recent_count(self, now: float, seconds: float = SURGE_WINDOW_SECONDS) -> int:
        # A copy, made at once: another thread may be adding to it.
        return sum(count for start, count in tuple(self.recent) if start > now - seconds)

    def is_new(self, now: float, seconds: float = SURGE_WINDOW_SECONDS) -> bool:
        return self.first_seen > now - seconds

    def surge(self, now: float, seconds: float = SURGE_WINDOW_SECONDS) -> float:
        """Rate of the last window over the rate before it; inf where there was none before."""
        recent = self.recent_count(now, seconds)
        before, span = self.count - recent, now - seconds - self.first_seen
        if not recent:
            return 0.0
        return (recent / seconds) / (before / span) if before and span > 0 else float("inf")


class TemplateBook:
    """The ``capacity`` templates seen last; whatever is pushed out counts as ``other``.

    One thread may ``add`` while others ask for ``top``.
    """

    def __init__(self, capacity: int = 10_000, clock: Callable[[], float] = time.time) -> None:
        self._capacity = capacity
        self._clock = clock
        self._templates: dict[tuple[str, str], Template] = {}
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._templates)

    def add(
        self,
        source: str,
        masked: str,
        count: int,
        *,
        example: bytes,
        score: float,
        seen: float | None = None,
    ) -> Template:
        """``count`` more lines of a template; ``seen``: when, by the lines' own clock."""
        now = self._clock()
        # A shipper's clock that is ahead must not hold a template in the window for ever.
        when = now if seen is None else min(seen, now)
        key = (source, masked)
        # The one used last stands at the end: the first is the one to forget.
        template = self._templates.pop(key, None)
        if template is None:
            template = Template(
                id=template_id(masked),
                text=masked[:_LONGEST],
                source=source,
                example=example.decode("utf-8", "replace")[:_LONGEST],
                score=score,
                first_seen=when,
                last_seen=when,
            )
        self._templates[key] = template
        template.count += count
        template.first_seen = min(template.first_seen, when)
        template.last_seen = max(template.last_seen, when)
        bucket = when - when % _BUCKET_SECONDS
        if template.recent and template.recent[-1][0] >= bucket:
            start, before = template.recent.pop()
            template.recent.append((start, before + count))
        else:
            template.recent.append((bucket, count))
        while template.recent and template.recent[0][0] <= now - SURGE_WINDOW_SECONDS:
            template.recent.popleft()
        if len(self._templates) > self._capacity:
            oldest = next(iter(self._templates))
            self.forgotten += self._templates.pop(oldest).count
        return template

    def top(self, limit: int = 20, *, new_only: bool = False) -> list[dict[str, Any]]:
        """New templates first, then the surging ones, then by count; as JSON can hold them."""
        now = self._clock()
        chosen = [t for t in list(self._templates.values()) if t.is_new(now) or not new_only]
        chosen.sort(key=lambda t: (not t.is_new(now), -min(t.surge(now), 1e9), -t.count))
        return [_row(template, now) for template in chosen[:limit]]

    def restore(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take over what ``top`` told before a restart."""
        for row in rows:
            self._templates[row["source"], row["template"]] = Template(
                id=row["id"],
                text=row["template"],
                source=row["source"],
                example=row["example"],
                score=row["score"],
                first_seen=row["first_seen"],
                last_seen=row["last_seen"],
                count=row["count"],
            )


def template_id(masked: str) -> str:
    """Twelve hexadecimal digits that name a template in labels and file names."""
    return hashlib.sha256(masked.encode("utf-8", "replace")).hexdigest()[:12]


def _row(template: Template, now: float) -> dict[str, Any]:
    surge = template.surge(now)
    return {
        "id": template.id,
        "source": template.source,
        "template": template.text,
        "count": template.count,
        "recent": template.recent_count(now),
        "surge": None if surge == float("inf") else round(surge, 2),
        "new": template.is_new(now),
        "first_seen": template.first_seen,
        "last_seen": template.last_seen,
        "score": template.score,
        "example": template.example,
    }
