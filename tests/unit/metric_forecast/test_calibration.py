"""The band holds what its quantiles promise, on steps that training never saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.fixtures.tiny_forecaster import LASTING, make, noise
from training.metric_forecast.benchmark.measure import network_method
from training.metric_forecast.calibrate import calibrate, half_bands
from training.metric_forecast.data import Series, horizon_at
from training.metric_forecast.evaluate import validation_origins
from training.metric_forecast.network import LSTMForecast


@pytest.fixture(scope="module")
def series() -> list[Series]:
    rows = noise(24, 900, seed=3)
    return [Series(f"s{i}", "made", f"s{i}", 300, row, "made") for i, row in enumerate(rows)]


def roughly_right() -> LSTMForecast:
    """Untrained, but with a band of the right order."""
    network = make(LASTING)
    with torch.no_grad():
        for member in network.core.members:
            member.decide.bias[member.size + 1 :] = 1.0
    return network


def shares_outside(network: LSTMForecast, series: list[Series], ahead: int) -> tuple[float, float]:
    low, high = [], []
    for one in series:
        origins = validation_origins(one, 8, 0)
        answers = network_method(network)(one, origins, (ahead,))[:, 0]
        truth = np.array([horizon_at(one.values, o, 8)[ahead - 1] for o in origins])
        low.append(truth < answers[:, 0])
        high.append(truth > answers[:, -1])
    return float(np.concatenate(low).mean()), float(np.concatenate(high).mean())


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_a_tenth_lies_below_and_a_tenth_above(series, ahead):
    network = roughly_right()
    before = shares_outside(network, series, ahead)
    calibrate(network, series)
    assert (network.widen != 1).any()
    after = shares_outside(network, series, ahead)
    assert max(abs(share - 0.1) for share in after) < 0.05
    assert max(abs(share - 0.1) for share in after) <= max(abs(share - 0.1) for share in before)


def test_few_truths_leave_the_band_alone(series):
    network = make(LASTING)
    calibrate(network, series[:2])
    assert (network.widen == 1).all()


def test_the_median_stays_and_quantiles_stay_in_order():
    wide = replace(LASTING, quantiles=(0.05, 0.25, 0.5, 0.75, 0.95))
    plain, widened = make(wide), make(wide)
    with torch.no_grad():
        widened.widen[:, 0], widened.widen[:, 1] = 0.5, 3.0
    rows = torch.from_numpy(noise(4, 64))
    season = torch.full((4, 1), 16)
    with torch.inference_mode():
        before, after = plain(rows, season)[0].numpy(), widened(rows, season)[0].numpy()
    np.testing.assert_allclose(after[..., 2], before[..., 2])
    assert (np.diff(after, axis=-1) >= 0).all()
    below = before[..., 2] - before[..., 0]
    np.testing.assert_allclose(after[..., 2] - after[..., 0], 0.5 * below, rtol=1e-3)
    above = before[..., 4] - before[..., 2]
    np.testing.assert_allclose(after[..., 4] - after[..., 2], 3.0 * above, rtol=1e-3)


def test_half_bands_of_no_width_or_no_truth_are_unknown():
    answers = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
    found = half_bands(answers, np.array([3.0, 2.5, np.nan]))
    np.testing.assert_allclose(found[0], [-1.0, 0.5])
    assert np.isnan(found[1:]).all()
