"""Trains the log classifier, calibrates it, chooses its threshold, writes the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.manifest import Quality
from training.artifact import Artifact, finish_run, write_golden
from training.data.row_report import RowReport
from training.log_anomaly.data import (
    LABELS,
    Corpus,
    LogRow,
    composed_question,
    load_corpus,
    make_sampler,
)
from training.log_anomaly.keyword_rule import keyword_scores
from training.loop import seed_everything
from training.run import TrainRun
from training.text.encoder import load_encoder
from training.text.text_batch import MaskedTokenizer
from training.text.text_spec import golden_rows
from training.text.trainer import (
    TextFitSettings,
    calibrate_temperature,
    fit_text_classifier,
    masked_tokenizer,
    predict_logits,
    to_probabilities,
)

DRAWS_PER_EPOCH = 4_000
GOLDEN_ROWS = 96
# A threshold outside would alarm on doubt, or stay silent on all but certainty.
_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.3, 0.95


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 at one threshold, and average precision over all."""

    f1: float
    precision: float
    recall: float
    average_precision: float


def train_log_anomaly(run: TrainRun) -> Artifact:
    """Train one run; prints F1 and AP beside the keyword rule's.

    Raises:
        EncoderError, DataFileError, ArtifactCorruptError (resume)
    """
    from training.log_anomaly.spec import front_of, graph_of

    started = time.monotonic()
    arguments = run.arguments
    report = RowReport(strict=run.strict)
    corpus = load_corpus(run.data, report, run.seed)
    say = print if run.rank == 0 else _silent
    say(f"log_anomaly: {_describe(corpus, report)}")
    seed_everything(run.seed)
    encoder = load_encoder(
        arguments.encoder,
        labels=LABELS,
        problem_type="single_label_classification",
        corpus=[row.text for row in corpus.train],
        report=run.rank == 0,
    )
    settings = TextFitSettings(
        max_tokens=arguments.max_tokens,
        epochs=arguments.epochs,
        draws_per_epoch=arguments.draws,
        learning_rate=arguments.learning_rate,
        gradient_accumulation=arguments.gradient_accumulation,
    )
    losses = fit_text_classifier(run, encoder, make_sampler(corpus.train), settings)
    tokenizer = masked_tokenizer(run.path, settings.max_tokens)
    rows = distinct_rows(corpus.validation, tokenizer)
    texts = [row.text for row in rows]
    truth = np.array([row.anomaly for row in rows])
    logits = predict_logits(encoder.network, tokenizer, texts, progress=run.progress)
    targets = np.stack([~truth, truth], axis=1).astype(np.float32)
    temperature = calibrate_temperature(logits, targets, multi_label=False)
    scores = to_probabilities(logits, temperature, multi_label=False)[:, 1]
    threshold = choose_threshold(scores, truth)
    split = "composed states held out" if corpus.generated else "late or held-out signatures"
    model = evaluate(scores, truth, threshold)
    rule = evaluate(keyword_scores(texts), truth, 0.5)
    quality = _quality(model, rule, len(rows), split)
    say(
        f"log_anomaly: F1 {model.f1:.3f} (keyword rule {rule.f1:.3f}), "
        f"precision {model.precision:.3f} ({rule.precision:.3f}), "
        f"recall {model.recall:.3f} ({rule.recall:.3f}), "
        f"AP {model.average_precision:.3f} ({rule.average_precision:.3f}) "
        f"on {len(rows)} rows, {int(truth.sum())} abnormal ({split}); threshold {threshold:.2f}, "
        f"{time.monotonic() - started:.0f} s"
    )
    questions = golden_questions_of(corpus, scores, rows, run.seed)
    write_golden(run.path, _golden(tokenizer, corpus, rows, questions), questions)
    return finish_run(
        run.path,
        model=run.model,
        preset=run.preset,
        seed=run.seed,
        device=run.device,
        graph=graph_of(run.preset, settings.max_tokens),
        front=front_of(run.preset),
        labels=LABELS,
        thresholds={LABELS[0]: 1 - threshold, LABELS[1]: threshold},
        settings={
            "max_tokens": settings.max_tokens,
            "temperature": temperature,
            "encoder": encoder.source,
            "new_characters": encoder.new_characters,
            "steps": settings.steps,
            "validation_rows": len(rows),
            "final_loss": float(np.mean(losses[-20:])),
        },
        data=corpus.files,
        quality=quality,
    )


def distinct_rows(rows: Sequence[LogRow], tokenizer: MaskedTokenizer) -> list[LogRow]:
    """The rows whose masked text differs, first of each kept."""
    return list({tokenizer.mask(row.message): row for row in reversed(rows)}.values())[::-1]


def evaluate(scores: np.ndarray, truth: np.ndarray, threshold: float) -> Scores:
    """F1 of "score at or above threshold" and average precision; truth bool (rows,)."""
    alarm = scores >= threshold
    hits = int((alarm & truth).sum())
    precision = hits / max(1, int(alarm.sum()))
    recall = hits / max(1, int(truth.sum()))
    f1 = 2 * precision * recall / max(1e-12, precision + recall)
    return Scores(f1, precision, recall, average_precision(scores, truth))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Σ precision × recall gained, going down the scores; equal scores count as one step."""
    if not truth.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision = hits[last] / (last + 1)
    gained = np.diff(np.concatenate([[0], hits[last]])) / truth.sum()
    return float((precision * gained).sum())


def choose_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold of best F1, half-way between the scores on its two sides."""
    if not truth.any() or truth.all():
        return 0.5
    ordered = np.unique(scores)
    candidates = np.clip(
        np.concatenate([[0.5], (ordered[1:] + ordered[:-1]) / 2]),
        _LOWEST_THRESHOLD,
        _HIGHEST_THRESHOLD,
    )
    f1 = [evaluate(scores, truth, float(candidate)).f1 for candidate in candidates]
    return float(candidates[int(np.argmax(f1))])


def golden_questions_of(
    corpus: Corpus, scores: np.ndarray, rows: Sequence[LogRow], seed: int
) -> list[str]:
    """A clear fault, a normal line (real where there are any), then Chinese ones."""
    generator = np.random.default_rng([seed, 23])
    picked: list[str] = []
    for anomaly in (True, False):
        side = [index for index, row in enumerate(rows) if row.anomaly == anomaly]
        if side:
            best = max(side, key=lambda i: scores[i] if anomaly else -scores[i])
            picked.append(rows[best].text)
        else:
            picked.append(composed_question(generator, anomaly=anomaly, chinese=False))
    picked += [composed_question(generator, anomaly=flag, chinese=True) for flag in (True, False)]
    return picked


def _golden(
    tokenizer: MaskedTokenizer, corpus: Corpus, rows: Sequence[LogRow], questions: Sequence[str]
) -> dict[str, np.ndarray]:
    pool = [*rows, *corpus.train]
    step = max(1, len(pool) // GOLDEN_ROWS)
    longest = max((row.text for row in pool), key=len)
    truncated = " ".join([longest] * (1 + tokenizer.max_tokens * 8 // max(1, len(longest))))
    texts = [*questions, truncated, *(row.text for row in pool[::step][:GOLDEN_ROWS])]
    return golden_rows(tokenizer, texts)


def _quality(model: Scores, rule: Scores, rows: int, split: str) -> list[Quality]:
    return [
        Quality(
            metric=metric,
            value=value,
            baseline="keyword rule",
            baseline_value=baseline,
            higher_is_better=True,
            rows=rows,
            split=split,
        )
        for metric, value, baseline in (
            ("F1", model.f1, rule.f1),
            ("average precision", model.average_precision, rule.average_precision),
        )
    ]


def _describe(corpus: Corpus, report: RowReport) -> str:
    if corpus.generated:
        return f"{len(corpus.train):,} composed rows; no labelled logs in the data"
    return f"{report.describe()} read, {len(corpus.train):,} distinct kept for training"


def _silent(*_: object) -> None:
    return None
