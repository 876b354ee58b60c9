"""Corrections to a better model: a few labelled lines of a system, in less than a minute.

The parent's weights go on learning from the corrections, mixed with what they learnt before; the
threshold is chosen anew. The result is a run as any other: the export gate decides on it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from contract.manifest import DataFile, sha256_of
from training.artifact import Artifact, finish_run, write_golden
from training.data.row_report import RowReport
from training.log_anomaly.corrections import (
    correcting_sampler,
    read_corrections,
    read_unlabelled,
)
from training.log_anomaly.data import load_corpus, make_sampler
from training.log_anomaly.systems import LABELS, LogRow
from training.log_anomaly.train import (
    describe,
    distinct_rows,
    fault_scores,
    golden_of,
    judge,
    quality_of,
)
from training.loop import seed_everything
from training.run import TrainRun
from training.text.encoder import Encoder, load_tokenizer
from training.text.network import read_network
from training.text.text_batch import MaskedTokenizer
from training.text.trainer import (
    TextFitSettings,
    fit_text_classifier,
    masked_tokenizer,
    predict_logits,
)

_TOKENIZER_FILE = "tokenizer.json"


def adapt_log_anomaly(parent: Artifact, run: TrainRun) -> Artifact:
    """Go on from ``parent`` with ``run.arguments.labels``; prints before and after.

    Raises:
        DataFileError: the labels cannot be read, or contradict each other.
    """
    started = time.monotonic()
    arguments = run.arguments
    max_tokens = int(parent.manifest.settings["max_tokens"])
    before_tokenizer = MaskedTokenizer(parent.path / _TOKENIZER_FILE, max_tokens=max_tokens)
    corrections, remarks = read_corrections(
        arguments.labels, RowReport(strict=run.strict), before_tokenizer
    )
    print(f"log_anomaly: {arguments.labels}: {'; '.join(remarks)}", flush=True)
    unlabelled = (
        read_unlabelled(arguments.unlabelled, corrections, before_tokenizer)
        if arguments.unlabelled
        else []
    )
    corpus = load_corpus(
        run.data, RowReport(), run.seed, parent.manifest.settings.get("left_out", ())
    )
    seed_everything(run.seed)
    network = read_network(parent.path)
    logits = predict_logits(network, before_tokenizer, texts_of(corrections))
    before = right_share(corrections, logits, parent)
    encoder = Encoder(
        network=network,
        tokenizer=load_tokenizer(parent.path),
        source=str(parent.manifest.settings["encoder"]),
        new_characters=int(parent.manifest.settings.get("new_characters", 0)),
        # A few lines cannot teach single characters: the table stays.
        known_tokens=network.get_input_embeddings().num_embeddings,
    )
    settings = TextFitSettings(
        max_tokens=max_tokens,
        epochs=1,
        draws_per_epoch=arguments.steps * TextFitSettings.batch_size,
        learning_rate=arguments.learning_rate,
    )
    learnt = make_sampler(corpus.train, corpus.messages)
    fit_text_classifier(run, encoder, correcting_sampler(corrections, unlabelled, learnt), settings)
    tokenizer = masked_tokenizer(run.path, max_tokens)
    rows = distinct_rows([*corpus.held_out_rows(), *corrections], tokenizer)
    logits = predict_logits(network, tokenizer, texts_of(rows))
    twins = [
        predict_logits(network, tokenizer, texts)
        for texts in (
            [pair.english for pair in corpus.twins],
            [pair.chinese for pair in corpus.twins],
        )
    ]
    verdict = judge(rows, logits, twins)
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
    logits = predict_logits(network, tokenizer, texts_of(corrections))
    after = right_share(corrections, logits, artifact)
    print(
        f"log_anomaly: corrections right {before:.0%} before, {after:.0%} now; "
        f"{describe(verdict, rows)}; {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return artifact


def texts_of(rows: Sequence[LogRow]) -> list[str]:
    return [row.text for row in rows]


def right_share(rows: Sequence[LogRow], logits: np.ndarray, artifact: Artifact) -> float:
    """The share of rows whose label a run's threshold gives."""
    scores = fault_scores(logits, float(artifact.manifest.settings["temperature"]))
    alarm = scores >= artifact.manifest.thresholds[LABELS[1]]
    return float((alarm == np.array([row.anomaly for row in rows])).mean())
