"""The command line of the embedded server."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from contract.errors import PresageError, ServerError, ServerSetupError
from contract.process_state import process_start
from embedded_triton.canary import ask_canary
from embedded_triton.environment import SERVER_VENV, assemble_backends, inspect_environment
from embedded_triton.http_control import HttpControl
from embedded_triton.install import install
from embedded_triton.server import HOST, EmbeddedServer, ServerSettings
from embedded_triton.state import (
    ServerState,
    read_state,
    read_verdict,
    remove_state,
    remove_verdict,
    write_state,
    write_verdict,
)

_DOWN_SECONDS = 45.0
_SUPERVISOR_PORT = 9003
_CANARY_SECONDS = 10.0


class _StopRequestedError(BaseException):
    """SIGTERM or SIGINT arrived. Not an Exception: nothing on the way may swallow it."""


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code (see contract.errors)."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        return code
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m embedded_triton", description=__doc__)
    parser.add_argument("--run-folder", type=Path, default=Path("build/embedded_triton"))
    parser.add_argument("--venv", type=Path, default=SERVER_VENV, help="the server's environment")
    commands = parser.add_subparsers(dest="command", required=True)
    installing = commands.add_parser("install", help="make the server's environment")
    installing.add_argument("--pytorch", action="store_true", help="also torch, for TorchScript")
    installing.add_argument("--openvino", action="store_true", help="also openvino, for its models")
    installing.set_defaults(run=_install)
    backends = commands.add_parser("backends", help="assemble the folder of backends, for an image")
    backends.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    backends.set_defaults(run=_backends)
    up = commands.add_parser("up", help="start tritonserver and load the repository")
    up.add_argument("--repository", type=Path, default=Path("model_repository"))
    up.add_argument("--host", default=HOST, help="address to listen on (%(default)s)")
    up.add_argument("--http-port", type=int, default=9000, help="0 picks a free one")
    up.add_argument("--grpc-port", type=int, default=9001)
    up.add_argument("--metrics-port", type=int, default=9002)
    up.add_argument(
        "--supervisor-port",
        type=int,
        default=None,
        help="/livez, /readyz, /status and /metrics of the supervisor; default 9003, or a free one"
        " with --http-port 0",
    )
    up.add_argument(
        "--no-supervisor", action="store_true", help="end with the server, restart nothing"
    )
    up.add_argument("--model", action="append", default=[], help="only these models")
    up.add_argument(
        "--backends", type=Path, metavar="FOLDER", help="assembled before (default: at each start)"
    )
    up.add_argument(
        "--log-to-stderr", action="store_true", help="tritonserver's log, instead of a file"
    )
    up.add_argument(
        "--grpc-connection-age-seconds",
        type=float,
        metavar="SECONDS",
        help="callers connect anew after so long: for several servers behind one name",
    )
    up.add_argument("--detach", action="store_true", help="return once every model answers")
    up.set_defaults(run=_up)
    status = commands.add_parser("status", help="ask every model; exit 0 when all answer")
    status.set_defaults(run=_status)
    down = commands.add_parser("down", help="stop exactly what `up` started")
    down.set_defaults(run=_down)
    return parser


def _install(arguments: argparse.Namespace) -> int:
    fresh = install(arguments.venv, pytorch=arguments.pytorch, openvino=arguments.openvino)
    print(f"{arguments.venv}: {'installed' if fresh else 'already there'}")
    return 0


def _backends(arguments: argparse.Namespace) -> int:
    folder = assemble_backends(inspect_environment(arguments.venv), arguments.output)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return 0


def _up(arguments: argparse.Namespace) -> int:
    running = read_state(arguments.run_folder)
    if running is not None:
        raise ServerSetupError(
            "a server is up already",
            where=f"pid {running.pid}, http {running.http_url}",
            next_command="stop it first: python -m embedded_triton down",
        )
    return _detach(arguments) if arguments.detach else _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    """Run in the foreground until a signal comes or tritonserver is given up."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _StopRequestedError

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    server = EmbeddedServer(
        ServerSettings(
            repository=arguments.repository,
            host=arguments.host,
            http_port=arguments.http_port,
            grpc_port=arguments.grpc_port,
            metrics_port=arguments.metrics_port,
            models=tuple(arguments.model),
            venv=arguments.venv,
            run_folder=arguments.run_folder,
            backends=arguments.backends,
            log_to_stderr=arguments.log_to_stderr,
            grpc_connection_age_seconds=arguments.grpc_connection_age_seconds,
        )
    )
    remove_verdict(arguments.run_folder)
    try:
        server.start()
        if arguments.no_supervisor:
            return _watch(server, arguments)
        return _supervise(server, arguments)
    except _StopRequestedError:
        return 0
    finally:
        # A second Ctrl-C must not cut the clean-up short.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        server.stop()
        remove_state(arguments.run_folder)


def _watch(server: EmbeddedServer, arguments: argparse.Namespace) -> int:
    state = _state_of(server, arguments)
    write_state(arguments.run_folder, state)
    _print_up(state)
    while (code := server.poll()) is None:
        time.sleep(0.2)
    print(f"error: tritonserver ended with {code}; log: {server.log_place}", file=sys.stderr)
    return ServerError.exit_code


def _supervise(server: EmbeddedServer, arguments: argparse.Namespace) -> int:
    # Late: `--help`, `status` and `down` need none of it.
    from embedded_triton.supervisor import CrashLoopError, Supervisor
    from embedded_triton.supervisor_http import SupervisorEndpoint

    port = arguments.supervisor_port
    if port is None:
        port = 0 if arguments.http_port == 0 else _SUPERVISOR_PORT
    endpoint_url = ""

    def record() -> None:
        """tritonserver's pid is another one after each restart. A full disk stops nothing."""
        with contextlib.suppress(OSError):
            write_state(arguments.run_folder, _state_of(server, arguments, endpoint_url))

    supervisor = Supervisor(server, say=_say, on_restart=record)
    endpoint = SupervisorEndpoint(supervisor, port)
    endpoint_url = endpoint.url
    try:
        write_state(arguments.run_folder, _state_of(server, arguments, endpoint_url))
        _print_up(_state_of(server, arguments, endpoint_url))
        supervisor.run()
    except CrashLoopError as error:
        with contextlib.suppress(OSError):
            write_verdict(arguments.run_folder, str(error))
        raise
    finally:
        endpoint.close()
        supervisor.close()
    return 0


def _say(line: str) -> None:
    """To stdout, whoever reads it: a closed pipe or a full disk must not end the supervisor."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    try:
        print(f"{stamp} supervisor: {line}", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _state_of(
    server: EmbeddedServer, arguments: argparse.Namespace, supervisor_url: str = ""
) -> ServerState:
    return ServerState(
        pid=os.getpid(),
        pid_started=process_start(os.getpid()),
        server_pid=server.server_pid or 0,
        repository=str(arguments.repository.absolute()),
        models=[model.name for model in server.models],
        http_url=server.http_url,
        grpc_url=server.grpc_url,
        metrics_url=server.metrics_url,
        log_file=str(server.log_file.absolute()),
        supervisor_url=supervisor_url,
    )


def _detach(arguments: argparse.Namespace) -> int:
    """Start the foreground command in a session of its own, and wait until it serves."""
    arguments.run_folder.mkdir(parents=True, exist_ok=True)
    log_file = arguments.run_folder / "launcher.log"
    command = [sys.executable, "-m", "embedded_triton", *_repeat(arguments)]
    with log_file.open("w", encoding="utf-8") as log:
        launcher = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    while launcher.poll() is None:
        state = read_state(arguments.run_folder)
        if state is not None and state.pid == launcher.pid:
            _print_up(state)
            return 0
        time.sleep(0.05)
    sys.stderr.write(log_file.read_text(encoding="utf-8"))
    return launcher.returncode or ServerError.exit_code


def _repeat(arguments: argparse.Namespace) -> list[str]:
    """The flags of this command again, without --detach."""
    port, age = arguments.supervisor_port, arguments.grpc_connection_age_seconds
    return [
        f"--run-folder={arguments.run_folder}",
        f"--venv={arguments.venv}",
        "up",
        f"--repository={arguments.repository}",
        f"--host={arguments.host}",
        f"--http-port={arguments.http_port}",
        f"--grpc-port={arguments.grpc_port}",
        f"--metrics-port={arguments.metrics_port}",
        *([] if port is None else [f"--supervisor-port={port}"]),
        *(["--no-supervisor"] if arguments.no_supervisor else []),
        *(f"--model={name}" for name in arguments.model),
        *([] if arguments.backends is None else [f"--backends={arguments.backends}"]),
        *(["--log-to-stderr"] if arguments.log_to_stderr else []),
        *([] if age is None else [f"--grpc-connection-age-seconds={age}"]),
    ]


def _print_up(state: ServerState) -> None:
    supervisor = f", supervisor {state.supervisor_url}" if state.supervisor_url else ""
    print(
        f"tritonserver is up: http {state.http_url}, grpc {state.grpc_url}, metrics"
        f" {state.metrics_url}{supervisor}; models: {', '.join(state.models)}",
        flush=True,
    )


def _status(arguments: argparse.Namespace) -> int:
    state = read_state(arguments.run_folder)
    if state is None:
        verdict = read_verdict(arguments.run_folder)
        print("down" if verdict is None else f"down: {verdict}")
        return ServerError.exit_code
    print(f"up: pid {state.pid}, tritonserver {state.server_pid}, {state.repository}")
    print(f"http {state.http_url}  grpc {state.grpc_url}  metrics {state.metrics_url}")
    supervised = _ask_supervisor(state)
    control = HttpControl(state.http_url)
    try:
        index = control.index()
    except ServerError as error:
        reasons = [] if supervised is None else supervised["reasons"]
        print(f"not ready: {'; '.join(reasons) or error}")
        return ServerError.exit_code
    known = {} if supervised is None else supervised["models"]
    failed = supervised is not None and not supervised["ready"]
    print(f"{'model':<32} {'versions':<12} {'supervisor':<12} canary")
    for name in sorted({*state.models, *known}):
        versions = [
            row.get("version", "")
            for row in index
            if row["name"] == name and row.get("state") == "READY"
        ]
        health = known.get(name, {"state": "-", "reason": ""})
        reason = ask_canary(control, name, timeout=_CANARY_SECONDS)
        failed = failed or (reason is not None and health["state"] != "unloaded")
        told = health["reason"] if health["state"] == "broken" else reason
        print(f"{name:<32} {','.join(versions) or '-':<12} {health['state']:<12}", end=" ")
        print(told or "answered")
    return ServerError.exit_code if failed else 0


def _ask_supervisor(state: ServerState) -> dict[str, Any] | None:
    """What the supervisor knows, None without one. Its silence is no reason to be silent too."""
    if not state.supervisor_url:
        return None
    try:
        answer: dict[str, Any] = HttpControl(state.supervisor_url).call("GET", "/status")
    except ServerError as error:
        return {"ready": False, "reasons": [str(error)], "models": {}}
    return answer


def _down(arguments: argparse.Namespace) -> int:
    state = read_state(arguments.run_folder)
    if state is None:
        print("nothing is up")
        return 0
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while state.is_alive():
        if time.monotonic() > deadline:
            raise ServerSetupError(
                "the server does not stop", where=f"pid {state.pid}", next_command="kill it"
            )
        time.sleep(0.05)
    print("tritonserver is down")
    return 0
