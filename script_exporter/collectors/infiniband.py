#!/usr/bin/env python3
"""InfiniBand and RoCE ports: state and link counters, and every link flap with its cause.

Ports are told in node_exporter's names. The cause of a flap is in no counter: it is read from what
the driver wrote beside it (cable, optics, power, firmware), ``unknown`` where it wrote nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from kernel_log import EventCounts, Line, read_kernel_log
from metric_text import Metrics, arguments, read_number, read_text

# Name of the counter's file → node_exporter's name and what it counts.
COUNTERS = {
    "link_downed": ("link_downed", "Times the link went down after it could not be recovered."),
    "link_error_recovery": ("link_error_recovery", "Times the link recovered from errors."),
    "symbol_error": ("symbol_error", "Minor link errors on one or more lanes."),
    "local_link_integrity_errors": (
        "local_link_integrity_errors",
        "Times local physical errors exceeded their limit.",
    ),
    "port_rcv_errors": ("port_errors_received", "Packets with an error."),
    "port_xmit_discards": (
        "port_discards_transmitted",
        "Packets not sent because the port is down or congested.",
    ),
}
# How long before or after a link went down the driver may have said why.
BEFORE_SECONDS, AFTER_SECONDS = 10.0, 2.0
# A port without a cable says so while the machine boots.
BOOT_SECONDS = 120.0
# Faults of the link even where nobody said "Link down".
_FAULTS = frozenset({"cable_unplugged", "high_temperature", "bad_cable", "cable_error", "firmware"})

_DRIVER = re.compile(
    r"(?:mlx[45]_core|mlx5_ib|bnxt_en|ice|irdma) "
    r"([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])\b[ :]*(.*)"
)
_LINK_DOWN = re.compile(r"(?:(\S+): )?(?:NIC )?Link (?:is )?down", re.IGNORECASE)
_CAUSES = (
    ("cable_unplugged", re.compile(r"Port module event.*Cable unplugged", re.IGNORECASE)),
    (
        "high_temperature",
        re.compile(r"(Port module event.*|module.*)High Temperature", re.IGNORECASE),
    ),
    (
        "bad_cable",
        re.compile(r"Port module event.*(Bad or shorted cable|Unsupported cable)", re.IGNORECASE),
    ),
    (
        "cable_error",
        re.compile(r"Port module event.*(Cable error|unknown identifier)", re.IGNORECASE),
    ),
    ("slot_power", re.compile(r"insufficient power on the PCIe slot", re.IGNORECASE)),
    (
        "firmware",
        re.compile(
            r"health (compromised|counter)|firmware (fatal|internal) error|assert_var",
            re.IGNORECASE,
        ),
    ),
    ("pcie", re.compile(r"PCIe? (link|bus) error|AER:|device unavailable", re.IGNORECASE)),
)


class Port(NamedTuple):
    """``netdev``: the network interface of a RoCE port or of IP over InfiniBand, or ""."""

    device: str
    number: str
    folder: Path
    pci: str
    netdev: str


def main() -> None:
    given = arguments(__doc__.split("\n")[0]).parse_args()
    metrics = Metrics()
    ports = find_ports(given.root)
    for port in ports:
        add_port(metrics, port)
    lines = read_kernel_log(given.root)
    counts = EventCounts("infiniband", given.root, given.state)
    counts.add(lines, flaps(lines, ports))
    add_flaps(metrics, counts)
    metrics.write()


def find_ports(root: Path) -> list[Port]:
    found = []
    for device in sorted(root.glob("sys/class/infiniband/*")):
        pci = (device / "device").resolve().name
        netdevs = sorted(folder.name for folder in device.glob("device/net/*"))
        for folder in sorted(device.glob("ports/*")):
            found.append(Port(device.name, folder.name, folder, pci, netdevs[0] if netdevs else ""))
    return found


def add_port(metrics: Metrics, port: Port) -> None:
    labels = {"device": port.device, "port": port.number}
    for file, name, text in (
        ("state", "state_id", "State: 1 down, 2 init, 3 armed, 4 active, 5 active, deferred."),
        (
            "phys_state",
            "physical_state_id",
            "Physical state: 2 polling, 3 disabled, 5 link up, 6 link error recovery.",
        ),
    ):
        # "4: ACTIVE"
        number = read_text(port.folder / file).partition(":")[0]
        if number.isdigit():
            metrics.declare(f"node_infiniband_{name}", "gauge", text)
            metrics.add(f"node_infiniband_{name}", labels, int(number))
    # "200 Gb/sec (4X HDR)"
    rate = re.match(r"(\d+(?:\.\d+)?) Gb/sec", read_text(port.folder / "rate"))
    if rate:
        name = "node_infiniband_rate_bytes_per_second"
        metrics.declare(name, "gauge", "Signalling rate of the port.")
        metrics.add(name, labels, int(float(rate[1]) * 125_000_000))
    for file, (short, text) in COUNTERS.items():
        value = read_number(port.folder / "counters" / file)
        if value is not None:
            name = f"node_infiniband_{short}_total"
            metrics.declare(name, "counter", text)
            metrics.add(name, labels, value)
    name = "infiniband_port_info"
    metrics.declare(name, "gauge", "PCI address, interface and link layer of a port.")
    metrics.add(
        name,
        {
            **labels,
            "pci": port.pci,
            "netdev": port.netdev,
            "link_layer": read_text(port.folder / "link_layer"),
        },
        1,
    )


def flaps(lines: list[Line], ports: list[Port]) -> dict[str, tuple[str, ...]]:
    """Mark of a line that tells a flap → device, PCI address, interface and cause of it.

    A card of InfiniBand proper says only why (its link is another's to watch); one of Ethernet says
    "Link down", and maybe why shortly before or after.
    """
    by_pci = {port.pci: port for port in ports}
    reasons: dict[str, list[tuple[Line, str]]] = {}
    downs: list[tuple[Line, str, str]] = []
    for line in lines:
        found = _DRIVER.search(line.text)
        if not found and "mlx5_" not in line.text:
            continue
        # Some drivers leave their own address out.
        pci, text = (found[1], found[2]) if found else ("", line.text)
        down = _LINK_DOWN.search(text) if found else None
        if down:
            downs.append((line, pci, down[1] or ""))
            continue
        cause = next((name for name, pattern in _CAUSES if pattern.search(text)), None)
        if cause and not (cause == "cable_unplugged" and line.uptime_seconds < BOOT_SECONDS):
            reasons.setdefault(pci, []).append((line, cause))
    events: dict[str, tuple[str, ...]] = {}
    explained = set()
    for line, pci, netdev in downs:
        reason = _nearest(line, reasons.get(pci, []))
        if reason:
            explained.add(reason[0].mark)
        port = by_pci.get(pci)
        device, own = (port.device, port.netdev) if port else ("", "")
        events[line.mark] = (device, pci, netdev or own, reason[1] if reason else "unknown")
    for pci, told in reasons.items():
        port = by_pci.get(pci)
        for line, cause in told:
            if line.mark not in explained and cause in _FAULTS:
                device, netdev = (port.device, port.netdev) if port else ("", "")
                events[line.mark] = (device, pci, netdev, cause)
    return events


def _nearest(down: Line, told: list[tuple[Line, str]]) -> tuple[Line, str] | None:
    near = [
        (abs(line.seconds - down.seconds), line, cause)
        for line, cause in told
        if -BEFORE_SECONDS <= line.seconds - down.seconds <= AFTER_SECONDS
    ]
    if not near:
        return None
    _, line, cause = min(near, key=lambda one: one[0])
    return line, cause


def add_flaps(metrics: Metrics, counts: EventCounts) -> None:
    total = "infiniband_link_flaps_total"
    newest = "infiniband_link_flap_last_timestamp_seconds"
    metrics.declare(total, "counter", "Link faults in the kernel log since boot, by their cause.")
    metrics.declare(newest, "gauge", "When the newest of them was.")
    for event in counts:
        labels = dict(zip(("device", "pci", "netdev", "cause"), event.labels))
        metrics.add(total, labels, event.times)
        metrics.add(newest, labels, round(event.seconds, 3))


if __name__ == "__main__":
    main()
