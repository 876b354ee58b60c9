#!/usr/bin/env python3
"""``quota_group_use_ratio``: how much of a group's storage quota is in use, 0 to 1.

Sources, one of them: ``--api URL`` or ``--file FILE`` (JSON: ``{"code": "0000", "data":
[{"clu_name", "group_name", "size_used", "size_sum"}]}``, bytes), ``--lustre MOUNT --groups a,b``
(``lfs quota``), and ``--repquota MOUNT`` (``repquota -g``). The labels are those the forecast loop
reads: ``clu_name`` and ``group``. A group without a quota has no series.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from metric_text import Metrics, arguments, complain

CALL_SECONDS = 20.0
LARGEST_ANSWER = 16 << 20


class Quota(NamedTuple):
    cluster: str
    group: str
    used_bytes: float
    limit_bytes: float


def main() -> int:
    parser = arguments("Storage quotas of groups: quota_group_use_ratio.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--api", metavar="URL", help="asked by --method")
    source.add_argument("--file", type=Path, help="the same answer in a file")
    source.add_argument("--lustre", metavar="MOUNT")
    source.add_argument("--repquota", metavar="MOUNT")
    parser.add_argument("--method", choices=("GET", "POST"), default="POST")
    parser.add_argument("--groups", default="", help="of --lustre, comma-separated")
    parser.add_argument("--cluster", default="", help="clu_name where the source names none")
    parser.add_argument("--unit", choices=("ratio", "percent"), default="ratio")
    parser.add_argument("--group-label", default="group", help="label of the group (%(default)s)")
    given = parser.parse_args()
    try:
        if given.api:
            quotas = list(from_json(fetch(given.api, given.method), given.cluster))
        elif given.file:
            quotas = list(from_json(given.file.read_bytes(), given.cluster))
        elif given.lustre:
            groups = [group for group in given.groups.split(",") if group]
            quotas = list(from_lustre(given.root, given.lustre, groups, given.cluster))
        else:
            quotas = list(from_repquota(given.root, given.repquota, given.cluster))
    except (OSError, ValueError, LookupError, TypeError, subprocess.SubprocessError) as error:
        # Not a zero: an alert would take that for a clean-up.
        complain(f"{type(error).__name__}: {error}")
        return 1
    write(quotas, given.unit, given.group_label)
    return 0


def write(quotas: list[Quota], unit: str, group_label: str) -> None:
    metrics = Metrics()
    ratio, used, limit = (
        "quota_group_use_ratio",
        "quota_group_used_bytes",
        "quota_group_limit_bytes",
    )
    metrics.declare(ratio, "gauge", f"Used part of the group's quota ({unit}).")
    metrics.declare(used, "gauge", "Bytes the group has stored.")
    metrics.declare(limit, "gauge", "Bytes the group may store.")
    for quota in quotas:
        if not quota.limit_bytes > 0 or not math.isfinite(quota.used_bytes):
            continue
        labels = {"clu_name": quota.cluster, group_label: quota.group}
        share = quota.used_bytes / quota.limit_bytes * (100 if unit == "percent" else 1)
        metrics.add(ratio, labels, round(share, 6))
        metrics.add(used, labels, int(quota.used_bytes))
        metrics.add(limit, labels, int(quota.limit_bytes))
    metrics.write()


def fetch(url: str, method: str) -> bytes:
    """With the token of QUOTA_API_TOKEN, if there is one."""
    headers = {"Accept": "application/json"}
    if os.environ.get("QUOTA_API_TOKEN"):
        headers["Authorization"] = f"Bearer {os.environ['QUOTA_API_TOKEN']}"
    request = urllib.request.Request(url, b"" if method == "POST" else None, headers)
    with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
        return bytes(answer.read(LARGEST_ANSWER))


def from_json(text: bytes, cluster: str) -> Iterator[Quota]:
    given = json.loads(text)
    if not isinstance(given, dict) or not isinstance(given.get("data"), list):
        raise ValueError("expected an object with a list `data`")
    if str(given.get("code", "0000")) not in ("0000", "0"):
        raise ValueError(f"the API answers code {given['code']}")
    for row in given["data"]:
        if not isinstance(row, dict):
            raise ValueError(f"expected objects in `data`, got {row!r}")
        yield Quota(
            str(row.get("clu_name") or cluster),
            str(row.get("group_name") or "unknown"),
            float(row["size_used"]),
            float(row["size_sum"]),
        )


def from_lustre(root: Path, mount: str, groups: list[str], cluster: str) -> Iterator[Quota]:
    """``lfs quota -q -g GROUP MOUNT``: filesystem, used, soft and hard limit in KiB, …"""
    for group in groups:
        text = _run(root, "usr/bin/lfs", "quota", "-q", "-g", group, mount)
        # A long name pushes the numbers to the next line.
        numbers = re.findall(r"(?<!\S)(\d+)\*?(?!\S)", text)
        if len(numbers) < 3:
            raise ValueError(f"lfs quota -g {group}: {text.strip()[:120]!r}")
        used, soft, hard = (int(number) * 1024 for number in numbers[:3])
        yield Quota(cluster, group, used, hard or soft)


def from_repquota(root: Path, mount: str, cluster: str) -> Iterator[Quota]:
    """``repquota -g``: name, flags, used, soft and hard limit in KiB, …"""
    for line in _run(root, "usr/sbin/repquota", "-g", mount).splitlines():
        row = re.match(r"(\S+)\s+[-+]{2}\s+(\d+)\s+(\d+)\s+(\d+)\s", line)
        if row:
            used, soft, hard = (int(number) * 1024 for number in row.group(2, 3, 4))
            yield Quota(cluster, row[1], used, hard or soft)


def _run(root: Path, program: str, *words: str) -> str:
    answer = subprocess.run(
        [str(root / program), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=CALL_SECONDS,
    )
    if answer.returncode:
        raise ValueError(answer.stderr.decode("utf-8", "replace").strip()[:200])
    return answer.stdout.decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
