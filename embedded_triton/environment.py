"""The server's own Python environment, and the folder of backends assembled from its wheel.

The tritonserver binary, its Python backend and the stubs come from the ``nvidia-pytriton`` wheel.
Every check here exists because the failure it catches is otherwise silent or a hang.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ServerSetupError

SERVER_VENV = Path(".venv-triton")
INSTALL_COMMAND = "python -m embedded_triton install"
_BACKENDS = Path(__file__).parent / "backends"
_SMALLEST_SHM_BYTES = 64 << 20
# Asked of the server's interpreter in one go; metadata only, importing numpy would cost 100 ms.
_QUESTIONS = """
import ctypes, json, pathlib, sys, sysconfig
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
library = "libpython%d.%d.so.1.0" % sys.version_info[:2]
folder = pathlib.Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
found = None
if (folder / library).exists():
    found = str(folder)
else:
    try:
        ctypes.CDLL(library)
        found = ""
    except OSError:
        pass
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "site_packages": sysconfig.get_path("purelib"),
    "library": library,
    "library_folder": found,
    "numpy": version("numpy"),
    "pytriton": version("nvidia-pytriton"),
    "torch": version("torch"),
    "openvino": version("openvino"),
}))
"""


@dataclass(frozen=True)
class ServerEnvironment:
    """What was found in the server's environment. ``library_folder`` may be empty (system path)."""

    venv: Path
    python_version: str
    site_packages: Path
    library_folder: str
    numpy_version: str
    torch_version: str | None
    openvino_version: str | None

    @property
    def binaries(self) -> Path:
        return self.site_packages / "pytriton" / "tritonserver"

    def process_environment(self) -> dict[str, str]:
        """Environment variables for tritonserver and its stubs.

        PYTHONPATH is dropped: the stub ignores it, but its children would not. The stub takes its
        packages from the first ``python3`` on PATH.
        """
        variables = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}}
        variables["VIRTUAL_ENV"] = str(self.venv.absolute())
        variables["PATH"] = f"{self.venv.absolute() / 'bin'}:{os.environ.get('PATH', '/usr/bin')}"
        libraries = [self.library_folder, os.environ.get("LD_LIBRARY_PATH", "")]
        variables["LD_LIBRARY_PATH"] = ":".join(part for part in libraries if part)
        # One thread a model instance: more of them fight over the cores under concurrency.
        variables.setdefault("OMP_NUM_THREADS", "1")
        # ONNX Runtime's wheels would tell their maker of each session.
        variables.setdefault("ORT_DISABLE_TELEMETRY", "1")
        return variables


def inspect_environment(venv: Path = SERVER_VENV) -> ServerEnvironment:
    """Check the server's environment. Raises ServerSetupError with the fix."""
    python = venv / "bin" / "python"
    if not python.exists():
        raise ServerSetupError(
            "the server's environment is missing",
            where=str(venv),
            next_command=f"install it: {INSTALL_COMMAND}",
        )
    try:
        answer = subprocess.run(
            [python, "-c", _QUESTIONS], capture_output=True, text=True, timeout=30, check=True
        )
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ServerSetupError(
            "the server's environment does not run",
            where=str(python),
            got=str(error),
            next_command=f"remove {venv} and install again: {INSTALL_COMMAND}",
        ) from error
    if facts["pytriton"] is None:
        raise ServerSetupError(
            "no tritonserver in the server's environment",
            where=str(venv),
            expected="package nvidia-pytriton",
            next_command=f"install it: {INSTALL_COMMAND}",
        )
    if facts["numpy"] is None or int(facts["numpy"].split(".")[0]) >= 2:
        raise ServerSetupError(
            "numpy of the server's environment would make Triton answer wrong data",
            where=str(venv),
            expected="numpy < 2",
            got=f"numpy {facts['numpy']}",
            next_command=f"install again: {INSTALL_COMMAND}",
        )
    if facts["library_folder"] is None:
        raise ServerSetupError(
            "the shared library of Python is missing, Triton's Python stub cannot start",
            expected=facts["library"],
            got=f"neither beside {python} nor on the library path",
            next_command=f"apt-get install libpython{facts['python']}",
        )
    return ServerEnvironment(
        venv=venv,
        python_version=facts["python"],
        site_packages=Path(facts["site_packages"]),
        library_folder=facts["library_folder"],
        numpy_version=facts["numpy"],
        torch_version=facts["torch"],
        openvino_version=facts["openvino"],
    )


def check_shared_memory() -> None:
    """Raise ServerSetupError unless /dev/shm has room: a full one hangs the stubs."""
    try:
        free_bytes = shutil.disk_usage("/dev/shm").free
    except OSError as error:
        raise ServerSetupError("no shared memory", where="/dev/shm", got=str(error)) from error
    if free_bytes < _SMALLEST_SHM_BYTES:
        raise ServerSetupError(
            "too little shared memory for Triton's Python stubs",
            where="/dev/shm",
            expected=f"at least {_SMALLEST_SHM_BYTES >> 20} MiB free",
            got=f"{free_bytes >> 20} MiB",
            next_command="free some, or enlarge it: mount -o remount,size=1G /dev/shm",
        )


def assemble_backends(environment: ServerEnvironment, folder: Path) -> Path:
    """Make ``folder`` a backend directory: Triton's python backend and our stand-ins.

    The .so is copied (Triton refuses a symlink), the stub is symlinked (a copy loses its RPATH).
    """
    source = environment.binaries
    stub = (
        source / "python_backend_stubs" / environment.python_version / "triton_python_backend_stub"
    )
    if not stub.exists():
        raise ServerSetupError(
            "no Triton stub for this Python",
            where=str(environment.venv),
            expected="CPython 3.11 or 3.12",
            got=environment.python_version,
            next_command=f"make the environment anew: {INSTALL_COMMAND}",
        )
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "python"
    python.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(source / "backends" / "python" / name, python / name)
    (python / stub.name).symlink_to(stub.absolute())
    for backend in sorted(_BACKENDS.iterdir()):
        if (backend / "model.py").is_file():
            shutil.copytree(backend, folder / backend.name)
    return folder
