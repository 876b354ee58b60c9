"""A notifier with a clock of the test's and senders that only remember."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ServerUnavailableError
from services.notify.config import NotifyConfig
from services.notify.notification import Notification
from services.notify.notifier import Notifier
from services.notify.rendering import Message


@dataclass
class Memory:
    """``failing``: how many of the next messages are refused; ``poison``: refused whenever met."""

    sent: list[tuple[Message, str]] = field(default_factory=list)
    failing: int = 0
    poison: str | None = None

    def send(self, message: Message, recipient: str) -> None:
        if self.poison is not None and self.poison in message.body:
            raise ServerUnavailableError("poison")
        if self.failing:
            self.failing -= 1
            raise ServerUnavailableError("away")
        self.sent.append((message, recipient))

    def close(self) -> None:
        pass

    @property
    def bodies(self) -> list[str]:
        return [message.body for message, _ in self.sent]


class Desk:
    """``channels``: of ``[[channel]]``, each with a Memory by its name."""

    def __init__(self, folder: Path, channels: list[dict[str, Any]], **settings: Any) -> None:
        self.now = 1_000_000.0
        self.settings = NotifyConfig.model_validate(
            {
                "outbox": folder / "outbox.sqlite",
                "channel": [{"url": "json://127.0.0.1:9", **channel} for channel in channels],
                **settings,
            }
        )
        self.memories = {channel["name"]: Memory() for channel in channels}
        self.notifier = self.open()

    def open(self) -> Notifier:
        return Notifier(
            self.settings, senders=dict(self.memories), clock=lambda: self.now, start=False
        )

    def notify(self, cause: str = "GPU_Hardware_Fault", subject: str = "job", **more: Any) -> Any:
        return self.notifier.notify(
            Notification(cause=cause, subject=subject, created_at=self.now, **more)
        )

    def step(self, seconds: float = 0.0) -> float:
        self.now += seconds
        return self.notifier.step()

    def run(self, seconds: float) -> None:
        """As the threads would: asleep until there is something to do."""
        end = self.now + seconds
        while True:
            wait = self.notifier.step()
            if self.now + wait > end:
                self.now = end
                self.notifier.step()
                return
            self.now += wait

    def metric(self, name: str, **labels: str) -> float:
        value = self.notifier.telemetry.registry.get_sample_value(f"presage_notify_{name}", labels)
        return value or 0.0


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    desks = []

    def make(*channels: dict[str, Any], **settings: Any) -> Desk:
        desk = Desk(tmp_path, list(channels), **settings)
        desks.append(desk)
        return desk

    yield make
    for desk in desks:
        desk.notifier.close()


SRE = {"name": "sre", "audience": "sre", "language": "en"}
USER = {"name": "user", "audience": "user", "language": "en"}


def count_in(title: str) -> int:
    found = re.search(r"\d+", title)
    assert found is not None, title
    return int(found[0])
