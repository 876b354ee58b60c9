"""The eager baseline as a process of its own, with callers that ask it over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from contract.errors import ServerAnswerError, ServerSetupError
from loadtest.served import Arrays

_START_SECONDS = 180.0
_COMPILE_SECONDS = 400.0
_TIMEOUT_SECONDS = 60.0


class EagerProcess:
    """Started once for all models of a repository; ``caller(model)(inputs)`` asks it.

    ``compiled``: by torch.compile, which takes minutes to start. ``models``: those alone.
    """

    def __init__(
        self,
        repository: Path,
        artifacts: Path,
        *,
        compiled: bool = False,
        models: Sequence[str] = (),
    ) -> None:
        self._start_seconds = _COMPILE_SECONDS if compiled else _START_SECONDS
        self._arguments = [
            *(("--compile",) if compiled else ()),
            *(("--models", *models) if models else ()),
            *("--repository", str(repository.absolute())),
            *("--artifacts", str(artifacts.absolute())),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; ``wait`` returns once it answers, so that its imports cost nobody time."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtest", "eager", *self._arguments],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def wait(self) -> Self:
        """Raises ServerSetupError: it ended, or said nothing in time."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        timer = threading.Timer(self._start_seconds, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line.startswith(b"port "):
            reason = self._last_error()
            self.stop()
            raise ServerSetupError("the eager baseline did not start", got=reason)
        self.port = int(line.split()[1])
        return self

    def stop(self) -> None:
        """Idempotent; leaves no process."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def set_threads(self, count: int) -> None:
        """torch's threads for one forward pass."""
        with EagerCaller(self.port) as caller:
            caller.send("PUT", f"/threads/{count}", b"")

    def caller(self, model: str) -> EagerCaller:
        return EagerCaller(self.port, model)

    def _last_error(self) -> str:
        if self._errors is None:
            return "no output"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"


class EagerCaller:
    """One keep-alive connection; for one thread."""

    def __init__(self, port: int, model: str = "") -> None:
        self.model = model
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, inputs: Arrays) -> None:
        self.send("POST", f"/predict/{self.model}", self.body(inputs))

    @staticmethod
    def body(inputs: Arrays) -> bytes:
        """The request's JSON."""
        return json.dumps({name: _jsonable(array) for name, array in inputs.items()}).encode()

    def send(self, method: str, path: str, body: bytes) -> bytes:
        """Raises ServerAnswerError: anything but 200."""
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, path, body=body, headers=headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise ServerAnswerError(
                "the eager baseline failed",
                where=path,
                got=f"HTTP {response.status} {answer[:200].decode(errors='replace')}",
            )
        return answer

    def close(self) -> None:
        self._connection.close()


def _jsonable(array: np.ndarray) -> list[object]:
    if array.dtype == object:
        return [[cell.decode() for cell in row] for row in array]
    if np.issubdtype(array.dtype, np.floating):
        # JSON knows no NaN; null is what users send for a missing point.
        return np.where(np.isnan(array), None, array.astype(object)).tolist()
    listed: list[object] = array.tolist()
    return listed
