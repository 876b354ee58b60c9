#!/usr/bin/env python3
"""Carrier changes of physical network cards, in node_exporter's names.

A card whose link flaps counts up in carrier_down_changes long before anybody's job dies of it.
Bridges, bonds and virtual interfaces follow their cards and are left out, unless ``--all``.
"""

from __future__ import annotations

from pathlib import Path

from metric_text import Metrics, arguments, read_number, read_text

COUNTERS = {
    "carrier_changes": "Times the link went up or down.",
    "carrier_up_count": "Times the link went up.",
    "carrier_down_count": "Times the link went down.",
}
NAMES = {
    "carrier_changes": "node_network_carrier_changes_total",
    "carrier_up_count": "node_network_carrier_up_changes_total",
    "carrier_down_count": "node_network_carrier_down_changes_total",
}


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--all", action="store_true", help="also interfaces without a device")
    given = parser.parse_args()
    metrics = Metrics()
    for folder in sorted(given.root.glob("sys/class/net/*")):
        if folder.is_dir() and (given.all or (folder / "device").exists()):
            add_interface(metrics, folder)
    metrics.write()


def add_interface(metrics: Metrics, folder: Path) -> None:
    labels = {"device": folder.name}
    for file, text in COUNTERS.items():
        value = read_number(folder / file)
        if value is not None:
            metrics.declare(NAMES[file], "counter", text)
            metrics.add(NAMES[file], labels, value)
    # An interface that is switched off has no carrier to read: the kernel refuses.
    carrier = read_number(folder / "carrier")
    if carrier is not None:
        metrics.declare("node_network_carrier", "gauge", "1 if there is a link.")
        metrics.add("node_network_carrier", labels, carrier)
    metrics.declare("node_network_up", "gauge", "1 if the interface says it is up.")
    metrics.add("node_network_up", labels, int(read_text(folder / "operstate") == "up"))
    speed = read_number(folder / "speed")
    if speed:
        metrics.declare("node_network_speed_bytes", "gauge", "Bytes a second that the link takes.")
        metrics.add("node_network_speed_bytes", labels, speed * 125_000)


if __name__ == "__main__":
    main()
