"""The start of NVIDIA's container (embedded_triton/container.py) with the real tritonserver.

In the image tritonserver finds its native backends by itself; here a wrapper of that name passes
the folder of stand-ins along. What is proven is the start: which models, which flags, which health.
"""

from __future__ import annotations

import ast
import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contract.errors import ServerError, ServerSetupError
from embedded_triton.container import check_health, server_command
from embedded_triton.environment import assemble_backends, inspect_environment
from embedded_triton.http_control import HttpControl
from tests.fixtures.endpoints import free_port
from tests.integration.server.conftest import make_repository

PATIENCE_SECONDS = 90
PUBLISHED = {"double", "auto", "lookup"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models; one that is configured and not published; one that is on trial."""
    root = make_repository(tmp_path_factory.mktemp("container") / "models")
    (root / "coming").mkdir()
    (root / "coming/config.pbtxt").write_text('backend: "onnxruntime"\nmax_batch_size: 8\n')
    shutil.copytree(root / "double", root / "double__candidate")
    (root / ".history").mkdir()
    return root


@pytest.fixture(scope="module")
def wrapper(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which ``tritonserver`` is the real one."""
    environment = inspect_environment(venv)
    folder = tmp_path_factory.mktemp("wrapper")
    backends = assemble_backends(environment, folder / "backends")
    program = folder / "bin/tritonserver"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec "{environment.binaries.absolute()}/bin/tritonserver"'
        f' "--backend-directory={backends}" "$@"\n'
    )
    program.chmod(0o755)
    variables = environment.process_environment()
    return variables | {"PATH": f"{program.parent}:{variables['PATH']}"}


def files_in_the_image(root: Path) -> list[str]:
    """What the Dockerfile copies of Presage."""
    dockerfile = (root / "deploy/docker/triton.Dockerfile").read_text("utf-8")
    copied = re.findall(r"\b(?:contract|embedded_triton)/\w+\.py", dockerfile)
    assert "embedded_triton/container.py" in copied
    return copied


@pytest.fixture(scope="module")
def image_root(repository_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/app of the image: only what its Dockerfile copies."""
    root = tmp_path_factory.mktemp("app")
    for name in files_in_the_image(repository_root):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(repository_root / name, root / name)
    return root


def start(variables: dict[str, str], command: list[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=variables,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def running(
    repository: Path, wrapper: dict[str, str], image_root: Path
) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """(interpreter, address, process) of a server that was started as the image does."""
    port = free_port()
    interpreter = container_python()
    variables = wrapper | {
        "PRESAGE_MODEL_REPOSITORY": str(repository),
        "PYTHONPATH": str(image_root),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [interpreter, "-m", "embedded_triton.container", "serve"]
    flags = ["--exit-timeout-secs=15", "--metrics-config=summary_latencies=true"]
    flags += [f"--http-port={port}", "--http-address=127.0.0.1", "--allow-grpc=false"]
    process = start(variables, [*command, *flags, "--allow-metrics=false"], image_root)
    try:
        yield interpreter, f"127.0.0.1:{port}", process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        assert process.stdout is not None
        process.stdout.close()


def container_python() -> str:
    """CPython 3.10, as in the container, where this machine has one; else the tests' own."""
    own = Path(sys.base_prefix).parent
    candidates = [shutil.which("python3.10"), *map(str, own.glob("3.10.*/bin/python3.10"))]
    for candidate in candidates:
        if candidate and not subprocess.run([candidate, "-c", ""], capture_output=True).returncode:
            return candidate
    return sys.executable


def wait_healthy(address: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ServerError):
            return check_health(HttpControl(address))
        time.sleep(0.2)
    raise AssertionError(f"tritonserver: exit code {process.poll()}, not healthy")


def test_every_published_model_is_loaded_and_no_other(
    running: tuple[str, str, subprocess.Popen[str]],
) -> None:
    _, address, process = running
    wait_healthy(address, process)
    states = {row["name"]: row.get("state") for row in HttpControl(address).index()}
    assert {name for name, state in states.items() if state == "READY"} == PUBLISHED


def test_the_images_health_check_notices_a_model_that_does_not_answer(
    running: tuple[str, str, subprocess.Popen[str]], image_root: Path
) -> None:
    interpreter, address, process = running
    wait_healthy(address, process)
    variables = {"PRESAGE_TRITON_ADDRESS": address, "PYTHONPATH": str(image_root)}
    health = [interpreter, "-m", "embedded_triton.container", "health"]

    def code() -> int:
        return subprocess.run(
            health, env=variables, cwd=image_root, capture_output=True, check=False
        ).returncode

    assert code() == 0
    control = HttpControl(address)
    for name in PUBLISHED:
        control.unload(name)
    assert code() != 0, "no model is ready"
    control.load("double")
    assert code() == 0
    stubs = psutil.Process(process.pid).children(recursive=True)
    assert stubs
    for stub in stubs:
        stub.kill()
    assert control.call("GET", "/v2/models/double/ready") is None, "Triton itself does not notice"
    assert code() != 0, "double has lost its process"
    control.unload("double")
    for name in PUBLISHED:
        control.load(name)


@pytest.mark.slow
def test_tritons_own_star_does_not_start_for_a_model_that_is_not_published(
    repository: Path, wrapper: dict[str, str], tmp_path: Path
) -> None:
    """Why the image reads the repository itself."""
    command = ["tritonserver", f"--model-repository={repository}", "--load-model=*"]
    command += ["--model-control-mode=explicit", f"--http-port={free_port()}"]
    command += ["--http-address=127.0.0.1", "--allow-grpc=false", "--allow-metrics=false"]
    process = start(wrapper, command, tmp_path)
    try:
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "coming" in said


def test_what_is_wrong_with_a_repository_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServerSetupError, match="no model repository"):
        server_command(tmp_path / "nothing", [])


def test_its_files_run_on_the_containers_python(repository_root: Path) -> None:
    """CPython 3.10: no newer syntax, no module or name that came later."""
    for name in files_in_the_image(repository_root):
        text = (repository_root / name).read_text("utf-8")
        ast.parse(text, feature_version=(3, 10))
        for later in ("tomllib", "Self", "StrEnum", "datetime.UTC", "assert_never", "TaskGroup"):
            assert f"import {later}" not in text, name
