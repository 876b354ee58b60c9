"""A whole tiny run that reads companions: train, golden rows, gate's questions, predict, table."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.errors import InputError
from tests.fixtures.tiny_forecaster import train_arguments
from training.artifact import Artifact
from training.data.source import DataSource
from training.metric_forecast.benchmark.companion_table import gain
from training.metric_forecast.benchmark.companions import add_arguments, run
from training.metric_forecast.benchmark.measure import Measured
from training.metric_forecast.predict import forecast_one, load_network
from training.metric_forecast.spec import SPEC
from training.metric_forecast.train import settings_from
from training.run import TrainRun

STEPS = 900


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataSource:
    """A machine whose second channel follows the first one, and a series without company."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    first = random.normal(0, 1, STEPS).cumsum()
    channels = np.stack([first, np.roll(first, 1), random.normal(0, 1, STEPS)], 1)
    at = 1_600_000_200 + 300 * np.arange(STEPS)
    for name, columns in (("host", channels), ("alone", channels[:, :1] ** 2)):
        heads = ",".join(f"m{i}" for i in range(columns.shape[1]))
        rows = [
            f"{t},{','.join(f'{v:.4f}' for v in row)}" for t, row in zip(at, columns, strict=True)
        ]
        heads = "value" if columns.shape[1] == 1 else heads
        (folder / f"{name}.csv").write_text(f"timestamp,{heads}\n" + "\n".join(rows) + "\n")
    return DataSource(folder, "folder")


def train_tiny(path: Path, data: DataSource, *words: str) -> Artifact:
    path.mkdir()
    words = ("--epochs", "0.02", "--seq-len", "48", "--horizon", "4", *words)
    return SPEC.train(
        TrainRun(
            "metric_forecast", "next", path, data, 0, "cpu", train_arguments(*words), False, False
        )
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, data) -> Artifact:
    return train_tiny(tmp_path_factory.mktemp("runs") / "run", data, "--companions", "2")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, data) -> Artifact:
    return train_tiny(tmp_path_factory.mktemp("plain") / "run", data)


def test_the_run_says_that_it_reads_companions(artifact, plain):
    manifest = Artifact.load(artifact.path).manifest
    assert manifest.preset == "custom_48_4_companions"
    assert [tensor.name for tensor in manifest.graph.inputs][2] == "companions"
    assert manifest.graph.inputs[2].dims == (2, 48)
    assert plain.manifest.preset == "custom_48_4"
    assert len(plain.manifest.graph.inputs) == 2
    assert settings_from("12h", train_arguments("--companions", "4"))[0] == "12h_companions"
    with pytest.raises(InputError, match="--companions"):
        settings_from("12h", train_arguments("--companions", "-1"))
    with pytest.raises(InputError, match="preset's name"):
        settings_from("12h", train_arguments("--companions", "4", "--name", "12h"))


def test_golden_rows_hold_companions_and_their_absence(artifact, plain):
    golden = artifact.golden()
    known = np.isfinite(golden["companions"]).any(2)
    assert golden["companions"].shape == (96, 2, 48)
    assert {0, 2} <= set(known.sum(1))
    assert set(plain.golden()) == {"series", "season_length"}


def test_the_gate_asks_with_companions(artifact):
    network, manifest = load_network(artifact), artifact.manifest
    cells = [SPEC.parity.inputs(artifact, 3, length, "half") for length in (1, 17, 48)]
    edges = SPEC.parity.edges(artifact)
    assert {"no companions", "constant companions", "huge companions", "constant"} <= set(edges)
    for inputs in [*cells, *edges.values()]:
        tensors = [torch.from_numpy(inputs[tensor.name]) for tensor in manifest.graph.inputs]
        with torch.inference_mode():
            forecast, source = (one.numpy() for one in network(*tensors))
        outputs = {"forecast": forecast, "source": source}
        assert SPEC.parity.faults(manifest, inputs, outputs) == []
        assert len(SPEC.parity.decide(manifest, inputs, outputs).values) == 3
    one = cells[0]["companions"]
    assert np.isnan(one[..., :-1]).all()
    assert "companions" in SPEC.parity.describe(artifact, cells[2], 0)


def test_predict_reads_the_other_channels(artifact, data, tmp_path):
    network = load_network(artifact)
    values = np.random.default_rng(3).normal(0, 1, (3, 200)).cumsum(1)
    alone = forecast_one(network, values[0], 300, "x")
    beside = forecast_one(network, values[0], 300, "x", list(values[1:]))
    again = forecast_one(network, values[0], 300, "x", [np.full(200, np.nan)])
    assert alone["median"] == again["median"]
    assert alone["median"] != beside["median"]
    flags = Namespace(files=[data.root / "host.csv"], step_seconds=None, plot=None, threshold=None)
    (record,) = SPEC.predict(artifact, flags)
    assert len(record["median"]) == 4


# The table -----------------------------------------------------------------------------------


def flags_of(*words: str) -> Namespace:
    parser = ArgumentParser()
    add_arguments(parser)
    parsed = parser.parse_args([*words, "--origins", "4", "--bootstrap", "20"])
    parsed.quiet, parsed.seed = True, 0
    return parsed


def test_table_of_given_runs(artifact, plain, data):
    words = ("--run-folder", str(artifact.path), "--plain-folder", str(plain.path))
    parsed = flags_of(*words)
    parsed.data, parsed.artifacts = data.root, data.root
    text = run(parsed)
    for way in ("plain, 1 seed", "companions, 1 seed", "withheld, 1 seed", "another time, 1 seed"):
        assert f"| {way} " in text
    # The series without company is not judged.
    assert "3 series that have any" in text
    assert "target 5%" in text
    swapped = flags_of("--run-folder", str(plain.path), "--plain-folder", str(plain.path))
    swapped.data, swapped.artifacts = data.root, data.root
    with pytest.raises(InputError, match="reads no companions"):
        run(swapped)


def test_gain_by_hand():
    def one(with_them: float, without: float, last: float = 2.0) -> Measured:
        errors = {"a": np.array([with_them]), "b": np.array([without])}
        return Measured("asd", 1, np.array([last]), errors, {})

    measured = [one(0.5, 1.0), one(2.0, 2.0), one(0.0, 1.0, last=0.0)]
    found = gain(measured, ["a"], ["b"], [0], Namespace(seed=0, bootstrap=200))
    assert found.value == pytest.approx(1 - np.sqrt(0.5))
    assert found.low == pytest.approx(0.0)
    assert found.high == pytest.approx(0.5)
