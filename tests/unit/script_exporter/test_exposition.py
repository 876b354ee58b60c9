"""What a script printed: what is refused, what is taken, and that it is written again rightly."""

from __future__ import annotations

import math
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from script_exporter.exposition import OutputError, Page, family, parse
from tests.fixtures.hostile_outputs import HOSTILE, ODD
from tests.unit.alert_rules.promtool import debian_program

OWN = {"a metric of the exporter's own", "a metric that Prometheus writes"}


def page_of(output: bytes) -> str:
    page = Page()
    page.add(parse(output, series_limit=1000))
    return page.text()


def series_of(text: str) -> dict[tuple, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - OWN))
def test_what_would_break_a_scrape_is_refused(name: str) -> None:
    output, reason = HOSTILE[name]
    with pytest.raises(OutputError) as caught:
        parse(output, series_limit=1000)
    assert caught.value.reason == reason
    assert "line " in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ODD)
def test_what_is_only_odd_is_taken_and_written_well(name: str) -> None:
    output, count = ODD[name]
    text = page_of(output)
    assert len(series_of(text)) == count
    assert page_of(text.encode()) == text, "reading it again changes nothing"


def test_the_line_and_its_number_are_named() -> None:
    with pytest.raises(OutputError, match=r"line 3: expected a number as value: 'b = 2'"):
        parse(b"a 1\n# x\nb = 2\n", series_limit=10)


def test_labels_keep_their_text() -> None:
    ((_, labels),) = series_of(page_of(ODD["escapes and Chinese"][0]))
    assert labels == (("b", 'C:\\x "q" \n 温度'),)


def test_no_digit_of_a_value_is_lost() -> None:
    assert "a 12345678901234567890\n" in page_of(b"a 12345678901234567890\n")


def test_constant_labels_are_added_but_never_over_the_scripts_own() -> None:
    families = parse(b'a{x="1"} 1\na 2\n', series_limit=9, constant_labels={"x": "0", "y": "2"})
    page = Page()
    page.add(families)
    assert page.text() == 'a{x="1",y="2"} 1\na{x="0",y="2"} 2\n'


def test_constant_labels_make_no_duplicate_unseen() -> None:
    with pytest.raises(OutputError) as caught:
        parse(b'a{x="0"} 1\na 2\n', series_limit=9, constant_labels={"x": "0"})
    assert caught.value.reason == "duplicate"


def test_a_metric_of_several_scripts_stands_together() -> None:
    page = Page()
    page.add(parse(b'# HELP a first\na{n="0"} 1\nb 1\n', series_limit=9))
    page.add(parse(b'# HELP a second\n# TYPE a gauge\na{n="1"} 1\n', series_limit=9))
    assert page.text() == '# HELP a first\n# TYPE a gauge\na{n="0"} 1\na{n="1"} 1\nb 1\n'


def test_our_own_numbers() -> None:
    page = Page()
    values = (0.0, 3.0, 0.25, math.inf, -math.inf, math.nan, 1.7e9)
    page.add([family("a", "gauge", "x", [({"n": str(i)}, v) for i, v in enumerate(values)])])
    words = [line.split()[-1] for line in page.text().splitlines()[2:]]
    assert words == ["0", "3", "0.25", "+Inf", "-Inf", "NaN", "1700000000"]


def test_promtool_finds_the_page_well_formed() -> None:
    page = Page()
    for name, (output, _) in ODD.items():
        # Each under names of its own.
        prefix = f"x{list(ODD).index(name)}_".encode()
        lines = [
            line
            if line.startswith(b"#") or not line.strip()
            else line.replace(line.lstrip()[:1], prefix + line.lstrip()[:1], 1)
            for line in output.split(b"\n")
        ]
        if b"TYPE" not in output and b"HELP" not in output:
            page.add(parse(b"\n".join(lines), series_limit=1000))
    page.add(parse(ODD["a histogram"][0], series_limit=9))
    promtool = debian_program("promtool", "--version")
    assert promtool.returncode == 0
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=page.text(), capture_output=True, text=True
    )
    # 3: only advice (no help text); 1: cannot be read.
    assert result.returncode in (0, 3), result.stderr


NAMES = st.from_regex(r"\A[a-zA-Z_:][a-zA-Z0-9_:]{0,8}\Z")
LABEL_NAMES = st.from_regex(r"\A[a-zA-Z][a-zA-Z0-9_]{0,5}\Z")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.tuples(NAMES, st.dictionaries(LABEL_NAMES, TEXTS.filter(bool), max_size=3).map(
            lambda labels: tuple(sorted(labels.items()))
        )),
        st.floats(),
        max_size=6,
    )
)  # fmt: skip
def test_any_series_comes_out_as_it_went_in(series: dict) -> None:
    rows = [
        family(name, "untyped", "", [(dict(labels), value)])
        for (name, labels), value in series.items()
    ]
    page = Page()
    page.add(rows)
    again = Page()
    again.add(parse(page.text().encode(), series_limit=100))
    assert again.text() == page.text()


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    )
)
def test_no_output_breaks_the_reader(output: bytes) -> None:
    try:
        text = page_of(output)
    except OutputError:
        return
    assert page_of(text.encode()) == text
