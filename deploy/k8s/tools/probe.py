"""A pod's probe: does every model answer? Standard library only, CPython 3.10 is enough.

``python -m embedded_triton.probe --http 127.0.0.1:8000`` asks each loaded model for one small
inference, as Triton's own ready endpoint vouches for models whose process is dead. A model that is
merely busy is well: it refuses because its queue is full, or it finished others' requests while
ours waited. Taking a busy server out of service would only make the others busier.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from contract.canary_inputs import canary_inputs
from contract.errors import ServerError, ServerUnavailableError
from embedded_triton.canary import Verdict, judge
from embedded_triton.http_control import HttpControl

_ANSWERED = ("success",)


def find_trouble(control: HttpControl, *, seconds: float = 8.0) -> str | None:
    """Why the server should get no requests, one line; None where it should.

    seconds: that a model has for its answer, all models side by side
    """
    try:
        rows = [row for row in control.index() if row.get("state")]
        ready = sorted({row["name"] for row in rows if row["state"] == "READY"})
        # An older version that is being unloaded is no trouble, a model that failed to load is.
        failed = sorted({row["name"] for row in rows if row["state"] == "UNAVAILABLE"} - {*ready})
        failed = [name for name in failed if _reason(rows, name) != "unloaded"]
        if failed:
            return f"{failed[0]}: {_reason(rows, failed[0]) or 'not loaded'}"
        if not ready:
            return "no model is loaded"
        with ThreadPoolExecutor(max_workers=len(ready)) as pool:
            told = list(pool.map(lambda name: _ask(control, name, seconds), ready))
    except ServerError as error:
        return str(error)
    return next((f"{n}: {why}" for n, why in zip(ready, told, strict=True) if why), None)


def _ask(control: HttpControl, name: str, seconds: float) -> str | None:
    answered = control.progress(name, _ANSWERED)
    failure: ServerError | None = None
    try:
        control.infer(name, canary_inputs(control.config(name)), timeout=seconds)
    except ServerError as error:
        failure = error
    canary = judge(name, failure)
    if canary.verdict in (Verdict.ANSWERED, Verdict.BUSY):
        return None
    if canary.verdict is Verdict.SLOW and control.progress(name, _ANSWERED) > answered:
        return None
    return canary.reason


def _reason(rows: list[dict[str, str]], name: str) -> str:
    return next((row.get("reason", "") for row in rows if row["name"] == name), "")


def main(argv: Sequence[str] | None = None) -> int:
    """0 where the server should get requests, else 12 and the reason."""
    parser = argparse.ArgumentParser(prog="python -m embedded_triton.probe", description=__doc__)
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--seconds", type=float, default=8.0, help="for an answer (%(default)s)")
    arguments = parser.parse_args(argv)
    trouble = find_trouble(HttpControl(arguments.http), seconds=arguments.seconds)
    if trouble is not None:
        print(trouble, flush=True)
        return ServerUnavailableError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
