"""Each test breaks one thing between the network and the served answer: the gate must see it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from contract.errors import ExportError, ParityError, PublishError
from export import gate, serving
from export.candidate import REPORT_FILE, Candidate
from export.container import LIMITS
from export.gate import export_files, prove, require_passed
from export.inspection import require_onnx
from export.judge import Ascent
from export.publish import publish
from export.report import ParityReport, read_report
from export.version_folder import stage
from training.spec import ModelSpec


@pytest.fixture
def toy(toy_model: ModuleType, toy_spec: ModelSpec, tmp_path: Path) -> Ascent:
    """An exported toy, not proven yet."""
    artifact = toy_model.train_toy(toy_spec, tmp_path / "artifacts")
    return export_files(Candidate(toy_spec, artifact))


@pytest.fixture
def tiny_text(toy_model: ModuleType, tmp_path: Path) -> Ascent:
    """An exported tiny text classifier with its front, not proven yet."""
    from training.registry import get_spec

    artifact = toy_model.make_tiny_log_anomaly(tmp_path / "artifacts")
    return export_files(Candidate(get_spec("log_anomaly"), artifact))


def _prove(ascent: Ascent, *, wire: bool = False) -> ParityReport:
    return prove([ascent], wire=wire, progress=False)[0]


def _edit(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))


def _edit_weights(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change every float tensor of more than one number."""

    def edit(model: onnx.ModelProto) -> None:
        for weight in model.graph.initializer:
            array = numpy_helper.to_array(weight)
            if array.dtype == np.float32 and array.size > 1:
                weight.CopyFrom(numpy_helper.from_array(change(array.copy()), weight.name))

    _edit(path, edit)


def _assert_refused(ascent: Ascent, report: ParityReport, pattern: str, tmp_path: Path) -> None:
    """The report fails and says why, the command would exit non-zero, publishing is refused."""
    assert not report.passed
    with pytest.raises(ParityError, match=pattern) as caught:
        require_passed([report], [ascent.candidate])
    assert caught.value.exit_code != 0
    assert REPORT_FILE in str(caught.value)
    stored = json.loads((ascent.candidate.folder / REPORT_FILE).read_text())
    assert stored["passed"] is False
    with pytest.raises(PublishError, match=r"parity report failed|incomplete"):
        publish(ascent.candidate, tmp_path / "repository")
    assert not list((tmp_path / "repository").glob("*"))


def test_unbroken_toy_passes_every_offline_rung(toy: Ascent) -> None:
    report = _prove(toy)
    assert report.passed
    assert [rung.rung for rung in report.rungs] == ["onnxruntime", "torchscript"]
    assert all(rung.decisions > 0 for rung in report.rungs)
    assert report.files.keys() == {
        "model.onnx",
        "model.pt",
        "manifest.json",
        "labels",
        "thresholds",
    }


def test_perturbed_weights(toy: Ascent, tmp_path: Path) -> None:
    _edit_weights(toy.candidate.file("onnx"), lambda weight: weight * 1.001)
    _assert_refused(toy, _prove(toy), "level differs by", tmp_path)


def test_half_precision_weights(toy: Ascent, tmp_path: Path) -> None:
    _edit_weights(
        toy.candidate.file("onnx"), lambda weight: weight.astype(np.float16).astype(np.float32)
    )
    _assert_refused(toy, _prove(toy), "level differs by", tmp_path)


def test_not_a_number_in_one_only(toy: Ascent, tmp_path: Path) -> None:
    _edit_weights(toy.candidate.file("onnx"), lambda weight: weight * np.float32(np.nan))
    report = _prove(toy)
    assert report.rungs[0].tensors[0].nan_mismatches > 0
    _assert_refused(toy, report, "flipped|NaN", tmp_path)


def test_wrong_threshold_in_the_graph_flips_decisions(toy: Ascent, tmp_path: Path) -> None:
    network = toy.network
    network.limit.fill_(-0.2)
    # The eager reference keeps the right limit; only the exported file has the wrong one.
    with torch.no_grad():
        torch.onnx.export(
            network,
            (torch.zeros(2, 8),),
            str(toy.candidate.file("onnx")),
            input_names=["values"],
            output_names=["level", "high"],
            dynamic_axes={name: {0: "batch"} for name in ("values", "level", "high")},
            opset_version=17,
            dynamo=False,
        )
    network.limit.fill_(0.1)
    report = _prove(toy)
    assert report.rungs[0].flipped > 0
    _assert_refused(
        toy,
        report,
        r"toy_level: onnxruntime: .* limit; \d+ of \d+ decisions flipped at \(batch",
        tmp_path,
    )


def test_batch_baked_into_the_signature(toy: Ascent) -> None:
    path = toy.candidate.file("onnx")

    def bake(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2

    _edit(path, bake)
    with pytest.raises(ExportError, match=r"input 'values' is not as declared"):
        require_onnx(path, toy.candidate.graph, LIMITS["24.10"])


def test_batch_baked_inside_the_graph(toy: Ascent, tmp_path: Path) -> None:
    def bake(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if "level" in node.output)
        node.output[list(node.output).index("level")] = "level_before"
        for other in model.graph.node:
            for index, name in enumerate(other.input):
                if name == "level":
                    other.input[index] = "level_before"
        shape = numpy_helper.from_array(np.array([2, 1], dtype=np.int64), "baked_shape")
        model.graph.initializer.append(shape)
        model.graph.node.append(
            helper.make_node("Reshape", ["level_before", "baked_shape"], ["level"])
        )

    _edit(toy.candidate.file("onnx"), bake)
    require_onnx(toy.candidate.file("onnx"), toy.candidate.graph, LIMITS["24.10"])
    report = _prove(toy)
    # Every batch but 2 fails, and the failing cells do not hide the others.
    assert len(report.rungs[0].errors) == 18
    _assert_refused(toy, report, "the batch axis is baked at 2; .*18 of 25 cells failed", tmp_path)


def test_torchscript_of_another_network(toy: Ascent, tmp_path: Path) -> None:
    path = toy.candidate.file("torchscript")
    other = type(toy.network)().eval()
    torch.jit.save(torch.jit.trace(other, (torch.zeros(2, 8),)), str(path))
    _assert_refused(toy, _prove(toy), "torchscript: ", tmp_path)


def test_swapped_labels(tiny_text: Ascent, tmp_path: Path) -> None:
    def swap(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if "probabilities" in node.output)
        node.output[0] = "unswapped"
        order = numpy_helper.from_array(np.array([1, 0], dtype=np.int64), "order")
        model.graph.initializer.append(order)
        model.graph.node.append(
            helper.make_node("Gather", ["unswapped", "order"], ["probabilities"], axis=1)
        )

    _edit(tiny_text.candidate.file("onnx"), swap)
    report = _prove(tiny_text)
    assert report.rungs[0].flipped > 0
    _assert_refused(tiny_text, report, "decisions flipped", tmp_path)


def test_a_report_about_other_files_or_forged(toy: Ascent, tmp_path: Path) -> None:
    report = _prove(toy)
    candidate = toy.candidate
    with pytest.raises(PublishError, match=r"incomplete.*none for grpc"):
        publish(candidate, tmp_path / "repository")
    # A verdict written by hand is not believed: it is computed again.
    failing = dataclasses.replace(report.rungs[0], flipped=3)
    from export.report import write_report

    write_report(dataclasses.replace(report, rungs=[failing]), candidate.folder)
    path = candidate.folder / REPORT_FILE
    path.write_text(path.read_text().replace('"passed": false', '"passed": true'))
    assert not read_report(candidate.folder).passed  # type: ignore[union-attr]
    write_report(report, candidate.folder)
    _edit_weights(candidate.file("onnx"), lambda weight: weight * 2)
    with pytest.raises(PublishError, match=r"about another model\.onnx"):
        publish(candidate, tmp_path / "repository")


def test_served_text_model_passes_and_is_published(tiny_text: Ascent, tmp_path: Path) -> None:
    report = _prove(tiny_text, wire=True)
    assert report.passed, report.complaint()
    assert [rung.rung for rung in report.rungs] == [
        "onnxruntime",
        "torchscript",
        "grpc",
        "http",
        "concurrent",
        "front",
    ]
    published = publish(tiny_text.candidate, tmp_path / "repository")
    assert [str(path.relative_to(tmp_path)) for path in published] == [
        "repository/log_anomaly_classifier/1",
        "repository/log_anomaly/1",
    ]


def _break_before_serving(monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]) -> None:
    """Change the staged repository after every offline rung has passed."""
    start = gate.serving

    def start_broken(candidates: Sequence[Candidate], repository: Path) -> Any:
        change(repository)
        return start(candidates, repository)

    monkeypatch.setattr(gate, "serving", start_broken)


def _other_threshold(repository: Path) -> None:
    path = repository / "log_anomaly" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["thresholds"]["anomaly"] = 2.0
    path.write_text(json.dumps(manifest))


def _other_weights(repository: Path) -> None:
    _edit_weights(repository / "toy_level" / "1" / "model.onnx", lambda weight: weight * 1.5)


def test_wrong_threshold_in_the_served_front(
    tiny_text: Ascent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break_before_serving(monkeypatch, _other_threshold)
    report = _prove(tiny_text, wire=True)
    assert [rung.rung for rung in report.rungs if not rung.passed] == ["front"]
    _assert_refused(tiny_text, report, "front: .*decisions flipped", tmp_path)


def test_another_file_than_the_proven_one_is_served(
    toy: Ascent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break_before_serving(monkeypatch, _other_weights)
    report = _prove(toy, wire=True)
    failed = [rung.rung for rung in report.rungs if not rung.passed]
    assert failed == ["grpc", "http", "concurrent"]
    _assert_refused(toy, report, "grpc: ", tmp_path)


def test_another_threshold_is_named_before_anything_is_served(
    tiny_text: Ascent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage_wrongly(candidate: Candidate, repository: Path) -> None:
        stage(candidate, repository)
        _other_threshold(repository)

    monkeypatch.setattr(serving, "stage", stage_wrongly)
    _assert_refused(tiny_text, _prove(tiny_text), "threshold of another run", tmp_path)
