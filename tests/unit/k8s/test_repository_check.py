"""The init container as it is rendered: it ends well on what was published, and not on damage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from contract.errors import HashMismatchError
from contract.proven_files import write_sums
from export.publish import publish
from tests.fixtures.manifests import Document, Pod, config_map, pods, write_tools
from tests.unit.export.test_publish import make_candidate


@pytest.fixture(scope="module")
def repository(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("k8s_repository")
    with toy_model.toy_registered() as spec:
        publish(make_candidate(root, spec), root / "repository")
    return root / "repository"


def _verify(documents: list[Document], pod: Pod, folder: Path, models: Path, pin: str) -> int:
    (container,) = (c for c in pod.spec["initContainers"] if c["name"] == "verify-repository")
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "tools")
    assert container["workingDir"] == mount["mountPath"]
    write_tools(documents, pod, folder)
    words = [
        word.replace("$(SUMS_SHA256)", pin).replace("/models", str(models))
        for word in (*container["command"], *container["args"])
    ]
    assert words[0] == "python3"
    # Alone, as in an image that has none of our packages.
    words[:1] = [sys.executable, "-S"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, env={})
    print(done.stdout, done.stderr)
    return done.returncode


@pytest.mark.parametrize("where", ["cpu", "gpu", "s3"])
def test_a_damaged_file_keeps_the_pod_from_starting(
    everything: dict[str, list[Document]], where: str, repository: Path, tmp_path: Path
) -> None:
    documents = everything[where]
    (pod,) = (p for p in pods(documents) if p.name == "triton")
    assert config_map(documents, "repository-verified")["sums-sha256"] == ""
    model = repository / "words_classifier/1/model.onnx"
    whole = model.read_bytes()
    assert _verify(documents, pod, tmp_path, repository, "") == 0
    pin = write_sums(repository)
    assert _verify(documents, pod, tmp_path, repository, pin) == 0
    assert _verify(documents, pod, tmp_path, repository, "0" * 64) == HashMismatchError.exit_code
    model.write_bytes(whole[:-1] + b"X")
    try:
        assert _verify(documents, pod, tmp_path, repository, "") == HashMismatchError.exit_code
    finally:
        model.write_bytes(whole)
