"""``EmbeddedServer``: start tritonserver, load the models in order, stop it without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.errors import ServerError, ServerSetupError
from embedded_triton.canary import ask_canary
from embedded_triton.environment import (
    SERVER_VENV,
    ServerEnvironment,
    assemble_backends,
    check_shared_memory,
    inspect_environment,
)
from embedded_triton.http_control import HttpControl
from embedded_triton.repository import RepositoryModel, read_repository
from embedded_triton.stubs import SHARED_MEMORY, ProcessTable

HOST = "127.0.0.1"
_EVERY_INTERFACE = ("0.0.0.0", "")
_GUARD = Path(__file__).with_name("guard.py")
_STOP_SECONDS = 30.0
_DRAIN_SECONDS = 10.0
_LOG_TAIL_LINES = 400


@dataclass(frozen=True)
class ServerSettings:
    """Ports of 0 are picked free ones. ``run_folder`` gets the backends and the log.

    host: the address to listen on; anything but the loopback is open to whoever reaches it
    backends: assembled before (``assemble_backends``), for a file system that cannot be written
    log_to_stderr: tritonserver's log goes where ours goes, as a container's should
    grpc_connection_age_seconds: callers connect anew after so long, and so find servers that came
        later behind the same name; requests under way are answered first. None: never.
    """

    repository: Path
    http_port: int = 9000
    grpc_port: int = 9001
    metrics_port: int = 9002
    models: tuple[str, ...] = ()
    venv: Path = SERVER_VENV
    run_folder: Path = Path("build/embedded_triton")
    startup_timeout_seconds: float = 60.0
    extra_flags: tuple[str, ...] = ()
    host: str = HOST
    backends: Path | None = None
    log_to_stderr: bool = False
    grpc_connection_age_seconds: float | None = None


class EmbeddedServer:
    """A tritonserver of our own. ``start`` returns when every model answered its canary.

    Example::

        with EmbeddedServer(ServerSettings(Path("model_repository"), 0, 0, 0)) as server:
            print(server.http_url, server.models)
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.models: list[RepositoryModel] = []
        self.http_url = self.grpc_url = self.metrics_url = ""
        self.server_pid: int | None = None
        self._guard: subprocess.Popen[str] | None = None
        self._is_loaded = False
        self._region_prefix = ""
        self._ports = (0, 0, 0)
        self._backends = Path()
        self._environment: ServerEnvironment | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def log_file(self) -> Path:
        return self.settings.run_folder / "tritonserver.log"

    @property
    def log_place(self) -> str:
        """Where a person finds tritonserver's log."""
        return "stderr, above" if self.settings.log_to_stderr else str(self.log_file)

    @property
    def control(self) -> HttpControl:
        return HttpControl(self.http_url)

    def start(self) -> None:
        """Start and load. On failure nothing is left running.

        Raises:
            ServerSetupError: the environment, a port, the repository or a model; says the fix.
        """
        settings = self.settings
        environment = inspect_environment(settings.venv)
        check_shared_memory()
        self.models = read_repository(settings.repository, settings.models)
        if environment.torch_version is None:
            _refuse_torchscript(self.models)
        if environment.openvino_version is None:
            _refuse_openvino(self.models)
        self._ports = _ports(settings)
        host = HOST if settings.host in _EVERY_INTERFACE else settings.host
        self.http_url, self.grpc_url, self.metrics_url = (f"{host}:{port}" for port in self._ports)
        settings.run_folder.mkdir(parents=True, exist_ok=True)
        self.log_file.unlink(missing_ok=True)
        self._backends = (
            assemble_backends(environment, settings.run_folder.absolute() / "backends")
            if settings.backends is None
            else settings.backends.absolute()
        )
        self._environment = environment
        try:
            self._launch()
            self._wait_live()
            failures = self._load_all()
            if failures:
                raise next(iter(failures.values()))
            self._is_loaded = True
        except BaseException:
            self.stop()
            raise

    def restart(self, without: frozenset[str] = frozenset()) -> dict[str, str]:
        """Start again on the same ports, after ``kill``; a model that does not load costs no other.

        without: models that are not to be loaded. Returns each failed model's reason.

        Raises:
            ServerSetupError: the server itself does not come up; nothing is left running.
        """
        self.stop()
        try:
            self._launch()
            self._wait_live()
            failures = self._load_all(without)
            self._is_loaded = True
        except BaseException:
            self.stop()
            raise
        return {name: error.got or str(error) for name, error in failures.items()}

    def kill(self) -> None:
        """End the server at once, and every process of its group; accepted requests are lost."""
        self._is_loaded = False
        if self.server_pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.server_pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """SIGTERM, let accepted requests finish, end every process that is left. Idempotent."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        if guard.poll() is None and self._is_loaded:
            self._drain_fronts()
        self._is_loaded = False
        if guard.stdin is not None:
            guard.stdin.close()
        try:
            guard.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()
        if self.server_pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.server_pid, signal.SIGKILL)
        # The guard's work, unless it was killed itself.
        for region in SHARED_MEMORY.glob(f"{self._region_prefix}*"):
            region.unlink(missing_ok=True)
        if guard.stdout is not None:
            guard.stdout.close()

    def _drain_fronts(self) -> None:
        """Once it ends, Triton refuses fronts the classifier they wait for, and so loses requests
        that it accepted: they are unloaded first, which lets them finish.
        """
        fronts = {model.name for model in self.models if model.is_front}
        deadline = time.monotonic() + _DRAIN_SECONDS
        control, processes = self.control, ProcessTable()
        try:
            for name in fronts:
                control.unload(name, timeout=_DRAIN_SECONDS)
        except ServerError:
            return
        while time.monotonic() < deadline:
            alive = processes.look(self.server_pid or 0).alive
            if not any(stub.model in fronts for stub in alive):
                return
            time.sleep(0.02)

    def poll(self) -> int | None:
        """Exit code once tritonserver has ended, else None."""
        return None if self._guard is None else self._guard.poll()

    def load(self, name: str) -> None:
        """Load, or reload with the versions now in the repository. Raises ServerAnswerError."""
        self.control.load(name)

    def unload(self, name: str) -> None:
        self.control.unload(name)

    def log_tail(self, lines: int = 20) -> str:
        if not self.log_file.is_file():
            return ""
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _command(self, region_prefix: str) -> list[str]:
        assert self._environment is not None
        binaries = self._environment.binaries.absolute()
        age = self.settings.grpc_connection_age_seconds
        return [
            str(binaries / "bin" / "tritonserver"),
            f"--model-repository={self.settings.repository.absolute()}",
            f"--backend-directory={self._backends}",
            f"--cache-directory={binaries / 'caches'}",
            "--model-control-mode=explicit",
            "--exit-timeout-secs=15",
            "--metrics-config=summary_latencies=true",
            *(
                f"--{kind}-{word}={value}"
                for kind, port in zip(("http", "grpc", "metrics"), self._ports, strict=True)
                for word, value in (("address", self.settings.host), ("port", port))
            ),
            # Named after their server, what a kill leaves in shared memory can be found.
            *(
                f"--backend-config={backend.name},shm-region-prefix-name={region_prefix}"
                for backend in sorted(self._backends.iterdir())
            ),
            *([] if age is None else [f"--grpc-max-connection-age={age * 1000:.0f}"]),
            *self.settings.extra_flags,
        ]

    def _launch(self) -> None:
        assert self._environment is not None
        self._region_prefix = f"presage_{os.getpid()}_{time.monotonic_ns()}_"
        command = self._command(self._region_prefix)
        with contextlib.ExitStack() as stack:
            log = (
                None
                if self.settings.log_to_stderr
                else stack.enter_context(self.log_file.open("a", encoding="utf-8"))
            )
            self._guard = subprocess.Popen(
                [sys.executable, str(_GUARD), str(os.getpid()), self._region_prefix, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment.process_environment(),
                # Its own session: Ctrl-C in our terminal must reach us, not the guard.
                start_new_session=True,
                cwd=self.settings.run_folder,
            )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        self.server_pid = int(json.loads(line)["server_pid"]) if line else None

    def _wait_live(self) -> None:
        deadline = time.monotonic() + self.settings.startup_timeout_seconds
        control = self.control
        while not control.is_live():
            if self.poll() is not None:
                raise ServerSetupError(
                    "tritonserver ended while starting",
                    where=self.log_place,
                    got=_last_error(self.log_tail(_LOG_TAIL_LINES)),
                )
            if time.monotonic() > deadline:
                raise ServerSetupError(
                    "tritonserver did not come up",
                    where=self.log_place,
                    expected=f"live within {self.settings.startup_timeout_seconds:.0f} s",
                    got=_last_error(self.log_tail(_LOG_TAIL_LINES)),
                )
            time.sleep(0.05)

    def _load_all(self, without: frozenset[str] = frozenset()) -> dict[str, ServerSetupError]:
        """Models of native backends first, side by side; then the fronts that call them."""
        failures: dict[str, ServerSetupError] = {}
        for fronts in (False, True):
            group = [
                model.name
                for model in self.models
                if model.is_front == fronts and model.name not in without
            ]
            with ThreadPoolExecutor(max_workers=4) as pool:
                for name, failure in zip(group, pool.map(self._load_one, group), strict=True):
                    if failure is not None:
                        failures[name] = failure
        return failures

    def _load_one(self, name: str) -> ServerSetupError | None:
        where = str(self.settings.repository / name)
        try:
            self.control.load(name, timeout=self.settings.startup_timeout_seconds)
        except ServerError as error:
            return ServerSetupError(
                f"{name}: the model does not load",
                where=where,
                got=_one_line(error.got or str(error)),
                next_command=f"mend or republish it; the whole log: {self.log_place}",
            )
        reason = ask_canary(self.control, name)
        if reason is not None:
            return ServerSetupError(
                f"{name}: loaded, but does not answer",
                where=where,
                got=_one_line(reason),
                next_command=f"the whole log: {self.log_place}",
            )
        return None


def _refuse_torchscript(models: Sequence[RepositoryModel]) -> None:
    for model in models:
        if model.backend == "pytorch":
            raise ServerSetupError(
                f"{model.name}: TorchScript needs torch in the server's environment",
                next_command="install it: python -m embedded_triton install --pytorch",
            )


def _refuse_openvino(models: Sequence[RepositoryModel]) -> None:
    for model in models:
        if model.backend == "openvino":
            raise ServerSetupError(
                f"{model.name}: backend openvino needs openvino in the server's environment",
                next_command="install it: python -m embedded_triton install --openvino",
            )


def _ports(settings: ServerSettings) -> tuple[int, int, int]:
    """The three ports, each free just now. Raises ServerSetupError for a taken one."""
    asked = (settings.http_port, settings.grpc_port, settings.metrics_port)
    held: list[socket.socket] = []
    try:
        for port in asked:
            probe = socket.socket()
            held.append(probe)
            # As tritonserver does: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
                probe.listen()
            except OSError as error:
                raise ServerSetupError(
                    f"port {port} is taken",
                    where=f"{settings.host}:{port}",
                    got=error.strerror or str(error),
                    next_command="stop what listens there (python -m embedded_triton down, or"
                    f" ss -ltnp 'sport = :{port}'), or choose other ports: --http-port 0"
                    " --grpc-port 0 --metrics-port 0",
                ) from error
        http, grpc, metrics = (probe.getsockname()[1] for probe in held)
        return http, grpc, metrics
    finally:
        for probe in held:
            probe.close()


def _last_error(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E") or "error" in line.lower()]
    return _one_line((errors or lines or ["nothing in its log"])[-1])


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600]
