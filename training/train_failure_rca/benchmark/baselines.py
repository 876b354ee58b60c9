"""TF-IDF of a log with one logistic regression a label, learnt and tuned on the model's logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.text.text_batch import MaskedTokenizer
from training.train_failure_rca.corpus.labels import LABELS
from training.train_failure_rca.data import JobLog, target_of
from training.train_failure_rca.evaluate import choose_thresholds, labels_above
from training.train_failure_rca.reading import read_lines
from training.train_failure_rca.windows import keep_lines

_TOKEN = r"[A-Za-z_]{2,}|[㐀-鿿]|<[a-z]+>|\b\d{1,3}\b"

Guess = Callable[[Sequence[JobLog]], list[frozenset[str]]]


def fit_tfidf(train: Sequence[JobLog], tune: Sequence[JobLog], tokenizer: MaskedTokenizer) -> Guess:
    """Learns from ``train``, chooses its thresholds on ``tune``, then guesses labels of others."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    def text_of(log: JobLog) -> str:
        """What the model reads of the log, masked as for the model."""
        kept = keep_lines(read_lines(log.text))
        return "\n".join(tokenizer.mask(one.line.text) for one in kept)

    model = make_pipeline(
        TfidfVectorizer(token_pattern=_TOKEN, ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        OneVsRestClassifier(LogisticRegression(C=10, max_iter=400, class_weight="balanced")),
    )
    targets = np.array([target_of(log.labels) for log in train], dtype=int)
    model.fit([text_of(log) for log in train], targets)

    def probabilities(logs: Sequence[JobLog]) -> np.ndarray:
        answer = np.asarray(model.predict_proba([text_of(log) for log in logs]))
        assert answer.shape[1] == len(LABELS)
        return answer

    thresholds = choose_thresholds(probabilities(tune), [log.labels for log in tune])
    return lambda logs: labels_above(probabilities(logs), thresholds)
