"""Trains the root-cause classifier, calibrates it, chooses its thresholds, writes the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from contract.manifest import Quality
from training.artifact import Artifact, finish_run, write_golden
from training.data.row_report import RowReport
from training.loop import seed_everything
from training.run import TrainRun
from training.text.classifier import MeanPooledClassifier
from training.text.encoder import load_encoder
from training.text.masking import JOB_MASKS
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
from training.train_failure_rca.actions import load_actions
from training.train_failure_rca.corpus.labels import LABELS
from training.train_failure_rca.data import (
    REAL,
    JobLog,
    compose_job_logs,
    corpus_files,
    read_examples,
    read_seed_files,
    split_corpus,
    target_of,
)
from training.train_failure_rca.diagnosis import Reading, pool, read
from training.train_failure_rca.evaluate import (
    Figures,
    choose_thresholds,
    figures,
    labels_above,
)
from training.train_failure_rca.sampling import make_sampler
from training.train_failure_rca.signatures import labels_by_rule

TUNING_LOGS = 300
_GOLDEN_TEXTS = 96
_BATCH_SIZE = 16
# Of a real log against a composed one, where thresholds are chosen.
_REAL_WEIGHT = 4.0
_PRIOR_LOGIT = -2.5


def train_rca(run: TrainRun) -> Artifact:
    """Train one run; prints micro-F1 and the rest beside the regex rules'.

    Raises:
        EncoderError, DataFileError, ArtifactCorruptError (resume, actions)
    """
    from training.train_failure_rca.spec import front_of, graph_of

    arguments = run.arguments
    say = print if run.rank == 0 else _silent
    report = RowReport(strict=run.strict)
    split = split_corpus(run.seed, learn_all=arguments.learn_all)
    rows, row_files = read_seed_files(run.data, report)
    tests, test_files = read_examples(run.data)
    composed = compose_job_logs(split.train.catalogue, run.seed, arguments.logs)
    # What decides thresholds must not have been learnt, and does not judge.
    tuning = [
        *compose_job_logs(
            split.tune.catalogue, run.seed + 1, min(TUNING_LOGS, arguments.logs // 2)
        ),
        *split.tune.real,
    ]
    say(
        f"train_failure_rca: {len(composed):,} composed and {len(split.train.real)} real logs"
        f" of {len(split.train.names)} families ({len(split.tune.names)} held out to tune,"
        f" {len(split.test.names)} to judge)" + (f"; {report.describe()} read" if rows else "")
    )
    seed_everything(run.seed)
    encoder = load_encoder(
        arguments.encoder,
        labels=LABELS,
        problem_type="multi_label_classification",
        corpus=[log.text for log in (*composed, *split.train.real, *rows)],
        rules=JOB_MASKS,
        report=run.rank == 0,
    )
    settings = TextFitSettings(
        max_tokens=arguments.max_tokens,
        epochs=arguments.epochs,
        draws_per_epoch=arguments.draws,
        learning_rate=arguments.learning_rate,
        gradient_accumulation=arguments.gradient_accumulation,
        batch_size=_BATCH_SIZE,
    )
    # Most labels are absent from most windows: starting from that rate, not from 0.5, spares the
    # head a first collapse onto "nothing" that short training does not leave again.
    torch.nn.init.constant_(encoder.network.classifier.bias, _PRIOR_LOGIT)
    # The reader cuts by tokens, so it needs the tokenizer before training does.
    encoder.tokenizer.save_pretrained(run.path)
    tokenizer = masked_tokenizer(run.path, settings.max_tokens)
    progress = run.progress and run.rank == 0
    sampler = make_sampler(composed, split.train.real, rows, tokenizer, progress=progress)
    losses = fit_text_classifier(run, encoder, sampler, settings)

    tuning_readings = [read(log.text, tokenizer) for log in tuning]
    logits = log_logits(encoder.network, tokenizer, tuning_readings, progress=progress)
    targets = np.array([target_of(log.labels) for log in tuning], dtype=np.float32)
    temperature = calibrate_temperature(logits, targets, multi_label=True)
    probabilities = log_probabilities(logits, tuning_readings, temperature)
    weights = [_REAL_WEIGHT if log.origin == REAL else 1.0 for log in tuning]
    thresholds = choose_thresholds(probabilities, [log.labels for log in tuning], weights)
    quality = _quality(
        "families held out to tune, composed and real", tuning, probabilities, thresholds, say
    )
    for part, logs in (
        ("real logs of families held out to judge", split.test.real),
        ("examples", tests),
    ):
        if logs:
            readings = [read(log.text, tokenizer) for log in logs]
            rows_of = log_logits(encoder.network, tokenizer, readings, progress=progress)
            judged = log_probabilities(rows_of, readings, temperature)
            quality += _quality(part, logs, judged, thresholds, say)
    questions = _questions(tuning)
    texts = [*questions, *_golden_texts(tuning_readings)]
    write_golden(run.path, golden_rows(tokenizer, texts), questions)
    return finish_run(
        run.path,
        model=run.model,
        preset=run.preset,
        seed=run.seed,
        device=run.device,
        graph=graph_of(run.preset, settings.max_tokens),
        front=front_of(run.preset),
        labels=LABELS,
        thresholds=thresholds,
        settings={
            "max_tokens": settings.max_tokens,
            "temperature": temperature,
            "encoder": encoder.source,
            "new_characters": encoder.new_characters,
            "steps": settings.steps,
            "held_out_families": {"tune": split.tune.names, "test": split.test.names},
            "final_loss": float(np.mean(losses[-20:])),
            "actions": load_actions(),
        },
        data=[*corpus_files(), *row_files, *test_files],
        quality=quality,
    )


def log_logits(
    network: MeanPooledClassifier,
    tokenizer: MaskedTokenizer,
    readings: Sequence[Reading],
    *,
    progress: bool,
) -> np.ndarray:
    """float32 (logs, labels): of each log's windows the largest logit per label."""
    windows = [[window.text for window in reading.windows] for reading in readings]
    distinct = list(dict.fromkeys(text for texts in windows for text in texts))
    rows = predict_logits(network, tokenizer, distinct, progress=progress)
    at = {text: index for index, text in enumerate(distinct)}
    return np.stack([pool(rows[[at[text] for text in texts]]) for texts in windows])


def log_probabilities(
    logits: np.ndarray, readings: Sequence[Reading], temperature: float
) -> np.ndarray:
    """float32 (logs, labels), as the front answers."""
    rows = to_probabilities(logits, temperature, multi_label=True)
    return np.stack([reading.weigh(row) for reading, row in zip(readings, rows, strict=True)])


def _quality(
    split: str,
    logs: Sequence[JobLog],
    probabilities: np.ndarray,
    thresholds: dict[str, float],
    say: object,
) -> list[Quality]:
    truth = [log.labels for log in logs]
    model = figures(labels_above(probabilities, thresholds), truth)
    rules = figures([labels_by_rule(log.text) for log in logs], truth)
    if callable(say):
        say(f"train_failure_rca, {split} ({len(logs)} logs): {model.describe()}")
        say(f"  regex rules: {rules.describe()}")
    pairs: list[tuple[str, float, float]] = [
        ("micro-F1", model.micro_f1, rules.micro_f1),
        ("exact match", model.exact_match, rules.exact_match),
    ]
    return [_row(metric, value, baseline, model, split) for metric, value, baseline in pairs]


def _row(metric: str, value: float, baseline: float, model: Figures, split: str) -> Quality:
    return Quality(
        metric=metric,
        value=value,
        baseline="regex rules",
        baseline_value=baseline,
        higher_is_better=True,
        rows=model.logs,
        split=split,
    )


def _questions(tuning: Sequence[JobLog]) -> list[str]:
    """Logs of held-out families with a root, of several labels; then one without a cause."""
    picked: dict[str, str] = {}
    for log in tuning:
        for root in sorted(log.roots):
            picked.setdefault(root, log.text)
    healthy = next((log.text for log in tuning if not log.failed), "")
    wanted = ("GPU_Hardware_Fault", "CUDA_OutOfMemory", "Model_Code_Error", "Network_Timeout")
    return [picked[label] for label in wanted if label in picked] + ([healthy] if healthy else [])


def _golden_texts(readings: Sequence[Reading]) -> list[str]:
    texts = [window.text for reading in readings for window in reading.windows]
    step = max(1, len(texts) // _GOLDEN_TEXTS)
    return texts[::step][:_GOLDEN_TEXTS]


def _silent(*_: object) -> None:
    return None
