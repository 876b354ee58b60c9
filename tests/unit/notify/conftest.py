"""Desks: a notifier with a clock of the test's and senders that only remember."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.notify_desk import Desk


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
