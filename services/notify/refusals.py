"""Services that refuse with HTTP 200. apprise looks at the status alone, and would lose a message.

DingTalk and WeCom answer 200 with an ``errcode`` that is not 0 (too fast, a keyword missing, a
signature wrong), Lark with a ``code``. Their plugins get a ``requests`` whose answer then carries
a status that says so.
"""

from __future__ import annotations

import importlib
from typing import Any

_CODES = {"dingtalk": "errcode", "wecombot": "errcode", "lark": "code"}
_TOO_FAST = {130101, 45009, 410100, 9499, 11232}
"""DingTalk, WeCom, DingTalk again, Lark twice: come again later."""


class _Requests:
    """``requests``, but for ``post``."""

    def __init__(self, requests: Any, field: str) -> None:
        self._requests = requests
        self._field = field

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)

    def post(self, *arguments: Any, **options: Any) -> Any:
        answer = self._requests.post(*arguments, **options)
        if answer.status_code == 200:
            try:
                code = answer.json().get(self._field, 0)
            except (ValueError, AttributeError):
                code = 0
            if code not in (0, "0", None):
                answer.status_code = 429 if code in _TOO_FAST else 422
        return answer


def see_refusals(schema: str) -> None:
    """Before the first message to a channel of ``schema``. Idempotent."""
    field = _CODES.get(schema)
    if field is None:
        return
    module: Any = importlib.import_module(f"apprise.plugins.{schema}")
    if not isinstance(module.requests, _Requests):
        module.requests = _Requests(module.requests, field)
