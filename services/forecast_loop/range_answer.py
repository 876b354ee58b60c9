"""``RangeAnswer``: the bytes that query_range answers, as labels and one float32 matrix.

The numbers are nine tenths of the bytes. They are cut out and read as one flat list a series,
because a list of [time, "value"] pairs costs five Python objects a point: 5.5 s instead of 24 s
for 100,000 series of 288 points (2 cores Xeon; orjson both times).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from clients.results import Array
from contract.errors import ServerAnswerError
from services.forecast_loop.grid import Grid

_VALUES = b'"values":[['
_MARK = b'"values":0'


@dataclass(frozen=True)
class RangeAnswer:
    """``values``: float32 (series, points of the grid), the metric's own unit, NaN = missing.

    ``infinite``: points that were infinite, or too large for float32; they are missing.
    ``warnings``: Prometheus' own words about an answer that it gave all the same.
    """

    labels: list[dict[str, str]]
    values: Array
    infinite: int = 0
    warnings: tuple[str, ...] = ()


def parse_answer(body: bytes, where: str) -> dict[str, Any]:
    """Any answer of the API. Raises ServerAnswerError when it is no JSON object with ``data``."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_the_contract(where, "JSON", _excerpt(body)) from error
    if not isinstance(answer, dict) or answer.get("status") != "success" or "data" not in answer:
        raise _not_the_contract(where, 'an object with status "success" and data', _excerpt(body))
    return answer


def parse_range(body: bytes, grid: Grid, where: str) -> RangeAnswer:
    """Read a query_range answer. Points that are not on the grid are dropped.

    Raises:
        ServerAnswerError: truncated, no JSON, or no matrix.
    """
    skeleton, cut = _cut_values(body)
    answer = parse_answer(skeleton, where)
    data = answer["data"]
    if not isinstance(data, dict) or data.get("resultType") != "matrix":
        raise _not_the_contract(where, "resultType matrix", _excerpt(skeleton))
    result = data.get("result", [])
    values: Array = np.full((len(result), grid.points), np.nan, dtype=np.float32)
    labels = []
    numbers = iter(cut)
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite: counted below
            for row, series in zip(values, result, strict=True):
                labels.append(series["metric"])
                points = series.get("values", [])
                _place(row, _flat(next(numbers) if points == 0 else points), grid)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise _not_the_contract(where, "series of [time, value] pairs", repr(error)) from error
    infinite = np.isinf(values)
    values[infinite] = np.nan
    said = [*answer.get("warnings", []), *answer.get("infos", [])]
    return RangeAnswer(labels, values, int(infinite.sum()), tuple(str(word) for word in said))


def _cut_values(body: bytes) -> tuple[bytes, list[bytes]]:
    """The JSON with each series' numbers replaced by 0, and the numbers: ``1700000000,"0.5"],[…``.

    A quote inside a JSON string is escaped, so the mark is found nowhere but before numbers; an
    answer written with other spaces is not cut, and read by the slower way.
    """
    first, *rest = body.split(_VALUES)
    skeleton, cut = [first], []
    for part in rest:
        numbers, closed, tail = part.partition(b"]]")
        cut.append(numbers)
        # Unclosed is truncated: without its tail the skeleton is no JSON, and says so.
        skeleton.append(tail if closed else b"")
    return _MARK.join(skeleton), cut


def _flat(points: bytes | list[Any]) -> list[float]:
    """time, value, time, value, …"""
    pairs: Any = points
    if isinstance(points, bytes):
        try:
            flat: list[float] = orjson.loads(b"[" + points.translate(None, b'[]"') + b"]")
            return flat
        except orjson.JSONDecodeError:  # NaN or Inf are among them
            pairs = orjson.loads(b"[[" + points + b"]]")
    return [float(number) for time, value in pairs for number in (time, value)]


def _place(row: Array, flat: list[float], grid: Grid) -> None:
    """Write one series' points into its row of the grid."""
    found = flat[1::2]
    if len(found) == grid.points and flat[0] == grid.start_seconds and flat[-2] == grid.end_seconds:
        row[:] = found
        return
    offset = (np.array(flat[0::2]) - grid.start_seconds) / grid.step_seconds
    columns = np.rint(offset)
    on_grid = (columns == offset) & (columns >= 0) & (columns < grid.points)
    row[columns[on_grid].astype(np.int64)] = np.array(found)[on_grid]


def _excerpt(body: bytes) -> str:
    return repr(body[:120].decode("utf-8", "replace")) if body else "nothing"


def _not_the_contract(where: str, expected: str, got: str) -> ServerAnswerError:
    return ServerAnswerError(
        "Prometheus answered something else", where=where, expected=expected, got=got
    )
