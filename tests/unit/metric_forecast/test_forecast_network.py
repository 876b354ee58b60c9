"""The network alone, with random weights: what must hold whatever it learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.metric_forecast.network import (
    ForecastSettings,
    LSTMForecast,
    _median,
    settings_for,
)

LASTING = ForecastSettings(
    context_length=64, horizon=8, segment_length=4, hidden_size=8, recent_steps=(4, 16), backtests=4
)
SHORT = ForecastSettings(context_length=12, horizon=1, hidden_size=8, backtests=4)
SEASON = 16


def make(settings: ForecastSettings, seed: int = 0) -> LSTMForecast:
    torch.manual_seed(seed)
    return LSTMForecast(settings).eval()


def ask(
    network: LSTMForecast, rows: np.ndarray, season: int = SEASON
) -> tuple[np.ndarray, np.ndarray]:
    series = torch.from_numpy(np.atleast_2d(rows).astype(np.float32))
    with torch.inference_mode():
        forecast, source = network(series, torch.full((len(series), 1), season))
    return forecast.numpy(), source.numpy()


def noise(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 5, (rows, length)).astype(np.float32)


@pytest.mark.parametrize("settings", [LASTING, SHORT])
def test_shapes_and_types(settings):
    forecast, source = ask(make(settings), noise(3, settings.context_length))
    assert forecast.shape == (3, settings.horizon, 3)
    assert forecast.dtype == np.float32
    assert source.shape == (3, 1)
    assert source.dtype == np.int32


def test_lengths_that_are_no_whole_segments():
    settings = ForecastSettings(context_length=61, horizon=7, segment_length=4, hidden_size=8)
    forecast, _ = ask(make(settings), noise(2, 61))
    assert forecast.shape == (2, 7, 3)
    assert np.isfinite(forecast).all()


def test_quantiles_never_cross_for_any_weights():
    network = make(LASTING)
    with torch.no_grad():
        network.core.head.weight.normal_(0, 5)
        network.core.head.bias.normal_(0, 5)
    rows = noise(64, 64) * 10.0 ** np.random.default_rng(1).uniform(-6, 12, (64, 1))
    forecast, _ = ask(network, rows)
    assert (np.diff(forecast, axis=2) >= 0).all()


@pytest.mark.parametrize("value", [0.0, 3.7, -1e12, 1e-9])
def test_constant_is_forecast_exactly(value):
    forecast, source = ask(make(LASTING), np.full(64, value))
    assert (forecast == np.float32(value)).all()
    assert source == 0


def test_window_without_a_point_is_nan_and_harms_no_neighbour():
    network, rows = make(LASTING), noise(2, 64)
    alone, _ = ask(network, rows[1])
    rows[0] = np.nan
    both, _ = ask(network, rows)
    assert np.isnan(both[0]).all()
    np.testing.assert_allclose(both[1], alone[0], rtol=1e-6)


def test_one_point_is_enough():
    row = np.full(64, np.nan)
    row[-1] = 42.0
    forecast, _ = ask(make(LASTING), row)
    assert (forecast == 42.0).all()


def test_infinite_counts_as_missing():
    missing, infinite = noise(1, 64), noise(1, 64)
    missing[0, [5, 40]] = np.nan
    infinite[0, [5, 40]] = np.inf, -np.inf
    network = make(LASTING)
    np.testing.assert_array_equal(ask(network, missing)[0], ask(network, infinite)[0])


@pytest.mark.parametrize("factor", [2.0**40, 2.0**-30, -1.0])
def test_unit_of_the_metric_is_kept(factor):
    """Scaling the input scales the median; a sign flip needs symmetric weights, so only sizes."""
    network, row = make(LASTING), noise(1, 64)
    if factor < 0:
        # The experts are symmetric in any case.
        _, seasonal, last, scale = core_of(network, row)
        _, flipped_seasonal, flipped_last, flipped_scale = core_of(network, -row)
        assert torch.equal(seasonal, -flipped_seasonal)
        assert torch.equal(last, -flipped_last)
        assert torch.equal(scale, flipped_scale)
        return
    plain, source = ask(network, row)
    scaled, scaled_source = ask(network, row * np.float32(factor))
    np.testing.assert_allclose(scaled, plain * np.float32(factor), rtol=1e-5)
    assert source == scaled_source


def core_of(network, row, season=SEASON):
    with torch.inference_mode():
        return network.core(torch.from_numpy(row), torch.full((len(row), 1), season))


def test_earlier_origins_know_nothing_of_later_points():
    """A back-test is honest: what comes after its origin must not reach it."""
    network, row = make(LASTING), noise(1, 64)
    changed = row.copy()
    origin = network.core.origins[2]
    changed[0, origin:] = changed[0, origin:] * -3 + 1000
    changed[0, -5] = np.nan
    for before, after in zip(core_of(network, row), core_of(network, changed), strict=True):
        torch.testing.assert_close(before[:, 2:], after[:, 2:], rtol=1e-3, atol=1e-3)
        assert not torch.allclose(before[:, 0], after[:, 0], rtol=1e-2)


def test_backtest_equals_the_same_network_on_the_shifted_window():
    network, row = make(LASTING), noise(1, 64)
    shifted = np.full_like(row, np.nan)
    shifted[:, 8:] = row[:, :-8]
    inside, again = core_of(network, row), core_of(network, shifted)
    # Seasonal curve, last value and scale; LSTM states differ only by the blank start.
    for i in (1, 2):
        torch.testing.assert_close(inside[i][:, 1], again[i][:, 0])


def test_exact_repetition_is_answered_by_the_seasonal_expert():
    day = np.random.default_rng(3).normal(100, 30, SEASON).astype(np.float32)
    row = np.tile(day, 4)
    forecast, source = ask(make(LASTING), row)
    assert source == 1
    np.testing.assert_array_equal(forecast[0, :, 1], day[:8])


def test_without_a_season_nothing_seasonal_is_chosen():
    day = np.random.default_rng(3).normal(100, 30, SEASON).astype(np.float32)
    _, source = ask(make(LASTING), np.tile(day, 4), season=0)
    assert source != 1


def test_new_level_is_answered_by_the_last_value():
    row = np.concatenate([noise(1, 24)[0], np.full(40, 900.0)])
    network = make(LASTING)
    with torch.no_grad():
        network.core.head.bias[:4] = 3.0  # an LSTM that is sure of a change that never comes
    forecast, source = ask(network, row)
    assert source == 2
    assert (forecast[0, :, 1] == 900.0).all()


def test_missing_yesterday_falls_back_to_the_day_before():
    day = np.random.default_rng(3).normal(100, 30, SEASON).astype(np.float32)
    row = np.tile(day, 4)
    row[-SEASON : -SEASON + 8] = np.nan
    _, seasonal, _, _ = core_of(make(LASTING), row[None])
    np.testing.assert_allclose(seasonal[0, 0].numpy(), day[:8], rtol=1e-6)


def test_median_of_days_is_numpys():
    random = np.random.default_rng(0)
    values = random.normal(size=(7, 500)).astype(np.float32)
    there = random.random((7, 500)) < 0.6
    expected = np.array(
        [np.median(v[t]) if t.any() else 0.0 for v, t in zip(values.T, there.T, strict=True)]
    )
    columns = [
        torch.from_numpy(np.where(t, v, 3e38).astype(np.float32))
        for v, t in zip(values, there, strict=True)
    ]
    got = _median(columns, torch.from_numpy(there.sum(0).astype(np.float32)))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_one_row_and_a_batch_agree():
    network, rows = make(LASTING), noise(7, 64)
    rows[3, 10:30] = np.nan
    together, sources = ask(network, rows)
    for i, row in enumerate(rows):
        alone, source = ask(network, row)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5)
        assert source[0] == sources[i]


def test_presets_have_the_agreed_sizes():
    following, half_day = settings_for(30, 1, (0.1, 0.5, 0.9)), settings_for(2016, 144, (0.5,))
    assert (following.segment_length, following.padded_length) == (1, 30)
    assert (half_day.segment_length, half_day.padded_length) == (24, 2016)
    assert len(half_day.origins(half_day.backtests)) == 5


@pytest.mark.parametrize("quantiles", [(0.1, 0.9), (0.9, 0.5, 0.1), (0.5, 0.5)])
def test_bad_quantiles_are_refused(quantiles):
    with pytest.raises(ValueError, match="quantiles must rise"):
        settings_for(30, 1, quantiles)


def test_one_huge_value_rounds_no_other_away():
    row = np.tile(np.random.default_rng(3).normal(100, 30, SEASON).astype(np.float32), 4)
    row[-1] = 1e15
    _, seasonal, _, _ = core_of(make(LASTING), row[None])
    np.testing.assert_array_equal(seasonal[0, 0].numpy(), row[:8])
