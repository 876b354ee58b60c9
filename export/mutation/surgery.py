"""Cuts into ONNX graphs that mutations are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper


@contextmanager
def editing(path: Path) -> Iterator[onnx.ModelProto]:
    """The model of a file, saved back without any check."""
    model = onnx.load(str(path))
    yield model
    path.write_bytes(model.SerializeToString())


def constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    """A new initializer; returns its name."""
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def producer(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node whose result is called ``name``."""
    found: onnx.NodeProto = next(node for node in model.graph.node if name in node.output)
    return found


def after(
    model: onnx.ModelProto, name: str, nodes: Callable[[str, str], list[onnx.NodeProto]]
) -> None:
    """Put ``nodes(before, name)`` behind the result ``name``, for all that read it."""
    source = producer(model, name)
    before = f"{name}__before"
    source.output[list(source.output).index(name)] = before
    added = nodes(before, name)
    position = list(model.graph.node).index(source) + 1
    _insert(model, position, added)


def behind_input(
    model: onnx.ModelProto, name: str, nodes: Callable[[str, str], list[onnx.NodeProto]]
) -> None:
    """Put ``nodes(name, changed)`` behind a graph input: all others read ``changed``."""
    changed = f"{name}__changed"
    for node in model.graph.node:
        for index, source in enumerate(node.input):
            if source == name:
                node.input[index] = changed
    _insert(model, 0, nodes(name, changed))


def _insert(model: onnx.ModelProto, position: int, added: list[onnx.NodeProto]) -> None:
    nodes = list(model.graph.node)
    nodes[position:position] = added
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def gather(model: onnx.ModelProto, output: str, order: list[int], axis: int) -> None:
    """Take the output's entries along ``axis`` in another order."""
    indices = constant(model, f"{output}__order", np.array(order, dtype=np.int64))
    after(
        model,
        output,
        lambda before, name: [helper.make_node("Gather", [before, indices], [name], axis=axis)],
    )


def change_weights(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change every float weight of more than one number."""
    with editing(path) as model:
        for weight in model.graph.initializer:
            array = numpy_helper.to_array(weight)
            if array.dtype == np.float32 and array.size > 1:
                changed = change(array.copy()).astype(np.float32)
                weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
