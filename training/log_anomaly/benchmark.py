"""``python -m training benchmark log_anomaly``: systems never seen, beside what must be beaten.

Each fold trains without some whole systems and is judged on them; what is known of the others is
judged on their late or held-out templates. A run that is already there is not trained again.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.artifact import Artifact, new_run_id
from training.data.row_report import RowReport
from training.data.source import DataSource, find_data
from training.log_anomaly.baselines import fit_tfidf, keyword_scores
from training.log_anomaly.data import Corpus, load_corpus, make_sampler
from training.log_anomaly.held_out import Ledger, Method, summary, system_rows, table
from training.log_anomaly.scores import average_precision, bootstrap_interval
from training.log_anomaly.systems import (
    BGL_TEMPLATES,
    GPU_NODES,
    LABELS,
    NEAR_NORMAL_SYSTEMS,
    SYSTEM_FILES,
    LogRow,
)
from training.log_anomaly.train import distinct_rows, fault_scores, train_log_anomaly
from training.run import TrainRun
from training.text.network import read_network
from training.text.text_batch import MaskedTokenizer
from training.text.trainer import masked_tokenizer, predict_logits

FOLDS: tuple[tuple[str, ...], ...] = (
    ("BGL", "BGL templates", "HDFS", "Proxifier"),
    ("GPU nodes", "OpenStack", "Spark"),
)
FOLDER = "benchmark"
METHODS = ("keywords", "TF-IDF", "model")
_COMPOSED_FOR_TFIDF = 6_000
_LABELLED_ANOMALIES, _LABELLED_NORMALS = 10, 15


@dataclass
class _Trained:
    """A run of one fold, ready to score."""

    artifact: Artifact
    corpus: Corpus
    tokenizer: MaskedTokenizer
    methods: list[Method]


def run_benchmark(arguments: Namespace) -> str:
    """The tables as Markdown. Raises DataFileError, InputError as training does."""
    source = find_data(arguments.data)
    unseen, known = Ledger(), Ledger()
    ranked: dict[str, list[float]] = {}
    languages: dict[str, list[float]] = {}
    few: dict[str, list[float]] = {}
    interval = ""
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        for fold in FOLDS:
            trained = _trained(arguments, source, seed, fold)
            systems = _read_systems(source, trained.tokenizer)
            for system, (rows, lines) in systems.items():
                if system in fold:
                    unseen.judge(system, rows, trained.methods, lines)
            for system in sorted({row.system for row in trained.corpus.validation}):
                own = [row for row in trained.corpus.validation if row.system == system]
                known.judge(system, distinct_rows(own, trained.tokenizer), trained.methods)
            _languages(trained, languages)
            if GPU_NODES in fold and GPU_NODES in systems:
                _kernel_against_normals(systems, trained.methods, ranked)
            if BGL_TEMPLATES in fold and BGL_TEMPLATES in systems:
                rows = systems[BGL_TEMPLATES][0]
                interval = interval or _interval(rows, trained.methods[-1])
                _adapt(arguments, source, trained, rows, seed, few)
    parts = [
        "Systems never seen (trained without them):",
        _table(unseen),
        f"{BGL_TEMPLATES}: 90% bootstrap interval of the first seed's AP {interval}"
        if interval
        else "",
        _by_line(unseen),
        "Known systems, templates never seen (late in the file, or held out by hash):",
        _table(known),
        f"AP of {GPU_NODES}' faults against all other systems' normals: {summary(ranked)}"
        if ranked
        else "",
        f"Held-out vocabulary, English and Chinese: {summary(languages)}",
        f"{_LABELLED_ANOMALIES}+{_LABELLED_NORMALS} labelled lines of {BGL_TEMPLATES}, AP on the"
        f" rest: {summary(few)}"
        if few
        else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _by_line(ledger: Ledger) -> str:
    """False alarms over all lines of the near-normal systems, as an operator would count them."""
    shown = []
    for system in ledger.systems:
        if system in NEAR_NORMAL_SYSTEMS:
            rule, _, model = (
                ledger.figures[system, method].show("false alarms by line", percent=True)
                for method in METHODS
            )
            shown.append(f"{system} {model} (keywords {rule})")
    return f"False alarms by line: {', '.join(shown)}" if shown else ""


def _table(ledger: Ledger) -> str:
    head = ["system", "rows (alerts)"]
    head += [f"{name} {method}" for name in ("AP", "F1", "false alarms") for method in METHODS]
    head.append(f"recall {METHODS[-1]}")
    return table(head, system_rows(ledger, METHODS))


def _trained(arguments: Namespace, source: DataSource, seed: int, fold: Sequence[str]) -> _Trained:
    artifact = _finished(arguments.artifacts / FOLDER, seed, fold, source) or _train(
        arguments, source, seed, fold
    )
    tokenizer = masked_tokenizer(artifact.path, int(artifact.manifest.settings["max_tokens"]))
    corpus = load_corpus(source, RowReport(), seed, fold)
    return _Trained(artifact, corpus, tokenizer, _methods(artifact, corpus, tokenizer, seed))


def _finished(root: Path, seed: int, fold: Sequence[str], source: DataSource) -> Artifact | None:
    """A run of this seed, fold, data and vocabulary, if there is one."""
    files = tuple(load_corpus(source, RowReport(), seed, fold).files)
    for path in sorted((root / "log_anomaly").glob("line-*"), reverse=True):
        if not (path / "manifest.json").is_file():
            continue
        artifact = Artifact.load(path)
        same = (artifact.manifest.seed, artifact.manifest.data) == (seed, files)
        if same and "adapted_from" not in artifact.manifest.settings:
            return artifact
    return None


def _train(arguments: Namespace, source: DataSource, seed: int, fold: Sequence[str]) -> Artifact:
    from training.log_anomaly.spec import add_train_arguments

    parser = ArgumentParser()
    add_train_arguments(parser)
    path = arguments.artifacts / FOLDER / "log_anomaly" / new_run_id("line", seed)
    path.mkdir(parents=True)
    return train_log_anomaly(
        TrainRun(
            model="log_anomaly",
            preset="line",
            path=path,
            data=source,
            seed=seed,
            device=arguments.device,
            arguments=parser.parse_args(["--leave-out", *fold]),
            progress=not arguments.quiet,
            checkpoint_folder=path,
        )
    )


def _methods(
    artifact: Artifact, corpus: Corpus, tokenizer: MaskedTokenizer, seed: int
) -> list[Method]:
    """The keyword rule, TF-IDF on the same rows, and the model."""
    composed = make_sampler([], corpus.messages)(
        np.random.default_rng([seed, 31]), _COMPOSED_FOR_TFIDF
    )
    texts = [row.text for row in corpus.train] + [example.text for example in composed]
    truth = [row.anomaly for row in corpus.train] + [x.target == (0, 0, 1) for x in composed]
    tfidf = fit_tfidf([tokenizer.mask(text).lower() for text in texts], np.array(truth))
    network = read_network(artifact.path)
    temperature = float(artifact.manifest.settings["temperature"])
    return [
        Method(METHODS[0], keyword_scores, 0.5),
        Method(METHODS[1], lambda t: tfidf([tokenizer.mask(text).lower() for text in t]), 0.5),
        Method(
            METHODS[2],
            lambda t: fault_scores(predict_logits(network, tokenizer, t), temperature),
            artifact.manifest.thresholds[LABELS[1]],
        ),
    ]


def _read_systems(
    source: DataSource, tokenizer: MaskedTokenizer
) -> dict[str, tuple[list[LogRow], list[int]]]:
    """Per system: rows distinct by masked message, and how many lines each stands for."""
    if source.root is None or source.origin == "file":
        return {}
    found = {}
    for file in SYSTEM_FILES:
        path = source.root / "logs" / file.path
        if path.is_file():
            rows = file.read(path, RowReport())
            lines = Counter(tokenizer.mask(row.message) for row in rows)
            kept = distinct_rows(rows, tokenizer)
            found[file.system] = (kept, [lines[tokenizer.mask(row.message)] for row in kept])
    return found


def _languages(trained: _Trained, figures: dict[str, list[float]]) -> None:
    model = trained.methods[-1]
    twins = trained.corpus.twins
    truth = np.array([pair.grade == "fault" for pair in twins])
    english = model.score([pair.english for pair in twins])
    chinese = model.score([pair.chinese for pair in twins])
    alike = (english >= model.threshold) == (chinese >= model.threshold)
    figures.setdefault("AP English", []).append(average_precision(english, truth))
    figures.setdefault("AP Chinese", []).append(average_precision(chinese, truth))
    figures.setdefault("agreement", []).append(float(alike.mean()))


def _kernel_against_normals(
    systems: dict[str, tuple[list[LogRow], list[int]]],
    methods: Sequence[Method],
    figures: dict[str, list[float]],
) -> None:
    rows = [
        row
        for system, (own, _) in systems.items()
        for row in own
        if system == GPU_NODES or not row.anomaly
    ]
    truth = np.array([row.anomaly for row in rows])
    texts = [row.text for row in rows]
    for method in methods:
        figures.setdefault(method.name, []).append(average_precision(method.score(texts), truth))


def _interval(rows: Sequence[LogRow], model: Method) -> str:
    truth = np.array([row.anomaly for row in rows])
    low, high = bootstrap_interval(model.score([row.text for row in rows]), truth)
    return f"{low:.2f}–{high:.2f}"


def _adapt(
    arguments: Namespace,
    source: DataSource,
    trained: _Trained,
    rows: Sequence[LogRow],
    seed: int,
    figures: dict[str, list[float]],
) -> None:
    """Adapt with labelled lines of an unseen system and score the rest of it."""
    from training.log_anomaly.adapt import adapted_scores

    truth = np.array([row.anomaly for row in rows])
    texts = [row.text for row in rows]
    before = trained.methods[-1].score(texts)
    for draw in range(arguments.adaptations):
        generator = np.random.default_rng([seed, draw, 41])
        labelled = np.concatenate(
            [
                generator.permutation(np.flatnonzero(truth))[:_LABELLED_ANOMALIES],
                generator.permutation(np.flatnonzero(~truth))[:_LABELLED_NORMALS],
            ]
        )
        rest = np.setdiff1d(np.arange(len(rows)), labelled)
        corrections = [rows[index] for index in labelled]
        figures.setdefault("before", []).append(average_precision(before[rest], truth[rest]))
        for name, others in (("labels alone", []), ("with the rest unlabelled", rest)):
            scores = adapted_scores(
                trained.artifact,
                source,
                corrections,
                [texts[index] for index in others],
                [texts[index] for index in rest],
                seed=seed,
            )
            figures.setdefault(name, []).append(average_precision(scores, truth[rest]))
