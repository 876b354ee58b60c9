"""What the pinned Triton container can load. One row per tag; the tag is docker-compose.yml's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ExportError

COMPOSE_FILE = Path(__file__).parent.parent / "docker-compose.yml"
DEFAULT_TAG = "24.10"
_IMAGE = re.compile(r"nvidia/tritonserver:(\d+\.\d+)-py3")


@dataclass(frozen=True)
class ContainerLimits:
    """``opset`` is the newest one this project has proven there, not the newest it may know.

    ``contrib_operators``: those of domain com.microsoft that exporters, fusion and quantisation
    write, and that this ONNX Runtime has kernels for.
    """

    tag: str
    triton_version: str
    onnxruntime_version: str
    ir_version: int
    opset: int
    contrib_operators: frozenset[str]


_CONTRIB_1_19 = frozenset(
    (
        "Attention",
        "BiasGelu",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "EmbedLayerNormalization",
        "FastGelu",
        "FusedMatMul",
        "Gelu",
        "MatMulIntegerToFloat",
        "MultiHeadAttention",
        "QAttention",
        "QEmbedLayerNormalization",
        "SkipLayerNormalization",
    )
)
LIMITS = {
    "24.10": ContainerLimits(
        tag="24.10",
        triton_version="2.51.0",
        onnxruntime_version="1.19.2",
        ir_version=10,
        opset=17,
        contrib_operators=_CONTRIB_1_19,
    ),
}


def container_limits(compose_file: Path = COMPOSE_FILE) -> ContainerLimits:
    """Limits of the container named in ``compose_file`` (24.10 where there is no such file).

    Raises:
        ExportError: the file names no tag, or one this table does not know.
    """
    if not compose_file.is_file():
        return LIMITS[DEFAULT_TAG]
    tags = sorted(set(_IMAGE.findall(compose_file.read_text(encoding="utf-8"))))
    if len(tags) != 1 or tags[0] not in LIMITS:
        raise ExportError(
            "unknown Triton container",
            where=str(compose_file),
            expected=f"one image nvidia/tritonserver:<tag>-py3, tag in {', '.join(LIMITS)}",
            got=", ".join(tags) or "none",
            next_command="pin a known tag, or add its limits to export/container.py",
        )
    return LIMITS[tags[0]]
