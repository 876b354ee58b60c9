"""What the collectors print: ``Metrics`` gathers samples and writes them in the text format."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path


class Metrics:
    """Samples by metric, written in the order in which the metrics first came."""

    def __init__(self) -> None:
        self._heads: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, list[str]] = {}

    def declare(self, name: str, kind: str, text: str) -> None:
        self._heads.setdefault(name, (kind, text))
        self._lines.setdefault(name, [])

    def add(self, name: str, labels: Mapping[str, str], value: int | float) -> None:
        """``name`` must be declared."""
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        self._lines[name].append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")

    def write(self) -> None:
        for name, (kind, text) in self._heads.items():
            if self._lines[name]:
                print(f"# HELP {name} {text}\n# TYPE {name} {kind}")
                print("\n".join(self._lines[name]))


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that every collector has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--root", type=Path, default=Path("/"), help="folder in place of / (%(default)s)"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=_state_folder(),
        help="folder for what is remembered between runs (SCRIPT_EXPORTER_STATE_DIR)",
    )
    return parser


def read_text(path: Path) -> str:
    """ "" where a file is not there, or the driver refuses to read it."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """A counter of /sys; None where there is none, or one that the driver does not keep."""
    text = read_text(path)
    return int(text) if text.isdigit() else None


def complain(text: str) -> None:
    """To stderr: its last line is in the exporter's /health."""
    print(text, file=sys.stderr)


def _state_folder() -> Path | None:
    given = os.environ.get("SCRIPT_EXPORTER_STATE_DIR")
    return Path(given) if given else None


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
