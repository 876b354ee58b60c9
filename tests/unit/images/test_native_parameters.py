"""config.pbtxt against what the container's native backends document: nothing else is used.

The lists are from the READMEs (section "Parameters", for ONNX Runtime "Model Config Options") and,
where a README is older than its code, from the code that reads them, all of branch r24.10:
github.com/triton-inference-server/{onnxruntime_backend,pytorch_backend,openvino_backend}.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.config_pbtxt import graph_config, parse_config, spec_configs
from export.target import TARGETS
from training.registry import all_specs

DOCUMENTED = {
    "onnxruntime": {
        *("intra_op_thread_count", "inter_op_thread_count", "execution_mode"),
        *("enable_mem_arena", "enable_mem_pattern", "memory.enable_memory_arena_shrinkage"),
        "session.use_device_allocator_for_initializers",
        # Deprecated there, and of the CUDA provider.
        *("cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy"),
        "do_copy_in_default_stream",
    },
    "pytorch": {
        *("DISABLE_OPTIMIZED_EXECUTION", "INFERENCE_MODE", "ENABLE_NVFUSER"),
        *("ENABLE_WEIGHT_SHARING", "ENABLE_CACHE_CLEANING", "ENABLE_JIT_EXECUTOR"),
        *("ENABLE_JIT_PROFILING", "ENABLE_TENSOR_FUSER"),
        *("INTER_OP_THREAD_COUNT", "INTRA_OP_THREAD_COUNT"),
    },
    "openvino": {
        *("PERFORMANCE_HINT", "CPU_EXTENSION_PATH", "INFERENCE_NUM_THREADS"),
        *("COMPILATION_NUM_THREADS", "HINT_BF16", "NUM_STREAMS", "SKIP_OV_DYNAMIC_BATCHSIZE"),
        *("ENABLE_BATCH_PADDING", "RESHAPE_IO_LAYERS"),
    },
    # Has none but EXECUTION_ENV_PATH and friends: any key is the model's own.
    "python": set(),
}
# For clients, who learn them from the server. A backend looks up its own keys and no others.
TOLD_TO_CLIENTS = {
    *("labels", "context_length", "horizon", "quantiles", "sources", "step", "unit"),
}
# Of the embedded server's backend: the native one looks for no such key, and computes in bf16 with
# OpenVINO's own group size, within the same limits but no faster.
EMBEDDED_ONLY = {"DYNAMIC_QUANTIZATION_GROUP_SIZE"}
# Keys that a backend would take for its own by their beginning.
RESERVED_PREFIXES = ("session.", "memory.", "ep.", "TRITON_", "EXECUTION_ENV")


def all_configs() -> dict[str, pb.ModelConfig]:
    """Of every target, and as TorchScript, by a name that says which."""
    found = {}
    for target in TARGETS.values():
        for spec in all_specs():
            for config in spec_configs(spec, target):
                found[f"{target.name}/{config.triton_name}"] = parse_config(config.config)
            for preset in spec.presets:
                served = graph_config(
                    spec.graph(preset), spec.labels, served="torchscript", target=target
                )
                found[f"{target.name}/{served.triton_name}"] = parse_config(served.config)
    return found


CONFIGS = all_configs()


def faults(config: pb.ModelConfig) -> list[str]:
    """What the native backend would not take, or would not notice."""
    found = []
    if config.backend not in DOCUMENTED:
        return [f"backend {config.backend!r} is none of the container's that are known here"]
    own = set(config.parameters) - TOLD_TO_CLIENTS
    if config.backend != "python":
        documented = DOCUMENTED[config.backend]
        if config.backend == "openvino":
            documented = documented | EMBEDDED_ONLY
        found += [f"{key} is not documented" for key in own - documented]
    found += [
        f"{key} looks like the backend's own"
        for key in TOLD_TO_CLIENTS & set(config.parameters)
        if key.startswith(RESERVED_PREFIXES)
    ]
    for key in own & {"intra_op_thread_count", "INTRA_OP_THREAD_COUNT", "INFERENCE_NUM_THREADS"}:
        if not config.parameters[key].string_value.isdigit():
            found.append(f"{key} is no number")
    kinds = {group.kind for group in config.instance_group}
    if config.backend == "openvino":
        if config.max_batch_size > 0:
            found.append("openvino answers full batches only")
        if pb.ModelInstanceGroup.KIND_GPU in kinds:
            found.append("openvino has no GPUs")
    if config.backend == "pytorch":
        names = [output.name for output in config.output]
        if [name.rpartition("__")[2] for name in names] != [str(i) for i in range(len(names))]:
            found.append("pytorch finds outputs by the index in their names")
    if any(field.name == "model_metrics" for field, _ in config.ListFields()):
        found.append("2.51 does not know model_metrics")
    return found


def test_targets_and_backends_are_all_met() -> None:
    assert {config.backend for config in CONFIGS.values()} == set(DOCUMENTED)
    assert len(CONFIGS) >= 4 * 10


@pytest.mark.parametrize("name", CONFIGS)
def test_a_native_backend_takes_it(name: str) -> None:
    assert faults(CONFIGS[name]) == []


def test_what_is_committed_is_among_them(repository_root: Path) -> None:
    for path in sorted((repository_root / "model_repository").glob("*/config.pbtxt")):
        assert parse_config(path.read_text("utf-8")) == CONFIGS[f"cpu/{path.parent.name}"]


def _parameter(key: str) -> str:
    return f'parameters {{key: "{key}" value {{string_value: "1"}}}}'


CLASSIFIER = "log_anomaly_classifier"


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        (f"cpu/{CLASSIFIER}", _parameter("intra_op_threads"), "not documented"),
        (f"cpu/{CLASSIFIER}", _parameter("NUM_STREAMS"), "not documented"),
        (f"cpu/{CLASSIFIER}", _parameter("DYNAMIC_QUANTIZATION_GROUP_SIZE"), "not documented"),
        (f"cpu/{CLASSIFIER}_torchscript", _parameter("intra_op_thread_count"), "not documented"),
        (f"cpu-openvino/{CLASSIFIER}", "max_batch_size: 8", "full batches only"),
        (f"cpu-openvino/{CLASSIFIER}", "instance_group {kind: KIND_GPU}", "no GPUs"),
        (f"cpu/{CLASSIFIER}_torchscript", 'output {name: "more"}', "by the index"),
        (f"cpu/{CLASSIFIER}", "model_metrics {}", "model_metrics"),
        (f"cpu/{CLASSIFIER}", 'backend: "onnx"', "none of the container's"),
    ],
)
def test_the_rules_notice(name: str, line: str, fault: str) -> None:
    broken = pb.ModelConfig()
    broken.CopyFrom(CONFIGS[name])
    text_format.Merge(line, broken)
    assert any(fault in said for said in faults(broken))
