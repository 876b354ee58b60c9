#!/usr/bin/env python3
"""When TLS certificates end: of files, and of servers as a caller meets them.

A server goes on with the certificate that it read at its start: the file that somebody renewed says
nothing of that, so name the address as well. Where several are given (a chain), the first to end
counts. Needs the program openssl.

    certificates.py /etc/presage/tls.pem 127.0.0.1:8001 triton.example.com:8001
"""

from __future__ import annotations

import calendar
import re
import subprocess
import time
from pathlib import Path

from metric_text import Metrics, arguments, complain

TIMEOUT_SECONDS = 10
ADDRESS = re.compile(r"^(?P<host>[^/]+):(?P<port>\d+)$")
BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
NOT_AFTER = "certificate_not_after_timestamp_seconds"
READABLE = "certificate_readable"


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="FILE|HOST:PORT")
    given = parser.parse_args()
    metrics = Metrics()
    metrics.declare(NOT_AFTER, "gauge", "End of the certificate that ends first, Unix time.")
    metrics.declare(READABLE, "gauge", "1 if there is a certificate to read.")
    for target in given.targets:
        labels = {"target": target}
        try:
            blocks = read_blocks(given.root, target)
            ends = [end_of(block) for block in blocks]
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            complain(f"{target}: {error}")
            ends = []
        metrics.add(READABLE, labels, int(bool(ends)))
        if ends:
            metrics.add(NOT_AFTER, labels, min(ends))
    metrics.write()


def read_blocks(root: Path, target: str) -> list[bytes]:
    """PEM texts; never empty. Raises OSError, SubprocessError, ValueError."""
    address = ADDRESS.match(target)
    if address is None:
        content = (root / target.lstrip("/")).read_bytes()
    else:
        host = address["host"].strip("[]")
        words = ["s_client", "-showcerts", "-connect", target]
        if not re.match(r"^[\d.]+$|:", host):
            words += ["-servername", host]
        content = openssl(words, b"")
    blocks = BLOCK.findall(content)
    if not blocks:
        raise ValueError("no certificate")
    return blocks


def end_of(block: bytes) -> int:
    """Unix time. Raises SubprocessError, ValueError: it is no certificate."""
    text = openssl(["x509", "-noout", "-enddate"], block).decode("ascii", "replace")
    found = re.match(r"notAfter=(.+) GMT", text)
    if found is None:
        raise ValueError("not a certificate")
    return calendar.timegm(time.strptime(found[1], "%b %d %H:%M:%S %Y"))


def openssl(words: list[str], content: bytes) -> bytes:
    """What it prints: a handshake that fails later has shown the certificate all the same."""
    return subprocess.run(
        ["openssl", *words],
        input=content,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
        check=False,
    ).stdout


if __name__ == "__main__":
    main()
