"""File systems of a test's own: small, full, and seen by nobody else (``unshare -m`` and tmpfs)."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def require_private_mounts() -> None:
    """Skip, by name, where this user may not mount."""
    program = shutil.which("unshare")
    words = ["-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    if program is None or subprocess.run([program, *words], capture_output=True).returncode != 0:
        pytest.skip("unshare -m and mount -t tmpfs need root")


def with_tmpfs(folder: Path, size: str) -> list[str]:
    """What to start a command with, so that ``folder`` is a tmpfs of ``size`` for it alone."""
    mount = f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(folder))}"
    return ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]


@contextmanager
def filled(folder: Path, leave_bytes: int) -> Iterator[None]:
    """``folder``'s file system full but for ``leave_bytes``; a bounded one, or this is refused."""
    statistics = os.statvfs(folder)
    assert statistics.f_blocks * statistics.f_frsize <= 512 << 20, f"{folder}: not a small one"
    filler = folder / "filler"
    left = statistics.f_bavail * statistics.f_frsize - leave_bytes
    with filler.open("wb") as file:
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 20)))
    try:
        yield
    finally:
        filler.unlink()
