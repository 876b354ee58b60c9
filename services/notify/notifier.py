"""``Notifier``: takes notifications, routes them, and tells them from threads of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import orjson

from contract.errors import ConfigError
from services.alertmanager import Alertmanager
from services.notify.alerts import REPEAT_SECONDS, AlertDestination
from services.notify.config import ALERTMANAGER, ChannelSettings, NotifyConfig
from services.notify.delivery import ChannelDestination, ChannelWorker, Destination
from services.notify.notification import Notification, rank
from services.notify.outbox import Draft, Outbox
from services.notify.rendering import Renderer
from services.notify.sender import AppriseSender, Sender, recipient_of
from services.notify.telemetry import Telemetry


class Notifier:
    """Close it, or use it in a ``with`` block. What is not told by then is told after the next
    start.

    senders: by channel, in place of apprise's
    start: False leaves the telling to ``step``

    Example::

        with Notifier(load_notify_config(Path("notify.toml"))) as notifier:
            notifier.notify(Notification(cause="OOM", subject="job-7", created_at=time.time()))

    Raises ConfigError: a channel that cannot be used. ServerSetupError: nor can the outbox.
    """

    def __init__(
        self,
        config: NotifyConfig,
        *,
        telemetry: Telemetry | None = None,
        senders: dict[str, Sender] | None = None,
        clock: Callable[[], float] = time.time,
        start: bool = True,
    ) -> None:
        self.config = config
        self.telemetry = telemetry or Telemetry()
        self._clock = clock
        self._table = config.table()
        self._personal: set[str] = set()
        destinations: list[Destination] = [
            self._destination(channel, (senders or {}).get(channel.name))
            for channel in config.channel
        ]
        if config.alertmanager is not None:
            alertmanager = Alertmanager(config.alertmanager.url.get_secret_value())
            hold_seconds = config.alertmanager.hold_minutes * 60.0
            destinations.append(AlertDestination(alertmanager, hold_seconds, clock))
        self._outbox = Outbox(config.outbox, limit=config.outbox_limit)
        self._workers = {
            destination.name: ChannelWorker(
                destination,
                self._outbox,
                self.telemetry,
                give_up_seconds=config.give_up_after_hours * 3600.0,
                clock=clock,
            )
            for destination in destinations
        }
        if start:
            for worker in self._workers.values():
                worker.start()

    def notify(self, notification: Notification) -> list[str]:
        """The channels that will be told, in time; it is safe on disk then.

        Raises ServerUnavailableError: the outbox cannot be written.
        """
        routed = [
            (channel, draft)
            for channel in self.config.channel
            if (draft := self._draft(channel, notification)) is not None
        ]
        added = self._outbox.add([draft for _, draft in routed], self._clock()) if routed else []
        told = []
        for (channel, _), outcome in zip(routed, added, strict=True):
            self.telemetry.taken(channel.name, outcome)
            if outcome != "duplicate":
                told.append(channel.name)
                self._workers[channel.name].wake()
        return told

    async def notify_async(self, notification: Notification) -> list[str]:
        """``notify``, whose disk the event loop does not wait for."""
        return await asyncio.to_thread(self.notify, notification)

    def raise_alert(
        self,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        *,
        starts_at: float,
        key: str,
    ) -> bool:
        """Post an alert to Alertmanager, once for each ``key``; it ends ``hold_minutes`` after
        that. ``starts_at``: Unix seconds.

        False: there is no [alertmanager]. Raises ServerUnavailableError: nothing is safe on disk.
        """
        if self.config.alertmanager is None:
            return False
        payload = orjson.dumps(
            {"labels": dict(labels), "annotations": dict(annotations), "starts_at": starts_at}
        ).decode()
        draft = Draft(ALERTMANAGER, key, "", "", rank("critical"), payload, 0.0, REPEAT_SECONDS)
        [outcome] = self._outbox.add([draft], self._clock())
        self.telemetry.taken(ALERTMANAGER, outcome)
        self._workers[ALERTMANAGER].wake()
        return True

    def step(self) -> float:
        """For a notifier that was not started: each channel tells what is due, once.

        Seconds until there is more to do.
        """
        return min((worker.step() for worker in self._workers.values()), default=0.0)

    def close(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        for worker in self._workers.values():
            worker.close()
        self._outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _destination(self, channel: ChannelSettings, given: Sender | None) -> ChannelDestination:
        sender = AppriseSender(channel) if given is None else given
        if isinstance(sender, AppriseSender):
            form, largest_bytes = sender.form, sender.largest_bytes
            if sender.is_personal:
                self._personal.add(channel.name)
        else:
            form, largest_bytes = "text", 32_768
        if self._personal & {channel.name} and channel.audience != "user":
            raise ConfigError(
                "the channel's URL names the job's user, and its audience is another",
                where=f"channel {channel.name}",
                expected='audience = "user"',
                got=channel.audience,
            )
        renderer = Renderer(
            form,
            channel.languages,
            channel.audience,
            self._table,
            largest_bytes=largest_bytes,
            templates=self.config.templates,
        )
        return ChannelDestination(channel, sender, renderer, self._clock)

    def _draft(self, channel: ChannelSettings, notification: Notification) -> Draft | None:
        severity = self._table.severity(notification, channel.audience)
        if severity == "none" or rank(severity) < rank(channel.lowest):
            return None
        if not channel.wants(notification.cause):
            return None
        recipient = ""
        if channel.name in self._personal:
            name = recipient_of(notification.user)
            if name is None:
                self.telemetry.taken(channel.name, "no_recipient")
                return None
            recipient = name
        whose = notification.node if channel.audience == "sre" else notification.user
        group = f"{whose}\n{notification.cause}\n{notification.resolved}" if whose else ""
        return Draft(
            channel.name,
            notification.identity + ("\nresolved" if notification.resolved else ""),
            group,
            recipient,
            rank(severity),
            notification.pack(),
            channel.group_minutes * 60.0,
            channel.repeat_after_hours * 3600.0,
        )
