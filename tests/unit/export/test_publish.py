"""Publishing: all or nothing, whatever kills it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from contract.errors import (
    ArtifactCorruptError,
    HashMismatchError,
    PublishError,
)
from contract.manifest import Front, Graph, Tensor, Tolerance
from export.candidate import REPORT_FILE, Candidate
from export.config_pbtxt import CONFIG_FILE
from export.publish import STAGING, publish, versions
from export.report import make_report, write_report
from export.verdict import RungResult, TensorResult
from training.artifact import Artifact, finish_run
from training.spec import ModelSpec

GRAPH = Graph(
    triton_name="words_classifier",
    inputs=(Tensor(name="input_ids", dtype="INT64", dims=(-1,)),),
    outputs=(Tensor(name="probabilities", dtype="FP32", dims=(2,)),),
    max_batch_size=8,
    max_length=16,
    parity_batches=(1,),
    parity_lengths=(1,),
    tolerances={"probabilities": Tolerance(maximum=1e-4, percentile_99_9=1e-4)},
)
FRONT = Front(
    triton_name="words",
    inputs=(Tensor(name="text", dtype="BYTES", dims=(1,)),),
    outputs=(Tensor(name="label", dtype="BYTES", dims=(1,)),),
    max_batch_size=8,
    module="training.log_anomaly.front",
    modules=("training.text.text_batch",),
    files=("tokenizer.json",),
)


def make_candidate(
    root: Path, spec: ModelSpec, *, labels: tuple[str, ...] = ("low", "high"), front: bool = True
) -> Candidate:
    """A run with files of a few bytes and a report that passed for exactly these."""
    path = root / "artifacts" / f"run-{len(list(root.glob('artifacts/*')))}"
    path.mkdir(parents=True)
    (path / "tokenizer.json").write_text("{}")
    artifact = finish_run(
        path,
        model="words",
        preset="default",
        seed=0,
        device="cpu",
        graph=GRAPH,
        front=FRONT if front else None,
        labels=labels,
        thresholds=dict.fromkeys(labels, 0.5),
        settings={},
        data=(),
        quality=(),
    )
    candidate = Candidate(spec, artifact)
    candidate.folder.mkdir(parents=True)
    candidate.file("onnx").write_bytes(b"onnx" * 1000)
    candidate.file("torchscript").write_bytes(b"torchscript")
    write_report(_passing(candidate), candidate.folder)
    return candidate


def _passing(candidate: Candidate, **changes: object) -> object:
    tensor = TensorResult("probabilities", 0.0, 0.0, 1e-4, 1e-4, "", 0)
    rungs = [
        RungResult(name, "eager", "", 1, 1, 0.1, [tensor], 1, 0)
        for name in ("onnxruntime", "torchscript", "grpc", "http", "concurrent", "front")
    ]
    return make_report(candidate, candidate.hashes(), rungs)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def _visible(repository: Path) -> dict[str, set[str]]:
    """Everything a server could see: relative folder of a version → its files."""
    return {
        str(version.relative_to(repository)): {
            str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()
        }
        for model in repository.iterdir()
        if model.name != STAGING
        for version in model.iterdir()
        if version.is_dir()
    }


CLASSIFIER_FILES = {"model.onnx", "manifest.json", REPORT_FILE}
FRONT_FILES = {
    "model.py",
    "manifest.json",
    REPORT_FILE,
    "tokenizer.json",
    "training/__init__.py",
    "training/text/__init__.py",
    "training/text/text_batch.py",
    "training/log_anomaly/__init__.py",
    "training/log_anomaly/front.py",
}


def test_classifier_and_front_get_the_same_number(
    tmp_path: Path, repository: Path, toy_spec: ModelSpec
) -> None:
    candidate = make_candidate(tmp_path, toy_spec)
    assert publish(candidate, repository) == [
        repository / "words_classifier/1",
        repository / "words/1",
    ]
    # A classifier ahead of its front: the next number is beyond both, and the orphan goes.
    orphan = repository / "words_classifier/7"
    orphan.mkdir()
    publish(candidate, repository)
    assert _visible(repository) == {
        "words_classifier/1": CLASSIFIER_FILES,
        "words/1": FRONT_FILES,
        "words_classifier/2": CLASSIFIER_FILES,
        "words/2": FRONT_FILES,
    }


def test_newest_three_versions_stay(tmp_path: Path, repository: Path, toy_spec: ModelSpec) -> None:
    candidate = make_candidate(tmp_path, toy_spec)
    for _ in range(5):
        publish(candidate, repository)
    assert versions(repository / "words_classifier") == [3, 4, 5]
    assert versions(repository / "words") == [3, 4, 5]
    assert [path.name for path in (repository / STAGING).iterdir()] == ["lock"]


def test_published_files_do_not_change_with_the_next_export(
    tmp_path: Path, repository: Path, toy_spec: ModelSpec
) -> None:
    candidate = make_candidate(tmp_path, toy_spec)
    publish(candidate, repository)
    with candidate.file("onnx").open("r+b") as file:
        file.write(b"XXXX")
    published = (repository / "words_classifier/1/model.onnx").read_bytes()
    assert published.startswith(b"onnx")


@pytest.mark.parametrize("first", [True, False], ids=["new repository", "one version there"])
def test_kill_9_at_any_moment_leaves_only_whole_versions(
    tmp_path: Path,
    repository: Path,
    toy_spec: ModelSpec,
    repository_root: Path,
    first: bool,
) -> None:
    """The publisher is killed at its n-th touch of the file system, n growing until it lives."""
    candidate = make_candidate(tmp_path, toy_spec)
    before: dict[str, set[str]] = {}
    if not first:
        publish(candidate, repository)
        before = _visible(repository)
    script = textwrap.dedent(
        """
        import os, shutil, signal, sys
        from pathlib import Path
        from export.candidate import Candidate
        from export.publish import publish
        from training.artifact import Artifact
        from training.registry import get_spec

        run, repository = sys.argv[1:3]
        candidate = Candidate(get_spec("log_anomaly"), Artifact.load(Path(run)))
        kill_at = None

        def deadly(function, half_done):
            def wrapped(*arguments, **named):
                global kill_at
                kill_at -= 1
                if kill_at == 0:
                    if half_done is not None:
                        half_done(*arguments)
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)
            return wrapped

        def half_a_copy(source, destination):
            Path(destination).write_bytes(Path(source).read_bytes()[:2])

        touches = ((os, "rename", None), (os, "replace", None), (os, "fsync", None),
                   (shutil, "copyfile", half_a_copy), (shutil, "rmtree", None))
        for module, name, half_done in touches:
            setattr(module, name, deadly(getattr(module, name), half_done))
        # One process per death: fork is cheaper than starting Python anew.
        for number in range(1, 500):
            child = os.fork()
            if child == 0:
                kill_at = number
                publish(candidate, Path(repository))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            print(number, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
            sys.stdin.readline()
            if not os.WIFSIGNALED(status):
                break
        """
    )
    deaths = 0
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(candidate.artifact.path), str(repository)],
        cwd=repository_root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    for line in process.stdout:
        _, status = map(int, line.split())
        for version, files in _visible(repository).items():
            whole = FRONT_FILES if version.startswith("words/") else CLASSIFIER_FILES
            assert files == whole, (line, version)
            assert (repository / version).parent.joinpath(CONFIG_FILE).is_file()
        # What was served before is served still.
        assert before.keys() <= _visible(repository).keys() or len(_visible(repository)) >= 6
        process.stdin.write("\n")
        process.stdin.flush()
        if status == 0:
            break
        assert status == signal.SIGKILL
        deaths += 1
    assert process.wait(30) == 0
    assert deaths > 20
    newest = versions(repository / "words_classifier")[-1]
    assert versions(repository / "words")[-1] == newest
    assert [path.name for path in (repository / STAGING).iterdir()] == ["lock"]


def test_two_publishers_at_once(tmp_path: Path, repository: Path, toy_spec: ModelSpec) -> None:
    candidate = make_candidate(tmp_path, toy_spec)
    (repository / STAGING).mkdir(parents=True)
    with (repository / STAGING / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        with pytest.raises(PublishError, match=r"another publisher is at work.*process 4711"):
            publish(candidate, repository)
    assert publish(candidate, repository)


def test_label_set_may_not_change(tmp_path: Path, repository: Path, toy_spec: ModelSpec) -> None:
    publish(make_candidate(tmp_path, toy_spec), repository)
    swapped = make_candidate(tmp_path, toy_spec, labels=("high", "low"))
    with pytest.raises(PublishError, match=r"label set changed.*expected low, high, got high, low"):
        publish(swapped, repository)
    assert versions(repository / "words") == [1]


def test_config_may_not_change(tmp_path: Path, repository: Path, toy_spec: ModelSpec) -> None:
    publish(make_candidate(tmp_path, toy_spec), repository)
    config = repository / "words_classifier" / CONFIG_FILE
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 9"))
    with pytest.raises(PublishError, match=r"does not fit the committed config.*max_batch_size: 8"):
        publish(make_candidate(tmp_path, toy_spec), repository)
    assert versions(repository / "words_classifier") == [1]


@pytest.mark.parametrize(
    ("missing", "error", "pattern"),
    [
        (REPORT_FILE, PublishError, "without a parity report"),
        ("report cut short", ArtifactCorruptError, "parity report cannot be read"),
        ("rung grpc", PublishError, "incomplete.*none for grpc"),
        ("rung front", PublishError, "incomplete.*none for front"),
        ("other onnx", PublishError, r"about another model\.onnx"),
        ("other torchscript", PublishError, r"about another model\.pt"),
        ("other tokenizer", HashMismatchError, "not the one that was trained"),
        ("other manifest", PublishError, r"about another manifest\.json"),
    ],
)
def test_refused_without_exact_proof(
    tmp_path: Path,
    repository: Path,
    toy_spec: ModelSpec,
    missing: str,
    error: type[Exception],
    pattern: str,
) -> None:
    candidate = make_candidate(tmp_path, toy_spec)
    report = candidate.folder / REPORT_FILE
    if missing == REPORT_FILE:
        report.unlink()
    elif missing == "report cut short":
        report.write_text(report.read_text()[:200])
    elif missing.startswith("rung "):
        stored = json.loads(report.read_text())
        name = missing.removeprefix("rung ")
        stored["rungs"] = [rung for rung in stored["rungs"] if rung["rung"] != name]
        report.write_text(json.dumps(stored))
    elif missing == "other tokenizer":
        (candidate.artifact.path / "tokenizer.json").write_text('{"other": 1}')
    elif missing == "other manifest":
        path = candidate.artifact.path / "manifest.json"
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
        candidate = Candidate(toy_spec, Artifact.load(candidate.artifact.path))
    else:
        name = "onnx" if missing == "other onnx" else "torchscript"
        candidate.file(name).write_bytes(b"another")  # type: ignore[arg-type]
    with pytest.raises(error, match=pattern):
        publish(candidate, repository)
    assert not repository.exists() or not _visible(repository)


def test_full_disk_is_one_clear_error(
    tmp_path: Path,
    repository: Path,
    toy_spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ENOSPC is raised by a replaced copyfile: a full disk cannot be had in a unit test."""
    import errno
    import shutil

    candidate = make_candidate(tmp_path, toy_spec)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(PublishError, match=r"could not be written.*No space left"):
        publish(candidate, repository)
    assert not _visible(repository)
    assert [path.name for path in (repository / STAGING).iterdir()] == ["lock"]


def test_publishing_needs_no_torch(repository_root: Path, toy_model: ModuleType) -> None:
    code = "import sys, export.publish, export.command; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository_root, check=False)
    assert done.returncode == 0
