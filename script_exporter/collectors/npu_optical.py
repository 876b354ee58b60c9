#!/usr/bin/env python3
"""Optical modules and links of Ascend NPUs, as ``hccn_tool`` tells them.

A module that loses light, or a link that goes down and up again, stalls collective communication of
every job on the card. Asked are ``-link``, ``-link_stat`` and ``-optical`` of each NPU.
"""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from metric_text import Metrics, arguments, complain

TOOL = "usr/local/Ascend/driver/tools/hccn_tool"
CALL_SECONDS = 10.0
MOST_NPUS = 16

_STAMP = re.compile(r"([A-Z][a-z]{2} [A-Z][a-z]{2}\s+\d+ [\d:]{8} \d{4})")
_POWER = re.compile(r"(tx|rx) ?power ?(\d*)")
_LOSS = re.compile(r"(tx|rx) los flag")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def main() -> int:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--npus", help="numbers such as 0,1,2 (default: those of /dev/davinci*)")
    given = parser.parse_args()
    tool = find_tool(given.root)
    if tool is None:
        complain(f"no hccn_tool below {given.root}")
        return 1
    metrics = Metrics()
    declare(metrics)
    answered = 0
    for npu in given.npus.split(",") if given.npus else find_npus(given.root):
        labels = {"npu": npu}
        link = ask(tool, npu, "link")
        status = re.search(r"link status\s*:\s*(\S+)", link, re.IGNORECASE)
        if status:
            answered += 1
            metrics.add("npu_link_up", labels, int(status[1].upper() == "UP"))
        add_link_history(metrics, labels, ask(tool, npu, "link_stat"))
        add_optical(metrics, labels, ask(tool, npu, "optical"))
    metrics.write()
    return 0 if answered else 1


def find_tool(root: Path) -> str | None:
    if (root / TOOL).is_file():
        return str(root / TOOL)
    return shutil.which("hccn_tool") if root == Path("/") else None


def find_npus(root: Path) -> list[str]:
    found = sorted(
        int(file.name[7:]) for file in root.glob("dev/davinci*") if file.name[7:].isdigit()
    )
    return [str(number) for number in found[:MOST_NPUS]] or [str(number) for number in range(8)]


def ask(tool: str, npu: str, what: str) -> str:
    """ "" where the tool fails: that NPU's series are missing then, the others are not."""
    try:
        answer = subprocess.run(
            [tool, "-i", npu, f"-{what}", "-g"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CALL_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        complain(f"NPU {npu}: {error}")
        return ""
    text = answer.stdout.decode("utf-8", "replace")
    if answer.returncode:
        complain(f"NPU {npu}: hccn_tool -{what}: {' '.join(text.split())[:200]}")
        return ""
    return text


def declare(metrics: Metrics) -> None:
    for name, kind, text in (
        ("npu_link_up", "gauge", "1 if the link of the NPU is up."),
        ("npu_link_up_changes_total", "counter", "Times the link went up."),
        ("npu_link_down_changes_total", "counter", "Times the link went down."),
        ("npu_link_last_down_timestamp_seconds", "gauge", "When it went down last."),
        ("npu_link_last_outage_seconds", "gauge", "How long it was down then."),
        ("npu_optical_present", "gauge", "1 if there is an optical module."),
        ("npu_optical_loss_of_signal", "gauge", "1 if a lane has no light."),
        ("npu_optical_power_milliwatts", "gauge", "Light sent (tx) and received (rx)."),
        ("npu_optical_power_low_milliwatts", "gauge", "Below it the module itself warns."),
        ("npu_optical_power_high_milliwatts", "gauge", "Above it the module itself warns."),
        ("npu_optical_temperature_celsius", "gauge", "Temperature of the module."),
        ("npu_optical_voltage_volts", "gauge", "Supply of the module."),
    ):
        metrics.declare(name, kind, text)


def add_link_history(metrics: Metrics, labels: dict[str, str], text: str) -> None:
    now: datetime.datetime | None = None
    changes: list[tuple[datetime.datetime, str]] = []
    for line in text.splitlines():
        _, _, line = line.rpartition("]")
        key, _, value = (part.strip() for part in line.partition(":"))
        stamp = _stamp(line)
        if key.lower() == "current time":
            now = stamp
        elif key.lower() in ("link up count", "link down count") and value.isdigit():
            metrics.add(f"npu_link_{key.split()[1].lower()}_changes_total", labels, int(value))
        elif stamp and ("LINK UP" in line or "LINK DOWN" in line):
            changes.append((stamp, "down" if "DOWN" in line else "up"))
    changes.sort(key=lambda change: change[0])
    downs = [number for number, (_, what) in enumerate(changes) if what == "down"]
    if now is None or not downs:
        return
    down = changes[downs[-1]][0]
    # By the device's own clock, which may be in another time zone.
    seconds = time.time() - (now - down).total_seconds()
    metrics.add("npu_link_last_down_timestamp_seconds", labels, round(seconds))
    up = next((stamp for stamp, what in changes[downs[-1] :] if what == "up"), now)
    metrics.add("npu_link_last_outage_seconds", labels, int((up - down).total_seconds()))


def add_optical(metrics: Metrics, labels: dict[str, str], text: str) -> None:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key = " ".join(key.split()).lower()
        if not colon:
            continue
        number = _NUMBER.match(value.strip())
        if key == "present":
            metrics.add("npu_optical_present", labels, int(value.strip().lower() == "present"))
        elif _LOSS.fullmatch(key):
            lost = int(value.strip(), 16) if re.fullmatch(r"0x[0-9a-fA-F]+", value.strip()) else 0
            metrics.add(
                "npu_optical_loss_of_signal", {**labels, "direction": key[:2]}, int(lost != 0)
            )
        elif number is None:
            continue
        elif key == "temperature":
            metrics.add("npu_optical_temperature_celsius", labels, float(number[0]))
        elif key == "vcc":
            metrics.add("npu_optical_voltage_volts", labels, round(float(number[0]) / 1000, 4))
        elif re.fullmatch(r"[tr]xpower (low|high) thres", key.replace(" power", "power")):
            bound = "low" if " low " in key else "high"
            metrics.add(
                f"npu_optical_power_{bound}_milliwatts",
                {**labels, "direction": key[:2]},
                float(number[0]),
            )
        else:
            power = _POWER.fullmatch(key)
            if power:
                where = {**labels, "direction": power[1], "lane": power[2]}
                metrics.add("npu_optical_power_milliwatts", where, float(number[0]))


def _stamp(line: str) -> datetime.datetime | None:
    found = _STAMP.search(line)
    if not found:
        return None
    try:
        return datetime.datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y")
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main())
