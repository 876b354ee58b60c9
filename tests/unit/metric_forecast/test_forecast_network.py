"""The network alone, with random weights: what must hold whatever it learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.fixtures.tiny_forecaster import DAY, LASTING, SEASON, SHORT, ask, make, noise
from training.metric_forecast.evidence import Evidence, find_evidence
from training.metric_forecast.graph import SOURCES
from training.metric_forecast.network import LSTMForecast
from training.metric_forecast.settings import ForecastSettings, settings_for


def evidence_of(network: LSTMForecast, rows: np.ndarray, season: int = SEASON) -> Evidence:
    """At all steps ahead."""
    wanted = network.settings
    return find_evidence(
        wanted,
        torch.from_numpy(np.atleast_2d(rows).astype(np.float32)),
        torch.full((len(np.atleast_2d(rows)), 1), season),
        torch.arange(1, wanted.horizon + 1),
        min(wanted.near_steps, wanted.horizon),
    )


@pytest.mark.parametrize(
    "architecture",
    [LASTING, SHORT, DAY, replace(LASTING, has_lstm=False), replace(LASTING, patches=())],
)
def test_shapes_and_types(architecture):
    forecast, source = ask(make(architecture), noise(3, architecture.context_length))
    assert forecast.shape == (3, architecture.horizon, 3)
    assert forecast.dtype == np.float32
    assert source.shape == (3, 1)
    assert source.dtype == np.int32


def test_lengths_that_are_no_whole_segments():
    forecast, _ = ask(make(settings_for(203, 7, (0.1, 0.5, 0.9))), noise(2, 203))
    assert forecast.shape == (2, 7, 3)
    assert np.isfinite(forecast).all()


def test_undecoded_steps_lie_on_straight_lines():
    rows = noise(6, DAY.context_length)
    sparse, every = make(DAY), make(replace(DAY, decoded_steps=()))
    few, all_steps = ask(sparse, rows)[0], ask(every, rows)[0]
    at = np.array(DAY.decoded_steps) - 1
    np.testing.assert_allclose(few[:, at], all_steps[:, at], rtol=1e-5)
    np.testing.assert_allclose(few[:, 1], (few[:, 0] + few[:, 2]) / 2, rtol=1e-5)
    assert not np.allclose(few[:, 1], all_steps[:, 1], rtol=1e-5)


def test_the_members_mean_answers():
    rows = noise(5, LASTING.context_length)
    together, alone = make(LASTING), []
    assert len(together.core.members) == 3
    for member in together.core.members:
        single = LSTMForecast(replace(LASTING, members=1)).eval()
        single.core.members[0].load_state_dict(member.state_dict())
        alone.append(ask(single, rows)[0])
    assert not np.allclose(alone[0], alone[1])
    np.testing.assert_allclose(ask(together, rows)[0], np.mean(alone, 0), rtol=1e-5)


def test_the_residual_answers_no_more_than_the_best_expert_was_wrong():
    """A perfect day after day: nothing to add, whatever the network would like to."""
    row = np.tile(noise(1, SEASON)[0], 5)[: LASTING.context_length]
    network = make(LASTING)
    with torch.no_grad():
        for member in network.core.members:
            member.decide.bias[member.size] = 5.0
    # A row for each member, when they learn.
    evidence = evidence_of(network, np.tile(row, (3, 1)))
    assert float(evidence.best.max()) < 1e-3 * float(evidence.scale.min())
    with torch.inference_mode():
        assert float(network.core(evidence)[2].abs().max()) < 1e-2 * float(evidence.scale.min())
    network.core.train()
    assert float(network.core(evidence)[2].detach().min()) > float(evidence.scale.min())


def test_in_training_each_member_answers_its_own_rows():
    rows = noise(6, LASTING.context_length)
    network = make(LASTING)
    evidence = evidence_of(network, rows)
    for member in network.core.members:
        member.drop.p = 0.0
    network.core.train()
    single = network.core.members[1](evidence)[2]
    assert torch.allclose(network.core(evidence)[2][2:4], single[2:4], atol=1e-6)
    assert not torch.allclose(network.core(evidence)[2][:2], single[:2], atol=1e-6)


def test_quantiles_never_cross_for_any_weights():
    network = make(LASTING)
    with torch.no_grad():
        for member in network.core.members:
            member.decide.weight.normal_(0, 5)
            member.decide.bias.normal_(0, 5)
    rows = noise(64, 64) * 10.0 ** np.random.default_rng(1).uniform(-6, 12, (64, 1))
    forecast, _ = ask(network, rows)
    assert (np.diff(forecast, axis=2) >= 0).all()


@pytest.mark.parametrize("value", [0.0, 3.7, -1e12, 1e-9])
@pytest.mark.parametrize("architecture", [LASTING, SHORT])
def test_constant_is_forecast_exactly(value, architecture):
    forecast, _ = ask(make(architecture), np.full(architecture.context_length, value))
    assert (forecast == np.float32(value)).all()


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


@pytest.mark.parametrize("factor", [2.0**40, 2.0**-30])
def test_unit_of_the_metric_is_kept(factor):
    network, row = make(LASTING), noise(1, 64)
    plain, source = ask(network, row)
    scaled, scaled_source = ask(network, row * np.float32(factor))
    np.testing.assert_allclose(scaled, plain * np.float32(factor), rtol=1e-5)
    assert source == scaled_source


def test_evidence_of_a_mirrored_window_is_mirrored():
    network, row = make(LASTING), noise(1, 64)
    plain, mirrored = evidence_of(network, row), evidence_of(network, -row)
    torch.testing.assert_close(plain.forecasts, -mirrored.forecasts)
    torch.testing.assert_close(plain.record, mirrored.record)
    torch.testing.assert_close(plain.scale, mirrored.scale)


def test_record_holds_the_errors_at_earlier_origins():
    """The last value's error one step ahead, as numpy finds it at the same origins."""
    network, row = make(LASTING), noise(1, 64)[0]
    found = float(evidence_of(network, row, season=0).scale[0, 0])
    # Without a season origins lie context / judged origins apart, from one step before the end.
    origins = [64 - 1 - 5 * i for i in range(LASTING.judged_origins)]
    errors = [abs(row[origin] - row[origin - 1]) for origin in origins]
    assert found == pytest.approx(np.mean(errors), rel=1e-4)


def test_an_expert_with_a_clean_record_is_believed():
    """Exact days: the seasonal experts and the analogs were never wrong."""
    day = np.random.default_rng(3).normal(100, 30, SEASON).astype(np.float32)
    forecast, source = ask(make(LASTING), np.tile(day, 4))
    spread = day.max() - day.min()
    assert np.abs(forecast[0, :, 1] - day[:8]).max() < 0.35 * spread
    assert SOURCES[int(source[0, 0])] in ("seasonal", "analogs")


def test_without_a_season_nothing_seasonal_is_chosen():
    day = np.random.default_rng(3).normal(100, 30, SEASON).astype(np.float32)
    network = make(LASTING)
    without = evidence_of(network, np.tile(day, 4), season=0)
    seasonal = [i for i, group in enumerate(LASTING.experts.groups) if group == "seasonal"]
    last = without.forecasts[..., :1].expand(-1, -1, len(seasonal))
    torch.testing.assert_close(without.forecasts[..., seasonal], last)


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
    assert (following.segment_length, following.segments) == (1, 30)
    assert (half_day.segment_length, half_day.segments) == (24, 84)
    assert half_day.judged_steps == (1, 3, 6, 12, 24, 48, 96, 144)


def test_settings_survive_their_file():
    for wanted in (LASTING, SHORT, settings_for(2016, 144, (0.1, 0.5, 0.9))):
        assert ForecastSettings.from_json(wanted.to_json()) == wanted


@pytest.mark.parametrize("quantiles", [(0.1, 0.9), (0.9, 0.5, 0.1), (0.5, 0.5)])
def test_bad_quantiles_are_refused(quantiles):
    with pytest.raises(ValueError, match="quantiles must rise"):
        settings_for(30, 1, quantiles)


def test_one_huge_value_rounds_no_other_away():
    row = np.tile(np.random.default_rng(3).normal(100, 30, SEASON).astype(np.float32), 4)
    row[-1] = 1e15
    evidence = evidence_of(make(LASTING), row)
    yesterday = LASTING.experts.names.index("yesterday")
    counted = evidence.forecasts[0, :, yesterday] + evidence.level[0, 0]
    np.testing.assert_allclose(counted.numpy(), row[:8], rtol=1e-6)


NETWORKS = {64: make(LASTING), 12: make(SHORT)}
NUMBERS = st.one_of(
    st.just(float("nan")),
    st.integers(-(2**40), 2**40).map(float),
    st.floats(0, 1, width=32),
    st.floats(0, 100, width=32),
)


@given(
    row=st.sampled_from([64, 12]).flatmap(lambda n: arrays(np.float32, n, elements=NUMBERS)),
    season=st.sampled_from([0, 1, 2, SEASON, 288, 10**6]),
)
@example(row=np.full(12, np.nan, np.float32), season=0)
@example(row=np.arange(64, dtype=np.float32) * 1e10, season=16)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_series_has_a_finite_ordered_forecast(row, season):
    """Constant, gapped, three points, jumps of 1e12, negative, percent, bytes: all at random."""
    forecast, source = ask(NETWORKS[len(row)], row, season)
    if np.isfinite(row).any():
        assert np.isfinite(forecast).all()
        assert (np.diff(forecast, axis=2) >= 0).all()
    else:
        assert np.isnan(forecast).all()
    assert 0 <= source[0, 0] < len(SOURCES)
