"""What the model must beat: a list of failure words, and TF-IDF with logistic regression."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

_WORDS = re.compile(
    r"error|fail|fatal|panic|exception|critical|abort|crash|corrupt|segfault|timed? ?out"
    r"|refused|denied|unable|cannot|killed|lost|错误|失败|异常|故障|超时|崩溃|拒绝|损坏",
    re.IGNORECASE,
)
# Words and, for Chinese, single characters.
_TOKEN = r"[a-z_]{2,}|[㐀-鿿]|<[a-z]+>|\b0\b"


def keyword_scores(texts: Sequence[str]) -> np.ndarray:
    """float32 (len(texts),): 1 where a word of failure is found."""
    return np.array([bool(_WORDS.search(text)) for text in texts], dtype=np.float32)


def fit_tfidf(masked: Sequence[str], anomaly: np.ndarray) -> Callable[[Sequence[str]], np.ndarray]:
    """Learns from masked texts (anomaly: bool (rows,)); the answer scores others by P(anomaly)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(token_pattern=_TOKEN, ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    model = make_pipeline(
        words, LogisticRegression(C=10, max_iter=1000, class_weight="balanced")
    ).fit(list(masked), anomaly)
    return lambda texts: np.asarray(model.predict_proba(list(texts))[:, 1])
