"""New versions into a loaded server: no request fails, no answer comes from a broken version."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from contract.errors import InputError, PublishError
from embedded_triton import EmbeddedServer, ServerSettings
from export import history
from export import publish as publishing
from export.candidate import Candidate
from export.command import main as export_command
from export.gate import export_files
from export.judge import judge
from export.promote import Server, promote, rollback
from export.publish import publish, versions
from export.report import write_report
from export.version_folder import VersionFolder, stage
from training.registry import get_spec
from training.spec import ModelSpec

TEXT = "ciod: Error reading message prefix on CioStream socket"
VALUES = np.linspace(-1, 1, 8, dtype=np.float32)[None]


def _proven(candidate: Candidate, folder: Path) -> Candidate:
    """Exported, judged offline; the served rungs of its report repeat the offline ones, as a
    server start for each of two dozen versions would take minutes and is tested elsewhere."""
    candidate = dataclasses.replace(candidate, folder=folder / candidate.artifact.path.name)
    ascent = export_files(candidate)
    stage(candidate, folder / "staged" / candidate.artifact.path.name)
    report = judge(candidate, folder / "staged" / candidate.artifact.path.name, ascent=ascent)
    assert report.passed, report.complaint()
    served = ["grpc", "http", "concurrent", *(["front"] if candidate.front else [])]
    rungs = [*report.rungs, *(dataclasses.replace(report.rungs[0], rung=one) for one in served)]
    write_report(dataclasses.replace(report, rungs=rungs), candidate.folder)
    return candidate


class Versions:
    """Runs of one model with other weights each, and what each must answer."""

    def __init__(self, make: Callable[[int], Candidate], question: Any) -> None:
        self._make, self.question, self._made = make, question, 0

    def next(self) -> Candidate:
        self._made += 1
        return self._make(self._made)

    def expect(self, candidate: Candidate, version: int) -> None:
        """Written down before the version can answer."""
        network = candidate.spec.load_network(candidate.artifact)
        if self.question.output == "level":
            import torch

            answer = network(torch.from_numpy(VALUES))[0].detach().numpy()
        else:
            from training.text.text_batch import MaskedTokenizer
            from training.text.trainer import eager_classify

            tokenizer = MaskedTokenizer(candidate.artifact.path / "tokenizer.json", max_tokens=64)
            chunk = tokenizer.pad(tokenizer.encode([tokenizer.mask(TEXT)]))
            answer = eager_classify(network)([chunk])[0]
        self.question.expected[version] = answer


@pytest.fixture
def toys(
    toy_model: ModuleType, toy_spec: ModelSpec, steady_load: ModuleType, tmp_path: Path
) -> Versions:
    def make(seed: int) -> Candidate:
        artifact = toy_model.train_toy(toy_spec, tmp_path / "artifacts", seed=seed)
        return _proven(Candidate(toy_spec, artifact), tmp_path / "exports")

    question = steady_load.Question("toy_level", {"values": (VALUES, "FP32")}, "level")
    return Versions(make, question)


@pytest.fixture
def texts(toy_model: ModuleType, steady_load: ModuleType, tmp_path: Path) -> Versions:
    def make(seed: int) -> Candidate:
        artifact = toy_model.make_tiny_log_anomaly(tmp_path / "artifacts", seed=seed)
        return _proven(Candidate(get_spec("log_anomaly"), artifact), tmp_path / "exports")

    line = np.array([[TEXT.encode()]], dtype=object)
    question = steady_load.Question("log_anomaly", {"text": (line, "BYTES")}, "probabilities")
    return Versions(make, question)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def _start(repository: Path, tmp_path: Path, root: Path) -> EmbeddedServer:
    settings = ServerSettings(
        repository,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        venv=root / ".venv-triton",
        run_folder=tmp_path / "server",
    )
    return EmbeddedServer(settings)


def _address(server: EmbeddedServer) -> Server:
    return Server(server.grpc_url, server.http_url)


# What damage on the way to the server can look like: each breaks files that were proven.
def _truncated(folder: Path) -> None:
    path = next(folder.glob("*/model.onnx"))
    path.write_bytes(path.read_bytes()[:200])


def _other_weights(folder: Path) -> None:
    _change_weights(folder, lambda weight: weight * np.float32(1.5))


def _nan_weights(folder: Path) -> None:
    _change_weights(folder, lambda weight: weight * np.float32(np.nan))


def _change_weights(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = next(folder.glob("*/model.onnx"))
    model = onnx.load(str(path))
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype == np.float32 and array.size > 1:
            weight.CopyFrom(numpy_helper.from_array(change(array.copy()), weight.name))
    path.write_bytes(model.SerializeToString())


def _front_raises(folder: Path) -> None:
    path = next(folder.glob("*/model.py"), None)
    if path is not None:
        path.write_text(path.read_text() + "\nraise RuntimeError('half a file')\n")
    elif not folder.name.endswith("_classifier"):  # a model without a front
        _truncated(folder)


def _model_file_lost(folder: Path) -> None:
    for path in folder.glob("*/model.*"):
        path.unlink()


DAMAGE = (_truncated, _other_weights, _nan_weights, _front_raises, _model_file_lost)


def _damaging(damage: Callable[[Path], None]) -> Callable[..., Path]:
    prepare = publishing._prepare

    def prepare_and_damage(model: VersionFolder, version: int, staging: Path) -> Path:
        folder = prepare(model, version, staging)
        if next(folder.glob("*/model.py"), None) is None or damage is _front_raises:
            damage(folder)
        return folder

    return prepare_and_damage


def _promote_all(
    models: list[Versions],
    repository: Path,
    address: Server,
    monkeypatch: pytest.MonkeyPatch,
    *,
    rounds: int,
    broken: dict[int, Callable[[Path], None]],
) -> set[tuple[str, int]]:
    """Promotions in turn over the models; returns the (model, version) that must never answer."""
    never: set[tuple[str, int]] = set()
    for number in range(rounds):
        model = models[number % len(models)]
        candidate = model.next()
        name = model.question.model
        version = 1 + max(
            max(versions(repository / name), default=0), history.largest_version(repository, name)
        )
        if number in broken:
            never.add((name, version))
            with monkeypatch.context() as patch:
                patch.setattr(publishing, "_prepare", _damaging(broken[number]))
                with pytest.raises(PublishError, match="the one before goes on serving"):
                    promote(candidate, repository, [address])
            assert version not in versions(repository / name)
        else:
            model.expect(candidate, version)
            published = promote(candidate, repository, [address], why=f"round {number}")
            assert {int(path.name) for path in published} == {version}
    return never


def _under_load(
    models: list[Versions],
    repository: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    load_of: Callable[..., Any],
    *,
    rounds: int,
    broken: dict[int, Callable[[Path], None]],
) -> Any:
    for model in models:
        first = model.next()
        publish(first, repository)
        model.expect(first, 1)
    with _start(repository, tmp_path, root) as server:
        with load_of(server.grpc_url, [model.question for model in models]) as load:
            never = _promote_all(
                models, repository, _address(server), monkeypatch, rounds=rounds, broken=broken
            )
        index = {
            (row["name"], int(row["version"])): row["state"]
            for row in server.control.index()
            if row.get("version", "").isdigit()
        }
    assert load.failures == []
    assert load.wrong == []
    assert not never & set(load.answered)
    assert not [
        name for name, _ in index if name.endswith("__candidate") and index[name, _] == "READY"
    ]
    assert not list(repository.glob("*__candidate"))
    for model in models:
        answered = {version for name, version in load.answered if name == model.question.model}
        # Every good version was really in service while callers asked.
        assert answered == set(model.question.expected)
    return load


def test_promotions_under_64_callers(
    toys: Versions,
    texts: Versions,
    repository: Path,
    tmp_path: Path,
    repository_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    steady_load: ModuleType,
) -> None:
    """Good, damaged, good … over a plain model and a classifier with its front."""
    load = _under_load(
        [toys, texts],
        repository,
        tmp_path,
        repository_root,
        monkeypatch,
        steady_load.Load,
        rounds=6,
        broken={2: _other_weights, 3: _front_raises},
    )
    assert sum(load.answered.values()) > 100
    entries = history.read(repository, "log_anomaly")
    assert [entry.action for entry in entries] == ["publish", "promote", "refused", "promote"]
    assert "half a file" in entries[2].outcome
    assert entries[1].why == "round 1"
    assert "tokenizer.json" in entries[1].sha256


@pytest.mark.slow
def test_twenty_promotions_under_64_callers_five_of_them_broken(
    toys: Versions,
    texts: Versions,
    repository: Path,
    tmp_path: Path,
    repository_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    steady_load: ModuleType,
) -> None:
    broken = dict(zip((2, 5, 9, 12, 17), DAMAGE, strict=True))
    load = _under_load(
        [toys, texts],
        repository,
        tmp_path,
        repository_root,
        monkeypatch,
        steady_load.Load,
        rounds=20,
        broken=broken,
    )
    print(f"{sum(load.answered.values())} answers, {load.answered}")


def test_rollback_withdraws_a_version_and_its_number_for_good(
    toys: Versions,
    repository: Path,
    tmp_path: Path,
    repository_root: Path,
    steady_load: ModuleType,
) -> None:
    first, second, third = toys.next(), toys.next(), toys.next()
    publish(first, repository)
    with _start(repository, tmp_path, repository_root) as server:
        address = _address(server)
        with pytest.raises(PublishError, match="no version to go back to"):
            rollback(["toy_level"], repository, [address])
        promote(second, repository, [address])
        for version, candidate in ((1, first), (2, second)):
            toys.expect(candidate, version)
        with steady_load.Load(server.grpc_url, [toys.question], callers=8) as load:
            assert rollback(["toy_level"], repository, [address], why="pages at night") == 1
        assert load.failures == []
        assert load.wrong == []
        assert versions(repository / "toy_level") == [1]
        assert (repository / ".withdrawn" / "toy_level" / "2" / "model.onnx").is_file()
        promote(third, repository, [address])
        assert versions(repository / "toy_level") == [1, 3]
    actions = [entry.action for entry in history.read(repository, "toy_level")]
    assert actions == ["publish", "promote", "rollback", "promote"]


def test_what_a_killed_promotion_left_is_nobodys_trouble(
    toys: Versions, repository: Path, tmp_path: Path, repository_root: Path
) -> None:
    publish(toys.next(), repository)
    leftover = repository / "toy_level__candidate" / "2"
    leftover.mkdir(parents=True)
    (leftover / "model.onnx").write_bytes(b"half")
    with _start(repository, tmp_path, repository_root) as server:
        assert [model.name for model in server.models] == ["toy_level"]
        promote(toys.next(), repository, [_address(server)])
    assert not leftover.exists()


def test_a_server_that_is_gone_changes_nothing(
    toys: Versions, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(toys.next(), repository)
    with pytest.raises(PublishError, match="does not answer"):
        promote(toys.next(), repository, [Server("127.0.0.1:9", "127.0.0.1:9")])
    assert versions(repository / "toy_level") == [1]
    words = ["history", "toy_level", "--repository", str(repository)]
    assert export_command(words) == 0
    assert "refused" in capsys.readouterr().out


def test_a_command_without_a_server_says_how_to_get_one(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steady_load: ModuleType,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = export_command(["rollback", "log_anomaly", "--repository", str(repository)])
    assert code == PublishError.exit_code
    assert "embedded_triton up --detach" in capsys.readouterr().err
    words = ["rollback", "log_anomaly", "--server", "nonsense", "--repository", str(repository)]
    assert export_command(words) == InputError.exit_code
