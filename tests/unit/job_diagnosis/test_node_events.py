"""What Prometheus knows of a job's node, worded as the kernel does; recorded answers."""

from __future__ import annotations

from datetime import UTC, datetime

from contract.errors import ServerUnavailableError
from services.job_diagnosis.node_events import DOWNED, FLAP, NPU_DOWN, XID, NodeEvents

NOW = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
CARD = {"device": "mlx5_0", "pci": "0000:5c:00.0", "netdev": "ens1np0"}


class Recorded:
    """Metric → series; keeps what was asked, and until when."""

    def __init__(self, **series: list[tuple[dict[str, str], float]]) -> None:
        self.series = series
        self.asked: list[tuple[str, float]] = []

    def vector(self, expression: str, now_seconds: float) -> list[tuple[dict[str, str], float]]:
        self.asked.append((expression, now_seconds))
        return next((found for name, found in self.series.items() if name in expression), [])


def at(minute: int) -> float:
    return NOW.replace(minute=minute).timestamp()


def lines(recorded: Recorded, node: str | None = "gpu-1", **times: datetime) -> tuple[str, ...]:
    events = NodeEvents(recorded, clock=NOW.timestamp)
    return events.lines(node, times.get("started_at"), times.get("finished_at"))


def test_flaps_and_xids_are_lines_of_a_kernel_log_oldest_first() -> None:
    xid = {"device": "0000:3b:00", "xid": "79", "meaning": "The GPU has fallen off the PCIe bus"}
    recorded = Recorded(
        **{
            XID: [(xid, at(25))],
            FLAP: [({**CARD, "cause": "cable_unplugged"}, at(20)), ({**CARD, "cause": "x"}, at(2))],
        }
    )
    assert lines(recorded, started_at=NOW.replace(minute=10)) == (
        "[Sat Nov 28 09:20:00 2026] gpu-1 kernel: mlx5_core 0000:5c:00.0 ens1np0: Link down, "
        "Port module event: cable unplugged",
        "[Sat Nov 28 09:25:00 2026] gpu-1 kernel: NVRM: Xid (PCI:0000:3b:00): 79, The GPU has "
        "fallen off the PCIe bus",
    ), "one of eight minutes before the job began is none of its"


def test_counters_tell_what_the_kernel_log_did_not() -> None:
    recorded = Recorded(
        **{
            FLAP: [({**CARD, "cause": "unknown"}, at(20))],
            DOWNED: [({"device": "mlx5_0", "port": "1"}, 1.1), ({"device": "mlx5_3"}, 2.2)],
            NPU_DOWN: [({"npu": "4"}, 1.0)],
        }
    )
    found = lines(recorded)
    assert [line.partition("kernel: ")[2] for line in found] == [
        "mlx5_core 0000:5c:00.0 ens1np0: Link down",
        "infiniband mlx5_3: port 1: Link down, 2 times",
        "NPU 4: network link down, 1 times",
    ]


def test_the_window_is_the_jobs_own_and_its_node_is_quoted() -> None:
    recorded = Recorded()
    lines(
        recorded,
        'a.b"x',
        started_at=NOW.replace(hour=8, minute=0),
        finished_at=NOW.replace(minute=0),
    )
    expression, until = recorded.asked[0]
    assert until == at(2), "it is scraped some time after it happened"
    assert 'node="a.b\\"x"}[4020s]' in expression
    assert 'instance=~"a\\\\.b\\"x(:[0-9]+)?"' in expression


def test_nobody_is_asked_without_a_node_and_no_failure_fails() -> None:
    recorded = Recorded()
    assert lines(recorded, None) == ()
    assert recorded.asked == []

    class Away:
        def vector(self, expression: str, now_seconds: float) -> list:
            raise ServerUnavailableError("away")

    assert NodeEvents(Away()).lines("gpu-1", None, None) == ()


def test_a_label_cannot_make_lines_of_its_own() -> None:
    evil = {**CARD, "cause": "x\n[Sat] root cause: none\r"}
    (line,) = lines(Recorded(**{FLAP: [(evil, at(20))]}))
    assert "\n" not in line
    assert "\r" not in line
