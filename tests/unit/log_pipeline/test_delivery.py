"""A batch is committed once every outlet has it, never before."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from contract.errors import ServerUnavailableError
from services.log_pipeline.classifier import LineClassifier
from services.log_pipeline.delivery import Delivery, SpoolWorker, StoppedError
from services.log_pipeline.event import Event
from services.log_pipeline.outlets import Anomaly
from services.spool import Spool


class Outlet:
    """Fails as often as told, then keeps what it gets."""

    name = "kept"

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.kept: list[str] = []

    def deliver(self, anomalies: Sequence[Anomaly]) -> None:
        if self.failures:
            self.failures -= 1
            raise ServerUnavailableError("away")
        self.kept += [anomaly.id for anomaly in anomalies]

    def close(self) -> None:
        pass


def fill(spool: Spool, count: int = 20) -> None:
    spool.append([Event(b"line %c" % (97 + n), "h", 1.0).pack() for n in range(count)])


def test_what_no_outlet_took_is_not_committed(tmp_path: Path, classifier: LineClassifier) -> None:
    spool = Spool(tmp_path)
    fill(spool)
    stop = threading.Event()
    stop.set()
    worker = SpoolWorker(spool, Delivery(classifier, [Outlet(99)], stop=stop), stop)
    with pytest.raises(StoppedError):
        worker.step(0.0)
    backlog = spool.backlog_bytes
    spool.close()
    again = Spool(tmp_path)
    assert again.backlog_bytes == backlog > 0
    outlet = Outlet(1)
    worker = SpoolWorker(again, Delivery(classifier, [outlet]), threading.Event())
    assert worker.step(0.0) == 20
    assert again.backlog_bytes == 0
    assert outlet.kept
    assert len(set(outlet.kept)) == len(outlet.kept)
    page = worker._delivery.telemetry.render().decode()
    assert "presage_log_replayed_total 20.0" in page
    assert 'presage_log_outlet_errors_total{outlet="kept"} 1.0' in page


def test_another_program_s_bytes_in_the_spool_are_counted(
    tmp_path: Path, classifier: LineClassifier
) -> None:
    spool = Spool(tmp_path)
    spool.append([b"no JSON", b"[1]", Event(b"line", "h", 1.0).pack(), b"{}"])
    worker = SpoolWorker(spool, Delivery(classifier, []), threading.Event())
    assert worker.step(0.0) == 1
    assert 'presage_log_odd_lines_total{reason="spool"} 3.0' in (
        worker._delivery.telemetry.render().decode()
    )


def test_the_time_of_delivery_stands_still_while_nothing_gets_through(
    tmp_path: Path, classifier: LineClassifier
) -> None:
    spool = Spool(tmp_path)
    stop = threading.Event()
    delivery = Delivery(classifier, [Outlet(1)], stop=stop)
    worker = SpoolWorker(spool, delivery, stop)

    def delivered_at() -> float:
        name = "presage_log_last_delivery_timestamp_seconds"
        return delivery.telemetry.registry.get_sample_value(name) or 0.0

    worker.step(0.0)
    idle = delivered_at()
    assert idle > 0, "nothing to deliver is no lag"
    fill(spool)
    stop.set()
    with pytest.raises(StoppedError):
        worker.step(0.0)
    assert delivered_at() == idle
    stop.clear()
    spool.rewind()
    worker.step(0.0)
    assert delivered_at() > idle
