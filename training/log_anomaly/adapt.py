"""Corrections to a better model: a few labelled lines of a system, in less than a minute.

The parent's weights go on learning from the corrections, mixed with what they learnt before; the
threshold is chosen anew. The result is a run as any other: the export gate decides on it.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contract.manifest import DataFile, sha256_of
from training.artifact import Artifact, finish_run, write_golden
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.log_anomaly.corrections import (
    correcting_sampler,
    read_corrections,
    read_unlabelled,
)
from training.log_anomaly.data import Corpus, load_corpus, make_sampler
from training.log_anomaly.systems import LABELS, NO_FAULT, LogRow
from training.log_anomaly.train import (
    describe,
    distinct_rows,
    fault_scores,
    golden_of,
    judge,
    logits_of_twins,
    quality_of,
)
from training.loop import seed_everything
from training.run import TrainRun
from training.text.classifier import MeanPooledClassifier
from training.text.encoder import Encoder, load_tokenizer
from training.text.network import read_network
from training.text.text_batch import MaskedTokenizer
from training.text.trainer import (
    TextFitSettings,
    fit_text_classifier,
    masked_tokenizer,
    predict_logits,
)


def adapt_log_anomaly(parent: Artifact, run: TrainRun) -> Artifact:
    """Go on from ``parent`` with ``run.arguments.labels``; prints before and after.

    Raises:
        DataFileError: the labels cannot be read, or contradict each other.
    """
    started = time.monotonic()
    arguments = run.arguments
    tokenizer = _tokenizer_of(parent)
    corrections, remarks = read_corrections(
        arguments.labels, RowReport(strict=run.strict), tokenizer
    )
    print(f"log_anomaly: {arguments.labels}: {'; '.join(remarks)}", flush=True)
    unlabelled = (
        read_unlabelled(arguments.unlabelled, corrections, tokenizer)
        if arguments.unlabelled
        else []
    )
    corpus = load_corpus(
        run.data, RowReport(), run.seed, parent.manifest.settings.get("left_out", ())
    )
    texts = [row.text for row in corrections]
    before = right_share(
        corrections, predict_logits(read_network(parent.path), tokenizer, texts), parent
    )
    network = go_on(parent, run, corrections, unlabelled, corpus)
    rows = distinct_rows([*corpus.held_out_rows(), *corrections], tokenizer)
    logits = predict_logits(network, tokenizer, [row.text for row in rows])
    verdict = judge(rows, logits, logits_of_twins(network, tokenizer, corpus.twins))
    questions = [str(question) for question in parent.golden_questions()]
    write_golden(run.path, golden_of(tokenizer, [*corrections, *rows], questions), questions)
    artifact = finish_run(
        run.path,
        model=run.model,
        preset=run.preset,
        seed=run.seed,
        device=run.device,
        graph=parent.manifest.graph,
        front=parent.manifest.front,
        labels=LABELS,
        thresholds={LABELS[0]: 1 - verdict.threshold, LABELS[1]: verdict.threshold},
        settings={
            **parent.manifest.settings,
            "temperature": verdict.temperature,
            "adapted_from": parent.manifest.run_id,
            "corrections": len(corrections),
            "unlabelled": len(unlabelled),
            "validation_rows": len(rows),
        },
        data=[
            *parent.manifest.data,
            DataFile(
                path=arguments.labels.name,
                sha256=sha256_of(arguments.labels),
                rows=len(corrections),
                role="train",
            ),
        ],
        quality=quality_of(verdict, len(rows), "corrections, unseen vocabulary and signatures"),
    )
    after = right_share(corrections, predict_logits(network, tokenizer, texts), artifact)
    print(
        f"log_anomaly: corrections right {before:.0%} before, {after:.0%} now; "
        f"{describe(verdict, rows)}; {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return artifact


def go_on(
    parent: Artifact,
    run: TrainRun,
    corrections: Sequence[LogRow],
    unlabelled: Sequence[LogRow],
    corpus: Corpus,
) -> MeanPooledClassifier:
    """The parent's network, trained on; its weights and tokenizer lie in ``run.path`` after."""
    seed_everything(run.seed)
    settings = parent.manifest.settings
    network = read_network(parent.path)
    encoder = Encoder(
        network=network,
        tokenizer=load_tokenizer(parent.path),
        source=str(settings["encoder"]),
        new_characters=int(settings["new_characters"]),
        # A few lines cannot teach single characters: the whole table stays.
        known_tokens=int(network.config.vocab_size),
    )
    fit = TextFitSettings(
        max_tokens=int(settings["max_tokens"]),
        epochs=1,
        draws_per_epoch=run.arguments.steps * TextFitSettings.batch_size,
        learning_rate=run.arguments.learning_rate,
    )
    learnt = make_sampler(corpus.train, corpus.messages)
    fit_text_classifier(run, encoder, correcting_sampler(corrections, unlabelled, learnt), fit)
    return network


def adapted_scores(
    parent: Artifact,
    source: DataSource,
    corrections: Sequence[LogRow],
    unlabelled: Sequence[str],
    texts: Sequence[str],
    *,
    seed: int,
) -> np.ndarray:
    """P(fault) of ``texts`` after adapting to ``corrections``; nothing is kept."""
    from training.log_anomaly.spec import ADAPT_LEARNING_RATE, ADAPT_STEPS

    corpus = load_corpus(source, RowReport(), seed, parent.manifest.settings["left_out"])
    with tempfile.TemporaryDirectory() as folder:
        run = TrainRun(
            model=parent.manifest.model,
            preset=parent.manifest.preset,
            path=Path(folder),
            data=source,
            seed=seed,
            device="auto",
            arguments=Namespace(steps=ADAPT_STEPS, learning_rate=ADAPT_LEARNING_RATE),
            progress=False,
        )
        others = [LogRow(text, NO_FAULT, "unlabelled") for text in unlabelled]
        network = go_on(parent, run, corrections, others, corpus)
    temperature = float(parent.manifest.settings["temperature"])
    return fault_scores(predict_logits(network, _tokenizer_of(parent), texts), temperature)


def right_share(rows: Sequence[LogRow], logits: np.ndarray, artifact: Artifact) -> float:
    """The share of rows whose label a run's threshold gives."""
    scores = fault_scores(logits, float(artifact.manifest.settings["temperature"]))
    alarm = scores >= artifact.manifest.thresholds[LABELS[1]]
    return float((alarm == np.array([row.anomaly for row in rows])).mean())


def _tokenizer_of(artifact: Artifact) -> MaskedTokenizer:
    return masked_tokenizer(artifact.path, int(artifact.manifest.settings["max_tokens"]))
