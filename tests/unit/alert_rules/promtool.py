"""promtool on rule files: the tests beside them, or only some of those tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.forecast_loop.config import load_config
from services.forecast_loop.rules import rule_files

HERE = Path(__file__).parent
DEPLOY = HERE.parents[2] / "deploy/prometheus"
BY_HAND = {"script_exporter.yml", "serving.yml", "services.yml"}
"""Rules that come from no settings."""
_PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}


def debian_program(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run to its end; the test is skipped by the package's name where the program is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}: apt-get install {_PACKAGES[name]}")
    command = [path, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@dataclass(frozen=True)
class Suite:
    """Settings, and promtool's tests of the rules that are generated from them.

    Without settings the rules are written by hand, and those that are committed are tested.
    """

    settings: Path | None
    tests: Path

    @property
    def name(self) -> str:
        return self.tests.stem

    @property
    def rules_name(self) -> str:
        return self.tests.stem if self.settings is None else self.settings.stem

    @property
    def is_sample(self) -> bool:
        return self.tests.parent.parent == DEPLOY

    def rules(self) -> dict[str, str]:
        if self.settings is not None:
            return rule_files(load_config(self.settings))
        file = DEPLOY / "rules" / self.tests.name
        return {file.name: file.read_text("utf-8")}

    def cases(self) -> dict[str, Any]:
        return dict(_read(self.tests))

    def run(
        self, folder: Path, *, rules: dict[str, str] | None = None, only: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Of generated (or the given) rules in ``folder``; only the test whose name starts so."""
        (folder / "rules").mkdir()
        for file, text in (self.rules() if rules is None else rules).items():
            (folder / "rules" / file).write_text(text, encoding="utf-8")
        cases = self.cases()
        cases["rule_files"] = [f"rules/{Path(file).name}" for file in cases["rule_files"]]
        if only is not None:
            cases["tests"] = [test for test in cases["tests"] if test["name"].startswith(only)]
            assert len(cases["tests"]) == 1, f"{only}: {len(cases['tests'])} tests"
        # JSON is YAML, and sooner written.
        (folder / "tests.yml").write_text(json.dumps(cases, ensure_ascii=False), "utf-8")
        return debian_program("promtool", "test", "rules", folder / "tests.yml")


@cache
def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return found


SUITES = {
    suite.name: suite
    for suite in (
        *(
            Suite(None if file.name in BY_HAND else DEPLOY / "forecast_loop.toml", file)
            for file in DEPLOY.glob("tests/*.yml")
        ),
        *(Suite(file.with_suffix(".toml"), file) for file in HERE.glob("*.yml")),
    )
}
