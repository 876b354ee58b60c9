"""A whole tiny run: train, load, golden rows, decisions, predict."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.errors import ArtifactCorruptError, InputError, SeriesError
from tests.fixtures.tiny_forecaster import train_arguments
from training.artifact import Artifact
from training.data.source import DataSource
from training.metric_forecast.evidence import Evidence
from training.metric_forecast.predict import checked, forecast_one, load_network
from training.metric_forecast.spec import SPEC
from training.metric_forecast.train import scaled_pinball, settings_from
from training.run import TrainRun


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataSource:
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("cpu", "disk"):
        wave = 50 + 20 * np.sin(np.arange(900) / 288 * 2 * np.pi) + random.normal(0, 3, 900)
        lines = [f"{1_600_000_200 + 300 * i},{value:.3f}" for i, value in enumerate(wave)]
        (folder / f"{name}.csv").write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    return DataSource(folder, "folder")


def train_tiny(path: Path, data: DataSource, seed: int = 0) -> Artifact:
    path.mkdir()
    words = ("--epochs", "0.02", "--seq-len", "24", "--horizon", "4")
    return SPEC.train(
        TrainRun(
            "metric_forecast",
            "next",
            path,
            data,
            seed,
            "cpu",
            train_arguments(*words),
            False,
            False,
        )
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, data) -> Artifact:
    return train_tiny(tmp_path_factory.mktemp("runs") / "run", data)


def test_run_is_complete(artifact):
    manifest = Artifact.load(artifact.path).manifest
    assert manifest.preset == "custom_24_4"
    assert manifest.graph.triton_name == "metric_forecast_custom_24_4"
    assert manifest.graph.inputs[0].dims == (24,)
    assert manifest.graph.outputs[0].dims == (4, 3)
    assert {quality.baseline for quality in manifest.quality} == {"last value", "seasonal naive"}
    assert {"forecast.pt", "metadata.json"} <= set(manifest.files)


def test_same_seed_same_weights(artifact, data, tmp_path):
    again = load_network(train_tiny(tmp_path / "again", data)).state_dict()
    for name, value in load_network(artifact).state_dict().items():
        assert torch.equal(value, again[name]), name
    other = load_network(train_tiny(tmp_path / "other", data, seed=1)).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in again.items())


def test_golden_rows_hold_the_hard_cases(artifact):
    golden = artifact.golden()
    assert golden["series"].shape == (96, 24)
    assert golden["season_length"].dtype == np.int64
    assert np.isfinite(golden["series"]).any(axis=1).all()
    assert np.isnan(golden["series"]).any()
    assert (np.nanmax(golden["series"], axis=1) == np.nanmin(golden["series"], axis=1)).any()
    assert np.nanmax(np.abs(golden["series"])) > 1e12
    question = next(iter(SPEC.golden_questions(artifact)))
    assert question["step_seconds"] == 300
    assert len(question["values"]) == 24


@pytest.mark.parametrize("padding", ["none", "half", "most"])
@pytest.mark.parametrize("length", [1, 8, 24])
def test_parity_rows(artifact, length, padding):
    inputs = SPEC.parity.inputs(artifact, 100, length, padding)
    assert inputs["series"].shape == (100, 24)
    assert np.isnan(inputs["series"][:, : 24 - length]).all()
    assert np.isfinite(inputs["series"][:, -1]).all()
    share = np.isnan(inputs["series"][:, 24 - length : -1]).mean() if length > 1 else 0.0
    floor = {"none": 0.0, "half": 0.3, "most": 0.7}[padding]
    assert length == 1 or share >= floor


def test_decisions(artifact):
    inputs = SPEC.parity.inputs(artifact, 4, 24, "none")
    high = np.nanmax(inputs["series"], axis=1) * np.array([2, 1, 2, 1])
    low = np.nanmin(inputs["series"], axis=1) - 1
    ends = np.where([True, False, True, False], high, low)
    forecast = np.repeat(ends[:, None, None], 4, 1).repeat(3, 2).astype(np.float32)
    outputs = {"forecast": forecast, "source": np.array([[0], [1], [2], [0]], np.int32)}
    decided = SPEC.parity.decide(artifact.manifest, inputs, outputs)
    assert decided.values[:, 0].tolist() == [0, 1, 2, 0]
    assert decided.values[:, 1].tolist() == [1, 0, 1, 0]
    assert (decided.margins[:, 1] > 0).all()


def test_predict_answers_the_good_and_names_the_bad(artifact, data, tmp_path):
    (tmp_path / "bad.csv").write_text("timestamp,value\n1600000000,abc\n")
    files = [data.root / "cpu.csv", tmp_path / "bad.csv", tmp_path / "none.csv"]
    records = list(SPEC.predict(artifact, Namespace(files=files, step_seconds=None)))
    assert len(records[0]["median"]) == 4
    assert set(records[0]["quantiles"]) == {"0.1", "0.5", "0.9"}
    assert records[0]["notes"] == ["only the newest 24 of 900 steps are read"]
    assert "bad.csv" in records[1]["error"]
    assert "none.csv" in records[2]["error"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "empty"),
        ([1.0, np.inf], "infinite value at x, step 1"),
        ([1e31], "too large"),
        ([np.nan, np.nan], "nothing but missing"),
        (["a"], "not numbers"),
        ([[1.0, 2.0]], "expected one channel"),
    ],
)
def test_series_that_cannot_be_forecast(values, reason):
    with pytest.raises(SeriesError, match=reason):
        checked(values, "x")


def test_points_older_than_the_context_do_not_count(artifact):
    values = np.full(100, np.nan)
    values[0] = 1.0
    with pytest.raises(SeriesError, match="no number among the newest steps"):
        forecast_one(load_network(artifact), values, 300, "x")


def test_broken_weights_are_named(artifact, tmp_path):
    for name in ("metadata.json", "manifest.json"):
        (tmp_path / name).write_bytes((artifact.path / name).read_bytes())
    (tmp_path / "forecast.pt").write_bytes(b"not weights")
    with pytest.raises(ArtifactCorruptError, match=r"forecast\.pt"):
        load_network(Artifact(tmp_path, artifact.manifest))


def test_run_names():
    assert settings_from("next", train_arguments())[0] == "next"
    name, settings = settings_from("12h", train_arguments("--without", "lstm,analogs"))
    assert (name, settings.has_lstm, settings.patches) == ("custom_2016_144", False, ())
    assert settings_from("12h", train_arguments("--horizon", "72"))[0] == "custom_2016_72"
    assert settings_from("next", train_arguments("--horizon", "2", "--name", "mine"))[0] == "mine"
    for words in (
        ["--quantiles", "0.1,0.9"],
        ["--quantiles", "0,0.5"],
        ["--seq-len", "3"],
        ["--without", "x"],
    ):
        with pytest.raises(InputError):
            settings_from("next", train_arguments(*words))


def test_static_graphs_are_the_contract():
    following, half_day = SPEC.graph("next"), SPEC.graph("12h")
    assert (following.inputs[0].dims, following.outputs[0].dims) == ((30,), (1, 3))
    assert (half_day.inputs[0].dims, half_day.outputs[0].dims) == ((2016,), (144, 3))
    assert (following.max_batch_size, half_day.max_batch_size) == (256, 64)
    with pytest.raises(InputError):
        SPEC.graph("custom_24_4")


def loss_of(quantiles: torch.Tensor, truth: torch.Tensor, **changes: torch.Tensor) -> float:
    """Two steps of one window whose last value is wrong by 1, its best expert by 0.25."""
    facts = dict.fromkeys(Evidence._fields, torch.zeros(1))
    ones = torch.ones(1, 2)
    facts |= {"scale": ones, "best": 0.25 * ones, "moves": ones, **changes}
    weight = changes.pop("weight", ones)
    facts.pop("weight", None)
    evidence = Evidence(**facts)
    return float(scaled_pinball((0.1, 0.5, 0.9), quantiles, truth, weight, evidence))


def test_loss_prefers_the_truth():
    truth = torch.tensor([[1.0, 2.0]])
    exact = truth.unsqueeze(-1).repeat(1, 1, 3)
    assert loss_of(exact, truth) == 0.0
    assert loss_of(exact + 0.5, truth) > loss_of(exact + 0.1, truth) > 0
    # Half (geometrically) of the last value's error 1 and the best expert's 0.25.
    median_only = exact + torch.tensor([0.0, 0.1, 0.0])
    assert loss_of(median_only, truth) == pytest.approx(4 * 0.5 * 0.1 / 0.5)


def test_loss_ignores_missing_steps_and_flat_windows():
    truth = torch.tensor([[1.0, math.nan]])
    exact = torch.tensor([[[1.0, 1.0, 1.0], [9.0, 9.0, 9.0]]])
    assert loss_of(exact, truth) == 0.0
    flat = {"moves": torch.tensor([[1.0, 0.0]])}
    assert loss_of(exact, torch.tensor([[1.0, 2.0]]), **flat) == 0.0
    assert loss_of(exact, torch.tensor([[1.0, 2.0]])) > 0.0


def test_one_wild_step_does_not_own_the_loss():
    truth = torch.tensor([[1.0, 1e12]])
    exact = torch.tensor([[[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]])
    assert loss_of(exact, truth) == pytest.approx(20.0)
