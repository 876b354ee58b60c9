"""The stand-in for the openvino backend on the real tritonserver: answers, refusals, missing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton

from contract.errors import ServerSetupError
from embedded_triton import EmbeddedServer
from embedded_triton.canary import ask_canary
from embedded_triton.install import install
from tests.integration.server.conftest import settings_for, write_multiply
from tests.integration.server.test_embedded_server import ask
from tests.integration.server.test_lifecycle import fake_venv

CONFIG = """backend: "openvino"
default_model_filename: "model.onnx"
input [{name: "x" data_type: TYPE_FP32 dims: [-1, 4]}]
output [{name: "y" data_type: TYPE_FP32 dims: [-1, 4]}]
instance_group [{count: 2 kind: KIND_CPU}]
version_policy { latest { num_versions: 2 } }
parameters { key: "NUM_STREAMS" value: { string_value: "2" } }
parameters { key: "INFERENCE_NUM_THREADS" value: { string_value: "2" } }
"""


@pytest.fixture(scope="module")
def openvino_venv(venv: Path) -> Path:
    question = [str(venv / "bin" / "python"), "-c", "import openvino"]
    if subprocess.run(question, capture_output=True).returncode != 0:
        pytest.skip("no openvino in the server's environment: embedded_triton install --openvino")
    return venv


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, openvino_venv: Path
) -> Iterator[EmbeddedServer]:
    root = tmp_path_factory.mktemp("repository")
    write_multiply(root / "double/1/model.onnx", 2.0)
    write_multiply(root / "double/2/model.onnx", 20.0)
    (root / "double/config.pbtxt").write_text(CONFIG)
    write_multiply(root / "auto/1/model.onnx", 3.0)
    (root / "auto/config.pbtxt").write_text(
        'backend: "openvino"\ndefault_model_filename: "model.onnx"\n'
    )
    write_multiply(root / "loose/1/model.onnx", 5.0)
    _widen(root / "loose/1/model.onnx", 8)
    # Lets through what the model itself refuses: rows of another length than 8.
    (root / "loose/config.pbtxt").write_text(CONFIG.replace("dims: [-1, 4]", "dims: [-1, -1]"))
    settings = settings_for(root, tmp_path_factory.mktemp("run"), openvino_venv)
    with EmbeddedServer(settings) as running:
        yield running


def _widen(path: Path, width: int) -> None:
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = width
    onnx.save(model, str(path))


def test_every_version_answers_any_batch(server: EmbeddedServer) -> None:
    assert ask_canary(server.control, "double") is None
    for rows in (1, 3, 64):
        ones = np.ones((rows, 4), dtype=np.float32)
        assert ask(server, "double", ones).tolist() == [[20.0] * 4] * rows
        assert ask(server, "double", ones, "1").tolist() == [[2.0] * 4] * rows


def test_a_config_without_tensors_is_completed_from_the_file(server: EmbeddedServer) -> None:
    assert ask(server, "auto", np.ones((2, 4), dtype=np.float32)).tolist() == [[3.0] * 4] * 2


def test_concurrent_callers_each_get_their_own_answer(server: EmbeddedServer) -> None:
    """An answer that shared the infer request's memory would be overwritten by the next one."""
    rows = [np.full((1 + i % 3, 4), i % 100, dtype=np.float32) for i in range(200)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda row: ask(server, "double", row), rows))
    for row, answer in zip(rows, answers, strict=True):
        assert answer.tolist() == (20 * row).tolist()


def test_bad_requests_fail_alone_and_every_time(server: EmbeddedServer) -> None:
    """Copied inputs would fail once: OpenVINO resizes its tensor, then answers from it."""
    good, bad = np.ones((1, 8), dtype=np.float32), np.ones((1, 5), dtype=np.float32)
    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(ask, server, "loose", bad if i % 8 == 3 else good) for i in range(64)]
    for i, job in enumerate(jobs):
        if i % 8 == 3:
            with pytest.raises(triton.InferenceServerException, match="openvino: "):
                job.result()
        else:
            assert job.result().tolist() == [[5.0] * 8]


def test_the_log_names_the_precision(server: EmbeddedServer) -> None:
    found = [line for line in server.log_tail(400).splitlines() if "computes in" in line]
    assert found
    assert all("computes in bf16" in line or "computes in f32" in line for line in found)
    # 2 threads in 2 streams, one stream for each of the two instances.
    assert all("1 thread(s)" in line for line in found if "double" in line)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("instance_group", "max_batch_size: 8\ninstance_group", "full batches only"),
        ('name: "x"', 'name: "z"', "no input 'z'"),
        ('name: "y"', 'name: "z"', "no output 'z'"),
        ("TYPE_FP32 dims: [-1, 4]}]\ninst", "TYPE_INT32 dims: [-1, 4]}]\ninst", "TYPE_INT32"),
        ("dims: [-1, 4]}]\ninst", "dims: [4]}]\ninst", "batch axis included"),
        (
            '"NUM_STREAMS" value: { string_value: "2"',
            '"NUM_STREAMS" value: { string_value: "x"',
            "AUTO",
        ),
        (
            '"NUM_STREAMS" value: { string_value: "2"',
            '"HINT_BF16" value: { string_value: "NO"',
            "HINT_BF16",
        ),
        (
            '"NUM_STREAMS" value: { string_value: "2"',
            '"DYNAMIC_QUANTIZATION_GROUP_SIZE" value: { string_value: "some"',
            "non-negative number",
        ),
    ],
)
def test_what_the_native_backend_refuses_is_refused(
    old: str, new: str, words: str, tmp_path: Path, openvino_venv: Path
) -> None:
    config = CONFIG
    assert old in config
    if "max_batch_size" in new:
        config = config.replace("dims: [-1, 4]", "dims: [4]")
    repository = tmp_path / "repository"
    write_multiply(repository / "double/1/model.onnx", 2.0)
    (repository / "double/config.pbtxt").write_text(config.replace(old, new, 1))
    with (
        pytest.raises(ServerSetupError, match="double") as caught,
        EmbeddedServer(settings_for(repository, tmp_path / "run", openvino_venv)),
    ):
        pass
    assert words in str(caught.value)


def test_a_server_without_openvino_is_refused_with_the_fix(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_multiply(repository / "double/1/model.onnx", 2.0)
    (repository / "double/config.pbtxt").write_text(CONFIG)
    venv = fake_venv(tmp_path / "venv", openvino=None)
    with pytest.raises(ServerSetupError, match="install --openvino"):
        EmbeddedServer(settings_for(repository, tmp_path / "run", venv)).start()


def test_install_adds_openvino_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fake interpreter: every pip call succeeds, none reaches a network."""
    venv = fake_venv(tmp_path / "venv", openvino=None)
    assert install(venv)
    assert "server-openvino" not in capsys.readouterr().out
    assert install(venv, openvino=True)
    assert "requirements/server-openvino.txt" in capsys.readouterr().out
    assert not install(venv, openvino=True)
    assert not install(venv)
