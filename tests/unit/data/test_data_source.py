"""Where training data comes from, in order: named, $PRESAGE_DATA, fetched whole, generated."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import DataFileError
from training.data.source import FETCHED_FOLDER, FETCHED_MARK, find_data


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRESAGE_DATA", raising=False)


def test_nothing_means_generated() -> None:
    source = find_data()
    assert (source.root, source.origin) == (None, "generated")
    assert "generated data" in source.describe()


def test_an_aborted_fetch_is_no_data() -> None:
    (FETCHED_FOLDER / "metrics").mkdir(parents=True)
    (FETCHED_FOLDER / "metrics" / "a.csv.partial").write_text("half")
    assert find_data().origin == "generated"
    (FETCHED_FOLDER / FETCHED_MARK).touch()
    assert find_data().origin == "fetched"


def test_the_environment_and_the_flag_come_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named, flagged = tmp_path / "named", tmp_path / "flagged"
    named.mkdir()
    flagged.mkdir()
    monkeypatch.setenv("PRESAGE_DATA", str(named))
    assert find_data().root == named
    assert find_data(flagged).root == flagged


def test_one_file_is_data_in_the_seeds_format(tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text("normal\tall is well\n")
    assert find_data(file).origin == "file"


def test_a_named_folder_must_exist() -> None:
    with pytest.raises(DataFileError, match="data fetch"):
        find_data(Path("nowhere"))
