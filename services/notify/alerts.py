"""``AlertDestination``: alerts of the outbox, posted to Alertmanager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from services.alertmanager import Alertmanager, alert
from services.notify.config import ALERTMANAGER
from services.notify.delivery import Parcel
from services.notify.outbox import Entry

_AT_ONCE = 100
REPEAT_SECONDS = 86_400.0


class AlertDestination:
    """Alertmanager groups, silences and repeats by itself: all that is due goes in one post."""

    name = ALERTMANAGER

    def __init__(
        self, alertmanager: Alertmanager, hold_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._alertmanager = alertmanager
        self._hold_seconds = hold_seconds
        self._clock = clock

    def parcels(self, entries: Sequence[Entry]) -> list[Parcel]:
        return [
            Parcel(tuple(entries[start : start + _AT_ONCE]), "alerts")
            for start in range(0, len(entries), _AT_ONCE)
        ]

    def deliver(self, parcel: Parcel, beyond: int) -> None:
        """Raises ServerUnavailableError, ServerAnswerError."""
        # Of alerts that are the same to Alertmanager the last one stands for all.
        alerts: dict[bytes, dict[str, Any]] = {}
        now = self._clock()
        for entry in parcel.entries:
            kept = orjson.loads(entry.payload)
            alerts[orjson.dumps(kept["labels"], option=orjson.OPT_SORT_KEYS)] = alert(
                kept["labels"],
                kept["annotations"],
                starts_at=min(kept["starts_at"], now),
                # From now: what waited for a long time has not ended before it was told.
                ends_at=now + self._hold_seconds,
            )
        self._alertmanager.post(list(alerts.values()))

    def seconds_until_ready(self) -> float:
        return 0.0

    def group_seconds(self) -> float:
        return 0.0

    def repeat_seconds(self) -> float:
        return REPEAT_SECONDS

    def close(self) -> None:
        self._alertmanager.close()
