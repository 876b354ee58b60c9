"""``LineClassifier``: lines of a stream → answers, one question to the server per masked form.

A line is looked up by its ``Masker.key``; what is not found is masked, and looked up by its masked
text, which is all that the model ever sees; only a text that is not found there either is asked,
in the words of the line itself. So every line gets the answer it would get alone. Both memories
are empty again as soon as the server shows another version, run, threshold or masking.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from clients import LogVerdict
from contract.errors import ServerAnswerError
from services.log_pipeline.cache import BoundedLru
from services.log_pipeline.lines import MAXIMUM_LINE_BYTES
from services.log_pipeline.masking import Masker

_REFRESH_SECONDS = 5.0
"""How old an answer from memory may be after a swap that nothing else made visible."""
_QUESTIONS_AT_ONCE = 4096
_SWAPS_IN_A_ROW = 5


class Asker(Protocol):
    """What is needed of clients.LogAnomalyClient."""

    def describe(self) -> dict[str, Any]: ...
    def classify(self, texts: Any, *, on_error: str = ...) -> list[LogVerdict]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """All lines of one masked text. ``score`` is P(anomaly), NaN for what cannot be asked."""

    masked: str
    score: float
    is_anomaly: bool
    model_version: str = ""


BLANK = Form("", math.nan, False)
_NO_KEY = Form("", math.nan, False)
"""Under a key whose lines differ in their masked texts: each is looked up as it is."""


@dataclass(frozen=True)
class Answers:
    """``forms[codes[i]]`` is the answer to line ``i``; codes: int32 (lines,)."""

    codes: npt.NDArray[np.int32]
    forms: list[Form]

    def counts(self) -> npt.NDArray[np.int64]:
        """Lines of each form: int64 (forms,)."""
        return np.bincount(self.codes, minlength=len(self.forms))

    def anomalies(self) -> npt.NDArray[np.int64]:
        """Indexes of the lines that are anomalies, rising."""
        flags = np.array([form.is_anomaly for form in self.forms], dtype=bool)
        return np.flatnonzero(flags[self.codes]) if len(flags) else np.empty(0, np.int64)


@dataclass
class LookUps:
    """Lines so far, by what answered them."""

    lines: int = 0
    masked: int = 0
    asked: int = 0
    swaps: int = 0


class LineClassifier:
    """Not safe to share between threads; the client below it is.

    keys, forms: the most entries of the two memories; each is bounded in bytes as well.
    """

    def __init__(
        self,
        client: Asker,
        *,
        keys: int = 200_000,
        forms: int = 50_000,
        memory_bytes: int = 96 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._clock = clock
        self._by_key: BoundedLru[bytes, Form] = BoundedLru(keys, memory_bytes * 2 // 3)
        self._by_masked: BoundedLru[str, Form] = BoundedLru(forms, memory_bytes // 3)
        self._identity = ""
        self._version = ""
        self._seen_at = -math.inf
        self._masker: Masker | None = None
        self.look_ups = LookUps()
        self.threshold = math.nan

    @property
    def masker(self) -> Masker:
        """The served masking. Raises ServerError where nobody answers."""
        if self._masker is None:
            self.refresh()
        assert self._masker is not None
        return self._masker

    @property
    def entries(self) -> tuple[int, int]:
        """Remembered keys and masked texts."""
        return len(self._by_key), len(self._by_masked)

    def describe_model(self) -> str:
        """The version, run and threshold that answer, as one line of JSON."""
        if self._masker is None:
            self.refresh()
        version, run_id, thresholds, _ = json.loads(self._identity)
        return json.dumps({"version": version, "run_id": run_id, "thresholds": thresholds})

    def refresh(self) -> None:
        """Ask the server which version it serves, and forget everything if it is another.

        Raises:
            ServerError: nobody answers, or what answers is older than its clients.
        """
        manifest = self._client.describe()
        if "masking" not in manifest:
            raise ServerAnswerError(
                "log_anomaly: the served front does not tell its masking rules",
                expected="a version published by this release",
                got=f"version {manifest.get('model_version')}",
                next_command="publish again: python -m export log_anomaly",
            )
        told = (manifest.get(key) for key in ("model_version", "run_id", "thresholds", "masking"))
        identity = json.dumps(list(told), sort_keys=True)
        self._seen_at = self._clock()
        if identity == self._identity:
            return
        if self._identity:
            self.look_ups.swaps += 1
        self._by_key.clear()
        self._by_masked.clear()
        self._masker = Masker(manifest["masking"])
        self._identity = identity
        self._version = str(manifest["model_version"])
        self.threshold = float(manifest["thresholds"]["anomaly"])

    def classify(self, lines: Sequence[bytes], block: bytes | None = None) -> Answers:
        """One answer a line, in order; blank lines get BLANK.

        block: the same lines joined by newlines, if the caller has them so (saves joining them).

        Raises:
            ServerError: nobody answers what is new among the lines.
        """
        if not lines:
            return Answers(np.empty(0, np.int32), [])
        if self._clock() - self._seen_at > _REFRESH_SECONDS:
            self.refresh()
        joined = b"\n".join(lines) if block is None else block
        for _ in range(_SWAPS_IN_A_ROW):
            answers = self._classify(lines, joined)
            if answers is not None:
                self.look_ups.lines += len(lines)
                return answers
            # Another version answered meanwhile; nothing of two versions in one block.
            self.refresh()
        raise ServerAnswerError(
            "log_anomaly: the server's version does not settle",
            expected="one version for one block of lines",
            got=f"another one {_SWAPS_IN_A_ROW} times in a row",
        )

    def _classify(self, lines: Sequence[bytes], joined: bytes) -> Answers | None:
        keys = self.masker.key(joined).split(b"\n")
        # From the last to the first, so that each key ends with its first line.
        first = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
        known: dict[bytes, Form] = {}
        new: list[tuple[bytes, int]] = []
        for key, index in first.items():
            form = self._by_key.get(key)
            if form is None:
                new.append((key, index))
            else:
                known[key] = form
        # In the order of the lines: what is asked must not depend on how a dict was filled.
        new.sort(key=itemgetter(1))
        if new and not self._learn(new, lines, known):
            return None
        if _NO_KEY in known.values():
            keys = self._with_exact_keys(keys, lines, known)
            exact = [(key, i) for i, key in enumerate(keys) if key not in known]
            if not self._learn(exact, lines, known):
                return None
        forms = list(dict.fromkeys(known.values()))
        code_of_form = {form: code for code, form in enumerate(forms)}
        code_of_key = {key: code_of_form[form] for key, form in known.items()}
        codes = np.fromiter(map(code_of_key.__getitem__, keys), np.int32, len(keys))
        return Answers(codes, forms)

    def _with_exact_keys(
        self, keys: list[bytes], lines: Sequence[bytes], known: dict[bytes, Form]
    ) -> list[bytes]:
        """Keys that do not settle the masked text give way to the line itself."""
        exact = [
            b"\n" + line if known[key] is _NO_KEY else key
            for key, line in zip(keys, lines, strict=True)
        ]
        for key in set(exact).difference(known):
            form = self._by_key.get(key)
            if form is not None:
                known[key] = form
        return exact

    def _learn(
        self, new: list[tuple[bytes, int]], lines: Sequence[bytes], known: dict[bytes, Form]
    ) -> bool:
        """Add the forms of ``new`` keys to ``known``; False: a swap came between."""
        self.look_ups.masked += len(new)
        masked = self.masker.mask([lines[index] for _, index in new])
        forms: dict[str, Form] = {}
        questions: dict[str, bytes] = {}
        keyed = self.masker.is_keyed
        for (_, index), text in zip(new, masked, strict=True):
            if text in forms or text in questions:
                continue
            form = self._by_masked.get(text)
            if form is not None:
                forms[text] = form
            elif not _is_blank(lines[index]):
                questions[text] = lines[index][:MAXIMUM_LINE_BYTES]
        if questions and not self._ask(questions, forms):
            return False
        for (key, index), text in zip(new, masked, strict=True):
            # What masks to nothing may be blank, or a line of control characters, which is asked.
            form = BLANK if not text and _is_blank(lines[index]) else forms[text]
            if not keyed(text) and not key.startswith(b"\n"):
                form = _NO_KEY
            known[key] = form
            self._by_key.put(key, form)
        return True

    def _ask(self, questions: dict[str, bytes], forms: dict[str, Form]) -> bool:
        texts, raw = list(questions), list(questions.values())
        for start in range(0, len(raw), _QUESTIONS_AT_ONCE):
            part = slice(start, start + _QUESTIONS_AT_ONCE)
            verdicts = self._client.classify(raw[part])
            self.look_ups.asked += len(verdicts)
            for text, verdict in zip(texts[part], verdicts, strict=True):
                if verdict.model_version != self._version or not math.isclose(
                    verdict.threshold, self.threshold, rel_tol=1e-6
                ):
                    return False
                form = Form(text, verdict.score, verdict.label == "anomaly", verdict.model_version)
                forms[text] = form
                self._by_masked.put(text, form)
        return True


def _is_blank(line: bytes) -> bool:
    """As the server sees it: U+3000 is blank, and NUL is a space."""
    return not line.decode("utf-8", "replace").replace("\0", " ").strip()
