"""``ScriptRun``: one run of a script, which ends in time, whatever the script does.

The script leads a session of its own. At its end (or at its time limit, when it prints too much or
forks too often) the whole process group is killed; what left the group by ``setsid`` is found by a
mark in its environment. Only stdout is kept; stderr is counted, and its last line remembered.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Reason = Literal[
    "ok", "exit", "signal", "timeout", "output", "processes", "spawn", "stuck", "cancelled"
]
_MARK = "SCRIPT_EXPORTER_RUN"
_POLL_SECONDS = 0.02
_SCAN_SECONDS = 0.25
_KILL_SECONDS = 3.0
_CHUNK = 65_536
# Limits are set by the shell that becomes the script: setting them in this process after a fork
# is not safe in a program with threads. bash counts processes by -u, dash and busybox by -p.
_LIMITED = """
ulimit -c 0
[ "$1" = 0 ] || ulimit -u "$1" 2>/dev/null || ulimit -p "$1" 2>/dev/null
[ "$2" = 0 ] || ulimit -v "$2"
shift 2
exec "$@"
"""


@dataclass(frozen=True)
class RunLimits:
    """What a run may use; ``memory_bytes`` is address space, 0 for no limit.

    own_user: the script runs as a user of its own, so that the kernel can count its processes
    """

    timeout_seconds: float
    output_bytes: int = 2 << 20
    processes: int = 64
    memory_bytes: int = 0
    own_user: bool = False


@dataclass(frozen=True)
class RunResult:
    """``exit_code`` is None where there is none; ``detail`` says in words what went wrong."""

    reason: Reason
    exit_code: int | None
    stdout: bytes
    stderr_bytes: int
    stderr_lines: int
    stderr_last: str
    duration_seconds: float
    detail: str = ""


class ScriptRun:
    """``run()`` blocks until the script and all of its processes are gone; ``cancel()`` ends it."""

    def __init__(
        self,
        command: Sequence[str],
        limits: RunLimits,
        *,
        environment: Mapping[str, str] | None = None,
        user: str = "",
    ) -> None:
        self._command = list(command)
        self._limits = limits
        self._user = user
        self._token = secrets.token_hex(8)
        self._environment = {**(environment or os.environ), _MARK: self._token}
        self._cancelled = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._reaping = threading.Lock()
        self._reaped = False

    def cancel(self) -> None:
        """The group is killed here and now: whoever cancels may be about to end."""
        self._cancelled.set()
        with self._reaping:
            process = self._process
            if process is not None and not self._reaped:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)

    @property
    def is_alive(self) -> bool:
        """Still there after SIGKILL: it hangs in the kernel."""
        return self._process is not None and self._process.poll() is None

    def run(self) -> RunResult:
        began = time.monotonic()
        try:
            process = self._process = self._start()
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return RunResult("spawn", None, b"", 0, 0, "", 0.0, f"cannot be started: {error}")
        output = _Output(process, self._limits.output_bytes)
        reason = self._follow(process, output, began + self._limits.timeout_seconds)
        output.drain()
        if output.too_much and reason == "ok":
            reason = "output"
        # Not reaped yet, so its number, and its group's, cannot be another's.
        self._kill(process.pid, thoroughly=reason != "ok")
        return self._result(process, output, reason, time.monotonic() - began)

    def _start(self) -> subprocess.Popen[bytes]:
        limits = self._limits
        words = [
            *("/bin/sh", "-c", _LIMITED, "script_exporter"),
            str(limits.processes if limits.own_user else 0),
            str(limits.memory_bytes // 1024),
            *self._command,
        ]
        user = self._user or None
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            user=user,
            group=_group_of(user),
            extra_groups=[] if user else None,
            start_new_session=True,
        )

    def _follow(self, process: subprocess.Popen[bytes], output: _Output, deadline: float) -> Reason:
        crowd = _Crowd(process.pid, self._token, self._limits.processes)
        wait = 0.001
        while True:
            if output.is_open:
                output.read(_POLL_SECONDS)
            else:
                # Both pipes are closed, so it ends now, or else it has become a daemon.
                time.sleep(wait)
                wait = min(wait * 2, _POLL_SECONDS)
            if output.too_much:
                return "output"
            if self._cancelled.is_set():
                return "cancelled"
            if _has_ended(process.pid):
                return "ok"
            if time.monotonic() > deadline:
                return "timeout"
            if crowd.is_too_large():
                return "processes"

    def _kill(self, leader: int, *, thoroughly: bool) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_SECONDS
        while thoroughly and time.monotonic() < deadline:
            left = [pid for pid in _members(leader, self._token) if pid != leader]
            if not left:
                return
            # Stopped first: one that is being killed could fork once more.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in left:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
            time.sleep(0.01)

    def _result(
        self, process: subprocess.Popen[bytes], output: _Output, reason: Reason, seconds: float
    ) -> RunResult:
        code: int | None = None
        try:
            with self._reaping:
                code = process.wait(_KILL_SECONDS)
                self._reaped = True
        except subprocess.TimeoutExpired:
            reason = "stuck"
        output.close()
        limits = self._limits
        detail = {
            "timeout": f"still running after {limits.timeout_seconds:g} s: killed",
            "output": f"printed more than {limits.output_bytes} bytes: killed",
            "processes": f"more than {limits.processes} processes: killed",
            "stuck": "killed, but it hangs in the kernel (state D)",
            "cancelled": "ended with the exporter, or by a reload",
        }.get(reason, "")
        if reason == "ok" and code:
            reason = "exit" if code > 0 else "signal"
            detail = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
        return RunResult(
            reason,
            None if code is None or reason == "cancelled" else code,
            bytes(output.stdout) if reason == "ok" else b"",
            output.stderr_bytes,
            output.stderr_lines,
            output.stderr_last,
            seconds,
            detail,
        )


class _Output:
    """Both pipes of a process: stdout up to a limit, of stderr the end."""

    def __init__(self, process: subprocess.Popen[bytes], limit_bytes: int) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._pipes = (process.stdout, process.stderr)
        self._out = process.stdout.fileno()
        self._limit = limit_bytes
        self._selector = selectors.DefaultSelector()
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe.fileno(), selectors.EVENT_READ)
        self._tail = b""
        self.stdout = bytearray()
        self.stderr_bytes = 0
        self.stderr_lines = 0

    @property
    def is_open(self) -> bool:
        return bool(self._selector.get_map())

    @property
    def too_much(self) -> bool:
        return len(self.stdout) > self._limit

    @property
    def stderr_last(self) -> str:
        lines = [line for line in self._tail.split(b"\n") if line.strip()]
        return lines[-1].decode("utf-8", "replace").strip()[:500] if lines else ""

    def read(self, seconds: float) -> bool:
        """Whether there was anything."""
        found = False
        for key, _ in self._selector.select(seconds):
            try:
                data = os.read(key.fd, _CHUNK)
            except BlockingIOError:
                continue
            if not data:
                self._selector.unregister(key.fd)
            elif key.fd == self._out:
                found = True
                if not self.too_much:
                    self.stdout += data
            else:
                found = True
                self.stderr_bytes += len(data)
                self.stderr_lines += data.count(b"\n")
                self._tail = (self._tail + data)[-4096:]
        return found

    def drain(self) -> None:
        """What lies in the pipes already; a process that keeps writing is not waited for."""
        deadline = time.monotonic() + 1.0
        while self.is_open and not self.too_much and time.monotonic() < deadline:
            if not self.read(0):
                return

    def close(self) -> None:
        self._selector.close()
        for pipe in self._pipes:
            pipe.close()


class _Crowd:
    """Looks, seldom enough to cost nothing, whether a script has forked too often."""

    def __init__(self, leader: int, token: str, limit: int) -> None:
        self._leader = leader
        self._token = token
        self._limit = limit
        self._newest = _newest_pid()
        self._scanned = 0.0

    def is_too_large(self) -> bool:
        newest, now = _newest_pid(), time.monotonic()
        # Numbers are given in turn: fewer new ones on the machine than allowed are fewer here.
        if 0 <= newest - self._newest <= self._limit or now - self._scanned < _SCAN_SECONDS:
            return False
        self._scanned = now
        self._newest = newest
        # Stopped while it is counted: a bomb would grow faster than anybody counts.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, signal.SIGSTOP)
        if sum(1 for _ in _members(self._leader, self._token)) > self._limit:
            return True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, signal.SIGCONT)
        return False


def _members(leader: int, token: str) -> Iterator[int]:
    """Living processes of the session, or with the run's mark that have left it."""
    mark = f"{_MARK}={token}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold anything: state and what follows come after it.
            fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] in (b"Z", b"X"):
                continue
            if int(fields[3]) == leader or mark in Path(entry.path, "environ").read_bytes():
                yield int(entry.name)
        except (OSError, IndexError, ValueError):
            continue


def _newest_pid() -> int:
    try:
        return int(Path("/proc/loadavg").read_text().split()[-1])
    except (OSError, ValueError, IndexError):
        return -1


def _has_ended(pid: int) -> bool:
    """Whether it has, without reaping it."""
    try:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, pid, flags) is not None
    except ChildProcessError:
        return True


def _group_of(user: str | None) -> int | None:
    if user is None:
        return None
    import pwd

    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        raise ValueError(f"no user {user!r} on this machine") from None
