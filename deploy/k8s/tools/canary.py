"""One small inference per model: the only readiness that Triton's ready endpoint does not fake.

A Python model whose process was killed stays "ready" for Triton while every request fails.
"""

from __future__ import annotations

import math
from typing import Any

from contract.errors import ServerError
from embedded_triton.http_control import HttpControl

_DYNAMIC_LENGTH = 8
_CANARY_TEXT = "canary: all systems nominal"


def ask_canary(control: HttpControl, name: str, *, timeout: float = 30.0) -> str | None:
    """None when the model answered, else the reason it did not."""
    try:
        control.infer(name, canary_inputs(control.config(name)), timeout=timeout)
    except ServerError as error:
        return error.got or str(error)
    return None


def canary_inputs(config: dict[str, Any]) -> list[dict[str, Any]]:
    """KServe v2 inputs that fit a model's config: ones, or a short text; optional ones left out."""
    inputs = []
    for tensor in config.get("input", []):
        if tensor.get("optional"):
            continue
        shape = [int(dim) if int(dim) > 0 else _DYNAMIC_LENGTH for dim in tensor["dims"]]
        if int(config.get("max_batch_size", 0)) > 0:
            shape = [1, *shape]
        kind = tensor["data_type"].removeprefix("TYPE_")
        value: Any = 1
        if kind == "STRING":
            kind, value = "BYTES", _CANARY_TEXT
        elif kind == "BOOL":
            value = True
        inputs.append(
            {
                "name": tensor["name"],
                "shape": shape,
                "datatype": kind,
                "data": [value] * math.prod(shape),
            }
        )
    return inputs
