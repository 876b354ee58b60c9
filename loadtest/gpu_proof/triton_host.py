"""A tritonserver for the measured networks: the one on PATH, the container, or the embedded one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import PresageError, ServerError
from embedded_triton.http_control import HttpControl
from export.candidate import MODEL_FILES, Format
from export.config_pbtxt import graph_config, without_instance_kind
from export.container import DEFAULT_TAG
from export.target import get_target
from loadtest.gpu_proof.machine import Machine
from loadtest.gpu_proof.sides import NotMeasuredError, onnx_file, torchscript_file
from loadtest.gpu_proof.subjects import Subject
from loadtest.served import Arrays
from loadtest.wire_tensors import request_tensors

_HOST = "127.0.0.1"
_START_SECONDS = 180.0
_STOP_SECONDS = 30.0
_FORMATS: tuple[Format, ...] = ("onnx", "torchscript")


@dataclass(frozen=True)
class Host:
    """A running server. ``kind``: how it runs. ``refused``: {Triton model: why it did not load}."""

    kind: str
    grpc_address: str
    refused: dict[str, str]


def stage_models(subjects: list[Subject], machine: Machine, folder: Path) -> dict[str, str]:
    """Write ``folder/repository``; {Triton model: why it could not be written}."""
    repository, failed = folder / "repository", {}
    shutil.rmtree(repository, ignore_errors=True)
    for subject in subjects:
        for served in _FORMATS:
            config = graph_config(subject.graph, (), served=served, target=get_target("gpu"))
            version = repository / config.triton_name / "1"
            version.mkdir(parents=True)
            for name, text in config.files().items():
                (version.parent / name).write_text(text, encoding="utf-8")
            if not machine.has_gpu:
                without_instance_kind(version.parent)
            try:
                source = (
                    onnx_file(subject, folder)
                    if served == "onnx"
                    else torchscript_file(subject, machine.device, folder)
                )
                shutil.copyfile(source, version / MODEL_FILES[served])
            except NotMeasuredError as error:
                failed[config.triton_name] = str(error)
                shutil.rmtree(version.parent)
    return failed


@contextlib.contextmanager
def triton_host(machine: Machine, folder: Path, venv: Path) -> Iterator[Host]:
    """Start a server on ``folder/repository`` and load all it can. Raises NotMeasuredError."""
    models = sorted(path.name for path in (folder / "repository").iterdir())
    if machine.has_gpu and machine.missing("tritonserver") is None:
        start = _process(["tritonserver", *_flags(folder / "repository")], folder)
        kind = "tritonserver on PATH"
    elif machine.has_gpu and machine.missing("docker") is None:
        start = _process(container_command(folder / "repository"), folder)
        kind = f"NGC container {DEFAULT_TAG}"
    else:
        start, kind = _embedded(folder, venv), "embedded server"
    with start as (http_address, grpc_address):
        control, refused = HttpControl(http_address), {}
        for name in models:
            try:
                control.load(name, timeout=_START_SECONDS)
            except ServerError as error:
                refused[name] = " ".join((error.got or str(error)).split())[:200]
        yield Host(kind, grpc_address, refused)


def container_command(repository: Path) -> list[str]:
    """docker run of the pinned image, with the host's network so that ports are as asked."""
    image = f"nvcr.io/nvidia/tritonserver:{DEFAULT_TAG}-py3"
    return [
        *("docker", "run", "--rm", "--gpus", "1", "--network", "host", "--shm-size", "1g"),
        *("--volume", f"{repository.absolute()}:/models:ro", image),
        *("tritonserver", *_flags(Path("/models"))),
    ]


def _flags(repository: Path) -> list[str]:
    """``{…}`` are filled with free ports by ``_process``."""
    return [
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        *(f"--{kind}-address={_HOST}" for kind in ("http", "grpc", "metrics")),
        *(f"--{kind}-port={{{kind}}}" for kind in ("http", "grpc", "metrics")),
    ]


@contextlib.contextmanager
def _process(command: list[str], folder: Path) -> Iterator[tuple[str, str]]:
    ports = dict(zip(("http", "grpc", "metrics"), _free_ports(3), strict=True))
    log = folder / "tritonserver.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [word.format(**ports) for word in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        control = HttpControl(f"{_HOST}:{ports['http']}")
        deadline = time.monotonic() + _START_SECONDS
        while not control.is_live():
            if process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text("utf-8", errors="replace").strip().splitlines()
                raise NotMeasuredError(f"tritonserver did not start: {(lines or [''])[-1][:200]}")
            time.sleep(0.2)
        yield f"{_HOST}:{ports['http']}", f"{_HOST}:{ports['grpc']}"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _embedded(folder: Path, venv: Path) -> Iterator[tuple[str, str]]:
    from embedded_triton.server import EmbeddedServer, ServerSettings

    # It starts with the first model that loads: one refusal must not cost the others.
    server, reasons = None, []
    for name in sorted(path.name for path in (folder / "repository").iterdir()):
        settings = ServerSettings(
            folder / "repository",
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            models=(name,),
            venv=venv,
            run_folder=folder / "server",
            startup_timeout_seconds=_START_SECONDS,
        )
        server = EmbeddedServer(settings)
        try:
            server.start()
            break
        except PresageError as error:
            server = None
            reasons.append(error.got or str(error))
    if server is None:
        raise NotMeasuredError(f"embedded server: {(reasons or ['no model'])[0][:200]}")
    try:
        yield server.http_url, server.grpc_url
    finally:
        server.stop()


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server((_HOST, 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


class TritonSide:
    """One gRPC channel to one model; for one thread. ``__call__``: host arrays to host arrays."""

    def __init__(self, host: Host, subject: Subject, served: Format) -> None:
        import tritonclient.grpc as triton

        self._triton: Any = triton
        config = graph_config(subject.graph, (), served=served, target=get_target("gpu"))
        self.model = config.triton_name
        if self.model in host.refused:
            raise NotMeasuredError(f"{host.kind}: {host.refused[self.model]}")
        self._client: Any = triton.InferenceServerClient(host.grpc_address)
        self._graph = subject.graph
        # TorchScript's outputs are known by position.
        self._suffixes = served == "torchscript"

    def __call__(self, inputs: Arrays) -> Arrays:
        try:
            answer = self._client.infer(self.model, request_tensors(self._triton, inputs))
        except self._triton.InferenceServerException as error:
            raise NotMeasuredError(f"{self.model}: {error}") from error
        return {
            tensor.name: answer.as_numpy(
                f"{tensor.name}__{index}" if self._suffixes else tensor.name
            )
            for index, tensor in enumerate(self._graph.outputs)
        }

    def close(self) -> None:
        self._client.close()
