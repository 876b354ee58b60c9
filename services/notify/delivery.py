"""``ChannelWorker``: one channel's entries of the outbox, told within its rate, until they are."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from contract.errors import PresageError
from services.notify.bucket import TokenBucket
from services.notify.config import ChannelSettings
from services.notify.notification import Notification
from services.notify.outbox import Entry, Outbox
from services.notify.rendering import Message, Renderer
from services.notify.sender import Sender
from services.notify.telemetry import Telemetry
from services.problems import ProblemLog

_FIRST_DELAY_SECONDS = 2.0
_LARGEST_DELAY_SECONDS = 300.0
_LOOK_AGAIN_SECONDS = 30.0
_MOST_RECIPIENTS = 5_000
_LOG_AGAIN_SECONDS = 300.0
_GAUGE_SECONDS = 10.0
_PURGE_SECONDS = 600.0
_LONGEST_HOLD_SECONDS = 5.0
"""A channel whose rate is used up is not looked at before, however much comes in for it."""


@dataclass(frozen=True)
class Parcel:
    """Entries that one message tells. kind: single, group or held (more than the rate allows)."""

    entries: tuple[Entry, ...]
    kind: str

    @property
    def recipient(self) -> str:
        return self.entries[0].recipient


class Destination(Protocol):
    """What a worker tells. ``parcels``: which messages to make of the entries due."""

    name: str

    def parcels(self, entries: Sequence[Entry]) -> list[Parcel]: ...
    def deliver(self, parcel: Parcel, beyond: int) -> None:
        """Raises PresageError: not taken. ``beyond``: how many more are known by number alone."""

    def seconds_until_ready(self) -> float: ...
    def group_seconds(self) -> float: ...
    def repeat_seconds(self) -> float: ...
    def close(self) -> None: ...


class ChannelDestination:
    """A channel of people: single messages, sums of a group, and a summary when it is too much."""

    def __init__(
        self,
        settings: ChannelSettings,
        sender: Sender,
        renderer: Renderer,
        clock: Callable[[], float],
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._sender = sender
        self._renderer = renderer
        self._clock = clock
        # A channel that names the user has a limit for each of them.
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._wait_seconds = 0.0

    def parcels(self, entries: Sequence[Entry]) -> list[Parcel]:
        by_recipient: dict[str, list[Entry]] = {}
        for entry in entries:
            by_recipient.setdefault(entry.recipient, []).append(entry)
        found = []
        waits = []
        for recipient, own in by_recipient.items():
            bucket = self._bucket(recipient)
            within = _within(_grouped(own), bucket.available)
            if not within:
                waits.append(bucket.seconds_until_one)
            found += within
        self._wait_seconds = min(waits, default=0.0)
        return found

    def deliver(self, parcel: Parcel, beyond: int) -> None:
        message = self._rendered(parcel, beyond)
        self._bucket(parcel.recipient).take()
        self._sender.send(message, parcel.recipient)

    def seconds_until_ready(self) -> float:
        return self._wait_seconds

    def group_seconds(self) -> float:
        return self._settings.group_minutes * 60.0

    def repeat_seconds(self) -> float:
        return self._settings.repeat_after_hours * 3600.0

    def close(self) -> None:
        self._sender.close()

    def _rendered(self, parcel: Parcel, beyond: int) -> Message:
        notifications = [Notification.unpack(entry.payload) for entry in parcel.entries]
        if parcel.kind == "single" and not beyond:
            return self._renderer.message(notifications[0])
        if parcel.kind == "held" or beyond:
            return self._renderer.summary(notifications, "held", beyond)
        why = "on_node" if self._settings.audience == "sre" else "of_user"
        return self._renderer.summary(notifications, why)  # type: ignore[arg-type]

    def _bucket(self, recipient: str) -> TokenBucket:
        bucket = self._buckets.get(recipient)
        if bucket is None:
            settings = self._settings
            bucket = TokenBucket(settings.per_minute, settings.burst, self._clock)
            self._buckets[recipient] = bucket
            if len(self._buckets) > _MOST_RECIPIENTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(recipient)
        return bucket


def _grouped(entries: Sequence[Entry]) -> list[Parcel]:
    """Single messages, and one for each group whose window is over."""
    groups: dict[str, list[Entry]] = {}
    parcels = []
    for entry in entries:
        if entry.grouped:
            groups.setdefault(entry.group_key, []).append(entry)
        else:
            parcels.append(Parcel((entry,), "single"))
    for group in groups.values():
        parcels.append(Parcel(tuple(group), "group" if len(group) > 1 else "single"))
    return sorted(parcels, key=lambda parcel: -max(entry.severity for entry in parcel.entries))


def _within(parcels: list[Parcel], allowed: int) -> list[Parcel]:
    """The most severe by themselves, and the rest in the last message allowed."""
    if len(parcels) <= allowed:
        return parcels
    if allowed == 0:
        return []
    rest = [entry for parcel in parcels[allowed - 1 :] for entry in parcel.entries]
    return [*parcels[: allowed - 1], Parcel(tuple(rest), "held")]


class ChannelWorker(threading.Thread):
    """``step`` does what is due; the thread repeats it until told to stop.

    A message that is not taken is repeated with back-off, and so is its channel, so that one
    message that a service will never take does not stand before the others.
    """

    def __init__(
        self,
        destination: Destination,
        outbox: Outbox,
        telemetry: Telemetry,
        *,
        give_up_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(name=f"notify-{destination.name}", daemon=True)
        self._destination = destination
        self._outbox = outbox
        self._telemetry = telemetry
        self._give_up_seconds = give_up_seconds
        self._clock = clock
        self._wake = threading.Event()
        self._stopped = False
        self._failures = 0
        self._held_until = 0.0
        self._purged_at = clock()
        self._gauged_at = -_GAUGE_SECONDS
        self._problems = ProblemLog(logging.getLogger("notify"), _LOG_AGAIN_SECONDS)

    def run(self) -> None:
        while not self._stopped:
            try:
                wait = self.step()
            except PresageError as error:
                self._problems.report(self._destination.name, error.metric_label, str(error))
                wait = _FIRST_DELAY_SECONDS
            except Exception:
                # Nobody would be told any more, and nobody would know.
                logging.getLogger("notify").exception("%s: unexpected", self._destination.name)
                wait = _LOOK_AGAIN_SECONDS
            self._wake.wait(wait)
            self._wake.clear()

    def step(self) -> float:
        """Tell what is due and allowed; seconds until there is more to do, unless woken."""
        if not self._outbox.becomes_deliverer():
            return _LOOK_AGAIN_SECONDS
        now = self._clock()
        name = self._destination.name
        self._clean_up(now)
        if now < self._held_until:
            return self._held_until - now
        entries = self._outbox.due(name, now)
        self._telemetry.oldest(name, max((now - e.created for e in entries), default=0.0))
        parcels = self._destination.parcels(entries)
        if entries and not parcels:
            self._held_until = now + min(
                self._destination.seconds_until_ready(), _LONGEST_HOLD_SECONDS
            )
        for parcel in parcels:
            if self._stopped or not self._tell(parcel):
                break
        if now - self._gauged_at >= _GAUGE_SECONDS:
            self._telemetry.outbox(self._outbox.counts())
            self._gauged_at = now
        return self._seconds_until_next()

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def close(self) -> None:
        """After ``stop``: waits for the message under way."""
        if self.is_alive():
            self.join(10.0)
        self._destination.close()

    def _tell(self, parcel: Parcel) -> bool:
        name = self._destination.name
        ids = [entry.id for entry in parcel.entries]
        beyond = self._outbox.beyond_limit(name)
        try:
            self._destination.deliver(parcel, beyond)
        except PresageError as error:
            self._failures += 1
            now = self._clock()
            attempts = max(entry.attempts for entry in parcel.entries)
            hold = _delay(self._failures - 1)
            self._held_until = now + hold
            # Later than the channel's next attempt: another message has its turn then.
            self._outbox.postpone(ids, now + 2.0 * max(hold, _delay(attempts)), str(error))
            self._telemetry.failed(name, error.metric_label)
            self._problems.report(name, error.metric_label, str(error))
            return False
        self._failures = 0
        again = self._clock() + self._destination.group_seconds()
        # Who is told of a group now hears of what follows when its next window ends.
        self._outbox.told(ids, group_until=again if parcel.kind == "group" else 0.0)
        if beyond:
            self._outbox.told_beyond_limit(name, beyond)
        self._telemetry.sent(name, parcel.kind, len(ids) + beyond)
        return True

    def _seconds_until_next(self) -> float:
        now = self._clock()
        waits = [_LOOK_AGAIN_SECONDS]
        if (due := self._outbox.next_due(self._destination.name)) is not None:
            waits.append(max(due - now, self._destination.seconds_until_ready(), 0.02))
        wait = min(waits)
        return max(wait, self._held_until - now)

    def _clean_up(self, now: float) -> None:
        given_up = self._outbox.give_up(self._destination.name, now - self._give_up_seconds)
        if given_up:
            self._telemetry.given_up(self._destination.name, given_up)
            logging.getLogger("notify").error(
                "%s: %d notifications given up; python -m services notify outbox --retry",
                self._destination.name,
                given_up,
            )
        if now - self._purged_at > _PURGE_SECONDS:
            self._outbox.purge(
                self._destination.name, now, told_seconds=self._destination.repeat_seconds()
            )
            self._purged_at = now


def _delay(attempts: int) -> float:
    delay: float = _FIRST_DELAY_SECONDS * 2.0 ** min(attempts, 20)
    return min(delay, _LARGEST_DELAY_SECONDS)
