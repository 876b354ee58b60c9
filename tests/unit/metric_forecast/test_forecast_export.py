"""The exported forms answer as the module does, at batches and gaps they were not traced with."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from tests.fixtures.tiny_forecaster import DAY, LASTING, SHORT, onnx_session
from training.metric_forecast.network import LSTMForecast

SETTINGS = [LASTING, SHORT, DAY]


def rows_of(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(batch)
    rows = random.normal(0, 1, (batch, length)) * 10.0 ** random.uniform(-6, 12, (batch, 1))
    rows += 10.0 ** random.uniform(-6, 6, (batch, 1))
    rows[random.random(rows.shape) < random.choice([0, 0.5, 0.9], (batch, 1))] = np.nan
    rows[0, :] = 5.0
    if batch > 2:
        rows[1] = np.tile(rows[2, :4], length // 4)
        rows[2] = np.nan
    seasons = random.choice([0, 4, 16, 288], (batch, 1))
    return torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(seasons)


def spread_of(series: torch.Tensor) -> np.ndarray:
    rows = np.nan_to_num(series.numpy().astype(np.float64))
    return np.maximum(np.abs(rows).max(1), 1e-30)[:, None, None]


@pytest.mark.parametrize("settings", SETTINGS)
def test_onnx_runtime_decides_as_eager(settings, tmp_path):
    torch.manual_seed(0)
    network = LSTMForecast(settings).eval()
    inputs = rows_of(2, settings.context_length)
    session = onnx_session(network, inputs, tmp_path / "model.onnx")
    for batch in (1, 7, 64):
        series, seasons = rows_of(batch, settings.context_length)
        with torch.inference_mode():
            forecast, source = network(series, seasons)
        got, got_source = session.run(
            None, {"series": series.numpy(), "season_length": seasons.numpy()}
        )
        np.testing.assert_array_equal(np.isnan(got), np.isnan(forecast.numpy()))
        difference = np.abs(np.nan_to_num(got) - np.nan_to_num(forecast.numpy()))
        assert (difference / spread_of(series)).max() < 1e-4
        np.testing.assert_array_equal(got_source, source.numpy())


@pytest.mark.parametrize("settings", SETTINGS)
def test_torchscript_is_bit_equal(settings):
    torch.manual_seed(0)
    network = LSTMForecast(settings).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, rows_of(2, settings.context_length))
    for batch in (1, 7, 64):
        inputs = rows_of(batch, settings.context_length)
        with torch.inference_mode():
            for expected, got in zip(network(*inputs), traced(*inputs), strict=True):
                torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
