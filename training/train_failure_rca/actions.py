"""What a researcher or the SRE does next, by label and language."""

from __future__ import annotations

import tomllib
from pathlib import Path

from contract.errors import ArtifactCorruptError
from training.train_failure_rca.corpus.labels import LABELS

ACTIONS_FILE = Path(__file__).with_name("actions.toml")


def load_actions(path: Path = ACTIONS_FILE) -> dict[str, dict[str, str]]:
    """{label: {"zh": …, "en": …}}. Raises ArtifactCorruptError: unreadable, or a label lacks."""
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
        return {label: {k: stored[label][k] for k in ("zh", "en")} for label in LABELS}
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactCorruptError(
            "actions cannot be read",
            where=str(path),
            expected="a table for each label with zh and en",
            got=str(error),
        ) from error
