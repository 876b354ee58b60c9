"""The text for Prometheus: what is written is what a parser reads, and nothing too old."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from services.forecast_loop.config import LoopSettings, Query
from services.forecast_loop.exposition import Exposition, render_page
from services.forecast_loop.forecaster import QueryForecast
from services.forecast_loop.grid import Grid
from services.forecast_loop.series_store import Oddities, SeriesStore
from services.forecast_loop.snapshot import ForecastTable, Snapshot

NOW = 1_800_000_000.25
LABELS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)
Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def snapshot(
    keys: list[tuple[str, ...]],
    median: list[list[float]],
    *,
    metric: str = "quota",
    labels: tuple[str, ...] = ("clu_name", "group"),
    timestamp_per: str = "series",
    sigma: float = 0.5,
    expires: float = NOW + 900,
    quantiles: bool = False,
) -> Snapshot:
    values = np.array(median, dtype=np.float32).reshape(len(keys), 2)
    return Snapshot(
        metric=metric,
        labels=labels,
        keys=keys,
        horizons=("1h", "12h"),
        median=values,
        quantile_levels=(0.1, 0.9),
        quantiles=np.stack([values - 1, values + 1], axis=2) if quantiles else None,
        made_seconds=np.full(len(keys), NOW),
        sigma=np.full(len(keys), sigma, dtype=np.float32),
        timestamp_per=timestamp_per,  # type: ignore[arg-type]
        expires_seconds=expires,
    )


def parse(body: bytes) -> Found:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def labelled(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.tuples(LABELS, LABELS), st.tuples(VALUES, VALUES), min_size=1, max_size=5)
)
@example({("\\n", "\\"): (0.0, 1.0), ('"', "\n"): (2.0, 3.0)})
def test_a_parser_reads_what_was_written(
    series: dict[tuple[str, str], tuple[float, float]],
) -> None:
    page = render_page([snapshot(list(series), [list(pair) for pair in series.values()])], b"")
    found = parse(page.body)
    assert len(found) == len(series) * 5
    for (cluster, group), pair in series.items():
        labels = {"clu_name": cluster, "group": group}
        for horizon, value in zip(("1h", "12h"), pair, strict=True):
            name = labelled("ai_forecast_quota", horizon=horizon, **labels)
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-45)
            stamp = labelled(
                "ai_forecast_timestamp_seconds", metric="quota", horizon=horizon, **labels
            )
            assert found[stamp] == NOW
        sigma = labelled("ai_forecast_residual_sigma", metric="quota", horizon="1h", **labels)
        assert found[sigma] == 0.5


def test_every_family_stands_once_and_together() -> None:
    queries = [snapshot([("a", "x")], [[1, 2]], metric=metric) for metric in ("one", "two")]
    page = render_page(queries, b"# TYPE own gauge\nown 1\n")
    kinds = [line.split()[2] for line in page.body.decode().splitlines() if "# TYPE" in line]
    assert kinds == [
        "ai_forecast_one",
        "ai_forecast_two",
        "ai_forecast_timestamp_seconds",
        "ai_forecast_residual_sigma",
        "own",
    ]
    assert page.body.endswith(b"\n")


def test_unknown_sigmas_are_left_out_and_quantiles_come_on_request() -> None:
    page = render_page([snapshot([("a", "x")], [[1, 2]], sigma=math.nan, quantiles=True)], b"")
    found = parse(page.body)
    assert not any("sigma" in name for name, _ in found)
    key = labelled(
        "ai_forecast_quota_quantile", clu_name="a", group="x", horizon="12h", quantile="0.9"
    )
    assert found[key] == 3.0


def test_one_timestamp_a_query_on_request() -> None:
    keys = [("a", str(i)) for i in range(100)]
    values = [[1.0, 2.0]] * 100
    many = render_page([snapshot(keys, values)], b"")
    few = render_page([snapshot(keys, values, timestamp_per="query")], b"")
    stamps = {name: value for name, value in parse(few.body).items() if "timestamp" in name[0]}
    assert stamps == {
        labelled("ai_forecast_timestamp_seconds", metric="quota", horizon=horizon): NOW
        for horizon in ("1h", "12h")
    }
    assert many.body.count(b"\n") - few.body.count(b"\n") == 2 * 99


def test_what_is_too_old_is_served_no_more_even_if_the_loop_hangs() -> None:
    clock = [NOW]
    exposition = Exposition(lambda: b"own 1\n", lambda: clock[0])
    old = snapshot([("a", "x")], [[1, 2]], metric="old", expires=NOW + 300)
    new = snapshot([("a", "x")], [[1, 2]], metric="new", expires=NOW + 900)
    page = exposition.publish([old, new])
    assert exposition.current() is page
    clock[0] = NOW + 299
    assert exposition.current() is page
    clock[0] = NOW + 300
    body = exposition.current().body
    assert b"ai_forecast_old" not in body
    assert b"ai_forecast_new" in body
    clock[0] = NOW + 900
    assert exposition.current().body == b"own 1\n"


def test_a_page_is_packed_once() -> None:
    page = render_page([snapshot([("a", "x")], [[1, 2]])], b"")
    assert gzip.decompress(page.gzipped()) == page.body
    assert page.gzipped() is page.gzipped()


def table(**settings: object) -> tuple[SeriesStore, ForecastTable]:
    query = Query(metric="quota", labels=("horizon", "group"), max_series=4)
    loop = LoopSettings.model_validate({"interval": "5m", **settings})
    store = SeriesStore(query.labels, columns=4, step_seconds=300, max_series=4, fresh_columns=4)
    return store, ForecastTable(query, loop)


def put(store: SeriesStore, forecasts: ForecastTable, names: str, now: float) -> None:
    """Forecast the series of these letters; all letters a to d are in the store."""
    store.advance(int(now // 300) * 300)
    store.begin()
    labels = [{"horizon": "h", "group": letter} for letter in "abcd"]
    grid = Grid(int(now // 300) * 300, 300, 1)
    store.merge(labels, grid, np.ones((4, 1), np.float32), Oddities())
    rows = np.array([row for name in names if (row := store.row(("h", name))) is not None])
    shape = (len(rows), 3)  # one horizon more than is shown
    forecast = QueryForecast(rows, np.full(shape, 7.0), np.full((*shape, 3), 7.0))
    forecasts.update(store, forecast, (0.1, 0.5, 0.9), now)


def shown(store: SeriesStore, forecasts: ForecastTable, now: float) -> dict[str, float]:
    found = forecasts.snapshot(store, np.full(4, np.nan, np.float32), now)
    assert found.labels == ("exported_horizon", "group")
    made = found.made_seconds.tolist()
    return {key[1]: value for key, value in zip(found.keys, made, strict=True)}


def test_forecasts_age_out_series_by_series() -> None:
    """With three intervals until stale, a forecast is shown for at most two cycles more."""
    store, forecasts = table()
    put(store, forecasts, "abc", 3000.0)
    assert shown(store, forecasts, 3000.0) == {"a": 3000.0, "b": 3000.0, "c": 3000.0}
    put(store, forecasts, "ab", 3300.0)
    put(store, forecasts, "a", 3600.0)
    assert shown(store, forecasts, 3600.0) == {"a": 3600.0, "b": 3300.0, "c": 3000.0}
    # Shown now, c would be older than 900 s before the next cycle could take it away.
    assert shown(store, forecasts, 3601.0) == {"a": 3600.0, "b": 3300.0}
    found = forecasts.snapshot(store, np.zeros(4, np.float32), 3601.0)
    assert found.expires_seconds == 3300.0 + 900
    assert shown(store, forecasts, 9000.0) == {}


def test_one_timestamp_is_true_of_all_that_is_shown() -> None:
    store, forecasts = table(timestamp_per="query")
    put(store, forecasts, "abc", 3000.0)
    put(store, forecasts, "ab", 3300.0)
    assert shown(store, forecasts, 3300.0) == {"a": 3300.0, "b": 3300.0}


def test_stale_after_one_interval_still_shows_the_newest() -> None:
    store, forecasts = table(stale_after_intervals=1)
    put(store, forecasts, "a", 3000.0)
    assert shown(store, forecasts, 3000.0) == {"a": 3000.0}
    assert shown(store, forecasts, 3300.0) == {}


def test_a_row_that_changed_its_series_shows_nothing_of_the_old_one() -> None:
    """Read, but not forecast since (Triton is away): the new series must not get its values."""
    store, forecasts = table()
    put(store, forecasts, "abcd", 3000.0)
    store.advance(3000 + 300 * 4)
    store.begin()
    labels = [{"horizon": "h", "group": "new"}]
    store.merge(labels, Grid(4200, 300, 1), np.ones((1, 1), np.float32), Oddities())
    assert store.row(("h", "new")) == 0
    assert shown(store, forecasts, 3001.0) == {}
