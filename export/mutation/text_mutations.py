"""Broken text classifiers: their graph, their labels, and the front that reads the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from contract.manifest import MANIFEST_FILE
from export.config_pbtxt import LABELS_FILE
from export.mutation.mutation import Mutation, Staged
from export.mutation.surgery import after, behind_input, constant, editing, gather, producer

BAKED_LENGTH = 8
_OUTPUT = "probabilities"
_MASK = "attention_mask"


def _edit_json(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _edit_tokenizer(staged: Staged, change: Callable[[Any], None]) -> None:
    _edit_json(staged.front_version / "tokenizer.json", change)


def _edit_front_manifest(staged: Staged, change: Callable[[Any], None]) -> None:
    _edit_json(staged.front_version / MANIFEST_FILE, change)


def bake_length(staged: Staged) -> None:
    with editing(staged.model_file) as model:
        shape = constant(model, "baked_length", np.array([-1, BAKED_LENGTH], dtype=np.int64))
        behind_input(
            model,
            "input_ids",
            lambda name, out: [helper.make_node("Reshape", [name, shape], [out])],
        )


def swap_labels(staged: Staged) -> None:
    labels = len(staged.candidate.artifact.manifest.labels)
    with editing(staged.model_file) as model:
        gather(model, _OUTPUT, [1, 0, *range(2, labels)], axis=1)


def ignore_mask(staged: Staged) -> None:
    """All positions are attended; the input is still read."""
    with editing(staged.model_file) as model:
        zero = constant(model, "zero", np.array(0, dtype=np.int64))
        one = constant(model, "one", np.array(1, dtype=np.int64))
        behind_input(
            model,
            _MASK,
            lambda name, out: [
                helper.make_node("Mul", [name, zero], ["no_mask"]),
                helper.make_node("Add", ["no_mask", one], [out]),
            ],
        )


def drop_mask(staged: Staged) -> None:
    """The exporter folded the mask into a constant and forgot the input."""
    with editing(staged.model_file) as model:
        zero = constant(model, "zero", np.array(0, dtype=np.int64))
        one = constant(model, "one", np.array(1, dtype=np.int64))
        behind_input(
            model,
            _MASK,
            lambda _, out: [
                helper.make_node("Mul", ["input_ids", zero], ["no_mask"]),
                helper.make_node("Add", ["no_mask", one], [out]),
            ],
        )
        kept = [value for value in model.graph.input if value.name != _MASK]
        del model.graph.input[:]
        model.graph.input.extend(kept)


def unread_mask(staged: Staged) -> None:
    with editing(staged.model_file) as model:
        zero = constant(model, "zero", np.array(0, dtype=np.int64))
        one = constant(model, "one", np.array(1, dtype=np.int64))
        behind_input(
            model,
            _MASK,
            lambda _, out: [
                helper.make_node("Mul", ["input_ids", zero], ["no_mask"]),
                helper.make_node("Add", ["no_mask", one], [out]),
            ],
        )


def _last_operator(staged: Staged, op_type: str) -> None:
    with editing(staged.model_file) as model:
        node = producer(model, _OUTPUT)
        node.op_type = op_type
        del node.attribute[:]
        if op_type == "Softmax":
            node.attribute.append(helper.make_attribute("axis", -1))


def softmax_for_sigmoid(staged: Staged) -> None:
    _last_operator(staged, "Softmax")


def sigmoid_for_softmax(staged: Staged) -> None:
    _last_operator(staged, "Sigmoid")


def clip_ids(staged: Staged) -> None:
    """An embedding table cut to a smaller vocabulary: all later tokens are its last one."""
    with editing(staged.model_file) as model:
        last = constant(model, "last_id", np.array(63, dtype=np.int64))
        behind_input(
            model, "input_ids", lambda name, out: [helper.make_node("Min", [name, last], [out])]
        )


def other_temperature(staged: Staged) -> None:
    with editing(staged.model_file) as model:
        factor = constant(model, "other_temperature", np.array(1.5, dtype=np.float32))
        logits = producer(model, _OUTPUT).input[0]
        after(model, logits, lambda before, out: [helper.make_node("Mul", [before, factor], [out])])


def wrong_pad_id(staged: Staged) -> None:
    def change(document: Any) -> None:
        vocabulary = document["model"]["vocab"]
        pad, mask = vocabulary["[PAD]"], vocabulary["[MASK]"]
        vocabulary["[PAD]"], vocabulary["[MASK]"] = mask, pad
        for token in document["added_tokens"]:
            token["id"] = {pad: mask, mask: pad}.get(token["id"], token["id"])

    _edit_tokenizer(staged, change)


def other_casing(staged: Staged) -> None:
    def change(document: Any) -> None:
        last = document["normalizer"]["normalizers"][-1]
        last["lowercase"] = not last["lowercase"]

    _edit_tokenizer(staged, change)


def mask_rule_removed(staged: Staged) -> None:
    def change(document: Any) -> None:
        rules = document["normalizer"]["normalizers"]
        del rules[next(i for i, rule in enumerate(rules) if rule["type"] == "Replace")]

    _edit_tokenizer(staged, change)


def other_truncation(staged: Staged) -> None:
    def change(document: Any) -> None:
        document["settings"]["max_tokens"] //= 2

    _edit_front_manifest(staged, change)


def other_threshold(staged: Staged) -> None:
    def change(document: Any) -> None:
        label = document["labels"][-1]
        document["thresholds"][label] = 1 - document["thresholds"][label] / 2

    _edit_front_manifest(staged, change)


def manifest_of_another_run(staged: Staged) -> None:
    def change(document: Any) -> None:
        document["run_id"] = "line-20260101T000000000000Z-s9"

    _edit_front_manifest(staged, change)


def labels_of_another_version(staged: Staged) -> None:
    path = staged.model_folder / LABELS_FILE
    labels = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{label}_v2\n" for label in labels), encoding="utf-8")


def labels_in_another_order(staged: Staged) -> None:
    path = staged.model_folder / LABELS_FILE
    labels = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{label}\n" for label in reversed(labels)), encoding="utf-8")


def front_code_changed(staged: Staged) -> None:
    path = staged.front_version / "training" / "text" / "text_batch.py"
    path.write_text(path.read_text(encoding="utf-8").replace("MAXIMUM_CHARACTERS]", "64]"))


TEXT_MUTATIONS = (
    Mutation("baked length axis", "text", bake_length, r"length axis is baked at 8"),
    Mutation("swapped labels", "text", swap_labels, r"columns of probabilities are swapped"),
    Mutation("attention mask ignored", "text", ignore_mask, "mask is dropped or ignored"),
    Mutation("attention mask not read", "text", unread_mask, r"'attention_mask' is dropped"),
    Mutation("attention mask gone", "text", drop_mask, r"'attention_mask' is dropped"),
    Mutation(
        "softmax for sigmoid", "many labels", softmax_for_sigmoid, "softmax in place of sigmoid"
    ),
    Mutation(
        "sigmoid for softmax", "one label", sigmoid_for_softmax, "sigmoid in place of softmax"
    ),
    Mutation("vocabulary cut off", "text", clip_ids, r"fresh export: 1 Min too many"),
    Mutation("another temperature", "text", other_temperature, r"fresh export: 1 Mul too many"),
    Mutation("wrong pad id", "text", wrong_pad_id, "wrong pad id"),
    Mutation("other tokenizer casing", "text", other_casing, "casing changed"),
    Mutation("masking rule removed", "text", mask_rule_removed, "masking rules changed"),
    Mutation("truncation length changed", "text", other_truncation, "truncation length changed"),
    Mutation("threshold of another run", "text", other_threshold, "threshold of another run"),
    Mutation("manifest of another run", "text", manifest_of_another_run, "manifest of another run"),
    Mutation(
        "labels file of another version",
        "text",
        labels_of_another_version,
        "labels of another version",
    ),
    Mutation(
        "labels file in another order", "text", labels_in_another_order, "labels in another order"
    ),
    Mutation("front code changed", "text", front_code_changed, "is not the project's"),
)
