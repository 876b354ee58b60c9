"""Makes the server's environment: what a container would hold, and nothing of Presage."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from contract.errors import ServerSetupError
from embedded_triton.environment import SERVER_VENV, inspect_environment

_ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = _ROOT / "requirements" / "server.txt"
_REQUIREMENTS_PYTORCH = _ROOT / "requirements" / "server-pytorch.txt"
_REQUIREMENTS_OPENVINO = _ROOT / "requirements" / "server-openvino.txt"
_STAMP = ".requirements"


def install(venv: Path = SERVER_VENV, *, pytorch: bool = False, openvino: bool = False) -> bool:
    """Create or complete ``venv``; return False when everything was there already.

    ``pytorch`` adds torch, which only TorchScript models (backend ``pytorch``) need; ``openvino``
    adds openvino, which only models of backend ``openvino`` (the targets on OpenVINO) need.

    Raises:
        ServerSetupError: pip failed, or the environment is not usable afterwards.
    """
    extras = ((_REQUIREMENTS_PYTORCH, pytorch), (_REQUIREMENTS_OPENVINO, openvino))
    files = [_REQUIREMENTS, *(file for file, wanted in extras if wanted)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = venv / _STAMP
    if stamp.is_file() and digest in stamp.read_text(encoding="utf-8").split():
        inspect_environment(venv)
        return False
    if not (venv / "bin" / "python").exists():
        # The base interpreter, not an environment inside an environment.
        base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
        _run([str(base if base.exists() else sys.executable), "-m", "venv", str(venv)])
    for file in files:
        print(f"   installing {file.relative_to(_ROOT)} into {venv}", flush=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, "--disable-pip-version-check", "-r", str(file)])
    inspect_environment(venv)
    earlier = stamp.read_text(encoding="utf-8") if stamp.is_file() else ""
    stamp.write_text(f"{earlier}{digest}\n", encoding="utf-8")
    return True


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServerSetupError(
            "the server's environment could not be installed",
            where=" ".join(command),
            got=str(error),
            next_command="mend what pip says above, then: python -m embedded_triton install",
        ) from error
