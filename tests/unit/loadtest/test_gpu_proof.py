"""The GPU proof: what it says without a GPU, how it times, and how it judges."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from loadtest.command import main
from loadtest.gpu_proof.ceilings import Ceilings
from loadtest.gpu_proof.machine import Check, Machine, inspect_machine
from loadtest.gpu_proof.report import as_json, as_markdown, verdicts
from loadtest.gpu_proof.run import TRITON_ONNX, Proof, Row, Together
from loadtest.gpu_proof.sides import COMPILED, CUDA_GRAPH, EAGER, ONNX, NotMeasuredError, make_side
from loadtest.gpu_proof.subjects import Subject, random_classifier, text_subject
from loadtest.gpu_proof.timing import Timing, time_in_turns, time_together
from loadtest.gpu_proof.triton_host import container_command

GPU = Machine("cuda", "a card", (Check("GPU", "a card"),))
LAPTOP = Machine("cpu", "no GPU", (Check("GPU", None, "none"),))
CEILINGS = Ceilings(500e12, 2e12, 8192)
SIZE = (32, 2, 2)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return text_subject("tiny", "random", random_classifier(SIZE), "tiny_classifier", (1, 2), (8,))


def row(subject: str, side: str, batch: int, rate: float, *, length: int = 128) -> Row:
    """22.3 GFLOP a row of BERT-base: 10,000 a second are 45% of the ceiling."""
    flops = None if subject == "lstm_next" else 22.3e9 * batch
    return Row(subject, side, batch, length, Timing(rate, 1.0, 2.0, 10), 1e-4, 0, flops)


def full_proof() -> Proof:
    proof = Proof(GPU, CEILINGS, {"bert_base": "random", "lstm_next": "random"})
    proof.rows = [
        row("bert_base", EAGER, 1, 100),
        row("bert_base", COMPILED, 128, 10_000),
        row("bert_base", ONNX, 128, 9_000),
        row("bert_base", TRITON_ONNX, 128, 8_000),
        row("lstm_next", CUDA_GRAPH, 4096, 1_200_000, length=30),
    ]
    proof.together = [
        Together("bert_base", EAGER, 128, Timing(90, 1, 2, 10)),
        Together("bert_base", TRITON_ONNX, 128, Timing(1_500, 1, 2, 10)),
    ]
    return proof


@pytest.mark.skipif(inspect_machine().has_gpu, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_one_line_and_measures_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["gpu-proof", "--output", str(tmp_path / "proof")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "not measured" in line
    assert not (tmp_path / "proof").exists()


def test_every_target_that_the_figures_reach_is_reached() -> None:
    got = {one.target: one for one in verdicts(full_proof())}
    assert all(one.reached for one in got.values()), got
    assert any("45%" in one.got for one in got.values())
    assert any("89%" in one.got for one in got.values())
    # Against the better of the two eager rates, not the one that flatters.
    assert any("15.0×" in one.got for one in got.values())


@pytest.mark.parametrize(
    ("index", "replacement"),
    [
        (1, row("bert_base", COMPILED, 128, 4_000)),
        (3, row("bert_base", TRITON_ONNX, 128, 7_000)),
        (4, row("lstm_next", CUDA_GRAPH, 4096, 900_000, length=30)),
    ],
)
def test_a_slower_row_misses_its_target(index: int, replacement: Row) -> None:
    proof = full_proof()
    proof.rows[index] = replacement
    if index == 1:
        proof.rows[2] = row("bert_base", ONNX, 128, 4_000)
        proof.rows[3] = row("bert_base", TRITON_ONNX, 128, 3_900)
    assert [one.reached for one in verdicts(proof)].count(False) == 1


def test_what_was_not_measured_is_never_derived() -> None:
    proof = full_proof()
    proof.rows = [one for one in proof.rows if one.side != TRITON_ONNX]
    proof.together = proof.together[:1]
    proof.absent["bert_base", TRITON_ONNX] = "no docker on PATH"
    found = {one.target: one for one in verdicts(proof)}
    assert sum(one.reached is None for one in found.values()) == 2
    text = as_markdown(proof, "python -m loadtest gpu-proof")
    assert text.count("no docker on PATH") == 3
    assert text.count("not measured") >= 2
    assert json.loads(as_json(proof))["not_measured"][0]["why"] == "no docker on PATH"


def test_a_dry_run_judges_nothing() -> None:
    proof = full_proof()
    proof.machine = LAPTOP
    assert all(one.reached is None for one in verdicts(proof))
    assert "no figure here is a GPU's" in as_markdown(proof, "x")


def test_a_difference_is_of_numbers_and_of_clear_decisions(subject: Subject) -> None:
    name = subject.graph.outputs[0].name
    eager = {name: np.array([[0.9, 0.1], [0.5001, 0.4999]], np.float32)}
    close = {name: np.array([[0.8, 0.2], [0.4999, 0.5001]], np.float32)}
    worst, flipped = subject.difference(eager, close)
    assert worst == pytest.approx(0.1, abs=1e-6)
    assert flipped == 0
    swapped = {name: eager[name][:, ::-1]}
    assert subject.difference(eager, swapped)[1] == 1
    assert subject.difference(eager, {name: eager[name][:1]}) == (float("inf"), 2)


def test_sides_answer_as_eager_does(subject: Subject, tmp_path: Path) -> None:
    inputs = subject.inputs(2, 8, 3)
    eager = make_side(EAGER, subject, "cpu", tmp_path)(inputs)
    onnx = make_side(ONNX, subject, "cpu", tmp_path)(inputs)
    worst, flipped = subject.difference(eager, onnx)
    assert 0 < worst < 5e-3, "fp16 is neither fp32 nor wrong"
    assert flipped == 0
    with pytest.raises(NotMeasuredError, match="needs a GPU"):
        make_side(CUDA_GRAPH, subject, "cpu", tmp_path)


def test_sides_are_timed_in_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    timings = time_in_turns(calls, 4, rounds=2, seconds=0.0)  # type: ignore[arg-type]
    assert order[6:] == ["a", "a", "b", "b", "b", "b", "a", "a"]
    assert timings["a"].calls == 4


def test_callers_at_once_are_counted_together_and_their_failure_is_told() -> None:
    timing = time_together([lambda: time.sleep(0.01)] * 8, 1, rounds=1, seconds=0.05)
    assert timing.calls >= 16
    assert timing.rows_per_second > 1.5 / 0.01 * 0.2

    answers = iter([None])

    def fail() -> None:
        if next(answers, "gone") == "gone":
            raise NotMeasuredError("the server went away")

    with pytest.raises(NotMeasuredError, match="went away"):
        time_together([fail], 1, rounds=1, seconds=0.0)


def test_the_container_is_the_pinned_one_and_reads_only() -> None:
    command = container_command(Path("models"))
    assert any(word.endswith(":/models:ro") for word in command)
    assert any(word.startswith("nvcr.io/nvidia/tritonserver:") for word in command)
    assert "--model-control-mode=explicit" in command
