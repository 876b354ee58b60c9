"""Labelled text files: ``label<TAB>text`` and ``label,label<TAB>text``."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataFileError
from training.data.labelled_tsv import LabelledText, read_labelled_tsv
from training.data.row_report import RowReport

LABELS = ("normal", "anomaly")
ALIASES = {"正常": "normal", "异常": "anomaly", "0": "normal", "1": "anomaly"}


def read(
    folder: Path, raw: str | bytes, *, multiple: bool = False, strict: bool = False
) -> tuple[list[LabelledText], RowReport]:
    path = folder / "logs.tsv"
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    report = RowReport(strict)
    return (
        read_labelled_tsv(path, LABELS, report, multiple=multiple, aliases=ALIASES),
        report,
    )


def test_labels_and_their_other_spellings(tmp_path: Path) -> None:
    text = "\ufefflabel\ttext\r\nnormal\ta\r\n异常\t显存不足 😱\r\n0\tc\r\n1\td\te\r\n"
    texts, report = read(tmp_path, text, strict=True)
    assert texts == [
        LabelledText(("normal",), "a"),
        LabelledText(("anomaly",), "显存不足 😱"),
        LabelledText(("normal",), "c"),
        LabelledText(("anomaly",), "d\te"),
    ]
    assert report.describe() == "4 rows"


def test_escapes_stand_for_line_ends_and_tabs(tmp_path: Path) -> None:
    (text,), _ = read(tmp_path, "normal\ta\\nb\\tc\\\\nd\\x\n")
    assert text.text == "a\nb\tc\\nd\\x"


def test_several_labels_or_none(tmp_path: Path) -> None:
    texts, _ = read(tmp_path, "normal, anomaly,normal\ta\n\thealthy\n", multiple=True, strict=True)
    assert [text.labels for text in texts] == [("normal", "anomaly"), ()]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no label here", "no tab"),
        ("strange\ttext", "unknown label 'strange', expected normal, anomaly"),
        ("normal\t  ", "empty text"),
        ("normal,anomaly\ttext", "expected one label, got 2"),
        ("\ttext", "expected one label, got 0"),
    ],
)
def test_a_bad_row_is_named_and_the_others_stay(tmp_path: Path, line: str, reason: str) -> None:
    text = f"normal\ta\n\n{line}\nanomaly\tb\n"
    texts, report = read(tmp_path, text)
    assert [one.text for one in texts] == ["a", "b"]
    ((file, number, said),) = report.skipped
    assert (file, number) == (str(tmp_path / "logs.tsv"), 3)
    assert reason in said
    with pytest.raises(DataFileError, match=r"logs\.tsv:3"):
        read(tmp_path, text, strict=True)


def test_invalid_utf8_nul_and_long_lines_are_text(tmp_path: Path) -> None:
    texts, _ = read(tmp_path, b"normal\ta\xffb\x00c\nanomaly\t" + b"x" * 1_000_000, strict=True)
    assert [text.text for text in texts] == ["a\ufffdb c", "x" * 1_000_000]


def test_gzip_and_files_without_a_row(tmp_path: Path) -> None:
    path = tmp_path / "logs.tsv.gz"
    path.write_bytes(gzip.compress(b"normal\ta\n"))
    assert len(read_labelled_tsv(path, LABELS, RowReport(), multiple=False)) == 1
    for raw in ("", "label\ttext\n", "\n\n", "bad\n"):
        with pytest.raises(DataFileError, match=r"logs\.tsv"):
            read(tmp_path, raw)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_written_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    texts = [f"{text}\n." for text in texts]
    escaped = [text.replace("\\", "\\\\").replace("\n", "\\n") for text in texts]
    folder = tmp_path_factory.mktemp("tsv")
    got, _ = read(folder, "".join(f"normal\t{text}\n" for text in escaped), strict=True)
    assert [one.text for one in got] == texts
