"""The check of a repository's files before a server starts, on one that was really published."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from contract.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    HashMismatchError,
    PublishError,
)
from contract.proven_files import SUMS_FILE, check_repository, main, write_sums
from export.publish import publish
from tests.unit.export.test_publish import make_candidate


@pytest.fixture(scope="module")
def published(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a classifier and its front, and the configs beside them."""
    root = tmp_path_factory.mktemp("published")
    with toy_model.toy_registered() as spec:
        for _ in range(2):
            publish(make_candidate(root, spec), root / "repository")
    return root / "repository"


@pytest.fixture
def repository(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "repository"))


def _damage(path: str) -> Callable[[Path], None]:
    def damage(repository: Path) -> None:
        data = bytearray((repository / path).read_bytes())
        data[len(data) // 2] ^= 1
        (repository / path).write_bytes(data)

    return damage


def _remove(path: str) -> Callable[[Path], None]:
    return lambda repository: (repository / path).unlink()


def test_what_was_published_passes(repository: Path) -> None:
    assert "4 versions as proven; no SHA256SUMS" in check_repository(repository)
    pin = write_sums(repository)
    assert "files as uploaded" in check_repository(repository, sums_sha256=pin)
    # And for whoever only has coreutils.
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", SUMS_FILE], cwd=repository, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_damage("words_classifier/2/model.onnx"), HashMismatchError),
        (_damage("words_classifier/1/model.onnx"), HashMismatchError),
        (_damage("words/2/manifest.json"), (HashMismatchError, ArtifactCorruptError)),
        (_damage("words/2/tokenizer.json"), HashMismatchError),
        (_remove("words/2/tokenizer.json"), ArtifactMissingError),
        (_remove("words_classifier/2/model.onnx"), ArtifactMissingError),
        (_remove("words_classifier/2/parity_report.json"), PublishError),
    ],
)
def test_what_is_not_what_was_proven_is_refused_without_sums(
    repository: Path, spoil: Callable[[Path], None], error: type[Exception]
) -> None:
    spoil(repository)
    with pytest.raises(error):
        check_repository(repository)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_damage("words/2/model.py"), HashMismatchError),
        (_damage("words/config.pbtxt"), HashMismatchError),
        (_remove("words/2/training/__init__.py"), ArtifactCorruptError),
        (lambda r: (r / "words/2/sitecustomize.py").write_text("x"), ArtifactCorruptError),
        (lambda r: shutil.rmtree(r / "words/1"), ArtifactCorruptError),
        (lambda r: (r / SUMS_FILE).unlink(), ArtifactMissingError),
        (lambda r: ((r / "words/2/model.py").write_text("x"), write_sums(r)), HashMismatchError),
    ],
)
def test_with_sums_no_file_may_differ(
    repository: Path, spoil: Callable[[Path], None], error: type[Exception]
) -> None:
    pin = write_sums(repository)
    spoil(repository)
    with pytest.raises(error):
        check_repository(repository, sums_sha256=pin)


def test_an_empty_volume_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ArtifactMissingError):
            check_repository(folder)


def test_the_command(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["write", str(repository)]) == 0
    pin = capsys.readouterr().out.strip()
    # What the pod says where nobody has pinned anything.
    assert main(["check", "--sums-sha256=", str(repository)]) == 0
    assert main(["check", f"--sums-sha256={pin}", str(repository)]) == 0
    _damage("words/2/model.py")(repository)
    assert main(["check", f"--sums-sha256={pin}", str(repository)]) == HashMismatchError.exit_code
    # Nothing damaged is declared good by writing its sums.
    _damage("words_classifier/2/model.onnx")(repository)
    assert main(["write", str(repository)]) == HashMismatchError.exit_code


def test_it_needs_nothing_but_python(repository: Path) -> None:
    """As in the container: without site-packages, so without pydantic."""
    root = Path(__file__).parents[3]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from contract.proven_files import main\n"
        "assert 'pydantic' not in sys.modules\n"
        f"sys.exit(main(['check', {str(repository)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
