"""What a model's folder declares. ``training/<model>/spec.py`` holds one ``SPEC: ModelSpec``.

Everything downstream (training command, export, parity, config.pbtxt, load test) reads the spec
and the manifest; no other place knows a model by name. Adding a model is adding its folder.
Callables import torch inside their bodies, so that reading a spec stays cheap.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from contract.manifest import Front, Graph, Manifest

if TYPE_CHECKING:
    import torch

    from training.artifact import Artifact
    from training.run import TrainRun

Arrays = dict[str, np.ndarray]
Padding = Literal["none", "half", "most"]  # 0, 50 and 90% of the row is padding (or missing)


@dataclass(frozen=True)
class Decisions:
    """What a user would act on, per row: parity compares these, not only numbers.

    values: int (rows, decisions)
    margins: float (rows, decisions), distance of the deciding number from its threshold
    """

    values: np.ndarray
    margins: np.ndarray


@dataclass(frozen=True)
class Parity:
    """What the export gate asks of a model. Inputs and outputs: {tensor name: (rows, …)}."""

    # Rows for one cell of the grid, made from the golden inputs. ``length``: tokens, or
    # non-missing context points; never above max_length.
    inputs: Callable[[Artifact, int, int, Padding], Arrays]
    # Rows that exports break on, by name ("empty", "Chinese", "constant" …); one batch each.
    edges: Callable[[Artifact], Mapping[str, Arrays]]
    # (manifest, inputs, outputs) → decisions.
    decide: Callable[[Manifest, Arrays, Arrays], Decisions]
    # What no answer may be, whatever eager says: (manifest, inputs, outputs) → one phrase per
    # kind of fault ("quantiles cross in 3 rows"); none: ().
    faults: Callable[[Manifest, Arrays, Arrays], Sequence[str]]
    # One row for a reviewer: its text, or its series in figures.
    describe: Callable[[Artifact, Arrays, int], str]


@dataclass(frozen=True)
class Benchmark:
    """One table of ``python -m training benchmark <name>``: this model beside what it must beat."""

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    # (arguments: its own, and data, artifacts, seed, quiet) → the table as text.
    run: Callable[[Namespace], str]


@dataclass(frozen=True)
class Adaptation:
    """How a finished run goes on from a user's corrections (``python -m training adapt``)."""

    add_arguments: Callable[[ArgumentParser], None]
    # (the run to go on from, the new run) → the new artifact.
    run: Callable[[Artifact, TrainRun], Artifact]


@dataclass(frozen=True)
class ModelSpec:
    name: str
    question: str
    # What a plain `train <model>` trains, in order. One preset is one artifact and one graph.
    presets: tuple[str, ...]
    # Static contract of a preset: what config.pbtxt is built from, without any training.
    graph: Callable[[str], Graph]
    front: Callable[[str], Front | None]
    labels: tuple[str, ...]
    # "optimum": a transformers text classifier; "torch": torch.onnx.export of the network.
    exporter: Literal["optimum", "torch"]
    # Adds the model's own flags to `train`; the common ones are there already.
    add_train_arguments: Callable[[ArgumentParser], None]
    # Trains one preset and returns the finished artifact (manifest, weights, golden inputs).
    train: Callable[[TrainRun], Artifact]
    # The eval-mode module that is exported: forward(*graph inputs, in order) → tuple of the graph
    # outputs, in order; all numeric pre- and post-processing inside.
    load_network: Callable[[Artifact], torch.nn.Module]
    parity: Parity
    # Adds the model's own flags to `predict` and answers without a server: yields one JSON-able
    # record per input (per series, per line, per log).
    add_predict_arguments: Callable[[ArgumentParser], None]
    predict: Callable[[Artifact, Namespace], Iterator[Mapping[str, Any]]]
    # One real question for the demo, as the client's CLI and the wire would get it.
    golden_questions: Callable[[Artifact], Iterable[Any]]
    # Values of its own flags for `train --quick`: a minute or two, for a demo.
    quick: Mapping[str, object] = field(default_factory=dict)
    # By the name the command line knows it by: usually the model's own.
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)
    # None: the model does not learn from corrections.
    adaptation: Adaptation | None = None
