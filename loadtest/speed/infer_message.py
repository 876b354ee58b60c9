"""One KServe v2 request, serialised once for a client that only writes bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from loadtest.served import Arrays
from loadtest.wire_tensors import TYPES


def infer_message(model: str, inputs: Arrays, outputs: Iterable[str]) -> bytes:
    """``ModelInferRequest`` of arrays; an object array holds bytes."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=TYPES[str(array.dtype)], shape=array.shape)
        request.raw_input_contents.append(_raw(array))
    for name in outputs:
        request.outputs.add(name=name)
    return bytes(request.SerializeToString())


def _raw(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    return b"".join(struct.pack("<I", len(cell)) + cell for cell in array.reshape(-1))
