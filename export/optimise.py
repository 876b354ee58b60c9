"""Target ``gpu``: ONNX Runtime's transformer fusions on a text classifier, through optimum.

Not for target ``cpu``: there the fused graph is no faster (0.86-0.97 of the plain one).
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from contract.errors import ExportError
from contract.manifest import Graph
from export.onnx_export import quiet, transformer_config

# Fused operator → how many of it one encoder layer must become. The embedding stays as it is: its
# fusion wants token_type_ids as an input, which these classifiers do not take.
_PER_LAYER = {"Attention": 1, "SkipLayerNormalization": 2, "BiasGelu": 1}


def optimise(path: Path, network: Any, graph: Graph) -> None:
    """Fuse ``path`` in place.

    Raises:
        ExportError: fewer fusions than the encoder has layers. An exporter or transformers
            release that writes the graph otherwise loses them without a word.
    """
    from optimum.onnxruntime import AutoOptimizationConfig, ORTOptimizer

    config = transformer_config(network)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, quiet():
        optimizer = ORTOptimizer([path], config)
        optimizer.optimize(
            save_dir=folder,
            optimization_config=AutoOptimizationConfig.O2(),
            file_suffix="",
            one_external_file=False,
        )
        shutil.move(str(Path(folder) / path.name), path)
    check_fused(path, graph, int(config.num_hidden_layers))


def check_fused(path: Path, graph: Graph, layers: int) -> None:
    """Raise ExportError unless every layer was fused."""
    nodes = Counter(
        node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node
    )
    wanted = {name: count * layers for name, count in _PER_LAYER.items()}
    if any(nodes[name] != count for name, count in wanted.items()):
        raise ExportError(
            f"{graph.triton_name}: fusions lost",
            where=str(path),
            expected=", ".join(f"{count} {name}" for name, count in wanted.items()),
            got=", ".join(f"{nodes[name]} {name}" for name in wanted),
            next_command="use requirements/export.txt's versions, or --target cpu",
        )
