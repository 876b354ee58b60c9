"""``python -m training``: unknown names, interrupted runs, two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.artifact import Artifact
from training.command import main

FORECAST = ["train", "metric_forecast", "--preset", "next", "--quiet", "--origins", "1"]


@pytest.fixture(autouse=True)
def _generated_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PRESAGE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "metric_forcast"]) == 3
    error = capsys.readouterr().err
    assert "metric_forcast" in error
    assert "metric_forecast" in error


def test_an_unknown_preset_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "metric_forecast", "--preset", "9h"]) == 2
    assert "next" in capsys.readouterr().err


def test_predict_before_train_says_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "log_anomaly", "some.log"]) == 4
    assert "python -m training train log_anomaly" in capsys.readouterr().err


def test_a_missing_data_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FORECAST, "--data", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_quick_is_the_models_own_short_training_unless_a_flag_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import training.command
    from training.registry import all_specs, get_spec

    seen: dict[str, object] = {}
    monkeypatch.setattr(
        training.command,
        "_train_preset",
        lambda spec, preset, arguments: seen.__setitem__(spec.name, arguments.epochs),
    )
    quick = get_spec("metric_forecast").quick["epochs"]
    assert main(["train", "metric_forecast", "--quick"]) == 0
    assert seen.pop("metric_forecast") == quick
    assert main(["train", "metric_forecast", "--quick", "--epochs", "3"]) == 0
    assert seen.pop("metric_forecast") == 3
    assert main(["train", "metric_forecast"]) == 0
    assert seen.pop("metric_forecast") is None
    assert main(["train", "all", "--quick"]) == 0
    assert seen.pop("metric_forecast") == quick
    assert len(seen) == len(all_specs()) - 1
    assert all(epochs != quick for epochs in seen.values())


def test_resume_goes_on_with_the_interrupted_run_and_only_with_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.loop

    flags = [*FORECAST, "--epochs", "0.9"]
    whole = tmp_path / "whole"
    assert main([*flags, "--artifacts", str(whole)]) == 0

    broken = tmp_path / "broken"
    save = training.loop._save

    def interrupt(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(training.loop, "_save", interrupt)
    assert main([*flags, "--artifacts", str(broken)]) == 130
    monkeypatch.setattr(training.loop, "_save", save)
    capsys.readouterr()

    resumed = [*flags, "--artifacts", str(broken), "--resume"]
    assert main([*resumed, "--seed", "5"]) == 2
    assert "seed=0" in capsys.readouterr().err
    assert main(resumed) == 0
    assert "going on with" in capsys.readouterr().out
    assert weights_of(broken) == weights_of(whole), "resumed and unbroken runs differ"


def weights_of(artifacts: Path) -> bytes:
    import torch

    run = Artifact.latest("metric_forecast", "next", artifacts).path
    state = torch.load(run / "forecast.pt", weights_only=True)
    tensors = state.values() if isinstance(state, dict) else state
    return b"".join(np.asarray(tensor).tobytes() for tensor in tensors)


def test_two_processes_train_one_run(tmp_path: Path, repository_root: Path) -> None:
    """torchrun with two CPU processes (gloo): one run folder, one manifest."""
    environment = {k: v for k, v in os.environ.items() if k != "PRESAGE_DATA"}
    flags = ["--epochs", "0.02", "--artifacts", str(tmp_path / "runs")]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [sys.executable, *command, "-m", "training", *FORECAST, *flags],
        cwd=repository_root,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("wrote ") == 1
    runs = list((tmp_path / "runs" / "metric_forecast").iterdir())
    assert len(runs) == 1
    Artifact.load(runs[0])
