"""What is asked: log lines as they repeat, job logs, windows; and answers that are checked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from loadtest.eager_baseline import EagerModel
from loadtest.load.answer_check import AnswerCheck, gateway_body
from loadtest.load.payloads import continued, in_blocks, payload_mix, read_log_files
from loadtest.load.reference import AnsweredMix
from loadtest.served import Arrays, ServedModel
from training.artifact import Artifact
from training.data.source import DataSource

GENERATED = DataSource(None, "generated")


def served(artifact: Artifact) -> ServedModel:
    manifest = artifact.manifest
    side = manifest.front or manifest.graph
    return ServedModel(
        side.triton_name,
        1,
        artifact.path,
        artifact,
        tuple(tensor for tensor in side.inputs if not tensor.optional),
        tuple(tensor.name for tensor in side.outputs if tensor.name != "manifest"),
        artifact.golden_questions(),
    )


@pytest.fixture(scope="module")
def models(
    toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, ServedModel]]:
    root = tmp_path_factory.mktemp("runs")
    with toy_model.toy_registered() as spec:
        found = [
            served(artifact)
            for artifact in (
                toy_model.make_tiny_log_anomaly(root),
                toy_model.make_tiny_rca(root),
                toy_model.train_toy(spec, root),
            )
        ]
        yield {model.name: model for model in found}


def texts_of(items: list[Arrays]) -> list[str]:
    return [item["text"].item().decode() for item in items]


def test_labels_are_no_part_of_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "loghub/BGL"
    folder.mkdir(parents=True)
    line = "1117838570 2005.06.03 R02 2005-06-03-15.42.50 R02 RAS KERNEL INFO cache parity error"
    (folder / "BGL_2k.log").write_text(f"- {line}\nAPPREAD {line}\n")
    (tmp_path / "other.log").write_text("one\n\ntwo\n")
    assert read_log_files(tmp_path) == [[line, line], ["one", "two"]]


def test_blocks_keep_bursts_and_lose_nothing() -> None:
    files = [[f"{name}{i}" for i in range(120)] for name in "ab"]
    lines = in_blocks(files, 0)
    assert sorted(lines) == sorted(files[0] + files[1])
    neighbours = sum(
        one[0] == other[0] and int(other[1:]) == int(one[1:]) + 1
        for one, other in itertools.pairwise(lines)
    )
    assert neighbours >= 240 - 6


def test_the_share_that_repeats_stays_that_of_the_logs() -> None:
    """Two forms, each five times: when the lines come again, two of ten are new again."""
    lines = [f"disk {i} full" for i in range(5)] + [f"link {i} down" for i in range(5)]

    def mask(texts: Any) -> list[str]:
        return ["".join("#" if char.isdigit() else char for char in text) for text in texts]

    assert continued(lines, 4, 0, mask) == lines[:4]
    texts = continued(lines, 40, 0, mask)
    assert len(texts) == 40
    assert len(set(mask(texts))) == 2 * 4
    assert texts[11:15] == lines[1:5]


def test_lines_of_a_folder_and_generated_ones(
    models: dict[str, ServedModel], tmp_path: Path
) -> None:
    model = models["log_anomaly"]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a.log").write_text("".join(f"error {i % 7} on core\n" for i in range(300)))
    mix = payload_mix(model, DataSource(tmp_path, "folder"), rows=200, fresh=False)
    assert len(mix.order) == 200
    assert "1 real logs" in mix.told
    # One masked form: all but the first repeat it.
    assert "100% repeat" in mix.told or "99% repeat" in mix.told
    generated = payload_mix(model, GENERATED, rows=500, fresh=False)
    assert "composed" in generated.told
    repeated = 1 - len(generated.items) / len(generated.order)
    assert 0.3 < repeated < 0.95
    fresh = payload_mix(model, GENERATED, rows=500, fresh=True)
    assert len(set(texts_of(fresh.items))) == len(fresh.order) == 500


def test_job_logs_are_real_and_composed_and_differ(models: dict[str, ServedModel]) -> None:
    mix = payload_mix(models["train_failure_rca"], GENERATED, rows=30, fresh=False)
    assert len(mix.items) == len(mix.order) == 30
    assert len({text[:4000] for text in texts_of(mix.items)}) == 30
    assert max(len(text) for text in texts_of(mix.items)) > 1000


def test_a_fourth_model_is_asked_its_golden_rows(models: dict[str, ServedModel]) -> None:
    mix = payload_mix(models["toy_level"], GENERATED, rows=100, fresh=False)
    assert len(mix.order) == 100
    assert set(mix.items[0]) == {"values"}
    assert all(len(item["values"]) == 1 for item in mix.items)
    answered = answers(models["toy_level"], 32)
    check = AnswerCheck(models["toy_level"], answered)
    assert check.outputs((0,), b"a", lambda: answered.expected[0]) == ""
    changed = {**answered.expected[0], "level": answered.expected[0]["level"] + 1}
    assert "level differs" in check.outputs((0,), b"b", lambda: changed)


def answers(model: ServedModel, rows: int) -> AnsweredMix:
    mix = payload_mix(model, GENERATED, rows=rows, fresh=False)
    eager = EagerModel(model)
    return AnsweredMix(mix, [eager.answer(item) for item in mix.items])


@pytest.mark.parametrize("name", ["log_anomaly", "train_failure_rca"])
def test_a_swapped_answer_is_a_wrong_one(models: dict[str, ServedModel], name: str) -> None:
    answered = answers(models[name], 16)
    check = AnswerCheck(models[name], answered)
    one, other = _two_that_differ(answered)
    right = answered.expected[one]
    assert check.outputs((one,), b"right", lambda: right) == ""
    swapped = answered.expected[other]
    assert check.outputs((one,), b"swapped", lambda: swapped) != ""
    # In a batch: each row must be its own.
    both = _batch(answered, (one, other))
    assert check.outputs((one, other), b"both", lambda: both) == ""
    crossed = _batch(answered, (other, one))
    assert check.outputs((one, other), b"crossed", lambda: crossed) != ""
    # And what was judged once is judged so again.
    assert check.outputs((one,), b"swapped", lambda: right) != ""


def test_rounding_is_no_fault_and_another_decision_is(models: dict[str, ServedModel]) -> None:
    answered = answers(models["log_anomaly"], 16)
    check = AnswerCheck(models["log_anomaly"], answered)
    right = answered.expected[0]
    rounded = {**right, "score": right["score"] + np.float32(1e-6)}
    assert check.outputs((0,), b"rounded", lambda: rounded) == ""
    off = {**right, "score": right["score"] + np.float32(0.01)}
    assert "differs by" in check.outputs((0,), b"off", lambda: off)
    label = np.array([[b"normal" if right["label"].item() == b"anomaly" else b"anomaly"]], object)
    assert "answers differ" in check.outputs((0,), b"label", lambda: {**right, "label": label})
    assert "form" in check.outputs((0,), b"short", lambda: {"score": right["score"]})
    assert "shape" in check.outputs(
        (0,), b"rows", lambda: {k: np.concatenate([v, v]) for k, v in right.items()}
    )


def test_the_gateways_answer_is_held_against_the_same(models: dict[str, ServedModel]) -> None:
    model = models["log_anomaly"]
    answered = answers(model, 16)
    check = AnswerCheck(model, answered)
    told = {
        "text": "x",
        "label": answered.expected[0]["label"].item().decode(),
        "score": float(answered.expected[0]["score"].item()),
        "threshold": float(answered.expected[0]["threshold"].item()),
        "model_version": "1",
    }
    assert check.gateway(0, json.dumps(told).encode()) == ""
    assert check.gateway(0, json.dumps({**told, "score": told["score"] - 0.1}).encode()) != ""
    assert check.gateway(0, json.dumps({**told, "label": "neither"}).encode()) != ""
    assert check.gateway(0, b"{}") != ""
    assert check.gateway(0, b"not json") != ""
    body = json.loads(gateway_body(model, answered.mix.items[0]) or b"")
    assert body == {"text": texts_of(answered.mix.items)[0]}


def test_windows_that_the_gateway_cannot_be_asked_are_left_out(
    models: dict[str, ServedModel],
) -> None:
    forecaster = replace(
        models["toy_level"],
        inputs=(models["toy_level"].inputs[0].model_copy(update={"name": "series"}),),
    )
    window = np.arange(30, dtype=np.float32)[None]
    window[0, 3] = np.nan

    def body(season: int, values: np.ndarray = window) -> bytes | None:
        return gateway_body(
            forecaster, {"series": values, "season_length": np.array([[season]], np.int64)}
        )

    asked = json.loads(body(288) or b"")
    assert asked["step_seconds"] == 300
    assert asked["series"][:5] == [0.0, 1.0, 2.0, None, 4.0]
    assert body(0) is None
    assert body(7) is None
    assert body(288, np.full((1, 30), np.nan, np.float32)) is None


def _two_that_differ(answered: AnsweredMix) -> tuple[int, int]:
    first = answered.expected[0]["probabilities"]
    for index, expected in enumerate(answered.expected):
        if np.abs(expected["probabilities"] - first).max() > 0.01:
            return 0, index
    raise AssertionError("all answers are alike")


def _batch(answered: AnsweredMix, items: tuple[int, ...]) -> Arrays:
    rows = [answered.expected[item] for item in items]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
