"""What becomes training data, what becomes validation, and what never becomes input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contract.errors import DataFileError, InputError
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.log_anomaly.data import load_corpus, make_sampler
from training.log_anomaly.systems import FAULT, NO_FAULT, ROUTINE, LogRow, signature
from training.log_anomaly.vocabulary import Message, load_messages

BGL_HEADER = "{n} 2005.06.03 R02-M1 2005-06-03-15.42.50.{n} R02-M1 RAS KERNEL FATAL "
STATES = ("works", "broke")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def bgl_line(tag: str, position: int, message: str) -> str:
    return f"{tag} {BGL_HEADER.format(n=1117838570 + position)}{message}"


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    logs = tmp_path / "logs"
    bgl = [
        bgl_line(
            "ALERTTAG" if i % 2 else "-", i, f"unit {word} {'broke' if i % 2 else 'works'} {i}"
        )
        for i, word in enumerate(NUMBERS)
    ]
    files = {
        "loghub/BGL/BGL_2k.log": [*bgl, "no header here"],
        "loghub/HDFS/HDFS_2k.log": [f"081109 {i} INFO block blk_{i} is fine" for i in range(20)],
        "loghub/OpenSSH/OpenSSH_2k.log": ["Failed password for root"],
        "supercomputer_templates/BGL_templates_labelled.tsv": [
            "label\talert_tag\ttemplate",
            "1\tTAG\tunit nine broke <*>",
            "0\t-\tregister <*> is <*>",
            "2\t-\twhat is this",
        ],
        "gpud_kmsg/kmsg_lines.tsv": ["component\tline", "disk\tbuffer lost on sda"],
        "own.tsv": ["异常\t磁盘损坏", "0\tall is well"],
    }
    for name, lines in files.items():
        path = logs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def rows_of(folder: Path, report: RowReport) -> tuple[list[LogRow], list[LogRow]]:
    corpus = load_corpus(DataSource(folder, "folder"), report, 0)
    assert not corpus.generated
    return corpus.train, corpus.validation


def test_the_label_column_is_never_input(data_folder: Path) -> None:
    train, validation = rows_of(data_folder, RowReport())
    texts = [row.text for row in (*train, *validation)]
    assert any("RAS KERNEL" in text for text in texts)
    assert not [text for text in texts if "ALERTTAG" in text or text.startswith("- ")]


def test_labels_come_from_the_tags(data_folder: Path) -> None:
    train, validation = rows_of(data_folder, RowReport())
    for row in (*train, *validation):
        assert row.anomaly == any(word in row.text for word in ("broke", "lost", "损坏"))


def test_unlabelled_systems_are_left_out(data_folder: Path) -> None:
    train, validation = rows_of(data_folder, RowReport())
    assert not [row for row in (*train, *validation) if "password" in row.text]


def test_late_signatures_are_validation_in_every_file(data_folder: Path) -> None:
    train, validation = rows_of(data_folder, RowReport())
    keys = {signature(row.message) for row in train}, {signature(row.message) for row in validation}
    assert not keys[0] & keys[1]
    assert {"unit eight broke", "unit nine works", "unit ten broke"} <= keys[1]
    assert "unit one works" in keys[0]
    # twenty lines of one signature are one row
    assert len([row for row in train if "blk_" in row.text]) == 1


def test_bad_rows_are_counted_and_strict_stops(data_folder: Path) -> None:
    report = RowReport()
    rows_of(data_folder, report)
    assert [(skipped.line, Path(skipped.file).name) for skipped in report.skipped] == [
        (11, "BGL_2k.log"),
        (4, "BGL_templates_labelled.tsv"),
    ]
    with pytest.raises(DataFileError, match=r"BGL_2k\.log:11"):
        rows_of(data_folder, RowReport(strict=True))


def test_seed_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    lines = [f"{'anomaly' if i % 2 else '正常'}\tword{chr(97 + i)} happened" for i in range(20)]
    path.write_text("\n".join([*lines, "maybe\twhat"]) + "\n", encoding="utf-8")
    report = RowReport()
    corpus = load_corpus(DataSource(path, "file"), report, 0)
    own = [*corpus.train, *corpus.validation]
    assert {row.system for row in own} == {"train"}
    assert len(own) == 20
    assert sum(row.anomaly for row in own) == 10
    assert corpus.files[0].path == "train.tsv"
    assert [skipped.line for skipped in report.skipped] == [21]


def test_without_data_the_vocabulary_is_all_there_is() -> None:
    corpus = load_corpus(DataSource(None, "generated"), RowReport(), 0)
    assert corpus.generated
    assert load_corpus(DataSource(None, "generated"), RowReport(), 0).twins == corpus.twins
    assert {row.anomaly for row in corpus.held_out_rows()} == {True, False}
    assert len(corpus.held_out_rows()) == 2 * len(corpus.twins)


def test_a_system_is_left_out_with_its_templates(data_folder: Path) -> None:
    source = DataSource(data_folder, "folder")
    corpus = load_corpus(source, RowReport(), 0, ["BGL", "GPU nodes"])
    systems = {row.system for row in (*corpus.train, *corpus.validation)}
    assert systems == {"HDFS", "own"}
    assert not [file for file in corpus.files if "BGL" in file.path or "gpud" in file.path]
    with pytest.raises(InputError, match="BLG"):
        load_corpus(source, RowReport(), 0, ["BLG"])


def test_a_message_that_a_left_out_system_prints_is_not_learnt(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.log_anomaly.data

    messages = (
        Message("fault", "buffer lost on {dev}", "{dev}缓冲丢失", "own"),
        Message("fault", "fan {n} stopped turning", "风扇{n}停转", "own"),
    )
    monkeypatch.setattr(training.log_anomaly.data, "load_messages", lambda: messages)
    monkeypatch.setattr(training.log_anomaly.data, "split_messages", lambda found: (found, []))
    source = DataSource(data_folder, "folder")
    assert len(load_corpus(source, RowReport(), 0).messages) == 2
    # The line has a header before the message.
    lines = data_folder / "logs/gpud_kmsg/kmsg_lines.tsv"
    lines.write_text("component\tline\ndisk\t[ 12.5] kernel: buffer lost on sda\n")
    left = load_corpus(source, RowReport(), 0, ["GPU nodes"]).messages
    assert [message.english for message in left] == ["fan {n} stopped turning"]


def test_a_row_may_be_what_is_known_of_it(data_folder: Path) -> None:
    train, validation = rows_of(data_folder, RowReport())
    grades = {(row.system, row.grades) for row in (*train, *validation)}
    assert ("BGL", FAULT) in grades
    assert ("BGL", NO_FAULT) in grades
    assert ("HDFS", ROUTINE) in grades  # its level is INFO


def test_signature_ignores_what_varies() -> None:
    assert signature("Lost link to node12 at 10.0.0.1: 5 of 7") == "lost link to at of"
    assert signature("unit <*> broke") == signature("unit 7 broke") == "unit broke"


def test_small_groups_are_drawn_more_often_than_their_share() -> None:
    rows = [LogRow(f"big {i}", NO_FAULT, "big") for i in range(900)]
    rows += [LogRow(f"small {i}", FAULT, "small") for i in range(9)]
    drawn = make_sampler(rows, load_messages())(np.random.default_rng(0), 6000)
    own = [example for example in drawn if "big" in example.text or "small" in example.text]
    assert len(own) / 6000 == pytest.approx(0.35, abs=0.03)
    share = np.mean([example.target == (0, 0, 1) for example in own])
    assert share == pytest.approx(3 / 33, abs=0.03)


def test_lines_are_drawn_with_and_without_header() -> None:
    rows = [LogRow("unit broke", FAULT, "bgl", header="HEADER ")]
    drawn = make_sampler(rows, load_messages())(np.random.default_rng(0), 400)
    texts = [example.text for example in drawn if "unit broke" in example.text]
    assert {"unit broke", "HEADER unit broke"} <= set(texts)
    assert all(text.endswith("unit broke") for text in texts)
