"""The served text front: asks its own version's classifier; a bad request fails alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from embedded_triton.server import EmbeddedServer, ServerSettings
from export.candidate import Candidate
from export.gate import Ascent, export_files
from export.version_folder import stage
from training.registry import get_spec
from training.text.trainer import eager_classify


@pytest.fixture(scope="module")
def ascents(
    toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ascent, Ascent]:
    """Two exported runs of other weights: versions 1 and 2."""
    spec = get_spec("log_anomaly")
    made = []
    for seed in (0, 1):
        root = tmp_path_factory.mktemp(f"artifacts{seed}")
        artifact = toy_model.make_tiny_log_anomaly(root, seed=seed)
        made.append(export_files(Candidate(spec, artifact)))
    return made[0], made[1]


@pytest.fixture(scope="module")
def client(
    ascents: tuple[Ascent, Ascent], toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[triton.InferenceServerClient]:
    folder = tmp_path_factory.mktemp("serving")
    for version, ascent in enumerate(ascents, 1):
        stage(ascent.candidate, folder / "repository", version)
    job = Candidate(get_spec("train_failure_rca"), toy_model.make_tiny_rca(folder / "artifacts"))
    stage(export_files(job).candidate, folder / "repository", 1)
    settings = ServerSettings(
        folder / "repository",
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        run_folder=folder / "server",
    )
    with EmbeddedServer(settings) as server:
        client = triton.InferenceServerClient(server.grpc_url)
        yield client
        client.close()


def _ask(
    client: triton.InferenceServerClient,
    texts: list[bytes],
    version: str = "",
    outputs: tuple[str, ...] = (),
    model: str = "log_anomaly",
) -> triton.InferResult:
    tensor = triton.InferInput("text", [len(texts), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=object).reshape(-1, 1))
    wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
    return client.infer(model, [tensor], version, outputs=wanted, client_timeout=30)


def test_each_version_asks_its_own_classifier(
    client: triton.InferenceServerClient, ascents: tuple[Ascent, Ascent], toy_model: ModuleType
) -> None:
    from training.log_anomaly.front import Front

    texts = [line.encode() for line in toy_model.LINES]
    column = np.array(texts, dtype=object).reshape(-1, 1)
    scores = []
    for version, ascent in enumerate(ascents, 1):
        front = Front(ascent.candidate.artifact.path, eager_classify(ascent.network))
        expected = front.answer([{"text": column}])[0]["score"]
        served = _ask(client, texts, str(version)).as_numpy("score")
        np.testing.assert_allclose(served, expected, atol=1e-5)
        scores.append(served)
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_a_bad_request_fails_alone(client: triton.InferenceServerClient) -> None:
    """Many at once, so that the server puts good and bad ones into one batch."""
    texts = [b"  " if number % 4 == 0 else b"line %d \xff\x00 ok" % number for number in range(32)]

    def ask(text: bytes) -> str:
        try:
            answer = _ask(client, [text], model="train_failure_rca").as_numpy("diagnosis")
            return str(json.loads(answer[0, 0])["causes"])
        except InferenceServerException as error:
            return f"{error.status()}: {error.message()}"

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, texts))
    for text, answer in zip(texts, answers, strict=True):
        if text.strip():
            assert answer.startswith("[")
        else:
            assert answer.startswith("StatusCode.INVALID_ARGUMENT: text at row 0")


def test_a_blank_line_is_normal_among_others(client: triton.InferenceServerClient) -> None:
    answer = _ask(client, [b"machine check", b"  ", b"", b"line \xff\x00 ok"])
    assert answer.as_numpy("score")[1:3, 0].tolist() == [0, 0]
    assert answer.as_numpy("label")[1:3, 0].tolist() == [b"normal", b"normal"]
    assert (answer.as_numpy("score")[[0, 3], 0] > 0).all()


def test_only_what_was_asked_for_is_answered(client: triton.InferenceServerClient) -> None:
    result = _ask(client, [b"machine check interrupt"], outputs=("score", "label"))
    assert {output.name for output in result.get_response().outputs} == {"score", "label"}
    assert result.as_numpy("manifest") is None


def test_the_server_tells_its_manifest(
    client: triton.InferenceServerClient, ascents: tuple[Ascent, Ascent]
) -> None:
    result = _ask(client, [b"x"], version="2", outputs=("manifest",))
    manifest = json.loads(result.as_numpy("manifest")[0, 0])
    assert manifest["run_id"] == ascents[1].candidate.artifact.manifest.run_id
    assert manifest["labels"] == ["normal", "anomaly"]


def test_labels_come_with_the_classification_extension(
    client: triton.InferenceServerClient,
) -> None:
    tensor = triton.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"x"]], dtype=object))
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    result = client.infer("log_anomaly", [tensor], outputs=wanted, client_timeout=30)
    names = {entry.decode().split(":")[2] for entry in result.as_numpy("probabilities").ravel()}
    assert names == {"normal", "anomaly"}
