"""NVIDIA's container: tritonserver with every published model of the repository, and its health.

    python3 -m embedded_triton.container serve [tritonserver's flags]
    python3 -m embedded_triton.container health

Its image holds this file, ``repository``, ``probe``, ``canary`` and ``http_control``, on the
container's CPython 3.10: nothing here may need more. tritonserver's own ``--load-model=*`` takes
every folder, and does not start for one without a published version.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from contract.errors import PresageError, ServerUnavailableError
from embedded_triton.http_control import HttpControl
from embedded_triton.probe import find_trouble
from embedded_triton.repository import read_repository

REPOSITORY_VARIABLE = "PRESAGE_MODEL_REPOSITORY"
ADDRESS_VARIABLE = "PRESAGE_TRITON_ADDRESS"


def server_command(repository: Path, flags: list[str]) -> list[str]:
    """What is run: explicit control, fronts named after the classifiers that they call.

    Raises ServerSetupError: nothing is published, or a folder is broken.
    """
    return [
        "tritonserver",
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={model.name}" for model in read_repository(repository)),
        *flags,
    ]


def check_health(control: HttpControl) -> None:
    """One small inference of every model (see ``probe``).

    Raises ServerUnavailableError: nobody answers, no model is ready, or one does not answer.
    """
    trouble = find_trouble(control)
    if trouble is not None:
        raise ServerUnavailableError(
            "the server should get no requests", where=control.address, got=trouble
        )


def main(argv: list[str]) -> int:
    """``serve`` becomes tritonserver; ``health`` exits 0 when every model answers."""
    try:
        if argv[:1] == ["serve"]:
            repository = Path(os.environ.get(REPOSITORY_VARIABLE, "/models"))
            command = server_command(repository, argv[1:])
            print(" ".join(command), flush=True)
            os.execvp(command[0], command)
        if argv == ["health"]:
            check_health(HttpControl(os.environ.get(ADDRESS_VARIABLE, "127.0.0.1:8000")))
            return 0
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("expected serve or health", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
