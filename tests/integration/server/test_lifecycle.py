"""Starting and stopping: detached, interrupted, killed; and every clear message with its fix."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.errors import ServerSetupError
from tests.integration.server.conftest import embedded_triton, make_repository

PORTS = ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
# The promise is 5 s; a loaded CI machine gets more, a hang does not.
PATIENCE_SECONDS = 30


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


def processes_of(run_folder: Path) -> list[str]:
    """Command lines that name the run folder: tritonserver, its stubs, guard and launcher."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(run_folder) in line:
            found.append(line)
    return found


def wait_gone(run_folder: Path) -> list[str]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := processes_of(run_folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    """A failed test must not leave its launcher behind: it would hold its ports for ever."""
    yield
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            if b"embedded_triton" in words and str(tmp_path).encode() in b" ".join(words):
                os.kill(int(path.parent.name), signal.SIGTERM)
        except OSError:
            continue


def start(root: Path, run_folder: Path, venv: Path, repository: Path) -> subprocess.Popen[str]:
    """``up`` in the foreground, once it serves."""
    command = [sys.executable, "-m", "embedded_triton", f"--run-folder={run_folder}"]
    process = subprocess.Popen(
        [*command, f"--venv={venv}", "up", f"--repository={repository}", *PORTS],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert "tritonserver is up" in process.stdout.readline()
    return process


def test_detached_up_status_down(
    tmp_path: Path, repository: Path, venv: Path, repository_root: Path
) -> None:
    run = tmp_path / "run"
    up = embedded_triton(
        repository_root, run, venv, "up", "--detach", f"--repository={repository}", *PORTS
    )
    assert up.returncode == 0, up.stderr
    second = embedded_triton(
        repository_root, run, venv, "up", "--detach", f"--repository={repository}", *PORTS
    )
    assert second.returncode == ServerSetupError.exit_code
    assert "down" in second.stderr
    status = embedded_triton(repository_root, run, venv, "status")
    assert status.returncode == 0
    assert status.stdout.count("answered") == 3
    down = embedded_triton(repository_root, run, venv, "down")
    assert down.returncode == 0
    assert wait_gone(run) == []
    assert embedded_triton(repository_root, run, venv, "status").returncode != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_launcher(
    number: signal.Signals, tmp_path: Path, repository: Path, venv: Path, repository_root: Path
) -> None:
    run = tmp_path / "run"
    process = start(repository_root, run, venv, repository)
    assert any("tritonserver" in line for line in processes_of(run))
    process.send_signal(number)
    code = process.wait(PATIENCE_SECONDS)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert wait_gone(run) == []


def test_a_killed_guard_takes_the_server_with_it(
    tmp_path: Path, repository: Path, venv: Path, repository_root: Path
) -> None:
    run = tmp_path / "run"
    process = start(repository_root, run, venv, repository)
    server = json.loads((run / "state.json").read_text())["server_pid"]
    guard = int(Path(f"/proc/{server}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(guard, signal.SIGKILL)
    assert process.wait(PATIENCE_SECONDS) != 0
    assert wait_gone(run) == []


def refused(root: Path, run: Path, venv: Path, *words: str) -> tuple[int, str]:
    result = embedded_triton(root, run, venv, "up", *words)
    assert wait_gone(run) == []
    return result.returncode, result.stderr


def test_a_taken_port_is_named(
    tmp_path: Path, repository: Path, venv: Path, repository_root: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = refused(
            repository_root,
            tmp_path / "run",
            venv,
            f"--repository={repository}",
            f"--http-port={port}",
            "--grpc-port=0",
            "--metrics-port=0",
        )
    assert code == ServerSetupError.exit_code
    assert f"port {port} is taken" in message


def test_broken_repositories_are_named(
    tmp_path: Path, repository: Path, venv: Path, repository_root: Path
) -> None:
    run = tmp_path / "run"

    def message(folder: Path) -> str:
        code, text = refused(repository_root, run, venv, f"--repository={folder}", *PORTS)
        assert code == ServerSetupError.exit_code, text
        return text

    assert "no such folder" in message(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "empty" in message(tmp_path / "empty")
    (repository / "double/config.pbtxt").rename(repository / "double/config.bak")
    assert "double: broken model folder" in message(repository)
    (repository / "double/config.bak").rename(repository / "double/config.pbtxt")
    (repository / "double/2/model.onnx").write_bytes(b"not a model")
    (repository / "double/1/model.onnx").write_bytes(b"not a model")
    text = message(repository)
    assert "double: the model does not load" in text
    assert "model.onnx" in text


def fake_venv(folder: Path, **facts: object) -> Path:
    """An environment whose interpreter only reports the given facts."""
    report = {
        "python": "3.11",
        "site_packages": str(folder),
        "library": "libpython3.11.so.1.0",
        "library_folder": "",
        "numpy": "1.26.4",
        "pytriton": "0.7.0",
        "torch": None,
        "openvino": None,
    }
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho '{json.dumps(report | facts)}'\n")
    python.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"numpy": "2.1.0"}, "numpy < 2"),
        ({"numpy": None}, "numpy < 2"),
        ({"pytriton": None}, "embedded_triton install"),
        ({"library_folder": None}, "apt-get install libpython3.11"),
        ({"python": "3.7"}, "CPython 3.11"),
    ],
)
def test_unfit_environments_are_named(
    facts: dict[str, object], words: str, tmp_path: Path, repository: Path, repository_root: Path
) -> None:
    venv = fake_venv(tmp_path / "venv", **facts)
    code, message = refused(
        repository_root, tmp_path / "run", venv, f"--repository={repository}", *PORTS
    )
    assert code == ServerSetupError.exit_code
    assert words in message


def test_a_missing_environment_says_install(
    tmp_path: Path, repository: Path, repository_root: Path
) -> None:
    code, message = refused(
        repository_root, tmp_path / "run", tmp_path / "none", f"--repository={repository}", *PORTS
    )
    assert code == ServerSetupError.exit_code
    assert "python -m embedded_triton install" in message


def test_an_image_starts_from_backends_assembled_before(
    tmp_path: Path, repository: Path, venv: Path, repository_root: Path
) -> None:
    """Nothing but the state is written, and the log goes where a container's goes."""
    run, backends = tmp_path / "run", tmp_path / "backends"
    made = embedded_triton(repository_root, run, venv, "backends", f"--output={backends}")
    assert "onnxruntime" in made.stdout, made.stderr
    command = [sys.executable, "-m", "embedded_triton", f"--run-folder={run}", f"--venv={venv}"]
    more = ["--log-to-stderr", "--host=127.0.0.2"]
    process = subprocess.Popen(
        [*command, "up", f"--repository={repository}", f"--backends={backends}", *PORTS, *more],
        cwd=repository_root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "http 127.0.0.2:" in line
    assert embedded_triton(repository_root, run, venv, "status").returncode == 0
    assert {path.name for path in run.iterdir()} == {"state.json"}
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert "Started HTTPService at 127.0.0.2:" in log
