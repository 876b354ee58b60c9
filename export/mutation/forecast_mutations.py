"""Broken forecasters: horizon, quantiles, LSTM, missing values, season."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.mutation.mutation import Mutation, Staged
from export.mutation.surgery import after, behind_input, constant, editing, gather, producer

_OUTPUT = "forecast"


def _sizes(staged: Staged) -> tuple[int, int]:
    dims = next(one for one in staged.candidate.graph.outputs if one.name == _OUTPUT).dims
    return dims[0], dims[1]


def reverse_horizon(staged: Staged) -> None:
    horizon, _ = _sizes(staged)
    with editing(staged.model_file) as model:
        gather(model, _OUTPUT, list(range(horizon))[::-1], axis=1)


def shift_horizon(staged: Staged) -> None:
    horizon, _ = _sizes(staged)
    with editing(staged.model_file) as model:
        gather(model, _OUTPUT, [horizon - 1, *range(horizon - 1)], axis=1)


def cross_quantiles(staged: Staged) -> None:
    _, quantiles = _sizes(staged)
    with editing(staged.model_file) as model:
        gather(model, _OUTPUT, list(range(quantiles))[::-1], axis=2)


def repeat_quantile(staged: Staged) -> None:
    _, quantiles = _sizes(staged)
    order = list(range(quantiles))
    order[quantiles // 2] = quantiles - 1
    with editing(staged.model_file) as model:
        gather(model, _OUTPUT, order, axis=2)


def _last_lstm(model: onnx.ModelProto) -> onnx.NodeProto:
    nodes: list[onnx.NodeProto] = [node for node in model.graph.node if node.op_type == "LSTM"]
    return nodes[-1]


def reorder_gates(staged: Staged) -> None:
    """ONNX wants the gates as i, o, f, c; PyTorch keeps i, f, g, o."""
    with editing(staged.model_file) as model:
        names = set(_last_lstm(model).input[1:4])
        for weight in model.graph.initializer:
            if weight.name not in names:
                continue
            array = numpy_helper.to_array(weight)
            gates = np.split(array, array.shape[1] // _hidden_size(model), axis=1)
            # The bias holds those of the input and of the state: two times four.
            order = [0, 2, 1, 3] if len(gates) == 4 else [0, 2, 1, 3, 4, 6, 5, 7]
            changed = np.ascontiguousarray(np.concatenate([gates[i] for i in order], axis=1))
            weight.CopyFrom(numpy_helper.from_array(changed, weight.name))


def _hidden_size(model: onnx.ModelProto) -> int:
    attributes = _last_lstm(model).attribute
    return next(int(one.i) for one in attributes if one.name == "hidden_size")


def lose_lstm(staged: Staged) -> None:
    """The last layer's results are zeros of the right shape."""
    with editing(staged.model_file) as model:
        node = _last_lstm(model)
        hidden = _hidden_size(model)
        zero = constant(model, "zero", np.array(0, dtype=np.float32))
        wide = constant(model, "wide", np.ones((1, 1, 1, hidden), dtype=np.float32))
        last = constant(model, "last", np.ones((1, 1, hidden), dtype=np.float32))
        feature = constant(model, "feature_axis", np.array([2], dtype=np.int64))
        step = constant(model, "step_axis", np.array([0], dtype=np.int64))
        direction = constant(model, "direction_axis", np.array([1], dtype=np.int64))
        nodes = [
            helper.make_node("ReduceSum", [node.input[0], feature], ["summed"], keepdims=1),
            helper.make_node("Mul", ["summed", zero], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", direction], ["nothing_wide"]),
            helper.make_node("Mul", ["nothing_wide", wide], [node.output[0] or "unused_y"]),
            helper.make_node("ReduceSum", ["nothing", step], ["nothing_last"], keepdims=1),
        ]
        nodes += [
            helper.make_node("Mul", ["nothing_last", last], [name])
            for name in node.output[1:]
            if name
        ]
        position = list(model.graph.node).index(node)
        kept = list(model.graph.node)
        kept[position : position + 1] = nodes
        del model.graph.node[:]
        model.graph.node.extend(kept)


def missing_as_zero(staged: Staged) -> None:
    with editing(staged.model_file) as model:
        zero = constant(model, "zero", np.array(0, dtype=np.float32))
        behind_input(
            model,
            "series",
            lambda name, out: [
                helper.make_node("IsNaN", [name], ["missing"]),
                helper.make_node("Where", ["missing", zero, name], [out]),
            ],
        )


def ignore_season(staged: Staged) -> None:
    with editing(staged.model_file) as model:
        zero = constant(model, "zero", np.array(0, dtype=np.int64))
        behind_input(
            model,
            "season_length",
            lambda name, out: [helper.make_node("Mul", [name, zero], [out])],
        )


def other_source(staged: Staged) -> None:
    """The answer names the next expert instead of the one that weighed most."""
    with editing(staged.model_file) as model:
        one = constant(model, "one", np.array(1, dtype=np.int32))
        producer(model, "source")
        after(model, "source", lambda before, out: [helper.make_node("Add", [before, one], [out])])


FORECAST_MUTATIONS = (
    Mutation("horizon reversed", "horizon", reverse_horizon, "the horizon is reversed"),
    Mutation("horizon shifted", "horizon", shift_horizon, "the horizon is shifted by one step"),
    Mutation(
        "quantiles crossed",
        "forecast",
        cross_quantiles,
        r"columns of forecast are swapped: quantile 0\.1 is eager's quantile 0\.9",
    ),
    Mutation(
        "median replaced by another quantile",
        "forecast",
        repeat_quantile,
        r"repeats another: quantile 0\.5 is eager's quantile 0\.9",
    ),
    Mutation("LSTM gate order", "forecast", reorder_gates, "LSTM gates are in another order"),
    Mutation("last LSTM layer lost", "forecast", lose_lstm, "an LSTM layer is lost"),
    Mutation(
        "missing values read as zero", "forecast", missing_as_zero, "padding or missing values"
    ),
    Mutation("season ignored", "season", ignore_season, r"fresh export: 1 Mul too many"),
    Mutation("another expert named", "forecast", other_source, r"fresh export: 1 Add too many"),
)
