"""Companion signals: their evidence by hand, a branch that is silent without them, their choice."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.fixtures.tiny_forecaster import LASTING, SEASON, SHORT, make, noise, onnx_session
from training.metric_forecast import companion_evidence
from training.metric_forecast.companions import Companions
from training.metric_forecast.data import Series, WindowSampler, window_at
from training.metric_forecast.evidence import find_evidence, origins_of
from training.metric_forecast.graph import SOURCES, graph_of, sources_of
from training.metric_forecast.network import LSTMForecast
from training.metric_forecast.pool import EvidencePool
from training.metric_forecast.settings import ForecastSettings

BESIDE = replace(LASTING, companions=3)
SHORT_BESIDE = replace(SHORT, companions=2)
STEPS = LASTING.context_length


def with_open_gate(settings: ForecastSettings, seed: int = 0) -> LSTMForecast:
    network = make(settings, seed)
    with torch.no_grad():
        for member in network.core.members:
            member.companions.gate.fill_(1.0)
            member.companions.decide.weight.normal_(0, 0.3)
    return network


def ask(network: LSTMForecast, rows: np.ndarray, others: np.ndarray | None) -> np.ndarray:
    inputs = [torch.from_numpy(rows), torch.full((len(rows), 1), SEASON)]
    if others is not None:
        inputs.append(torch.from_numpy(others))
    with torch.inference_mode():
        return network(*inputs)[0].numpy()


def three_beside(rows: np.ndarray) -> np.ndarray:
    return np.stack([noise(len(rows), rows.shape[1], seed) for seed in (5, 6, 7)], 1)


def regression_of(rows: np.ndarray, others: np.ndarray) -> companion_evidence.Regression:
    window = companion_evidence.make_window(torch.from_numpy(rows))
    seasons = torch.full((len(rows), 1), SEASON)
    at = origins_of(BESIDE, window, seasons)
    return companion_evidence.regress(
        window, seasons, torch.from_numpy(others), at, BESIDE.judged_steps
    )


# The branch ----------------------------------------------------------------------------------


def test_plain_weights_start_the_same():
    plain, beside = make(LASTING).state_dict(), make(BESIDE).state_dict()
    assert set(plain) < set(beside)
    for name, value in plain.items():
        assert torch.equal(value, beside[name]), name


@pytest.mark.parametrize("kind", ["none given", "all missing", "constant"])
def test_without_companions_it_is_the_plain_network(kind):
    rows = noise(5, STEPS)
    beside = with_open_gate(BESIDE)
    plain = LSTMForecast(LASTING).eval()
    plain.load_state_dict({name: beside.state_dict()[name] for name in plain.state_dict()})
    others = {
        "none given": None,
        "all missing": np.full((5, 3, STEPS), np.nan, np.float32),
        "constant": np.full((5, 3, STEPS), 3e8, np.float32),
    }[kind]
    expected = ask(plain, rows, None)
    np.testing.assert_allclose(ask(beside, rows, others), expected, rtol=1e-6, atol=1e-5)


def test_gate_starts_closed():
    rows = noise(4, STEPS)
    branch = make(BESIDE).core.members[0].companions
    evidence = find_evidence(
        BESIDE,
        torch.from_numpy(rows),
        torch.full((4, 1), SEASON),
        torch.arange(1, 9),
        3,
        torch.from_numpy(three_beside(rows)),
    )
    assert evidence.companions is not None
    assert evidence.companions.known.min() == 1
    assert branch.hidden(evidence.companions).abs().max() == 0
    hidden = torch.randn(4, 8, 96)
    logit, lift = branch.outlook(hidden, evidence.companions)
    assert logit.abs().max() == 0
    assert lift.abs().max() == 0


def test_order_of_companions_does_not_matter():
    rows = noise(4, STEPS)
    others = three_beside(rows)
    network = with_open_gate(BESIDE)
    expected = ask(network, rows, others)
    np.testing.assert_allclose(ask(network, rows, others[:, [2, 0, 1]].copy()), expected, rtol=1e-5)
    other = ask(network, rows, three_beside(rows)[:, :, ::-1].copy())
    assert np.abs(other - expected).max() > 1e-3


def test_which_companion_is_missing_does_not_matter():
    rows = noise(4, STEPS)
    others = three_beside(rows)
    others[:, 1] = np.nan
    network = with_open_gate(BESIDE)
    expected = ask(network, rows, others)
    np.testing.assert_allclose(ask(network, rows, others[:, [1, 2, 0]].copy()), expected, rtol=1e-5)
    assert np.abs(ask(network, rows, three_beside(rows)) - expected).max() > 1e-3


@pytest.mark.parametrize("factor", [0.0, 1e-20, 1e12, -1e25])
def test_companions_of_any_size_give_finite_ordered_forecasts(factor):
    rows = noise(4, STEPS)
    others = three_beside(rows) * np.float32(factor)
    others[0, 0, 10:40] = np.nan
    others[1, 0, -1] = np.inf
    forecast = ask(with_open_gate(BESIDE), rows, others)
    assert np.isfinite(forecast).all()
    assert (np.diff(forecast, axis=2) >= 0).all()


# The regression ------------------------------------------------------------------------------


def test_a_companion_that_foretells_the_series_is_found():
    random = np.random.default_rng(0)
    steps = 400
    leader = random.normal(0, 1, (2, steps)).cumsum(1)
    rows = np.zeros((2, steps))
    rows[:, 1:] = 4 * leader[:, :-1] + 100
    wide = replace(BESIDE, context_length=steps)
    window = companion_evidence.make_window(torch.from_numpy(rows.astype(np.float32)))
    seasons = torch.zeros((2, 1), dtype=torch.int64)
    others = np.stack([leader, random.normal(0, 1, (2, steps))], 1).astype(np.float32)
    found = companion_evidence.regress(
        window,
        seasons,
        torch.from_numpy(others),
        origins_of(wide, window, seasons),
        BESIDE.judged_steps,
    )
    next_change = 4 * leader[:, -1] + 100 - rows[:, -1]
    np.testing.assert_allclose(found.change[:, 0].numpy(), next_change, rtol=0.45, atol=1.5)
    assert (found.errors[:, 0] < 0.6 * found.alone[:, 0]).all()
    assert (found.parts[:, 0, 0].abs() > 5 * found.parts[:, 1, 0].abs()).all()


def test_elimination_is_numpys_solution():
    random = np.random.default_rng(1)
    size, own = 14, companion_evidence.OWN
    read = random.normal(0, 1, (2, size, 300))
    squares = torch.from_numpy(read @ read.transpose(0, 2, 1)).unsqueeze(1)
    products = torch.from_numpy(random.normal(0, 50, (2, 1, size, 3)))
    both, alone = companion_evidence._solve(squares, products)
    diagonal = squares.diagonal(dim1=-2, dim2=-1).numpy()
    ridge = companion_evidence._RIDGE_POINTS + companion_evidence._RIDGE_SHARE * diagonal
    system = squares.numpy() + ridge[..., None] * np.eye(size)
    np.testing.assert_allclose(both.numpy(), np.linalg.solve(system, products.numpy()), rtol=1e-9)
    small = np.linalg.solve(system[..., :own, :own], products.numpy()[..., :own, :])
    np.testing.assert_allclose(alone.numpy()[..., :own, :], small, rtol=1e-9)
    assert (alone[..., own:, :] == 0).all()


def test_level_and_unit_of_a_companion_do_not_matter():
    rows = noise(3, STEPS)
    others = three_beside(rows).astype(np.float64)
    expected = regression_of(rows, others.astype(np.float32))
    found = regression_of(rows, (-7.0 * others).astype(np.float32))
    torch.testing.assert_close(found.change, expected.change, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.paths, -expected.paths, rtol=1e-3, atol=1e-3)


def test_missing_companions_add_nothing():
    rows = noise(3, STEPS)
    found = regression_of(rows, np.full((3, 3, STEPS), np.nan, np.float32))
    assert found.known.max() == 0
    assert found.parts.abs().max() == 0
    assert found.lift.abs().max() < 1e-6
    torch.testing.assert_close(found.errors, found.alone)


# The choice ----------------------------------------------------------------------------------


def machine(steps: int = 1000) -> list[Series]:
    random = np.random.default_rng(2)
    leader = random.normal(0, 1, steps).cumsum()
    follower = np.concatenate([[0.0], leader[:-1]]) + random.normal(0, 0.1, steps)
    columns = [leader, follower, *random.normal(0, 1, (3, steps)), np.ones(steps)]
    return [
        Series(f"m{i}", "asd", "host", 300, values.astype(np.float32), "host.csv")
        for i, values in enumerate(columns)
    ]


def test_the_leader_is_chosen_first_and_a_constant_never():
    series = machine()
    companions = Companions(series, 5)
    assert companions.of(series[1])[0] is series[0].values
    assert len(companions.of(series[1])) == 4
    alone = Series("x", "nab", "x", 300, series[0].values, "x.csv")
    assert Companions([alone], 2).of(alone) == []
    assert np.isnan(Companions([alone], 2).windows(alone, 500, 64)).all()


def test_choice_and_windows_know_nothing_of_what_comes_later():
    series = machine()
    changed = []
    for one in series:
        values = one.values.copy()
        values[one.split :] = np.random.default_rng(9).normal(0, 100, len(values) - one.split)
        changed.append(replace(one, values=values))
    for one, other in zip(series, changed, strict=True):
        before, after = Companions(series, 3), Companions(changed, 3)
        origin = one.split
        np.testing.assert_array_equal(
            before.windows(one, origin, 64), after.windows(other, origin, 64)
        )
    window = Companions(series, 3).windows(series[1], 700, 64)
    np.testing.assert_array_equal(window[0], window_at(series[0].values, 700, 64))


def test_the_pool_holds_the_same_windows_with_companions_and_without():
    series = machine()
    sampler = WindowSampler(series, STEPS, LASTING.horizon)
    plain = EvidencePool(LASTING, sampler, 64, (0, 0))
    beside = EvidencePool(BESIDE, sampler, 64, (0, 0), companions=Companions(series, 3))
    for name, column in plain.columns.items():
        assert torch.equal(column, beside.columns[name]), name
    known = beside.columns["companions.known"]
    # Some windows are read alone, some beside fewer.
    assert 0 < float((known.sum(1) == 0).float().mean()) < 0.6
    assert float(known.mean()) > 0.4


# The contract --------------------------------------------------------------------------------


def test_the_plain_graph_is_as_it_was():
    plain, beside = graph_of("x", LASTING), graph_of("x", BESIDE)
    assert [tensor.name for tensor in plain.inputs] == ["series", "season_length"]
    assert plain.parameters["sources"] == ",".join(SOURCES)
    assert "companions" not in plain.parameters
    assert beside.inputs[2].name == "companions"
    assert beside.inputs[2].dims == (3, STEPS)
    assert beside.parameters["companions"] == "3"
    assert beside.parameters["sources"].split(",") == list(sources_of(3))


def test_settings_stored_before_companions_load():
    stored = LASTING.to_json()
    del stored["companions"]
    assert ForecastSettings.from_json(stored) == LASTING
    with pytest.raises(ValueError, match="companions"):
        replace(LASTING, companions=-1)


@pytest.mark.parametrize("settings", [BESIDE, SHORT_BESIDE])
def test_exported_forms_answer_as_eager(settings, tmp_path):
    network = with_open_gate(settings)
    length = settings.context_length

    def inputs_of(batch: int) -> tuple[torch.Tensor, ...]:
        random = np.random.default_rng(batch)
        rows = random.normal(50, 5, (batch, length))
        others = random.normal(0, 1, (batch, settings.companions, length)).cumsum(2)
        others *= 10.0 ** random.uniform(-6, 9, (batch, settings.companions, 1))
        others[random.random(others.shape) < random.choice([0, 0.5], (batch, 1, 1))] = np.nan
        others[random.random(others.shape[:2]) < 0.2] = np.nan
        seasons = random.choice([0, 4, 16], (batch, 1))
        return (
            torch.from_numpy(rows.astype(np.float32)),
            torch.from_numpy(seasons),
            torch.from_numpy(others.astype(np.float32)),
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, inputs_of(2))
    session = onnx_session(network, inputs_of(2), tmp_path / "model.onnx")
    for batch in (1, 7, 64):
        inputs = inputs_of(batch)
        with torch.inference_mode():
            forecast, source = network(*inputs)
            for expected, got in zip((forecast, source), traced(*inputs), strict=True):
                torch.testing.assert_close(got, expected, rtol=0, atol=0)
        feeds = {
            one.name: tensor.numpy()
            for one, tensor in zip(session.get_inputs(), inputs, strict=True)
        }
        answer, chosen = session.run(None, feeds)
        spread = inputs[0].numpy().std(1)[:, None, None]
        assert (np.abs(answer - forecast.numpy()) / spread).max() < 5e-4
        np.testing.assert_array_equal(chosen, source.numpy())
