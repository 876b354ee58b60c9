"""The failure catalogue and the logs composed of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from contract.errors import DataFileError
from training.train_failure_rca.corpus import (
    LABELS,
    Catalogue,
    ComposedLog,
    Mix,
    compose_logs,
    hold_out,
    load_catalogue,
)
from training.train_failure_rca.corpus.catalogue import (
    CASCADE,
    CASCADE_LABEL,
    FOLDER,
    GROUPS,
    HEALTHY,
    LOOK_ALIKE,
    PLACES,
    TEARDOWN,
    UNKNOWN,
    Family,
    decisive_forms,
    form_of,
)
from training.train_failure_rca.corpus.messages import Messages
from training.train_failure_rca.corpus.slots import Slots

UNFILLED = re.compile(r"\{[a-z]+[1-9]?\}|\{\d+-\d+\}|\{[^{}]*\|")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture(scope="module")
def logs(catalogue: Catalogue) -> list[ComposedLog]:
    return compose_logs(np.random.default_rng(7), 600, catalogue)


def has_chinese(family: Family) -> bool:
    return any(wording.chinese for wording in family.wordings)


def test_every_label_has_enough_families_and_chinese_ones(catalogue: Catalogue) -> None:
    for label in LABELS:
        families = catalogue.group(label)
        assert len(families) >= 30, label
        assert sum(map(has_chinese, families)) >= 8, label
    assert len(catalogue.group(UNKNOWN)) >= 25
    assert sum(len(family.wordings) for family in catalogue.group(HEALTHY)) >= 120
    assert sum(len(family.wordings) for family in catalogue.group(LOOK_ALIKE)) >= 80
    for label in LABELS:
        near = [f for f in catalogue.group(LOOK_ALIKE) if label in f.near]
        assert len(near) >= 4, label
    for place in PLACES:
        assert catalogue.tagged(HEALTHY, place), place


def test_families_prove_their_own_label_and_declared_ones(catalogue: Catalogue) -> None:
    names = [family.name for family in catalogue.families]
    assert len(set(names)) == len(names)
    for family in catalogue.families:
        proved = {label for w in family.wordings for line in w.lines for label in line.labels}
        assert proved == set(family.labels), family.name
        if family.group in LABELS:
            assert family.labels[0] == family.group
        elif family.group == CASCADE:
            assert family.labels == (CASCADE_LABEL,)
        else:
            assert not family.labels, family.name


def test_no_decisive_line_stands_under_two_labels(catalogue: Catalogue) -> None:
    meanings: dict[str, tuple[frozenset[str], str]] = {}
    harmless = {
        form_of(line.text)
        for family in catalogue.families
        for wording in family.wordings
        for line in wording.lines
        if family.group in (HEALTHY, LOOK_ALIKE, TEARDOWN)
    }
    for family in catalogue.families:
        for wording in family.wordings:
            for line in wording.lines:
                if not line.decisive:
                    continue
                labels, name = meanings.setdefault(line.text, (line.labels, family.name))
                assert labels == line.labels, f"{line.text!r}: {name} and {family.name}"
                if line.labels:
                    assert form_of(line.text) not in harmless, line.text


def test_every_slot_is_filled(catalogue: Catalogue) -> None:
    for seed, family in enumerate(catalogue.families):
        for chinese in (False, True):
            messages = Messages(np.random.default_rng(seed), chinese=chinese)
            for _ in range(4):
                for line in messages.write(family):
                    assert not UNFILLED.search(line.text), f"{family.name}: {line.text}"
                    assert "\n" not in line.text


def test_slots_tie_what_belongs_together() -> None:
    slots = Slots(np.random.default_rng(1))
    first = slots.fill("{rank} {rank} {int1} {int1} {host} {user}").split()
    assert first[0] == first[1]
    assert first[2] == first[3]
    assert slots.fill("{rank}") == first[0]
    drawn = set()
    for _ in range(50):
        slots.next_message()
        assert slots.fill("{host} {user}").split() == first[4:]
        drawn.add(slots.fill("{rank}"))
    assert len(drawn) > 3
    assert slots.fill("{3-3} {a|a} {x} {'k': 1} {b {3-3}|b {3-3}}") == "3 a {x} {'k': 1} b 3"


@pytest.mark.parametrize("share", [0.15, 0.25, 0.5])
def test_held_out_families_are_strangers(catalogue: Catalogue, share: float) -> None:
    train, held = hold_out(catalogue, 3, share)
    assert hold_out(catalogue, 3, share) == (train, held)
    assert hold_out(catalogue, 4, share) != (train, held)
    names = [family.name for family in (*train.families, *held.families)]
    assert sorted(names) == sorted(family.name for family in catalogue.families)
    known = frozenset().union(*map(decisive_forms, train.families))
    for family in held.families:
        assert not decisive_forms(family) & known, family.name
    for group in GROUPS:
        total = len(catalogue.group(group))
        part = len(held.group(group))
        assert train.group(group), group
        assert share - 0.12 < part / total < share + 0.12, (group, part, total)
    for place in PLACES:
        assert train.tagged(HEALTHY, place)
        assert held.tagged(HEALTHY, place)


def test_the_same_generator_composes_the_same_logs(catalogue: Catalogue) -> None:
    first = compose_logs(np.random.default_rng(11), 80, catalogue)
    again = compose_logs(np.random.default_rng(11), 80, catalogue)
    other = compose_logs(np.random.default_rng(12), 80, catalogue)
    assert first == again
    assert [log.text for log in first] != [log.text for log in other]


def test_labels_lines_and_families_of_a_log_agree(
    catalogue: Catalogue, logs: list[ComposedLog]
) -> None:
    by_name = {family.name: family for family in catalogue.families}
    for log in logs:
        families = [by_name[name] for name in log.families]
        rows = log.text.split("\n")
        assert len(rows) == len(log.lines), "a line holds a line break"
        assert log.labels == frozenset().union(*(f.labels for f in families))
        assert set(log.decisive) == {n for n, line in enumerate(log.lines, 1) if line.labels}
        for number, labels in log.decisive.items():
            assert rows[number - 1] == log.lines[number - 1].text
            assert labels <= set(LABELS)
            assert rows[number - 1].strip()
        assert bool(log.labels) == (log.kind in ("one cause", "two causes"))
        assert (log.root is None) == (not log.labels)
        assert log.failed == (log.kind != "healthy")


def test_the_root_comes_first(catalogue: Catalogue, logs: list[ComposedLog]) -> None:
    by_name = {family.name: family for family in catalogue.families}
    cascades = 0
    for log in logs:
        if log.root is None:
            assert log.families == () or all(n.startswith("unknown/") for n in log.families)
            continue
        first = by_name[log.families[0]]
        assert log.root == first.labels[0]
        assert log.root_labels == set(first.labels)
        assert log.decisive[min(log.decisive)] & log.root_labels, log.families
        groups = [by_name[name].group for name in log.families]
        assert groups[0] != CASCADE
        assert groups == sorted(groups, key=lambda group: group == CASCADE)
        cascades += CASCADE in groups and log.root != CASCADE_LABEL
    assert cascades > 30


def test_decisive_words_survive_the_dress(catalogue: Catalogue, logs: list[ComposedLog]) -> None:
    """A decisive line must still say, in any form, what its template says outside the slots."""
    by_name = {family.name: family for family in catalogue.families}
    for log in logs:
        words = {
            max(re.split(r"\{(?:[^{}]|\{[^{}]*\})*\}", line.text), key=len).strip()
            for name in log.families
            for wording in by_name[name].wordings
            for line in wording.lines
            if line.labels
        }
        for number in log.decisive:
            text = log.lines[number - 1].text
            if log.form == "json":
                document = json.loads(text)
                text = next(document[k] for k in ("message", "log", "msg") if k in document)
            text = re.sub(r"\x1b\[\d*m", "", text)
            assert any(word in text for word in words), (log.form, text)


def test_all_kinds_forms_and_lengths_come(logs: list[ComposedLog]) -> None:
    assert {log.kind for log in logs} == {"one cause", "two causes", "healthy", "unknown"}
    forms = {log.form for log in logs}
    assert forms == {
        "plain", "timestamp", "json", "ranks", "colour", "progress-bar", "dmesg", "describe",
    }  # fmt: skip
    roots = [log.root for log in logs if log.root]
    for label in LABELS:
        assert roots.count(label) > len(roots) / len(LABELS) / 2, label
    sizes = sorted(len(log.lines) for log in logs)
    assert sizes[len(sizes) // 10] < 15
    assert sizes[-10] > 150
    assert sum(bool(re.search("[一-鿿]", log.text)) for log in logs) > len(logs) / 10
    last = [max(log.decisive) == len(log.lines) for log in logs if log.decisive]
    assert sum(last) < 0.5 * len(last), "the cause is too often the last line"
    assert any("\r" in log.text for log in logs if log.form == "progress-bar")
    assert all("\x1b[" in log.text for log in logs if log.form == "colour" and log.failed)


def test_a_mix_is_obeyed(catalogue: Catalogue) -> None:
    generator = np.random.default_rng(0)
    healthy = compose_logs(generator, 40, catalogue, Mix(two_causes=0, healthy=1, unknown=0))
    assert {(log.kind, log.root) for log in healthy} == {("healthy", None)}
    double = compose_logs(generator, 40, catalogue, Mix(two_causes=1, healthy=0, unknown=0))
    assert all(len(log.labels) >= 2 for log in double)


def test_held_out_families_never_appear_in_training_logs(catalogue: Catalogue) -> None:
    train, held = hold_out(catalogue, 0, 0.25)
    logs = compose_logs(np.random.default_rng(5), 200, train)
    assert {label for log in logs for label in log.labels} == set(LABELS)
    assert not {n for log in logs for n in log.families} & {f.name for f in held.families}
    assert {x for log in compose_logs(np.random.default_rng(5), 300, held) for x in log.labels} == (
        set(LABELS)
    )


BROKEN = (
    ("text\n", 1, "'== '", "text"),
    ("== Bad Name\n!x\n", 1, "lower case", "== Bad Name"),
    ("== a @cobol\n!x\n", 1, "@ before one of", "@cobol"),
    ("== a +OOMM\n!x\n", 1, "one of the labels", "+OOMM"),
    ("== a\nx\n", 1, "begins with '!'", "none"),
    ("== a\n!x\n-- or\ny\n", 3, "begins with '!'", "none"),
    ("== a\n!x\n-- de\n!y\n", 3, "'-- or' or '-- zh'", "-- de"),
    ("== a\n!x {colour}\n", 2, "slots.py", "{colour}"),
    ("== a\n!x {a|{colour}}\n", 2, "slots.py", "{colour}"),
    ("== a\n!<Disk_Full>x\n", 2, "of OOM", "Disk_Full"),
    ("== a\n!\n", 2, "text after the mark", "'!'"),
    ("== a\n!x\n\n== a\n!y\n", 4, "names that differ", "OOM/a"),
    ("== a\n" + "!x\n" * 15, 1, "1 to 14 lines", "15"),
    ("# only a comment\n", 1, "'== '", "none"),
)


@pytest.mark.parametrize(("text", "line", "expected", "got"), BROKEN)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, expected: str, got: str
) -> None:
    folder = tmp_path / "catalogue"
    shutil.copytree(FOLDER, folder)
    (folder / "OOM.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataFileError) as caught:
        load_catalogue(folder)
    error = caught.value
    assert error.where == f"{folder / 'OOM.txt'}:{line}"
    assert expected in str(error.expected)
    assert got in str(error.got)


def test_a_missing_or_undecodable_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    shutil.copytree(FOLDER, folder)
    (folder / "Disk_Full.txt").write_bytes(b"== a\n!\xff\n")
    with pytest.raises(DataFileError, match=r"Disk_Full\.txt:1.*UTF-8"):
        load_catalogue(folder)
    (folder / "OOM.txt").unlink()
    load_catalogue.cache_clear()
    with pytest.raises(DataFileError, match=r"OOM\.txt:1"):
        load_catalogue(folder)


def test_harmless_files_have_no_decisive_line(tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    shutil.copytree(FOLDER, folder)
    (folder / "healthy.txt").write_text("== a @head\n!Killed\n", encoding="utf-8")
    with pytest.raises(DataFileError, match=r"healthy\.txt:2.*no mark"):
        load_catalogue(folder)
