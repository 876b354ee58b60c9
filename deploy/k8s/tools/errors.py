"""The one tree of errors. Each class maps once to an exit code, an HTTP status and a metric label.

PresageError                      1  500  internal
├── InputError                    2  422  input
│   ├── SeriesError                        a metric series that cannot be forecast
│   ├── TextError                          a text that cannot be classified
│   ├── DataFileError                      a row or file of training data
│   ├── ConfigError                        a service's settings file
│   └── QueryError          2  422  query  a metric query that cannot be forecast
├── UnknownModelError             3  404  unknown_model
├── ArtifactError                 4  500  artifact
│   ├── ArtifactMissingError               nothing trained yet
│   ├── ArtifactCorruptError               unreadable or incomplete
│   ├── HashMismatchError                  a file is not the one the manifest names
│   └── LabelsMissingError                 a manifest without the labels its outputs need
├── EncoderError                  5  500  encoder
├── DataFetchError                6  502  data_fetch
├── ExportError                   7  500  export
│   ├── ParityError               8  500  parity
│   └── PublishError              9  500  publish
├── ServerError                  10  503  server
│   ├── ServerSetupError         11  500  server_setup     it cannot start here, and why
│   ├── ServerUnavailableError   12  503  unavailable      the only one worth a retry
│   ├── OverloadedError          13  429  overloaded
│   ├── DeadlineExceededError    14  504  deadline
│   └── ServerAnswerError        15  502  answer           not what the contract says
└── RequestRefusedError          16  400  refused          a web service takes no such request
"""

from __future__ import annotations

from typing import ClassVar


class PresageError(Exception):
    """Says what went wrong, where, what was expected, what was got, and the next command.

    Only ``what`` is required; the other parts are joined to one line in this order when given:
    ``what at where: expected …, got …; next``.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    metric_label: ClassVar[str] = "internal"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        next_command: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got
        self.next_command = next_command
        super().__init__(self._line())

    def _line(self) -> str:
        line = self.what if self.where is None else f"{self.what} at {self.where}"
        facts = [
            f"{word} {fact}"
            for word, fact in (("expected", self.expected), ("got", self.got))
            if fact is not None
        ]
        if facts:
            line += ": " + ", ".join(facts)
        if self.next_command is not None:
            line += f"; {self.next_command}"
        return line


class InputError(PresageError):
    exit_code = 2
    http_status = 422
    metric_label = "input"


class SeriesError(InputError):
    """A metric series that cannot be forecast (empty, infinite, wrong channels, not a number)."""


class TextError(InputError):
    """A text that cannot be classified (empty, not text)."""


class DataFileError(InputError):
    """A row or file of training data that cannot be read; ``where`` is ``file:line``."""


class ConfigError(InputError):
    """A settings file is unreadable, or a setting in it makes no sense; ``where`` names it."""


class QueryError(InputError):
    """A metric query that gives nothing to forecast; ``reason`` is its metric label."""

    metric_label = "query"

    def __init__(self, what: str, *, reason: str, **parts: str | None) -> None:
        self.reason = reason
        super().__init__(what, **parts)


class UnknownModelError(PresageError):
    exit_code = 3
    http_status = 404
    metric_label = "unknown_model"


class ArtifactError(PresageError):
    exit_code = 4
    metric_label = "artifact"


class ArtifactMissingError(ArtifactError):
    """No trained run is where one was expected."""


class ArtifactCorruptError(ArtifactError):
    """A run folder is incomplete, or a file in it cannot be read."""


class HashMismatchError(ArtifactError):
    """A file's sha256 is not the one its manifest or report is bound to."""


class LabelsMissingError(ArtifactError):
    """A manifest lacks labels or thresholds that the outputs need."""


class EncoderError(PresageError):
    exit_code = 5
    metric_label = "encoder"


class DataFetchError(PresageError):
    exit_code = 6
    http_status = 502
    metric_label = "data_fetch"


class ExportError(PresageError):
    exit_code = 7
    metric_label = "export"


class ParityError(ExportError):
    """The exported model does not decide as the PyTorch one."""

    exit_code = 8
    metric_label = "parity"


class PublishError(ExportError):
    """A version was refused or could not be written; the repository is as it was."""

    exit_code = 9
    metric_label = "publish"


class ServerError(PresageError):
    exit_code = 10
    http_status = 503
    metric_label = "server"


class ServerSetupError(ServerError):
    """The server cannot start on this machine; the message names the fix."""

    exit_code = 11
    http_status = 500
    metric_label = "server_setup"


class ServerUnavailableError(ServerError):
    """Nobody answered, or the server says UNAVAILABLE; retried with back-off by the clients."""

    exit_code = 12
    metric_label = "unavailable"


class OverloadedError(ServerError):
    """The server's queue is full."""

    exit_code = 13
    http_status = 429
    metric_label = "overloaded"


class DeadlineExceededError(ServerError):
    exit_code = 14
    http_status = 504
    metric_label = "deadline"


class ServerAnswerError(ServerError):
    """The server answered something that does not fit the contract."""

    exit_code = 15
    http_status = 502
    metric_label = "answer"


class RequestRefusedError(PresageError):
    """An HTTP request refused before a model sees it: no token, too large, too slow, too many.

    ``status`` (400–503) and ``reason`` (its metric label) are its own; ``retry_after_seconds``
    says when asking again makes sense.
    """

    exit_code = 16
    http_status = 400
    metric_label = "refused"

    def __init__(
        self,
        what: str,
        *,
        status: int,
        reason: str,
        retry_after_seconds: float | None = None,
        **parts: str | None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        super().__init__(what, **parts)
