"""What is known without training: windows, experts, analogies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.fixtures.tiny_forecaster import LASTING, SEASON, noise
from training.metric_forecast.analogs import Patch, find_analogs
from training.metric_forecast.experts import Experts, _median
from training.metric_forecast.window import Window, make_window

SEASONS = torch.tensor([[SEASON]])


def window_of(row: np.ndarray) -> Window:
    return make_window(torch.from_numpy(np.atleast_2d(row).astype(np.float32)))


def gapped(seed: int = 0) -> np.ndarray:
    row = noise(1, 64, seed)[0]
    row[np.random.default_rng(seed).random(64) < 0.3] = np.nan
    return row


@pytest.mark.parametrize("seed", range(5))
def test_window_sums_are_numpys(seed):
    row = gapped(seed)
    window = window_of(row)
    level = float(window.level[0, 0])
    for origin in (12, 40, 64):
        at = torch.tensor([[origin]])
        part = row[origin - 10 : origin]
        assert float(window.mean(at, 10)) + level == pytest.approx(np.nanmean(part), rel=1e-5)
        median = float(window.median(at, 10, 1)) + level
        assert median == pytest.approx(np.nanmedian(part), rel=1e-5)
        known = row[:origin][np.isfinite(row[:origin])]
        assert float(window.last(at)) + level == pytest.approx(known[-1], rel=1e-6)
    smoothed, there = window.smoothed(torch.tensor([[2]]))
    assert float(there[0, 30]) == np.isfinite(row[28:33]).any()
    if np.isfinite(row[28:33]).any():
        assert float(smoothed[0, 30]) + level == pytest.approx(np.nanmean(row[28:33]), rel=1e-5)


def test_digits_survive_a_huge_level():
    row = 1e6 + noise(1, 64)[0].astype(np.float32)
    window = window_of(row)
    np.testing.assert_array_equal(window.values[0].numpy(), row - np.float32(window.level[0, 0]))
    assert abs(float(window.mean(torch.tensor([[64]]), 64))) < 10


def test_infinite_and_too_large_are_missing():
    row = noise(1, 64)[0]
    row[[3, 4, 5]] = np.inf, -np.inf, 2e30
    assert window_of(row).mask[0, 2:7].tolist() == [1, 0, 0, 0, 1]


def test_experts_know_nothing_of_what_comes_later():
    row = noise(1, 64)[0]
    changed = row.copy()
    changed[50:] = changed[50:] * -3 + 1000
    changed[55] = np.nan
    origins, ahead = torch.tensor([[30, 50]]), torch.arange(1, 9)

    def answers(values: np.ndarray) -> np.ndarray:
        window = window_of(values)
        found = Experts(LASTING.experts, window, SEASONS).at(origins, ahead)
        return (found + window.level[0, 0]).numpy()

    np.testing.assert_allclose(answers(row), answers(changed), rtol=1e-4)
    later = torch.tensor([[30, 56]])
    origins = later
    assert not np.allclose(answers(row), answers(changed), rtol=1e-2)


def test_every_expert_has_a_name_and_a_source():
    experts = Experts(LASTING.experts, window_of(noise(1, 64)), SEASONS)
    found = experts.at(torch.tensor([[64]]), torch.arange(1, 4))
    assert found.shape == (1, 1, 3, len(LASTING.experts.names))
    assert len(LASTING.experts.groups) == len(LASTING.experts.names)


def test_seasonal_experts_by_hand():
    """Days of 16 steps at levels 0, 10, 20: yesterday, its change, and the level-corrected mean."""
    shape = np.sin(np.arange(SEASON)).astype(np.float32)
    row = np.concatenate([shape, shape + 10, shape + 20, shape[:8] + 30])
    window = window_of(row)
    found = Experts(LASTING.experts, window, SEASONS).at(torch.tensor([[56]]), torch.tensor([1, 4]))
    own = (found[0, 0] + window.level[0, 0]).numpy()
    of = dict(zip(LASTING.experts.names, own.T, strict=True))
    np.testing.assert_allclose(of["yesterday"], shape[[8, 11]] + 20, atol=1e-4)
    np.testing.assert_allclose(of["the oldest day"], shape[[8, 11]], atol=1e-4)
    np.testing.assert_allclose(of["mean of days"], shape[[8, 11]] + 10, atol=1e-4)
    at_level = of["median of days, at today's level"]
    np.testing.assert_allclose(at_level, shape[[8, 11]] + 30, atol=1e-4)
    half = of["median of days, half at today's level"]
    np.testing.assert_allclose(half, shape[[8, 11]] + 20, atol=1e-4)
    np.testing.assert_allclose(of["yesterday's change"], shape[[8, 11]] + 30, atol=1e-4)


def test_missing_yesterday_falls_back_to_the_day_before():
    day = np.random.default_rng(3).normal(100, 30, SEASON).astype(np.float32)
    row = np.tile(day, 4)
    row[-SEASON : -SEASON + 8] = np.nan
    window = window_of(row)
    found = Experts(LASTING.experts, window, SEASONS).at(torch.tensor([[64]]), torch.arange(1, 9))
    yesterday = found[0, 0, :, LASTING.experts.names.index("yesterday")] + window.level[0, 0]
    np.testing.assert_allclose(yesterday.numpy(), day[:8], rtol=1e-5)


def test_median_of_days_is_numpys():
    random = np.random.default_rng(0)
    values = random.normal(size=(7, 500)).astype(np.float32)
    there = random.random((7, 500)) < 0.6
    expected = np.array(
        [np.median(v[t]) if t.any() else 0.0 for v, t in zip(values.T, there.T, strict=True)]
    )
    columns = [torch.from_numpy(column) for column in values]
    known = [torch.from_numpy(column.astype(np.float32)) for column in there]
    got, any_known = _median(columns, known)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(any_known.numpy() > 0.5, there.any(0))


def analogs_of(row: np.ndarray, patch: Patch, near: list[int], far: list[int], neighbours: int):
    window = window_of(row)
    near_steps, far_steps = torch.tensor(near, dtype=int), torch.tensor(far, dtype=int)
    movement = window.values.abs().mean(1, keepdim=True)
    found = find_analogs(
        window, movement, SEASONS, (patch,), near_steps, far_steps, (3, 8), neighbours
    )
    return found, (found.median[0, :, 0] + window.level[0, 0]).numpy()


def test_a_pattern_seen_before_is_continued():
    """A pattern of 11 steps that no season knows of."""
    row = np.tile(noise(1, 11)[0], 7)[:72]
    found, median = analogs_of(row[:64], Patch(6), [1, 2, 3], [4, 8], 3)
    np.testing.assert_allclose(median, row[[64, 65, 66, 67, 71]], atol=1e-4)
    assert float(found.spread.max()) < 1e-3


def test_neighbours_disagree_and_the_spread_says_so():
    """The same rise was followed by a fall and by a peak: the band spans both."""
    rise = np.arange(6.0)
    quiet = np.zeros(5)
    row = np.concatenate([quiet, rise, [0.0], quiet, rise, [20.0], quiet, rise, [0.0], quiet, rise])
    row = np.concatenate([np.zeros(64 - len(row)), row]).astype(np.float32)
    found, _ = analogs_of(row, Patch(6), [1], [], 4)
    assert float(found.spread[0, 0, 0]) > 3
    assert float(found.low[0, 0, 0]) <= 0 <= float(found.high[0, 0, 0])


def test_far_neighbours_have_seen_the_whole_horizon():
    """A pattern that came once, 5 steps before the end, can answer 3 steps but not 8."""
    row = noise(1, 64)[0]
    pattern = np.array([500.0, -500.0, 900.0], dtype=np.float32)
    row[56:59], row[61:64] = pattern, pattern
    row[59], row[60] = 77.0, 78.0
    _, median = analogs_of(row, Patch(3, level_share=0.0), [1, 2], [8], 1)
    np.testing.assert_allclose(median[:2], [77.0, 78.0], atol=1e-3)
    # The only neighbour that has seen 8 steps is some stretch of noise.
    assert 20 < median[2] < 80


def test_window_shorter_than_a_patch_answers_the_last_value():
    row = np.full(64, np.nan, dtype=np.float32)
    row[-2:] = 3.0, 4.0
    _, median = analogs_of(row, Patch(6), [1], [8], 3)
    assert np.isfinite(median).all()


def test_neighbours_that_agree_have_no_spread_at_all():
    """Plateaus of values that are no sums of their shares: rounding is not disagreement."""
    for value in np.random.default_rng(0).uniform(1e9, 9e9, 30).astype(np.float32):
        row = np.zeros(64, dtype=np.float32)
        row[:14] = row[50:] = value
        found, median = analogs_of(row, Patch(6, level_share=0.0, age_penalty=0.3), [1, 2], [], 6)
        assert float(found.spread.max()) == 0
        np.testing.assert_array_equal(median, value)
