"""The clients' logic without a server: windows, batches, thinning, errors, tables."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import clients
from clients._translate import explain_unknown, translate
from clients._transport import Answer, split_url
from clients.command import _span
from clients.csv_series import CsvSeries, read_csv_series
from clients.forecast import ForecastSignature, companion_windows, decode, plan
from clients.policy import CallPolicy
from clients.series import make_windows
from clients.table import fit, render, width
from clients.texts import LARGEST_BATCH_BYTES, check_texts, plan_texts
from contract.errors import (
    DataFileError,
    DeadlineExceededError,
    InputError,
    OverloadedError,
    PresageError,
    SeriesError,
    ServerAnswerError,
    ServerUnavailableError,
    TextError,
    UnknownModelError,
)


def test_the_public_surface_is_pinned() -> None:
    assert sorted(clients.__all__) == [
        "AsyncLogAnomalyClient",
        "AsyncMetricForecastClient",
        "AsyncServerClient",
        "AsyncTrainFailureRCAClient",
        "CallPolicy",
        "Cause",
        "Diagnosis",
        "EvidenceLine",
        "Forecast",
        "LogAnomalyClient",
        "LogVerdict",
        "MetricForecastClient",
        "ModelState",
        "ModelStatistics",
        "ServerClient",
        "TrainFailureRCAClient",
    ]


def test_no_torch_or_training_is_imported(repository_root: Path) -> None:
    code = "import clients, clients.command, sys; print(sorted(sys.modules))"
    names = ast.literal_eval(
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=repository_root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    heavy = {"torch", "transformers", "training", "export", "pandas", "tritonclient", "onnxruntime"}
    assert heavy & {name.split(".")[0] for name in names} == set()


def test_windows_are_left_padded_and_the_newest_context_is_kept() -> None:
    windows = make_windows(
        [[1.0, None, 3.0, 4.0], np.arange(50.0)], step_seconds=300, context_length=6
    )
    np.testing.assert_array_equal(windows.values[0], [np.nan, np.nan, 1, np.nan, 3, 4])
    np.testing.assert_array_equal(windows.values[1], np.arange(44.0, 50.0))
    assert windows.values.dtype == np.float32
    assert windows.season_length == 288


@pytest.mark.parametrize(("step", "season"), [(300, 288), (3600, 24), (7, 0), (86_400, 0)])
def test_season_is_a_whole_number_of_steps_a_day(step: float, season: int) -> None:
    assert make_windows([[1, 2, 3]], step_seconds=step, context_length=30).season_length == season


def test_finer_series_are_averaged_to_five_minutes_counted_from_the_newest_point() -> None:
    minutes = np.arange(1.0, 24.0)  # 23 one-minute points: the oldest bin has 3
    minutes[-5:] = np.nan  # the newest bin is missing
    windows = make_windows([minutes], step_seconds=60, context_length=2016)
    assert windows.step_seconds == 300
    assert windows.season_length == 288
    np.testing.assert_allclose(windows.values[0, -5:], [2, 6, 11, 16, np.nan])
    # A short context keeps its own step.
    assert make_windows([minutes], step_seconds=60, context_length=30).step_seconds == 60


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ([[1.0, 2.0, 3.0], []], "empty series at series 1"),
        ([[1.0, float("-inf"), 3.0]], "infinite value at series 0, point 1"),
        ([["x", 1.0, 2.0]], "not a number at series 0"),
        ([np.ones((3, 2))], "wrong number of channels"),
        ([[1.0, 2.0]], "too short"),
        ([np.ones(1_000_001)], "too long"),
        ([["1", "2", "3"]], "not a number at series 0: .*got '1'"),
        ([np.array(["1", "2", "3"])], "not a number at series 0"),
        ([b"123"], "not a number at series 0"),
        ([[1.0, 10**400, 2.0]], "not a number at series 0"),
        ([[1.0, 1e39, 2.0]], "too large at series 0, point 1"),
        ([[1.0, 2.0, 3.0] + [None] * 30], "nothing recent .* at series 0"),
        ([1.0, [1.0, 2.0, 3.0]], "not a number at series 0"),
        (np.array([]), "empty series at series 0"),
        (np.array(3.0), "not a series"),
        (iter([1.0, 2.0, 3.0]), "not a series"),
        ("123", "not a series"),
        ([], "no series"),
    ],
)
def test_bad_series_raise_with_their_place(series: object, words: str) -> None:
    with pytest.raises(SeriesError, match=words):
        make_windows(series, step_seconds=300, context_length=30)


@pytest.mark.parametrize("step", [0, -1, float("nan"), float("inf"), "300", None])
def test_a_step_is_a_time_span(step: object) -> None:
    with pytest.raises(SeriesError, match="step_seconds is no time span"):
        make_windows([[1, 2, 3]], step_seconds=step, context_length=30)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [int, float, np.int64, np.float32])
def test_a_step_is_any_real_number(kind: type) -> None:
    windows = make_windows([[1, 2, 3]], step_seconds=kind(300), context_length=30)
    assert (windows.step_seconds, windows.season_length) == (300, 288)


def test_on_error_has_two_words() -> None:
    with pytest.raises(SeriesError, match="raise or skip"):
        make_windows([[1, 2, 3]], step_seconds=300, context_length=30, on_error="ignore")
    with pytest.raises(TextError, match="raise or skip"):
        check_texts(["a"], on_error="ignore")


def test_skip_keeps_the_good_series() -> None:
    gone = [1, 2, 3, None, None, None]
    windows = make_windows(
        [[1, 2, 3], [], [4, 5, 6], gone], step_seconds=300, context_length=3, on_error="skip"
    )
    assert list(windows.errors) == [1, 3]
    assert np.isnan(windows.values[[1, 3]]).all()
    np.testing.assert_array_equal(windows.values[[0, 2]], [[1, 2, 3], [4, 5, 6]])
    signature = ForecastSignature("m", 3, 1, (0.5,), ("lstm",), "input", 1)
    assert [call.inputs["series"].tolist() for call in plan(windows, signature)] == [
        [[1, 2, 3]],
        [[4, 5, 6]],
    ]


def test_companions_are_windows_beside_each_series() -> None:
    signature = ForecastSignature("m", 3, 1, (0.5,), ("lstm",), "input", 1, companions=2)
    windows = make_windows(
        [[1, 2, 3], [], [4, 5, 6]], step_seconds=300, context_length=3, on_error="skip"
    )
    given = [[[7, 8, 9, 10], None], [], [[1, 1, 1]]]
    beside = companion_windows(given, number=3, step_seconds=300, signature=signature)
    calls = plan(windows, signature, beside)
    nothing = [np.nan] * 3
    np.testing.assert_array_equal(calls[0].inputs["companions"], [[[8, 9, 10], nothing]])
    np.testing.assert_array_equal(calls[1].inputs["companions"], [[[1, 1, 1], nothing]])
    none = companion_windows(None, number=2, step_seconds=300, signature=signature)
    assert none is not None
    assert np.isnan(none).all()
    assert none.shape == (2, 2, 3)


def test_companions_that_cannot_be_are_refused() -> None:
    plain = ForecastSignature("m", 3, 1, (0.5,), ("lstm",), "input", 1)
    signature = dataclasses.replace(plain, companions=1)
    assert companion_windows(None, number=1, step_seconds=300, signature=plain) is None
    cases = (
        (plain, [[[1, 2, 3]]], "takes no companions"),
        (signature, [], "one list for each of 1 series"),
        (signature, [[[1, 2, 3]] * 2], "at most 1, got 2"),
        (signature, [[["x", 2, 3]]], "companion 0 of series 0"),
    )
    for own, given, words in cases:
        with pytest.raises(SeriesError, match=words):
            companion_windows(given, number=1, step_seconds=300, signature=own)


@pytest.mark.parametrize(
    "series", [[1, None, 3.5, 4], np.array([1, np.nan, 3.5, 4]), np.array([1, None, 3.5, 4])]
)
def test_one_series_needs_no_list_around_it(series: object) -> None:
    values = make_windows(series, step_seconds=300, context_length=4).values
    np.testing.assert_array_equal(values, [[1, np.nan, 3.5, 4]])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("context_length", [4, 9, 30])
def test_a_matrix_is_read_as_its_rows_are(kind: type, context_length: int) -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(0, 1e6, (5000, 9)).astype(kind)
    matrix[random.random(matrix.shape) < 0.4] = np.nan
    matrix[3, 2], matrix[4, 8], matrix[6] = np.inf, -np.inf, np.nan
    if kind is np.float64:
        matrix[5, 1] = 1e300
    together = make_windows(
        matrix, step_seconds=300, context_length=context_length, on_error="skip"
    )
    alone = make_windows(
        [list(row) for row in matrix],
        step_seconds=300,
        context_length=context_length,
        on_error="skip",
    )
    np.testing.assert_array_equal(together.values, alone.values)
    assert together.errors == alone.errors
    assert 3 <= len(together.errors) < 1000
    first = min(together.errors)
    with pytest.raises(SeriesError, match=f"series {first}[, ]"):
        make_windows(matrix, step_seconds=300, context_length=context_length)


def test_answers_are_put_beside_their_series() -> None:
    signature = ForecastSignature("m", 3, 2, (0.1, 0.5), ("lstm", "last"), "input", 1)
    windows = make_windows(
        [[1, 2, 3], [], [4, 5, 6]], step_seconds=300, context_length=3, on_error="skip"
    )
    answers = [
        Answer({"forecast": np.full((1, 2, 2), n), "source": np.array([[n]])}, "7") for n in (0, 1)
    ]
    forecast = decode(answers, windows, signature)
    np.testing.assert_array_equal(forecast.median, [[0, 0], [np.nan, np.nan], [1, 1]])
    assert forecast.source == ["lstm", "", "last"]
    assert forecast.model_version == "7"
    with pytest.raises(ServerAnswerError, match="another shape"):
        decode(answers[:1], windows, signature)


def test_a_config_without_the_contracts_parameters_is_refused() -> None:
    with pytest.raises(ServerAnswerError, match="context_length"):
        ForecastSignature.from_config("m", {"parameters": {"unit": {"string_value": "input"}}})


def test_texts_are_batched_by_rows_and_by_bytes() -> None:
    rows = plan_texts("m", [b"a"] * 7, {2: "bad"}, ["label"], max_batch_size=4)
    assert [call.inputs["text"].shape for call in rows] == [(4, 1), (2, 1)]
    big = b"x" * (LARGEST_BATCH_BYTES // 2 + 1)
    assert len(plan_texts("m", [big, big, b"a"], {}, ["label"], max_batch_size=100)) == 2
    [call] = plan_texts("m", [b"a"], {}, ["label"], max_batch_size=4, threshold=0.3)
    assert call.inputs["threshold"].tolist() == [[pytest.approx(0.3)]]


def test_texts_may_be_bytes_and_odd_but_not_empty() -> None:
    encoded, errors = check_texts(["中文 😀", b"\xff", "\ud800 lone", "\0 "], on_error="skip")
    assert encoded[:2] == ["中文 😀".encode(), b"\xff"]
    assert list(errors) == [3]
    with pytest.raises(TextError, match="text 1"):
        check_texts(["a", "\u3000\x1c\0"], on_error="raise")
    with pytest.raises(TextError, match=r"\[text\]"):
        check_texts("one text", on_error="raise")
    with pytest.raises(TextError, match="str or bytes"):
        check_texts([3], on_error="raise")


class _TritonError(Exception):
    """Shaped like tritonclient's InferenceServerException."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self._status, self._message = status, message

    def status(self) -> str:
        return self._status

    def message(self) -> str:
        return self._message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_TritonError("StatusCode.UNAVAILABLE", "failed to connect"), ServerUnavailableError),
        (_TritonError("StatusCode.CANCELLED", "CANCELLED"), ServerUnavailableError),
        (_TritonError("StatusCode.UNAVAILABLE", "Exceeds maximum queue size"), OverloadedError),
        (_TritonError("503", "Exceeds maximum queue size"), OverloadedError),
        (_TritonError("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded"), DeadlineExceededError),
        (_TritonError("StatusCode.NOT_FOUND", "unknown model: 'x'"), UnknownModelError),
        (_TritonError("400", "Request for unknown model: 'x' is not found"), UnknownModelError),
        (
            _TritonError("400", "Request for unknown model: 'x' has no available versions"),
            ServerUnavailableError,
        ),
        (_TritonError("StatusCode.INVALID_ARGUMENT", "unexpected shape"), InputError),
        (_TritonError("StatusCode.INTERNAL", "it broke"), ServerAnswerError),
        (ConnectionRefusedError(111, "refused"), ServerUnavailableError),
        (TimeoutError("timed out"), DeadlineExceededError),
        (SeriesError("already ours"), SeriesError),
    ],
)
def test_errors_are_translated_once(error: Exception, kind: type[PresageError]) -> None:
    assert type(translate(error, model="x", url="grpc://h:1")) is kind


def test_a_model_in_the_repository_is_not_unknown() -> None:
    """A server that starts answers before its models do: worth a retry."""
    unknown = UnknownModelError("no model", where="grpc://h:1")
    assert explain_unknown(unknown, "x", [{"name": "y"}]) is unknown
    waiting = explain_unknown(unknown, "x", [{"name": "x"}])
    assert isinstance(waiting, ServerUnavailableError)
    assert waiting.where == "grpc://h:1"


def test_only_unavailable_is_retried_within_the_deadline() -> None:
    policy = CallPolicy(attempts=3, first_delay_seconds=0.1)
    down = ServerUnavailableError("down")
    delay = policy.delay_after(0, down, seconds_left=10)
    assert delay is not None
    assert 0.05 <= delay <= 0.1
    assert policy.delay_after(2, down, seconds_left=10) is None
    assert policy.delay_after(0, down, seconds_left=0.01) is None
    assert policy.delay_after(0, OverloadedError("full"), seconds_left=10) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:9001", ("grpc", "127.0.0.1:9001", False)),
        ("grpcs://h:1", ("grpc", "h:1", True)),
        ("http://h:1/", ("http", "h:1", False)),
        ("https://h:1", ("http", "h:1", True)),
    ],
)
def test_urls(url: str, expected: tuple[str, str, bool]) -> None:
    assert split_url(url) == expected


@pytest.mark.parametrize("url", ["ftp://h:1", "http://", "http://h:1/path"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(InputError, match="not a server URL"):
        split_url(url)


def test_a_server_that_is_not_there_is_unavailable_after_the_retries() -> None:
    policy = CallPolicy(attempts=2, first_delay_seconds=0.01, deadline_seconds=10)
    for scheme in ("grpc", "http"):
        with (
            clients.MetricForecastClient(f"{scheme}://127.0.0.1:1", policy) as client,
            pytest.raises(ServerUnavailableError, match="embedded_triton up"),
        ):
            client.forecast([[1, 2, 3]], step_seconds=300)


def test_chinese_is_two_columns_wide() -> None:
    assert width("显存 ok") == 7
    assert fit("显存不足", 5) == "显存…"
    lines = render(["a", "b"], [["显存", "1"], ["xyz", "2"]]).split("\n")
    assert {width(line) for line in lines} == {7}


@pytest.mark.parametrize(
    ("text", "values", "step"),
    [
        ("timestamp,value\n1700000000,1\n1700000060,2\n", [1, 2], 60),
        ("ds,y\n2020-05-01 16:25:00,1\n2020-05-01 16:30:00,2\n", [1, 2], 300),
        ("1\n2\n3\n", [1, 2, 3], None),
        ("step,cpu,value\n0,9,1\n1,9,2\n", [1, 2], None),
        ("timestamp,value,cpu\n1700000000000,1,9\n1700000060000,2,9\n\n", [1, 2], 60),
        ("2024-01-01T00:00:00,1\n2024-01-01T01:00:00,2\n2024-01-01T02:00:00,3", [1, 2, 3], 3600),
        ('timestamp,"value"\r\n1700000000,"1e3"\r\n', [1000], None),
    ],
)
def test_the_seeds_csv_is_read(text: str, values: list[float], step: float | None) -> None:
    assert read_csv_series("f.csv", text) == CsvSeries(values, step)


def test_a_bad_csv_row_is_named() -> None:
    with pytest.raises(DataFileError, match=r"f\.csv:3"):
        read_csv_series("f.csv", "timestamp,value\n1,1\n2,x\n")
    with pytest.raises(DataFileError, match=r"f\.csv:4"):
        read_csv_series("f.csv", "timestamp,value\n1,1\n\n2\n")
    with pytest.raises(DataFileError, match=r"f\.csv:2.*field larger"):
        read_csv_series("f.csv", "value\n" + "9" * 200_000 + "\n")
    with pytest.raises(SeriesError, match=r"empty file at f\.csv"):
        read_csv_series("f.csv", "\n\n")


def test_a_missing_value_in_a_csv_is_not_a_number() -> None:
    values = read_csv_series("f.csv", "timestamp,value\n1,1\n2,\n3,nan\n4,4\n").values
    np.testing.assert_array_equal(values, [1, np.nan, np.nan, 4])


def test_spans_are_words() -> None:
    assert [_span(s) for s in (30, 300, 43_200, 172_800)] == ["30 s", "5 min", "12 h", "2 d"]


def test_import_is_quick(repository_root: Path) -> None:
    """Not a timing assertion of CI: ten times the promised second only catches a heavy import."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", "import clients"], cwd=repository_root, check=True)
    assert time.monotonic() - start < 10
