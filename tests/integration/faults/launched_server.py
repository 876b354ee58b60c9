"""``python -m embedded_triton up`` in a process of its own, with its supervisor; and its processes.

The models: log_anomaly (the real front before a random classifier of two layers) and ``double``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.process_state import process_start
from embedded_triton.stubs import ProcessTable, Stub

DOUBLE = """backend: "onnxruntime"
max_batch_size: 8
input [{name: "x" data_type: TYPE_FP32 dims: [4]}]
output [{name: "y" data_type: TYPE_FP32 dims: [4]}]
dynamic_batching { default_queue_policy { max_queue_size: 128 } }
instance_group [{count: 2}]
version_policy { latest { num_versions: 2 } }
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
"""
_PATIENCE_SECONDS = 120.0


@dataclass
class Launched:
    process: subprocess.Popen[bytes]
    run_folder: Path
    repository: Path
    output: Path

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.run_folder / "state.json").read_text())
        return state

    @property
    def server_pid(self) -> int:
        return int(self.state["server_pid"])

    def stubs(self, model: str) -> list[Stub]:
        alive = ProcessTable().look(self.server_pid).alive
        return sorted((s for s in alive if s.model == model), key=lambda stub: stub.pid)

    def supervisor(self, path: str) -> tuple[int, str]:
        url = f"http://{self.state['supervisor_url']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @property
    def ready(self) -> bool:
        return self.supervisor("/readyz")[0] == 200

    def restarts(self, model: str) -> float:
        """Of every cause, by the supervisor's metrics."""
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self.supervisor("/metrics")[1].splitlines()
            if line.startswith("presage_supervisor_restarts_total{") and f'model="{model}"' in line
        )

    def log(self) -> str:
        return self.output.read_text(errors="replace") if self.output.is_file() else ""

    def group(self) -> list[int]:
        """Living processes of the launcher's family: guard, tritonserver, stubs."""
        marker = str(self.run_folder).encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if marker in (path / "cmdline").read_bytes() and process_start(int(path.name)):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def wait_until(fact: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until ``fact`` holds; a fact that cannot be read yet does not hold."""
    started = time.monotonic()
    while True:
        try:
            if fact():
                return time.monotonic() - started
        except (OSError, ValueError, KeyError):
            pass
        taken = time.monotonic() - started
        assert taken < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)


@contextmanager
def launched(
    repository: Path, run_folder: Path, root: Path, *prefix: str, wait: bool = True
) -> Iterator[Launched]:
    """prefix: what the command is started with (unshare …)."""
    run_folder.mkdir(parents=True, exist_ok=True)
    output = run_folder / "output.txt"
    command = [sys.executable, "-m", "embedded_triton", f"--run-folder={run_folder}"]
    ports = ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
    words = [f"--venv={root / '.venv-triton'}", "up", f"--repository={repository}", *ports]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*prefix, *command, *words],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    server = Launched(process, run_folder, repository, output)
    try:
        if wait:
            wait_up(server)
        yield server
    finally:
        server.stop()


def wait_up(server: Launched) -> None:
    def up() -> bool:
        assert server.process.poll() is None, server.log()
        return "tritonserver is up" in server.log() and server.ready

    wait_until(up, _PATIENCE_SECONDS, "tritonserver is up")


def memory_bytes(server: Launched) -> int:
    """Private pages of tritonserver and its stubs."""
    pids = [server.server_pid]
    pids += [stub.pid for stub in ProcessTable().look(server.server_pid).alive]
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean", "Private_Dirty")):
                total += int(line.split()[1]) * 1024
    return total
