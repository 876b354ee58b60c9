"""The baseline that needs no model: a line with a word of failure is abnormal."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_WORDS = re.compile(
    r"error|fail|fatal|panic|exception|critical|abort|crash|corrupt|segfault|timed? ?out"
    r"|refused|denied|unable|cannot|killed|lost|错误|失败|异常|故障|超时|崩溃|拒绝|损坏",
    re.IGNORECASE,
)


def keyword_scores(texts: Sequence[str]) -> np.ndarray:
    """float32 (len(texts),): 1 where a word of failure is found."""
    return np.array([bool(_WORDS.search(text)) for text in texts], dtype=np.float32)
