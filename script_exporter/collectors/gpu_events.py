#!/usr/bin/env python3
"""Xid and SXid events of NVIDIA GPUs and switches with their meaning, and ECC errors.

The kernel log says only a number; ``xid_catalogue.tsv`` says what it means, whose fault it usually
is (hardware, link, driver, application) and what to do. ECC errors of the GPU come with some of
them, and, where there is ``nvidia-smi``, from its counters; those of the host's memory from EDAC.
"""

from __future__ import annotations

import csv
import re
import subprocess
from pathlib import Path

from kernel_log import EventCounts, Line, read_kernel_log
from metric_text import Metrics, arguments, complain, read_number

CATALOGUE = Path(__file__).resolve().parent / "xid_catalogue.tsv"
LABELS = ("device", "xid", "severity", "origin", "ecc", "action", "meaning", "meaning_zh")
SMI_SECONDS = 20.0

_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)\b")
_SXID = re.compile(
    r"(nvidia-nvswitch\d+): SXid \((?:PCI:)?[0-9a-fA-F:.]+\): (\d+), (Non-fatal|Fatal)"
)
_UNKNOWN = {
    "severity": "error",
    "origin": "unknown",
    "ecc": "-",
    "action": "look_up",
    "meaning": "Not in the catalogue",
    "meaning_zh": "目录中没有该编号",
}


def main() -> None:
    given = arguments(__doc__.split("\n")[0]).parse_args()
    metrics = Metrics()
    lines = read_kernel_log(given.root)
    counts = EventCounts("gpu_events", given.root, given.state)
    counts.add(lines, events(lines, read_catalogue()))
    add_events(metrics, counts)
    add_gpu_ecc(metrics, given.root)
    add_host_ecc(metrics, given.root)
    metrics.write()


def read_catalogue() -> dict[str, dict[str, str]]:
    with CATALOGUE.open(encoding="utf-8", newline="") as file:
        return {row["xid"]: row for row in csv.DictReader(file, delimiter="\t")}


def events(lines: list[Line], catalogue: dict[str, dict[str, str]]) -> dict[str, tuple[str, ...]]:
    """Mark of a line → its values of LABELS; an SXid has the number ``S<code>``."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        xid, sxid = _XID.search(line.text), _SXID.search(line.text)
        if xid:
            row = catalogue.get(xid[2], _UNKNOWN)
            # Some drivers add the function, which is always 0.
            device, code = re.sub(r"\.\d$", "", xid[1].lower()), xid[2]
        elif sxid:
            fatal = sxid[3] == "Fatal"
            row = {
                **_UNKNOWN,
                "severity": "fatal" if fatal else "error",
                "origin": "link",
                "action": "check_nvlink",
                "meaning": f"{sxid[3]} error of an NVSwitch",
                "meaning_zh": f"NVSwitch {'致命' if fatal else '非致命'}错误",
            }
            device, code = sxid[1], f"S{sxid[2]}"
        else:
            continue
        found[line.mark] = (device, code, *(row[name] for name in LABELS[2:]))
    return found


def add_events(metrics: Metrics, counts: EventCounts) -> None:
    total, newest = "gpu_xid_events_total", "gpu_xid_last_timestamp_seconds"
    ecc_total, ecc_newest = "gpu_ecc_events_total", "gpu_ecc_last_timestamp_seconds"
    metrics.declare(total, "counter", "Xid and SXid events in the kernel log since boot.")
    metrics.declare(newest, "gauge", "When the newest of them was.")
    metrics.declare(ecc_total, "counter", "Xid events that tell an ECC error, by its kind.")
    metrics.declare(ecc_newest, "gauge", "When the newest of them was.")
    ecc: dict[tuple[str, str], tuple[int, float]] = {}
    for event in counts:
        labels = dict(zip(LABELS, event.labels))
        kind = labels.pop("ecc")
        metrics.add(total, labels, event.times)
        metrics.add(newest, labels, round(event.seconds, 3))
        if kind != "-":
            count, seconds = ecc.get((labels["device"], kind), (0, 0.0))
            ecc[labels["device"], kind] = (count + event.times, max(seconds, event.seconds))
    for (device, kind), (count, seconds) in sorted(ecc.items()):
        metrics.add(ecc_total, {"device": device, "kind": kind}, count)
        metrics.add(ecc_newest, {"device": device, "kind": kind}, round(seconds, 3))


def add_gpu_ecc(metrics: Metrics, root: Path) -> None:
    """Counters since the driver was loaded; a GPU without ECC has none."""
    program = root / "usr/bin/nvidia-smi"
    if not program.is_file():
        return
    fields = "pci.bus_id,ecc.errors.corrected.volatile.total,ecc.errors.uncorrected.volatile.total"
    try:
        answer = subprocess.run(
            [str(program), f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            stdout=subprocess.PIPE,
            timeout=SMI_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        complain(f"nvidia-smi: {error}")
        return
    name = "gpu_ecc_errors_total"
    metrics.declare(name, "counter", "ECC errors since the driver was loaded.")
    for row in csv.reader(answer.stdout.decode("utf-8", "replace").splitlines()):
        device, *counts = (cell.strip() for cell in row)
        for kind, count in zip(("corrected", "uncorrected"), counts):
            if count.isdigit():
                metrics.add(name, {"device": _pci(device), "kind": kind}, int(count))


def add_host_ecc(metrics: Metrics, root: Path) -> None:
    for folder in sorted(root.glob("sys/devices/system/edac/mc/mc[0-9]*")):
        for file, name, text in (
            ("ce_count", "node_edac_correctable_errors_total", "Corrected errors of host memory."),
            (
                "ue_count",
                "node_edac_uncorrectable_errors_total",
                "Uncorrected errors of host memory.",
            ),
        ):
            value = read_number(folder / file)
            if value is not None:
                metrics.declare(name, "counter", text)
                metrics.add(name, {"controller": folder.name[2:]}, value)


def _pci(bus_id: str) -> str:
    """nvidia-smi writes 00000000:3B:00.0, the kernel 0000:3b:00."""
    return re.sub(r"^0000(?=[0-9a-f]{4}:)", "", bus_id.lower()).rpartition(".")[0]


if __name__ == "__main__":
    main()
