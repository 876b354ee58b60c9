"""``python -m training benchmark train_failure_rca``: unseen families, beside rules and TF-IDF.

Judged are families that neither trained nor tuned the run, of programs that really ran and of
composed logs, each apart; and the examples of the data folder. The run's own seed says which.
"""

from __future__ import annotations

import os
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from contract.errors import DataFileError
from training.artifact import Artifact
from training.data.source import find_data
from training.text.trainer import eager_classify, masked_tokenizer
from training.train_failure_rca.benchmark.baselines import fit_tfidf
from training.train_failure_rca.benchmark.measure import (
    Answer,
    ask,
    evidence_hits,
    false_causes,
    roots_above_cascade,
    roots_first,
    unknown_said,
)
from training.train_failure_rca.corpus.labels import LABELS
from training.train_failure_rca.data import JobLog, compose_job_logs, read_examples, split_corpus
from training.train_failure_rca.evaluate import figures
from training.train_failure_rca.front import Front
from training.train_failure_rca.signatures import labels_by_rule

TARGETS = (
    "micro .93, macro .90, exact .85, rules fail .80, root .95, false causes .03, evidence .95"
)
_HEADER = (
    "| logs | method | micro-F1 | macro-F1 | exact | where rules fail | false causes |"
    " root first | root above cascade | evidence | unknown said |"
)
_MODEL = "this model"
_TRAIN_LOGS = 2400


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--run-folder", type=Path, help="a certain run (default: the newest)")
    parser.add_argument(
        "--composed", type=int, default=240, help="composed logs to judge (default: 240)"
    )
    parser.add_argument(
        "--misses", action="store_true", help="name each real log that is answered wrong"
    )


def run(arguments: Namespace) -> str:
    """The tables as Markdown. Raises ArtifactError, DataFileError."""
    from training.text.network import load_classifier

    artifact = (
        Artifact.load(arguments.run_folder)
        if arguments.run_folder
        else Artifact.latest("train_failure_rca", "job", arguments.artifacts)
    )
    seed, progress = artifact.manifest.seed, not arguments.quiet
    learn_all = not artifact.manifest.settings["held_out_families"]["test"]
    split = split_corpus(seed, learn_all=learn_all)
    groups: dict[str, list[JobLog]] = {}
    if not learn_all:
        composed = compose_job_logs(split.test.catalogue, seed + 2, arguments.composed)
        groups = {"real": list(split.test.real), "composed": composed}
    examples, _ = read_examples(find_data(arguments.data))
    if examples:
        groups["examples"] = examples
    if not groups:
        raise DataFileError(
            "nothing is left to judge this run by: it learnt every family",
            where=artifact.manifest.run_id,
            expected="a run trained without --learn-all, or rca/examples.jsonl in the data",
            next_command="python -m training train train_failure_rca",
        )
    tokenizer = masked_tokenizer(artifact.path, int(artifact.manifest.settings["max_tokens"]))
    tfidf = fit_tfidf(
        [*compose_job_logs(split.train.catalogue, seed, _TRAIN_LOGS), *split.train.real],
        [*compose_job_logs(split.tune.catalogue, seed + 1, 300), *split.tune.real],
        tokenizer,
    )
    front = Front(artifact.path, eager_classify(load_classifier(artifact)))
    rows, details, misses = [], [], []
    for name, logs in groups.items():
        answers = ask(front, logs, progress=progress)
        guesses = {
            "regex rules": [labels_by_rule(log.text) for log in logs],
            "TF-IDF": tfidf(logs),
            _MODEL: [answer.labels for answer in answers],
        }
        failing = [i for i, log in enumerate(logs) if guesses["regex rules"][i] != log.labels]
        title = f"{name} ({len(logs)}, rules fail in {len(failing)})"
        rows += [
            _row(title, method, logs, guess, failing, answers if method == _MODEL else None)
            for method, guess in guesses.items()
        ]
        details += _details(name, logs, guesses)
        if name == "real" and arguments.misses:
            misses = _misses(logs, answers)
    head = [
        f"run {artifact.manifest.run_id}, families of seed {seed} that neither trained nor tuned;"
        f" targets: {TARGETS}",
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "",
        _HEADER,
        "|---" * _HEADER.count(" | ") + "|---|",
    ]
    by = ["", "| logs | by | logs of it | regex rules | TF-IDF | this model |", "|---" * 6 + "|"]
    return "\n".join([*head, *rows, *by, *details, *misses])


def _row(
    title: str,
    method: str,
    logs: Sequence[JobLog],
    guesses: Sequence[frozenset[str]],
    failing: Sequence[int],
    answers: Sequence[Answer] | None,
) -> str:
    truth = [log.labels for log in logs]
    all_of = figures(guesses, truth)
    hard = figures([guesses[i] for i in failing], [truth[i] for i in failing])
    cells = [
        title,
        method,
        f"{all_of.micro_f1:.3f}",
        f"{all_of.macro_f1:.3f}",
        f"{all_of.exact_match:.3f}",
        f"{hard.micro_f1:.3f}",
        _share(false_causes(logs, guesses)),
    ]
    if answers is None:
        cells += ["–"] * 4
    else:
        measures = (roots_first, roots_above_cascade, evidence_hits, unknown_said)
        cells += [_share(measure(logs, answers)) for measure in measures]
    return f"| {' | '.join(cells)} |"


def _share(counts: tuple[int, int]) -> str:
    part, whole = counts
    return f"{part / whole:.3f} of {whole}" if whole else "–"


def _details(
    name: str, logs: Sequence[JobLog], guesses: dict[str, list[frozenset[str]]]
) -> list[str]:
    """F1 of each label, micro-F1 of each format."""
    rows = []
    for label in LABELS:
        truth = [log.labels & {label} for log in logs]
        count = sum(map(bool, truth))
        if count:
            f1 = [
                f"{figures([g & {label} for g in guess], truth).micro_f1:.2f}"
                for guess in guesses.values()
            ]
            rows.append(f"| {name} | {label} | {count} | {' | '.join(f1)} |")
    for form in sorted({log.form for log in logs}):
        own = [i for i, log in enumerate(logs) if log.form == form]
        truth = [logs[i].labels for i in own]
        f1 = [
            f"{figures([guess[i] for i in own], truth).micro_f1:.2f}" for guess in guesses.values()
        ]
        rows.append(f"| {name} | format: {form} | {len(own)} | {' | '.join(f1)} |")
    return rows


def _misses(logs: Sequence[JobLog], answers: Sequence[Answer]) -> list[str]:
    return [
        f"{log.family}: {sorted(log.labels)} answered as {sorted(answer.labels)}"
        for log, answer in zip(logs, answers, strict=True)
        if log.labels != answer.labels
    ]
