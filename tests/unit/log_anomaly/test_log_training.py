"""One tiny run from data to verdicts, as the command line does it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from contract.errors import ArtifactCorruptError
from training.artifact import Artifact
from training.command import main
from training.log_anomaly.front import Front
from training.log_anomaly.scores import average_precision, choose_threshold, evaluate
from training.log_anomaly.spec import SPEC
from training.text.network import load_classifier
from training.text.text_batch import FrontError
from training.text.trainer import eager_classify


@pytest.fixture(scope="module")
def artifacts(tiny_log_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    data = tmp_path_factory.mktemp("data") / "logs.tsv"
    lines = [f"{'anomaly' if i % 2 else 'normal'}\tunit {chr(97 + i)}x happened" for i in range(24)]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["train", "log_anomaly", "--data", str(data), "--artifacts", str(folder)]
    command += ["--quiet", "--device", "cpu", "--encoder", str(tiny_log_encoder)]
    assert main([*command, "--epochs", "1", "--draws", "64", "--max-tokens", "32"]) == 0
    return folder


@pytest.fixture(scope="module")
def artifact(artifacts: Path) -> Artifact:
    return Artifact.latest("log_anomaly", "line", artifacts)


@pytest.fixture(scope="module")
def front(artifact: Artifact) -> Front:
    return Front(artifact.path, eager_classify(load_classifier(artifact)))


def texts(*values: bytes) -> dict[str, np.ndarray]:
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return {"text": column}


def test_manifest(artifact: Artifact) -> None:
    manifest = artifact.manifest
    assert manifest.labels == ("normal", "anomaly")
    assert manifest.thresholds["normal"] == pytest.approx(1 - manifest.thresholds["anomaly"])
    assert manifest.settings["max_tokens"] == manifest.graph.max_length == 32
    assert manifest.settings["temperature"] > 0
    assert {figure.metric for figure in manifest.quality} == {"F1", "average precision"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "golden.npz"} <= set(
        manifest.files
    )


def test_golden_rows_and_questions(artifact: Artifact) -> None:
    golden = artifact.golden()
    lengths = golden["attention_mask"].sum(1)
    assert len(lengths) >= 64
    assert {1, 32} <= set(lengths.tolist())
    questions = list(SPEC.golden_questions(artifact))
    assert any("㐀" <= character <= "鿿" for text in questions for character in text)


def test_network_and_decisions(artifact: Artifact) -> None:
    import torch

    network = SPEC.load_network(artifact)
    rows = SPEC.parity.inputs(artifact, 7, 8, "half")
    with torch.no_grad():
        (probabilities,) = network(*(torch.from_numpy(array) for array in rows.values()))
    outputs = {"probabilities": probabilities.numpy()}
    decisions = SPEC.parity.decide(artifact.manifest, rows, outputs)
    expected = outputs["probabilities"][:, 1] >= artifact.manifest.thresholds["anomaly"]
    assert decisions.values[:, 0].tolist() == expected.tolist()


def test_front_answers_every_request(front: Front, artifact: Artifact) -> None:
    first, blank, third = front.answer(
        [texts(b"unit broke", "磁盘损坏".encode()), texts(b" \0"), texts(b"\xff\xfe emoji \xf0")]
    )
    assert not isinstance(blank, FrontError)
    assert (blank["label"][0, 0], blank["score"][0, 0]) == (b"normal", 0)
    assert not isinstance(first, FrontError)
    assert not isinstance(third, FrontError)
    assert {name: array.shape for name, array in first.items()} == {
        "label": (2, 1),
        "score": (2, 1),
        "probabilities": (2, 2),
        "threshold": (2, 1),
        "manifest": (2, 1),
    }
    threshold = artifact.manifest.thresholds["anomaly"]
    for label, score in zip(first["label"][:, 0], first["score"][:, 0], strict=True):
        assert label == (b"anomaly" if score >= threshold else b"normal")
    np.testing.assert_allclose(first["probabilities"].sum(1), 1, atol=1e-6)
    told = json.loads(first["manifest"][0, 0])
    assert told["run_id"] == artifact.manifest.run_id
    assert "files" not in told


ODD_LINES = {
    "empty": b"",
    "blank": b" \t\r",
    "one word": b"error",
    "1 MB": b"x" * 500_000 + b" disk lost " + b"y" * 500_000,
    "1 MB of CJK": "\u78c1\u76d8".encode() * 170_000,
    "colours": b"\x1b[31mERROR\x1b[0m disk lost",
    "binary": bytes(range(256)) * 4,
    "numbers": b"0 1 2.5 -7 1e9 0x1f",
    "frame": b"\tat com.example.Main.run(Main.java:42)",
    "caret": b"    ^^^^^^^^^",
    "brackets": b"]]]]>>>>{{{{",
    "control tokens": b"[CLS] [SEP] [MASK] <num>",
}


@pytest.mark.parametrize("name", ODD_LINES)
def test_any_line_has_a_score(front: Front, name: str) -> None:
    (answer,) = front.answer([texts(ODD_LINES[name], b"unit broke")])
    assert not isinstance(answer, FrontError)
    assert answer["score"].shape == (2, 1)
    assert ((answer["score"] >= 0) & (answer["score"] <= 1)).all()
    (alone,) = front.answer([texts(b"unit broke")])
    assert not isinstance(alone, FrontError)
    # Its neighbour's score is its own.
    assert answer["score"][1] == pytest.approx(alone["score"][0], abs=1e-6)


def test_front_answers_what_is_asked(front: Front) -> None:
    (answer,) = front.answer([texts(b"unit broke")], frozenset({"score"}))
    assert not isinstance(answer, FrontError)
    assert set(answer) == {"score"}


def test_only_blank_requests(front: Front) -> None:
    blank = front.answer([texts(b""), texts(b" ")])
    assert [entry["label"][0, 0] for entry in blank if not isinstance(entry, FrontError)] == [
        b"normal",
        b"normal",
    ]


def test_predict(artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "app.log"
    log.write_bytes(b"unit broke\r\n\n\xff bytes\n" + "磁盘损坏".encode())
    capsys.readouterr()
    assert main(["predict", "log_anomaly", "--artifacts", str(artifacts), str(log)]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["line"], record["text"]) for record in records] == [
        (1, "unit broke"),
        (3, "� bytes"),
        (4, "磁盘损坏"),
    ]
    assert main(["predict", "log_anomaly", "--artifacts", str(artifacts), "nowhere.log"]) == 2
    assert "nowhere.log" in capsys.readouterr().err


def test_labels_of_another_model(artifact: Artifact) -> None:
    manifest = artifact.manifest.model_copy(update={"labels": ("good", "bad")})
    with pytest.raises(ArtifactCorruptError, match="labels"):
        load_classifier(Artifact(artifact.path, manifest))


def test_average_precision_and_f1() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    truth = np.array([True, False, True, False])
    assert average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.ones(4), truth) == pytest.approx(0.5)
    figures = evaluate(scores, truth, 0.75)
    assert (figures.precision, figures.recall, figures.f1) == (0.5, 0.5, 0.5)


def test_threshold_lies_between_the_classes() -> None:
    scores = np.array([0.1, 0.35, 0.62, 0.9])
    two, one = np.array([False, False, True, True]), np.array([False, False, False, True])
    assert choose_threshold(scores, two) == pytest.approx(0.485)
    assert choose_threshold(scores, one) == pytest.approx(0.76)
    assert choose_threshold(scores, np.zeros(4, bool)) == 0.5


def test_threshold_keeps_quiet_where_it_must() -> None:
    scores = np.array([0.6, 0.7, 0.8, 0.85])
    truth = np.array([True, False, True, True])
    assert choose_threshold(scores, truth) < 0.6
    assert 0.7 < choose_threshold(scores, truth, [(~truth, 0.0)]) < 0.8
    # Half of these may alarm.
    mostly = [(np.array([False, True, True, False]), 0.5)]
    assert 0.7 < choose_threshold(scores, truth, mostly) < 0.8
    # Nothing keeps that: the highest there is.
    assert choose_threshold(scores, truth, [(truth, -1.0)]) > 0.8
