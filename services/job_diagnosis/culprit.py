"""Which device, on which node: read from the evidence when nobody said it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clients.results import Cause

HARDWARE_LABELS = ("GPU_Hardware_Fault", "Network_Link_Flap")
_PCI = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?"
_BUS = re.compile(
    rf"(?:PCI[: ]{{1,2}}|GPU |NVRM: GPU at |pci(?:e)?(?:port)? )({_PCI})\b", re.IGNORECASE
)
# Not gpu-17: so are nodes called.
_GPU = re.compile(r"\b((?:GPU|NPU|cuda|davinci|DCU|MLU)[ _:#]{0,2}\d{1,3})\b", re.IGNORECASE)
_LINK = re.compile(
    r"\b(mlx[45]_(?:bond_)?\d{1,2}|hns_\d|bnxt_re\d|roce\w{0,8}|ib[ps]?\d\w{0,10}"
    r"|e(?:th|n[ops])\d\w{0,10}|bond\d{1,3})\b"
)
# What syslog writes before a kernel's line: Jun 14 15:16:01 gpu-17 kernel: …
_KERNEL = re.compile(
    r"^(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.+-]{8,30}Z?) ([\w.-]{1,64}) "
    r"kernel:"
)


def find_culprit(causes: Sequence[Cause]) -> tuple[str | None, str | None]:
    """(node, device) of the first hardware cause's evidence; None where it names none."""
    for cause in causes:
        if cause.label not in HARDWARE_LABELS:
            continue
        lines = [line.text for line in cause.evidence]
        rules = (_BUS, _GPU, _LINK) if cause.label == HARDWARE_LABELS[0] else (_LINK, _BUS, _GPU)
        found = (rule.search(line) for rule in rules for line in lines)
        device = next((match[1] for match in found if match), None)
        node = next((match[1] for line in lines if (match := _KERNEL.search(line))), None)
        return node, device
    return None, None
