"""Triton's own perf_analyzer, out of the wheel that ships it, with the libraries it looks for."""

from __future__ import annotations

import csv
import json
import os
import platform
import stat
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import ServerAnswerError, ServerSetupError
from embedded_triton.environment import SERVER_VENV
from loadtest.served import Arrays, ServedModel

WHEEL = "tritonclient==2.51.0"
FOLDER = Path("build/perf_analyzer")
# What the binary asks for, and how the file in nvidia_pytriton.libs begins.
LIBRARIES = {"libcudart.so.12": "libcudart-", "libb64.so.0d": "libb64-"}
_PLATFORMS = ("manylinux1_x86_64", "manylinux2014_x86_64")
_DOWNLOAD_SECONDS = 300
_RUN_SECONDS = 300


@dataclass(frozen=True)
class PerfFigures:
    """Of one run: requests a second and milliseconds of a request."""

    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float


def find_perf_analyzer(folder: Path = FOLDER, venv: Path = SERVER_VENV) -> Path:
    """The program, fetched once into ``folder``, its libraries linked beside it.

    Raises ServerSetupError: it cannot be had or run here, and why.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ServerSetupError(
            "perf_analyzer is a program for Linux on x86-64",
            got=f"{platform.system()} on {platform.machine()}",
        )
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "perf_analyzer"
    if not program.is_file():
        _unpack(_wheel(folder), program)
    _link_libraries(folder, venv)
    try:
        done = subprocess.run(
            [program.absolute(), "--help"],
            env=_environment(folder),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerSetupError("perf_analyzer does not start", got=str(error)) from error
    if "concurrency-range" not in done.stdout + done.stderr:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ServerSetupError(
            "perf_analyzer does not start", got=lines[-1] if lines else f"code {done.returncode}"
        )
    return program


def run_perf_analyzer(
    program: Path,
    model: ServedModel,
    inputs: list[Arrays],
    *,
    grpc_address: str,
    concurrency: int,
    seconds: float,
) -> PerfFigures:
    """One closed-loop run over gRPC. Raises ServerAnswerError: it failed, or requests did.

    inputs: requests of one row, asked in turn
    """
    folder = program.parent
    data, table = folder / "inputs.json", folder / "latencies.csv"
    data.write_text(json.dumps({"data": [_as_json(model, row) for row in inputs]}))
    table.unlink(missing_ok=True)
    shapes: list[str] = []
    for tensor in model.inputs:
        if -1 in tensor.dims:
            size = ",".join(map(str, inputs[0][tensor.name].shape[1:]))
            shapes += ["--shape", f"{tensor.name}:{size}"]
    command = [
        *(str(program.absolute()), "-m", model.name, "-i", "grpc", "-u", grpc_address),
        *("--input-data", str(data.absolute()), "-b", "1", *shapes),
        *("--concurrency-range", str(concurrency), "--percentile", "99"),
        # One window of the given length, taken as it is: rounds are compared, not windows.
        *("--measurement-interval", str(round(seconds * 1000)), "--max-trials", "3"),
        *("--stability-percentage", "999", "-f", str(table.absolute())),
    ]
    try:
        done = subprocess.run(
            command,
            env=_environment(folder),
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerAnswerError("perf_analyzer did not end", got=str(error)) from error
    if done.returncode != 0 or not table.is_file():
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise ServerAnswerError(
            "perf_analyzer failed", got=" / ".join(lines[-3:]) or f"code {done.returncode}"
        )
    return read_latencies(table.read_text())


def read_latencies(text: str) -> PerfFigures:
    """Its CSV report, one concurrency. Raises ServerAnswerError."""
    rows = list(csv.DictReader(text.splitlines()))
    try:
        (row,) = rows
        return PerfFigures(
            float(row["Inferences/Second"]),
            float(row["p50 latency"]) / 1000,
            float(row["p99 latency"]) / 1000,
        )
    except (ValueError, KeyError) as error:
        raise ServerAnswerError(
            "perf_analyzer's report cannot be read", expected="one row", got=text[:300]
        ) from error


def _as_json(model: ServedModel, row: Arrays) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for tensor in model.inputs:
        array = row[tensor.name][0]
        if array.dtype == object:
            values: list[Any] = [value.decode() for value in array.ravel()]
        else:
            values = array.ravel().tolist()
        told[tensor.name] = {"content": values, "shape": list(array.shape)}
    return told


def _wheel(folder: Path) -> Path:
    found = sorted(folder.glob("tritonclient-*.whl"))
    if found:
        return found[-1]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
    command += ["--only-binary=:all:", "--dest", str(folder)]
    for name in _PLATFORMS:
        command += ["--platform", name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
        reason = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
    except subprocess.TimeoutExpired as error:
        reason = [str(error)]
    found = sorted(folder.glob("tritonclient-*.whl"))
    if not found:
        raise ServerSetupError(f"{WHEEL} cannot be fetched", got=reason[0])
    return found[-1]


def _unpack(wheel: Path, program: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/bin/perf_analyzer")]
            partial = program.with_suffix(".partial")
            partial.write_bytes(archive.read(name))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ServerSetupError(
            "the wheel has no perf_analyzer", where=str(wheel), got=str(error)
        ) from error
    partial.chmod(partial.stat().st_mode | stat.S_IXUSR)
    partial.replace(program)


def _link_libraries(folder: Path, venv: Path) -> None:
    for name, beginning in LIBRARIES.items():
        link = folder / name
        if link.exists():
            continue
        link.unlink(missing_ok=True)
        found = sorted(venv.glob(f"lib/python*/site-packages/nvidia_pytriton.libs/{beginning}*"))
        if not found:
            raise ServerSetupError(
                f"perf_analyzer needs {name}",
                expected=f"{beginning}* of nvidia-pytriton in {venv}",
                got="no such file",
                next_command="install it: python -m embedded_triton install",
            )
        link.symlink_to(found[-1].absolute())


def _environment(folder: Path) -> dict[str, str]:
    paths = [str(folder.absolute()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(paths)}
