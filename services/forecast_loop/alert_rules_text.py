"""What an alert says: values by their unit, in English and Chinese, as Prometheus templates."""

from __future__ import annotations

import json
from collections.abc import Sequence

from services.forecast_loop.config import Query, Unit, seconds

_PIPELINE: dict[Unit, tuple[str, str]] = {
    "ratio": ("humanizePercentage", ""),
    "percent": ('printf "%.1f%%"', ""),
    "bytes": ("humanize1024", "B"),
    "seconds": ("humanizeDuration", ""),
    "count": ("humanize", ""),
    "other": ("humanize", ""),
}


def duration(whole_seconds: float) -> str:
    """``900`` → ``15m``: the largest unit that divides it; rounded up to whole seconds."""
    whole = -int(-whole_seconds // 1)
    for unit in ("1d", "1h", "1m"):
        if whole and whole % seconds(unit) == 0:
            return f"{whole // seconds(unit)}{unit[-1]}"
    return f"{whole}s"


def shown(unit: Unit, value: str = "$value") -> str:
    """Template of a value in its unit."""
    pipeline, suffix = _PIPELINE[unit]
    return f"{{{{ {value} | {pipeline} }}}}{suffix}"


def shown_number(unit: Unit, number: float) -> str:
    """A number of the settings, as ``shown`` shows values or nearly so."""
    if unit in ("ratio", "percent"):
        return f"{number * (100 if unit == 'ratio' else 1):.4g}%"
    if unit == "bytes":
        power = next((n for n in range(5) if abs(number) < 1024 ** (n + 1)), 5)
        return f"{number / 1024**power:.4g}{('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi')[power]}B"
    return f"{number:.6g}{'s' if unit == 'seconds' else ''}"


def who(labels: Sequence[str]) -> str:
    """Template that names the series: the values of its labels as the alert carries them."""
    return "/".join(f"{{{{ $labels.{label} }}}}" for label in labels)


def looked_up(selector: str, pairs: Sequence[tuple[str, str]], unit: Unit, missing: str) -> str:
    """Template of another series' value at this moment; ``missing`` where it has none.

    selector: with the matchers, if any, of its own; pairs: (its label, the alert's label)
    """
    name, _, matchers = selector.partition("{")
    inside = [matchers.rstrip("} ").rstrip(",").replace("%", "%%")] if matchers.strip("} ") else []
    inside += [f"{own}=%q" for own, _ in pairs]
    text = f"{name}{{{','.join(inside)}}}"
    # A template's string in backquotes, for matchers have quotes and backslashes of their own.
    text = f"`{text}`" if "`" not in text else json.dumps(text, ensure_ascii=False)
    labels = " ".join(f"$labels.{label}" for _, label in pairs)
    pipeline, suffix = _PIPELINE[unit]
    return (
        f"{{{{ with printf {text} {labels} | query }}}}"
        f"{{{{ . | first | value | {pipeline} }}}}{suffix}"
        f"{{{{ else }}}}{missing}{{{{ end }}}}"
    )


def beyond_words(query: Query) -> tuple[str, str]:
    """``above 98%``, ``高于 98%``."""
    assert query.threshold is not None
    number = shown_number(query.unit, query.threshold)
    if query.direction == "above":
        return f"above {number}", f"高于 {number}"
    return f"below {number}", f"低于 {number}"


def witness_words(query: Query) -> tuple[str, str]:
    """Who confirms the model."""
    line = (f"the line of {query.linear_window}", f"线性外推（{query.linear_window}）")
    day = ("the value a day before", "前一天同一时刻的值")
    if query.confirm == "line":
        return line
    if query.confirm == "yesterday":
        return day
    return f"{line[0]} (or {day[0]})", f"{line[1]}（或{day[1]}）"
