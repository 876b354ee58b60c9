"""Arrays as tritonclient's request tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.spec import Arrays

TYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "object": "BYTES"}


def request_tensors(module: Any, inputs: Arrays) -> list[Any]:
    """module: ``tritonclient.grpc`` or ``tritonclient.http``."""
    made = []
    for name, array in inputs.items():
        tensor = module.InferInput(name, list(array.shape), TYPES[str(array.dtype)])
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        made.append(tensor)
    return made
