"""Signatures, composed logs, the reader, the front: what surrounds the root-cause classifier."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from training.text.text_batch import Chunk, FrontError, MaskedTokenizer
from training.train_failure_rca.compose import compose, compose_without_cause
from training.train_failure_rca.data import compose_logs, make_sampler, split_families, target_of
from training.train_failure_rca.evaluate import choose_thresholds, figures, labels_above
from training.train_failure_rca.front import Front
from training.train_failure_rca.rules import RULES, labels_by_rule
from training.train_failure_rca.signatures import LABELS, fill, load_actions, load_library
from training.train_failure_rca.windows import (
    LARGEST_WINDOWS,
    keep_lines,
    read_lines,
    says_it_failed,
    windows_of,
)

MAX_TOKENS = 48


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default encoder's tokenizer with the masks for job logs."""
    from training.text.encoder import load_encoder
    from training.text.masking import JOB_MASKS

    folder = tmp_path_factory.mktemp("tokenizer")
    encoder = load_encoder(
        "minilm",
        labels=LABELS,
        problem_type="multi_label_classification",
        rules=JOB_MASKS,
        report=False,
    )
    encoder.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> MaskedTokenizer:
    return MaskedTokenizer(tokenizer_folder / "tokenizer.json", max_tokens=MAX_TOKENS)


def test_every_label_has_signatures_rules_and_actions() -> None:
    library = load_library()
    everything = frozenset(s.family for s in library.signatures)
    actions = load_actions()
    for label in LABELS:
        assert len(library.of(label, everything)) >= 5, label
        assert actions[label]["zh"]
        assert actions[label]["en"]
    assert set(RULES) == set(LABELS)
    assert len(everything) == len(library.signatures), "two signatures of one name"
    for signature in library.signatures:
        for line in signature.lines:
            filled = fill(line.text, np.random.default_rng(0))
            assert not re.search(r"\{[a-z]+\d?\}", filled), f"unknown slot: {line.text}"


def test_families_are_on_one_side_only() -> None:
    library = load_library()
    families = split_families(library, seed=0)
    assert not families.train & families.validation
    for label in LABELS:
        assert library.of(label, families.train)
        assert library.of(label, families.validation)
    assert split_families(library, seed=0) == families


def test_a_composed_log_knows_its_proofs_and_its_root() -> None:
    library = load_library()
    cascades = [s for s in library.signatures if s.cascade]
    [signature] = [s for s in library.signatures if s.family == "OOM/bad-alloc"]
    generator = np.random.default_rng(3)
    logs = [compose(generator, library, signature, cascades) for _ in range(60)]
    assert all(log.root == "OOM" for log in logs)
    assert all("bad_alloc" in log.text for log in logs)
    assert any(log.labels == {"OOM", "Network_Timeout"} for log in logs)
    for log in logs:
        first = next(line for line in log.lines if line.labels)
        assert "OOM" in first.labels, "the cascade came before the root"
    healthy = compose_without_cause(generator, library, failed=False)
    assert (healthy.labels, healthy.root, healthy.failed) == (frozenset(), None, False)


def test_lines_are_unwrapped_and_numbered_as_sent() -> None:
    log = '{"log": "first", "stream": "stderr"}\n\n{"other": 1}\nbar 10%\rbar 99%\r\n'
    lines = [(line.number, line.text) for line in read_lines(log)]
    assert lines == [(1, "first"), (3, '{"other": 1}'), (4, "bar 99%")]


def test_repeats_go_but_different_xids_stay() -> None:
    log = "\n".join(
        [f"step {i} loss {i}.5" for i in range(50)] + ["NVRM: Xid: 13", "NVRM: Xid: 79"]
    )
    kept = [line.text for line in keep_lines(read_lines(log))]
    assert kept == ["step 0 loss 0.5", "NVRM: Xid: 13", "NVRM: Xid: 79"]


def test_a_huge_log_is_read_in_few_windows_with_its_cause(tokenizer: MaskedTokenizer) -> None:
    words = [f"{a}{b}{c}" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyz"]
    lines = [
        f"{words[i % 600]} {words[i * 7 % 600]} {words[i // 600 % 600]}" for i in range(100_000)
    ]
    lines[61_234] = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    windows = windows_of("\n".join(lines), tokenizer)
    assert len(windows) <= LARGEST_WINDOWS
    found = [line.number for w in windows for line in w.lines if "CUDA out of memory" in line.text]
    assert set(found) == {61_235}
    for window in windows[:5]:
        [ids] = tokenizer.encode([tokenizer.mask(window.text)])
        assert len(ids) <= MAX_TOKENS


def test_failure_is_recognised_and_look_alikes_are_not() -> None:
    assert says_it_failed("Traceback (most recent call last):\n  ...")
    assert says_it_failed("srun: error: task 3: Exited with exit code 1")
    assert says_it_failed("作业异常退出")
    assert not says_it_failed("0 errors, exit code 0\ntimeout=1800\nretrying ... succeeded")


class RuleClassifier:
    """Stands in for the network: the regex rules, read back from token ids."""

    def __init__(self, tokenizer: MaskedTokenizer) -> None:
        self.tokenizer = tokenizer
        self.calls = 0

    def __call__(self, chunks: list[Chunk]) -> list[np.ndarray]:
        self.calls += 1
        needles = {"OOM": "oomkilled", "Network_Timeout": "timed out", "Disk_Full": "no space left"}
        answers = []
        for ids, mask in chunks:
            texts = [
                self.tokenizer._encoder.decode(row[keep.astype(bool)].tolist()).lower()
                for row, keep in zip(ids, mask, strict=True)
            ]
            flat = [text.replace(" ##", "").replace(" ", "") for text in texts]
            answers.append(
                np.array(
                    [
                        [
                            0.9
                            if label in needles and needles[label].replace(" ", "") in text
                            else 0.05
                            for label in LABELS
                        ]
                        for text in flat
                    ],
                    dtype=np.float32,
                )
            )
        return answers


@pytest.fixture
def front(tokenizer_folder: Path, tokenizer: MaskedTokenizer, tmp_path: Path) -> Front:
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    manifest = {
        "labels": LABELS,
        "thresholds": dict.fromkeys(LABELS, 0.5),
        "settings": {"max_tokens": MAX_TOKENS, "actions": load_actions()},
        "run_id": "job-1",
        "files": {"secret": "hash"},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return Front(tmp_path, RuleClassifier(tokenizer))


def column(*texts: bytes) -> dict[str, np.ndarray]:
    return {"text": np.array([[text] for text in texts], dtype=object)}


def diagnose(front: Front, request: dict[str, np.ndarray]) -> list[dict[str, object]]:
    (answer,) = front.answer([request])
    assert not isinstance(answer, FrontError)
    return [json.loads(cell) for cell in answer["diagnosis"][:, 0]]


CASCADE = b"""step 1 loss 3.0
step 2 loss 2.9
    Reason:       OOMKilled
some other line
rank 3: connection timed out
srun: error: task 3: Exited with exit code 1"""


def test_the_root_is_the_earliest_cause_and_lines_prove_it(front: Front) -> None:
    [diagnosis] = diagnose(front, column(CASCADE))
    assert diagnosis["root"] == "OOM"
    causes = diagnosis["causes"]
    assert isinstance(causes, list)
    assert [cause["label"] for cause in causes] == ["OOM", "Network_Timeout"]
    assert [line["line_number"] for line in causes[0]["evidence"]] == [3]
    assert [line["line_number"] for line in causes[1]["evidence"]] == [5]
    assert causes[0]["action"]["zh"]


def test_unknown_and_healthy_are_told_apart(front: Front) -> None:
    unknown, healthy = diagnose(
        front, column(b"step 1\nSegmentation fault (core dumped)", b"step 1\nexit code 0, 0 errors")
    )
    assert (unknown["causes"], unknown["unknown"]) == ([], True)
    assert (healthy["causes"], healthy["unknown"]) == ([], False)


def test_a_threshold_of_the_request_replaces_the_shipped_ones(front: Front) -> None:
    request = column(CASCADE) | {"threshold": np.array([[0.95]], dtype=np.float32)}
    assert diagnose(front, request)[0]["causes"] == []
    request["threshold"][:] = 0
    assert diagnose(front, request)[0]["root"] == "OOM"


def test_a_bad_request_fails_alone_and_all_are_classified_together(front: Front) -> None:
    answers = front.answer(
        [column(CASCADE), column(b" "), column(b"no space left on device")],
        frozenset({"probabilities"}),
    )
    assert isinstance(answers[1], FrontError)
    first, third = answers[0], answers[2]
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    assert set(first) == {"probabilities"}
    assert first["probabilities"][0, LABELS.index("OOM")] == pytest.approx(0.9)
    assert third["probabilities"][0, LABELS.index("Disk_Full")] == pytest.approx(0.9)
    assert front.batcher._classify.calls == 1  # type: ignore[attr-defined]


def test_the_manifest_is_answered_without_its_files(front: Front) -> None:
    (answer,) = front.answer([column(b"x", b"y")], frozenset({"manifest"}))
    assert isinstance(answer, dict)
    manifest = json.loads(answer["manifest"][1, 0])
    assert manifest["labels"] == list(LABELS)
    assert "files" not in manifest


def test_figures_count_what_they_say() -> None:
    truth = [frozenset({"OOM"}), frozenset({"Disk_Full", "OOM"}), frozenset()]
    perfect = figures(truth, truth)
    assert (perfect.micro_f1, perfect.macro_f1, perfect.exact_match) == (1, 1, 1)
    assert perfect.false_causes == 0
    worse = figures([frozenset({"OOM"}), frozenset(), frozenset({"OOM"})], truth)
    assert worse.micro_f1 == pytest.approx(2 * 1 / (2 * 1 + 1 + 2))
    assert worse.exact_match == pytest.approx(1 / 3)
    assert worse.false_causes == 1


def test_thresholds_lie_between_the_two_sides() -> None:
    probabilities = np.full((4, len(LABELS)), 0.1, dtype=np.float32)
    probabilities[:2, 0] = 0.8
    truth = [frozenset({"OOM"})] * 2 + [frozenset()] * 2
    thresholds = choose_thresholds(probabilities, truth)
    assert 0.1 < thresholds["OOM"] < 0.8
    assert thresholds["Disk_Full"] == 0.5
    assert labels_above(probabilities, thresholds) == truth


def test_rules_find_the_obvious() -> None:
    assert labels_by_rule("x: No space left on device") == {"Disk_Full"}
    assert labels_by_rule("0 errors") == frozenset()


def test_windows_are_labelled_by_the_proofs_they_hold(tokenizer: MaskedTokenizer) -> None:
    library = load_library()
    families = split_families(library, 0)
    logs = compose_logs(library, families.train, 0, per_label=2, without_cause=6)
    sample = make_sampler([log for log, _ in logs], [], tokenizer, progress=False)
    drawn = sample(np.random.default_rng(0), 400)
    assert {len(example.target) for example in drawn} == {len(LABELS)}
    counts = np.sum([example.target for example in drawn], axis=0)
    assert (counts > 0).all(), "a label is never drawn"
    assert sum(example.target == target_of(frozenset()) for example in drawn) > 40
    proofs = {
        line.text
        for log, _ in logs
        for line in read_lines(log.text)
        if log.lines[line.number - 1].labels
    }
    for example in drawn:
        held = any(line in proofs for line in example.text.split("\n"))
        assert held == any(example.target)
