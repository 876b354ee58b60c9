"""``GeneratedFiles``: files that are written from settings and committed, and their drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from contract.errors import ConfigError


class GeneratedFiles:
    """wanted: file name → text. Files of ``pattern`` for whose text ``is_ours`` is true are
    dropped once nobody wants them; what somebody wrote by hand beside them stays.
    """

    def __init__(
        self,
        wanted: Mapping[str, str],
        folder: Path,
        pattern: str,
        is_ours: Callable[[str], bool],
    ) -> None:
        self._wanted = wanted
        self._folder = folder
        self._pattern = pattern
        self._is_ours = is_ours

    def write(self) -> list[Path]:
        """The files that were dropped."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, text in self._wanted.items():
            (self._folder / name).write_text(text, encoding="utf-8")
        dropped = self._left_over()
        for path in dropped:
            path.unlink()
        return dropped

    def check(self, what: str, command: str) -> None:
        """Raises ConfigError: what is missing, differs or is left over, by name."""
        wrong = []
        for name, text in self._wanted.items():
            path = self._folder / name
            if not path.is_file():
                wrong.append(f"{name} is missing")
            elif path.read_text("utf-8") != text:
                wrong.append(f"{name} differs")
        wrong += [f"{path.name} is left over" for path in self._left_over()]
        if wrong:
            raise ConfigError(
                what, where=str(self._folder), got="; ".join(wrong), next_command=command
            )

    def _left_over(self) -> list[Path]:
        return [
            path
            for path in sorted(self._folder.glob(self._pattern))
            if path.name not in self._wanted and self._is_ours(path.read_text("utf-8"))
        ]
