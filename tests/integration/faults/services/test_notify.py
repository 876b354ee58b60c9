"""Notifications whose receiver's network is lost: each arrives when it is back."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from services.notify.config import NotifyConfig
from services.notify.notification import Notification
from services.notify.notifier import Notifier
from tests.fixtures.endpoints import Endpoint, wait_until
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.steady_asker import SteadyAsker
from tests.integration.faults.conftest import Promise
from tests.integration.faults.services.conftest import LONG_SECONDS, SHORT_SECONDS, WAYS, long


class Inbox(Endpoint):
    """A webhook's receiver."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        super().__init__(self._received)

    def _received(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.texts.append(json.dumps(json.loads(body), ensure_ascii=False))
        return 200, b"{}"


@pytest.mark.promise(
    fault="notify: the receiver's network is lost",
    promise="taken at once, told when it is back, none missing",
)
@pytest.mark.parametrize(
    ("way", "seconds"),
    [long("refuse", SHORT_SECONDS), *(long(way, LONG_SECONDS) for way in (*WAYS, "flap"))],
)
def test_receiver_lost(way: Any, seconds: float, tmp_path: Path, promise: Promise) -> None:
    with Inbox() as inbox, FaultProxy(inbox.target) as proxy:
        channel = {
            "name": "sre",
            "url": f"json://{proxy.address}",
            "audience": "sre",
            "language": "en",
            "per_minute": 6000,
            "burst": 1000,
            "group_minutes": 0,
        }
        config = NotifyConfig.model_validate(
            {"outbox": tmp_path / "outbox.sqlite", "channel": [channel]}
        )
        with Notifier(config) as notifier:

            def tell(number: int) -> list[str]:
                subject = f"job-{number:04d}x"
                return notifier.notify(
                    Notification(
                        cause="GPU_Hardware_Fault", subject=subject, created_at=time.time()
                    )
                )

            with SteadyAsker(tell, rate=2.0) as asker:
                if way == "flap":
                    proxy.flap(seconds)
                else:
                    proxy.cut(way, seconds)
            assert all(one.answer == ["sre"] for one in asker.asked), asker.asked
            ended = time.monotonic()
            subjects = [f"job-{one.number:04d}x" for one in asker.asked]
            wait_until(
                lambda: all(
                    any(subject in text for text in list(inbox.texts)) for subject in subjects
                ),
                seconds=150,
                what="every notification",
            )
            took = time.monotonic() - ended
        told = Counter(subject for text in inbox.texts for subject in subjects if subject in text)
        twice = sum(count > 1 for count in told.values())
        promise.measured(
            f"{way} {seconds:g} s: {len(subjects)} told, {twice} of them twice, {took:.0f} s after"
        )
        # Twice is what an answer that was lost costs, no more.
        assert way in ("reset", "black_hole", "stall", "slow", "flap") or not twice
        # A channel that failed for so long is tried again after as long at most.
        assert took < promise.limit_seconds(2 * seconds + 10)
