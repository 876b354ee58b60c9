"""Trains the log classifier, calibrates it, chooses its threshold, writes the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.manifest import Quality
from training.artifact import Artifact, finish_run, write_golden
from training.data.row_report import RowReport
from training.log_anomaly.baselines import keyword_scores
from training.log_anomaly.compose import Composer
from training.log_anomaly.data import Corpus, Twins, load_corpus, make_sampler, target_of
from training.log_anomaly.scores import (
    HARD_FALSE_ALARMS,
    NEAR_NORMAL_FALSE_ALARMS,
    Scores,
    choose_threshold,
    evaluate,
)
from training.log_anomaly.systems import (
    FAULT,
    LABELS,
    NEAR_NORMAL_SYSTEMS,
    NO_FAULT,
    VOCABULARY,
    LogRow,
)
from training.log_anomaly.vocabulary import GRADES, Grade, Language
from training.loop import seed_everything
from training.run import TrainRun
from training.text.classifier import MeanPooledClassifier
from training.text.encoder import load_encoder
from training.text.network import LABEL_CLASSES
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

CLASSES_OF_LABEL = {LABELS[0]: list(NO_FAULT), LABELS[1]: list(FAULT)}
GOLDEN_ROWS = 96


@dataclass(frozen=True)
class Verdict:
    """How sure, from which score on, how good: what a run knows after its validation.

    ``agreement``: share of the twins on which both languages decide alike.
    """

    temperature: float
    threshold: float
    scores: np.ndarray
    model: Scores
    rule: Scores
    agreement: float


def train_log_anomaly(run: TrainRun) -> Artifact:
    """Train one run; prints F1 and AP beside the keyword rule's.

    Raises:
        EncoderError, DataFileError, InputError, ArtifactCorruptError (resume)
    """
    from training.log_anomaly.spec import front_of, graph_of

    started = time.monotonic()
    arguments = run.arguments
    report = RowReport(strict=run.strict)
    corpus = load_corpus(run.data, report, run.seed, arguments.leave_out)
    say = print if run.rank == 0 else _silent
    say(f"log_anomaly: {_describe(corpus, report)}")
    seed_everything(run.seed)
    encoder = load_encoder(
        arguments.encoder,
        labels=GRADES,
        problem_type="single_label_classification",
        corpus=[*(row.text for row in corpus.train), *(m.chinese for m in corpus.messages)],
        report=run.rank == 0,
    )
    settings = TextFitSettings(
        max_tokens=arguments.max_tokens,
        epochs=arguments.epochs,
        draws_per_epoch=arguments.draws,
        learning_rate=arguments.learning_rate,
        gradient_accumulation=arguments.gradient_accumulation,
    )
    sampler = make_sampler(corpus.train, corpus.messages)
    losses = fit_text_classifier(run, encoder, sampler, settings)
    tokenizer = masked_tokenizer(run.path, settings.max_tokens)
    rows = distinct_rows(corpus.held_out_rows(), tokenizer)
    logits = predict_logits(
        encoder.network, tokenizer, [row.text for row in rows], progress=run.progress
    )
    verdict = judge(rows, logits, logits_of_twins(encoder.network, tokenizer, corpus.twins))
    split = "unseen vocabulary" if corpus.generated else "unseen vocabulary and signatures"
    say(f"log_anomaly: {describe(verdict, rows)}; {time.monotonic() - started:.0f} s")
    questions = golden_questions_of(corpus, verdict.scores, rows, run.seed)
    write_golden(run.path, golden_of(tokenizer, [*rows, *corpus.train], questions), questions)
    return finish_run(
        run.path,
        model=run.model,
        preset=run.preset,
        seed=run.seed,
        device=run.device,
        graph=graph_of(run.preset, settings.max_tokens),
        front=front_of(run.preset),
        labels=LABELS,
        thresholds={LABELS[0]: 1 - verdict.threshold, LABELS[1]: verdict.threshold},
        settings={
            "max_tokens": settings.max_tokens,
            "temperature": verdict.temperature,
            LABEL_CLASSES: CLASSES_OF_LABEL,
            "encoder": encoder.source,
            "new_characters": encoder.new_characters,
            "left_out": sorted(arguments.leave_out),
            "steps": settings.steps,
            "validation_rows": len(rows),
            "final_loss": float(np.mean(losses[-20:])),
        },
        data=corpus.files,
        quality=quality_of(verdict, len(rows), split),
    )


def distinct_rows(rows: Sequence[LogRow], tokenizer: MaskedTokenizer) -> list[LogRow]:
    """The rows whose masked text differs, first of each kept."""
    return list({tokenizer.mask(row.message): row for row in reversed(rows)}.values())[::-1]


def logits_of_twins(
    network: MeanPooledClassifier, tokenizer: MaskedTokenizer, twins: Sequence[Twins]
) -> list[np.ndarray]:
    """Logits of the English lines, then of their Chinese twins."""
    return [
        predict_logits(network, tokenizer, texts)
        for texts in ([pair.english for pair in twins], [pair.chinese for pair in twins])
    ]


def judge(rows: Sequence[LogRow], logits: np.ndarray, twins: Sequence[np.ndarray]) -> Verdict:
    """Calibrates on the rows and chooses the threshold; ``twins``: logits in both languages."""
    truth = np.array([row.anomaly for row in rows])
    grades = np.array([target_of(FAULT if row.anomaly else NO_FAULT) for row in rows])
    temperature = calibrate_temperature(logits, grades, multi_label=False)
    scores = fault_scores(logits, temperature)
    # What operators left untagged elsewhere may be as severe as what they tagged.
    near_normal = np.array([row.system in NEAR_NORMAL_SYSTEMS for row in rows])
    hard = np.array([row.system == VOCABULARY and not row.anomaly for row in rows])
    threshold = choose_threshold(
        scores,
        truth,
        ((near_normal, NEAR_NORMAL_FALSE_ALARMS), (hard, HARD_FALSE_ALARMS)),
    )
    english, chinese = (fault_scores(part, temperature) >= threshold for part in twins)
    rule = keyword_scores([row.text for row in rows])
    return Verdict(
        temperature,
        threshold,
        scores,
        evaluate(scores, truth, threshold),
        evaluate(rule, truth, 0.5),
        float((english == chinese).mean()) if len(english) else 1.0,
    )


def fault_scores(logits: np.ndarray, temperature: float) -> np.ndarray:
    """P(fault), float32 (rows,)."""
    return to_probabilities(logits, temperature, multi_label=False)[:, -1]


def describe(verdict: Verdict, rows: Sequence[LogRow]) -> str:
    """The figures of a run in one line."""
    model, rule = verdict.model, verdict.rule
    return (
        f"F1 {model.f1:.3f} (keyword rule {rule.f1:.3f}), "
        f"precision {model.precision:.3f} ({rule.precision:.3f}), "
        f"recall {model.recall:.3f} ({rule.recall:.3f}), "
        f"AP {model.average_precision:.3f} ({rule.average_precision:.3f}) on {len(rows)} rows "
        f"never seen, {sum(row.anomaly for row in rows)} abnormal; languages agree on "
        f"{verdict.agreement:.1%}; threshold {verdict.threshold:.2f}, "
        f"temperature {verdict.temperature:.2f}"
    )


def quality_of(verdict: Verdict, rows: int, split: str) -> list[Quality]:
    """The figures of a run for its manifest."""
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
            ("F1", verdict.model.f1, verdict.rule.f1),
            (
                "average precision",
                verdict.model.average_precision,
                verdict.rule.average_precision,
            ),
        )
    ]


def golden_questions_of(
    corpus: Corpus, scores: np.ndarray, rows: Sequence[LogRow], seed: int
) -> list[str]:
    """A clear fault, a normal line (real where there are any), then Chinese ones."""
    composer, generator = Composer(corpus.messages), np.random.default_rng([seed, 23])

    def composed(anomaly: bool, language: Language) -> str:
        grade: Grade = "fault" if anomaly else "routine"
        return composer.draw(generator, header_share=0.5, grade=grade, language=language).text

    picked: list[str] = []
    for anomaly in (True, False):
        side = [
            index
            for index, row in enumerate(rows)
            if row.anomaly == anomaly and row.system != VOCABULARY
        ]
        if side:
            best = max(side, key=lambda i: scores[i] if anomaly else -scores[i])
            picked.append(rows[best].text)
        else:
            picked.append(composed(anomaly, "en"))
    return [*picked, *(composed(flag, "zh") for flag in (True, False))]


def golden_of(
    tokenizer: MaskedTokenizer, rows: Sequence[LogRow], questions: Sequence[str]
) -> dict[str, np.ndarray]:
    """Golden rows of the graph: the questions, a line too long, rows from all over the data."""
    step = max(1, len(rows) // GOLDEN_ROWS)
    longest = max((row.text for row in rows), key=len)
    truncated = " ".join([longest] * (1 + tokenizer.max_tokens * 8 // max(1, len(longest))))
    texts = [*questions, truncated, *(row.text for row in rows[::step][:GOLDEN_ROWS])]
    return golden_rows(tokenizer, texts)


def _describe(corpus: Corpus, report: RowReport) -> str:
    own = f"{len(corpus.messages):,} messages of the vocabulary"
    if corpus.generated:
        return f"{own}; no labelled logs in the data"
    return f"{own}; {report.describe()} read, {len(corpus.train):,} distinct kept for training"


def _silent(*_: object) -> None:
    return None
