"""``config.pbtxt`` through Triton's own protobuf messages, from a spec's graph and front alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from contract.errors import ExportError
from contract.manifest import Front, Graph, Tensor
from export.candidate import MODEL_FILES, Format, served_name
from export.target import CPU, Target
from training.spec import ModelSpec

CONFIG_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
HEADER = "# Built by `python -m export config --write` from the model's spec; do not edit.\n"
# One thread per instance: under concurrency it beats two (83 against 36-61 sequences/s on 2 cores).
THREADS_PER_INSTANCE = 1
# So many neighbouring numbers of a token share a scale. It divides the widths of the encoders here
# (384, 1,536); OpenVINO leaves a product that it does not divide in bf16, and its default of 32
# saves nothing (a line of 35 tokens: bf16 4.4 ms, groups of 32 4.2, 128 3.2, 384 3.0).
GROUP_KEY = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
GROUP_SIZE = 384
# No queue delay anywhere, and three instances: with a delay, with one instance, and now and then
# with two, the 2.51 server leaves requests waiting for 500 ms, or until another one is taken in,
# which a full queue never does (p99 of an overload of 15 s: 1,280 ms with two, 340 with three).
# Requests still batch while the instances are busy.
VERSIONS_SERVED = 2
WARMUP_LENGTH = 16


@dataclass(frozen=True)
class ModelConfig:
    """What lies beside the version folders of one Triton model."""

    triton_name: str
    config: str
    labels: str | None

    def files(self) -> dict[str, str]:
        files = {CONFIG_FILE: self.config}
        if self.labels is not None:
            files[LABELS_FILE] = self.labels
        return files


def graph_config(
    graph: Graph, labels: tuple[str, ...], *, served: Format = "onnx", target: Target = CPU
) -> ModelConfig:
    """Config of the native-backend model."""
    config = _base(served_name(graph.triton_name, served), graph, labels)
    config.default_model_filename = MODEL_FILES[served]
    threads: dict[str, int]
    if served == "onnx" and target.backend == "openvino":
        config.backend = "openvino"
        # One compiled model for all instances: as many streams as there are of them.
        count = graph.instance_count
        threads = {"INFERENCE_NUM_THREADS": count * THREADS_PER_INSTANCE, "NUM_STREAMS": count}
        _batch_axis_into_dims(config)
        if target.precision == "int8":
            # A key of the embedded server's backend; the native one knows none for it.
            config.parameters[GROUP_KEY].string_value = str(GROUP_SIZE)
    elif served == "onnx":
        config.backend = "onnxruntime"
        threads = {"intra_op_thread_count": THREADS_PER_INSTANCE, "inter_op_thread_count": 1}
    else:
        config.backend = "pytorch"
        threads = {"INTRA_OP_THREAD_COUNT": THREADS_PER_INSTANCE, "INTER_OP_THREAD_COUNT": 1}
        config.parameters["INFERENCE_MODE"].string_value = "true"
        # The native backend finds outputs by position, written into their names.
        for index, output in enumerate(config.output):
            output.name = f"{output.name}__{index}"
    for name, count in threads.items():
        config.parameters[name].string_value = str(count)
    if target.on_gpu:
        # Without a kind Triton puts the ONNX Runtime backend on whatever it finds.
        config.instance_group[0].kind = pb.ModelInstanceGroup.KIND_GPU
    if config.max_batch_size > 0:
        _batching(config, graph.max_queue_size)
    _warm_up(config, graph)
    return _finished(config, labels)


def front_config(front: Front, labels: tuple[str, ...]) -> ModelConfig:
    """Config of the text front. No warm-up: its classifier may not be loaded yet."""
    config = _base(front.triton_name, front, labels)
    config.backend = "python"
    config.default_model_filename = "model.py"
    _batching(config, front.max_queue_size)
    return _finished(config, labels)


def spec_configs(spec: ModelSpec, target: Target = CPU) -> Iterator[ModelConfig]:
    """Every model that a spec puts into a target's repository, without any training."""
    for preset in spec.presets:
        front = spec.front(preset)
        yield graph_config(spec.graph(preset), spec.labels, target=target)
        if front is not None:
            yield front_config(front, spec.labels)


def _base(name: str, served: Graph | Front, labels: tuple[str, ...]) -> pb.ModelConfig:
    config = pb.ModelConfig(name=name, max_batch_size=served.max_batch_size)
    for tensor in served.inputs:
        config.input.add(
            name=tensor.name, data_type=_type(tensor), dims=tensor.dims, optional=tensor.optional
        )
    for tensor in served.outputs:
        output = config.output.add(name=tensor.name, data_type=_type(tensor), dims=tensor.dims)
        if labels and tensor.dtype == "FP32" and tensor.dims == (len(labels),):
            output.label_filename = LABELS_FILE
    config.instance_group.add(count=served.instance_count)
    config.version_policy.latest.num_versions = VERSIONS_SERVED
    for key, value in served.parameters.items():
        config.parameters[key].string_value = value
    return config


def _batch_axis_into_dims(config: pb.ModelConfig) -> None:
    """The native openvino backend answers full batches only where max_batch_size is above 0
    (triton-inference-server/server issue 7363): the batch is an ordinary first axis instead."""
    config.max_batch_size = 0
    for tensor in (*config.input, *config.output):
        tensor.dims.insert(0, -1)


def _batching(config: pb.ModelConfig, max_queue_size: int) -> None:
    batching = config.dynamic_batching
    batching.preferred_batch_size.append(config.max_batch_size)
    batching.default_queue_policy.max_queue_size = max_queue_size


def _warm_up(config: pb.ModelConfig, graph: Graph) -> None:
    """A single row and a full batch. Zeros: random token ids would lie outside the vocabulary."""
    batched = config.max_batch_size > 0
    for name, batch in (("one_row", 1), ("full_batch", graph.max_batch_size)):
        sample = config.model_warmup.add(name=name, batch_size=batch if batched else 0, count=1)
        for tensor in graph.inputs:
            entry = sample.inputs[tensor.name]
            entry.data_type = _type(tensor)
            entry.dims.extend([] if batched else [batch])
            entry.dims.extend(WARMUP_LENGTH if size == -1 else size for size in tensor.dims)
            entry.zero_data = True


def _type(tensor: Tensor) -> int:
    name = "TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"
    return int(pb.DataType.Value(name))


def _finished(config: pb.ModelConfig, labels: tuple[str, ...]) -> ModelConfig:
    uses_labels = any(output.label_filename for output in config.output)
    return ModelConfig(
        config.name,
        HEADER + text_format.MessageToString(config),
        "".join(f"{label}\n" for label in labels) if uses_labels else None,
    )


def renamed_config(text: str, name: str, *, classifier: str) -> str:
    """The config of a version on trial: another name; a front asks ``classifier``, on trial too."""
    config = parse_config(text)
    config.name = name
    if config.backend == "python":
        config.parameters["classifier"].string_value = classifier
    return str(HEADER + text_format.MessageToString(config))


def without_instance_kind(folder: Path) -> None:
    """Let a model folder made for GPUs load on a server that has none."""
    path = folder / CONFIG_FILE
    config = parse_config(path.read_text(encoding="utf-8"))
    for group in config.instance_group:
        group.ClearField("kind")
    path.write_text(HEADER + text_format.MessageToString(config), encoding="utf-8")


def number_of(config: pb.ModelConfig, key: str) -> int:
    """A parameter; 0: it is not there."""
    value = config.parameters[key].string_value if key in config.parameters else ""
    return int(value or 0)


def parse_config(text: str) -> pb.ModelConfig:
    """The message a config.pbtxt holds. Raises ExportError."""
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ExportError("config.pbtxt cannot be read", got=str(error)) from error


def drift(configs: Iterator[ModelConfig], repository: Path) -> str:
    """Unified diff from the committed files to what the specs say; empty: none."""
    pieces: list[str] = []
    for model in configs:
        for file, text in model.files().items():
            path = repository / model.triton_name / file
            old = path.read_text(encoding="utf-8") if path.is_file() else ""
            pieces.extend(
                difflib.unified_diff(
                    old.splitlines(keepends=True),
                    text.splitlines(keepends=True),
                    fromfile=str(path),
                    tofile=f"{model.triton_name}/{file} of the spec",
                )
            )
    return "".join(pieces)


def write_configs(configs: Iterator[ModelConfig], repository: Path) -> list[Path]:
    """Write what differs; returns the files written."""
    written = []
    for model in configs:
        folder = repository / model.triton_name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in model.files().items():
            path = folder / file
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
                written.append(path)
    return written
