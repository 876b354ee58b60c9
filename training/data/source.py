"""Where training data comes from: a folder, the fetched public files, or generators."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contract.errors import DataFileError

FETCHED_FOLDER = Path("build/data")
FETCHED_MARK = ".fetched"
"""Written when a fetch has everything it was asked for: half a fetch is no data."""
ENVIRONMENT_VARIABLE = "PRESAGE_DATA"


@dataclass(frozen=True)
class DataSource:
    """``root``: a folder laid out like the public data (metrics/, logs/, rca/), or one file in the
    seed's format (``origin`` "file"); None means generators."""

    root: Path | None
    origin: Literal["folder", "file", "fetched", "generated"]

    def describe(self) -> str:
        if self.root is None:
            return "generated data (no --data, no PRESAGE_DATA, nothing fetched)"
        return f"{self.root} ({self.origin})"


def find_data(folder: Path | None = None) -> DataSource:
    """``--data``, else PRESAGE_DATA, else what `training data fetch` brought, else generators.

    Raises:
        DataFileError: a folder was named but is not there.
    """
    named = folder or (
        Path(os.environ[ENVIRONMENT_VARIABLE]) if os.environ.get(ENVIRONMENT_VARIABLE) else None
    )
    if named is not None:
        if named.is_file():
            return DataSource(named, "file")
        if not named.is_dir():
            raise DataFileError(
                "no such data folder or file",
                where=str(named),
                expected="a folder with metrics/, logs/ or rca/, or a file in the seed's format",
                next_command="or fetch the public files: python -m training data fetch",
            )
        return DataSource(named, "folder")
    if (FETCHED_FOLDER / FETCHED_MARK).is_file():
        return DataSource(FETCHED_FOLDER, "fetched")
    return DataSource(None, "generated")
