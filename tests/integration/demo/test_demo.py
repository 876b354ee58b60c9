"""The whole demo in a clone of its own. Minutes long, so not part of `make test`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from training.registry import all_specs


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_runs_from_a_clean_clone(tmp_path: Path, repository_root: Path) -> None:
    clone = tmp_path / "presage"
    subprocess.run(["git", "clone", "--quiet", repository_root, clone], check=True)
    for environment in (".venv", ".venv-triton"):
        (clone / environment).symlink_to(repository_root / environment)
    variables = {k: v for k, v in os.environ.items() if k != "PRESAGE_DATA"}
    result = subprocess.run(
        ["bash", "loadtest/demo.sh"], cwd=clone, env=variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    table = (clone / "build/demo.md").read_text()
    graphs = sum(len(spec.presets) for spec in all_specs())
    assert table.count("passed:") == graphs >= 5
    assert "tritonserver is down" in result.stdout
