"""Parity rows: exact shapes, real tokens, zeros where padding is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from contract.manifest import Manifest
from training.artifact import Artifact
from training.text.text_batch import MaskedTokenizer
from training.text.text_spec import (
    decide_label,
    decide_labels,
    golden_rows,
    text_graph,
    text_parity_inputs,
)

GRAPH = text_graph("toy_classifier", ("normal", "anomaly"), 64)


@pytest.fixture
def artifact(masked: MaskedTokenizer) -> Artifact:
    golden = golden_rows(masked, ["disk failed", "disk 1 failed", "0 errors in file", "磁盘"])
    return cast(Artifact, SimpleNamespace(golden=lambda: golden))


@pytest.mark.parametrize("batch", GRAPH.parity_batches)
@pytest.mark.parametrize("length", GRAPH.parity_lengths)
@pytest.mark.parametrize(("padding", "share"), [("none", 0), ("half", 0.5), ("most", 0.9)])
def test_every_cell(artifact: Artifact, batch: int, length: int, padding, share: float) -> None:  # type: ignore[no-untyped-def]
    rows = text_parity_inputs(artifact, batch, length, padding)
    for array in rows.values():
        assert array.shape == (batch, length)
        assert array.dtype == np.int64
    real = rows["attention_mask"].sum(1)
    assert (real == max(1, length - round(length * share))).all()
    assert (rows["input_ids"][rows["attention_mask"] == 0] == 0).all()
    opening = artifact.golden()["input_ids"][0, 0]
    assert (rows["input_ids"][:, 0] == opening).all()
    for ids, count in zip(rows["input_ids"], real, strict=True):
        if count > 1:
            assert ids[count - 1] == artifact.golden()["input_ids"][0][3]


def test_golden_rows_are_distinct_and_end_with_one_token(masked: MaskedTokenizer) -> None:
    golden = golden_rows(masked, ["disk 1 failed", "disk 2 failed", "failed"])
    assert golden["attention_mask"].sum(1).tolist() == [5, 3, 1]
    assert golden["input_ids"].shape == (3, 64)


def test_decisions(tmp_path: Path) -> None:
    manifest = cast(
        Manifest,
        SimpleNamespace(labels=("normal", "anomaly"), thresholds={"normal": 0.3, "anomaly": 0.7}),
    )
    outputs = {"probabilities": np.array([[0.2, 0.8], [0.35, 0.65]], np.float32)}
    one = decide_label(manifest, {}, outputs)
    assert one.values.tolist() == [[1], [0]]
    np.testing.assert_allclose(one.margins, [[0.1], [0.05]], atol=1e-6)
    each = decide_labels(manifest, {}, outputs)
    assert each.values.tolist() == [[0, 1], [1, 0]]
