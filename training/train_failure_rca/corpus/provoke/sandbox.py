"""Runs one program in a folder of its own and returns all that it printed.

Where the system permits it (Linux, root), the program gets namespaces of its own: a network of
nothing but loopback, so that ports are free and names do not resolve; mounts that vanish with it;
process ids that take every descendant along when the first one ends. Elsewhere it runs as it is,
and scenarios that need more are skipped by name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from training.train_failure_rca.corpus.provoke.normalise import HOSTS, chosen, normalise
from training.train_failure_rca.corpus.provoke.scenario import Need, Scenario

_STYLES = ("plain", "logging", "tqdm", "json", "zh", "hf", "megatron", "bracket", "plain")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CGROUP = Path("/sys/fs/cgroup/memory")
_UNSHARE = (
    *("unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"),
    "--kill-child=KILL",
)
# The first process of the namespace: sets it up, runs the program without privileges, cleans up.
_FIRST = """
hostname "$JOB_HOST"; ip link set lo up; echo "$JOB_PID" > /proc/sys/kernel/ns_last_pid
printf '127.0.0.1\\tlocalhost\\n127.0.1.1\\t%s\\n' "$JOB_HOST" > .hosts
mount --bind .hosts /etc/hosts
{prepare}
setpriv --bounding-set=-all --inh-caps=-all "$@"
code=$?
{epilogue}
exit $code
"""


@dataclass(frozen=True)
class Outcome:
    text: str
    exit_code: int | None  # None: it ran out of time


@cache
def has_namespaces() -> bool:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "ip", "hostname"))):
        return False
    probe = (*_UNSHARE, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "true")
    return subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 0


def missing_needs(scenario: Scenario) -> list[Need]:
    """What the scenario asks of the machine in vain."""
    have = {
        "namespaces": has_namespaces(),
        "cgroup": has_namespaces() and (_CGROUP / "memory.limit_in_bytes").is_file(),
        "gcc": shutil.which("gcc") is not None,
    }
    return [need for need in scenario.needs if not have[need]]


def run_scenario(scenario: Scenario) -> Outcome:
    """Runs it to its end (or the end of its time) and leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="provoke-"))
    try:
        for path, text in _files(scenario).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        for name in ("tmp", "home"):
            (folder / name).mkdir()
        exit_code = _run(scenario, folder)
        raw = (folder / ".output").read_bytes().decode("utf-8", errors="replace")
        text = normalise(raw.replace("\r\n", "\n"), scenario=scenario.name, folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if "cgroup" in scenario.needs:
            _remove_cgroup(scenario)
    return Outcome(text, exit_code)


def _files(scenario: Scenario) -> dict[str, str]:
    helper = Path(__file__).with_name("joblog.py").read_text(encoding="utf-8")
    return {"joblog.py": helper, **scenario.files}


def _run(scenario: Scenario, folder: Path) -> int | None:
    command: Sequence[str] = scenario.command
    if has_namespaces():
        # No .format: the shell text has braces of its own.
        first = _FIRST.replace("{prepare}", scenario.prepare)
        first = first.replace("{epilogue}", scenario.epilogue)
        command = (*_UNSHARE, "sh", "-c", first, "sh", *command)
    with (folder / ".output").open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(scenario, folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(scenario.timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # Its own session, hence its own group: nothing else can be hit.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(scenario: Scenario, folder: Path) -> dict[str, str]:
    """A clean one: what the caller has set must not show in the output."""
    seed = zlib.crc32(scenario.name.encode())
    return {
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "USER": "liwei",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_CONFIG_FILE": "/dev/null",
        "JOB_STYLE": scenario.style or _STYLES[seed % len(_STYLES)],
        "JOB_HOST": chosen(scenario.name, HOSTS),
        "JOB_PID": str(1200 + seed % 30_000),
        "JOB_CGROUP": str(_cgroup_of(scenario)),
        **scenario.environment,
    }


def _cgroup_of(scenario: Scenario) -> Path:
    return _CGROUP / f"job-{zlib.crc32(scenario.name.encode()):08x}"


def _remove_cgroup(scenario: Scenario) -> None:
    with contextlib.suppress(FileNotFoundError):
        _cgroup_of(scenario).rmdir()
