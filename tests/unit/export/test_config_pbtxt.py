"""config.pbtxt: built through protobuf, parsed back, and the committed files are what specs say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contract.errors import ExportError
from contract.manifest import Front, Graph, Tensor, Tolerance
from export.command import main
from export.config_pbtxt import (
    CONFIG_FILE,
    LABELS_FILE,
    front_config,
    graph_config,
    parse_config,
    spec_configs,
)
from export.container import LIMITS, container_limits
from export.target import CPU, TARGETS
from training.registry import all_specs
from training.spec import ModelSpec

GRAPH = Graph(
    triton_name="words_classifier",
    inputs=(
        Tensor(name="input_ids", dtype="INT64", dims=(-1,)),
        Tensor(name="attention_mask", dtype="INT64", dims=(-1,)),
    ),
    outputs=(
        Tensor(name="probabilities", dtype="FP32", dims=(2,)),
        Tensor(name="length", dtype="INT32", dims=(1,)),
    ),
    max_batch_size=32,
    instance_count=2,
    max_length=64,
    parity_batches=(1,),
    parity_lengths=(1,),
    tolerances={"probabilities": Tolerance(maximum=1e-4, percentile_99_9=1e-4)},
    parameters={"unit": "input", "labels": "low,high"},
)
FRONT = Front(
    triton_name="words",
    inputs=(
        Tensor(name="text", dtype="BYTES", dims=(1,)),
        Tensor(name="threshold", dtype="FP32", dims=(1,), optional=True),
    ),
    outputs=(Tensor(name="probabilities", dtype="FP32", dims=(2,)),),
    max_batch_size=256,
    module="training.log_anomaly.front",
)
LABELS = ("low", "high")


def test_graph_config_says_everything_the_backend_needs() -> None:
    model = graph_config(GRAPH, LABELS)
    config = parse_config(model.config)
    assert (config.name, config.backend) == ("words_classifier", "onnxruntime")
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == 32
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("input_ids", 9, [-1]),
        ("attention_mask", 9, [-1]),
    ]
    assert [(o.name, list(o.dims), o.label_filename) for o in config.output] == [
        ("probabilities", [2], LABELS_FILE),
        ("length", [1], ""),
    ]
    assert model.labels == "low\nhigh\n"
    assert [(g.count, g.kind) for g in config.instance_group] == [(2, 0)]
    assert config.version_policy.latest.num_versions == 2
    assert list(config.dynamic_batching.preferred_batch_size) == [32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 96
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
        "unit": "input",
        "labels": "low,high",
    }


def test_warm_up_covers_one_row_and_a_full_batch() -> None:
    config = parse_config(graph_config(GRAPH, ()).config)
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]
    for sample in config.model_warmup:
        assert sample.inputs.keys() == {"input_ids", "attention_mask"}
        for tensor in sample.inputs.values():
            # Random ids would lie outside the vocabulary; -1 is no size.
            assert tensor.zero_data
            assert min(tensor.dims) > 0


def test_front_config() -> None:
    config = parse_config(front_config(FRONT, LABELS).config)
    assert (config.name, config.backend) == ("words", "python")
    assert [(i.name, i.optional) for i in config.input] == [("text", False), ("threshold", True)]
    assert not config.model_warmup
    assert config.max_batch_size == 256


def test_torchscript_variant_numbers_its_outputs() -> None:
    model = graph_config(GRAPH, LABELS, served="torchscript")
    config = parse_config(model.config)
    assert (config.name, config.backend) == ("words_classifier_torchscript", "pytorch")
    assert config.default_model_filename == "model.pt"
    assert [output.name for output in config.output] == ["probabilities__0", "length__1"]
    assert [tensor.name for tensor in config.input] == ["input_ids", "attention_mask"]
    assert config.parameters["INTRA_OP_THREAD_COUNT"].string_value == "1"


@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.name)
def test_every_spec_is_consistent(spec: ModelSpec) -> None:
    names = [model.triton_name for model in spec_configs(spec)]
    assert len(set(names)) == len(names)
    for preset in spec.presets:
        graph = spec.graph(preset)
        assert graph.tolerances.keys() == {tensor.name for tensor in graph.outputs}
        front = spec.front(preset)
        assert front is None or front.module.startswith("training.")


def test_check_shows_the_difference_and_write_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--repository", str(tmp_path)]
    assert main(["config", "--write", *where]) == 0
    assert main(["config", "--check", *where]) == 0
    path = next(tmp_path.glob(f"*/{CONFIG_FILE}"))
    path.write_text(re.sub(r"max_queue_size: \d+", "max_queue_size: 7", path.read_text()))
    capsys.readouterr()
    assert main(["config", "--check", *where]) == ExportError.exit_code
    printed = capsys.readouterr()
    assert "-    max_queue_size: 7" in printed.out
    assert "+    max_queue_size: " in printed.out
    assert "python -m export config --write" in printed.err
    assert main(["config", "--write", *where]) == 0
    assert main(["config", "--check", *where]) == 0


def test_committed_labels_drift_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--repository", str(tmp_path)]
    main(["config", "--write", *where])
    path = next(tmp_path.glob(f"*/{LABELS_FILE}"))
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert main(["config", "--check", *where]) == ExportError.exit_code


def test_broken_config_is_an_export_error() -> None:
    with pytest.raises(ExportError, match=r"config\.pbtxt cannot be read"):
        parse_config("name: [")


def test_container_limits_follow_the_compose_file(tmp_path: Path) -> None:
    compose = tmp_path / "docker-compose.yml"
    assert container_limits(compose) is LIMITS["24.10"]
    compose.write_text("image: nvcr.io/nvidia/tritonserver:24.10-py3\n")
    assert container_limits(compose) is LIMITS["24.10"]
    compose.write_text("image: nvcr.io/nvidia/tritonserver:31.02-py3\n")
    with pytest.raises(ExportError, match=r"unknown Triton container.*got 31\.02"):
        container_limits(compose)
    compose.write_text("image: something/else:1\n")
    with pytest.raises(ExportError, match="got none"):
        container_limits(compose)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != CPU.name])
def test_golden_configs_of_the_other_targets(
    target: str, repository_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = repository_root / "tests/fixtures/repositories" / target
    code = main(["config", "--check", "--target", target, "--repository", str(golden)])
    printed = capsys.readouterr()
    assert code == 0, printed.out + printed.err
    names = {path.parent.name for path in golden.glob(f"*/{CONFIG_FILE}")}
    assert names == {
        model.triton_name for spec in all_specs() for model in spec_configs(spec, TARGETS[target])
    }
