"""The smallest question that fits a model's config, for the supervisor and `clients health`.

Triton's ready endpoint stays true for a Python model whose process is gone; only an answer tells.
"""

from __future__ import annotations

import math
from typing import Any

_DYNAMIC_LENGTH = 8
_CANARY_TEXT = "canary: all systems nominal"


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
