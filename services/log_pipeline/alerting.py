"""``Alerting``: one alert a template to Alertmanager, however many lines a storm has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from contract.errors import ServerAnswerError, ServerUnavailableError

ALERT = "LogAnomaly"
OVERFLOW_ALERT = "LogAnomalyTemplatesOverflow"
RESEND_SECONDS = 60.0
RESOLVE_SECONDS = 300.0
_MOST_ALERTS = 50
"""At once; a model gone wrong must not flood the people on duty."""
_TIMEOUT_SECONDS = 10.0


class Alerting:
    """Told at most once in ``resend_seconds`` what is going on, with each template's last time.

    rows: of ``TemplateBook.top``; several sources of one template are one alert. An alert ends
    ``resolve_seconds`` after its last line.

    Raises (``tell``): ServerUnavailableError, ServerAnswerError.
    """

    name = "alertmanager"

    def __init__(
        self,
        url: str,
        *,
        severity: str = "warning",
        resend_seconds: float = RESEND_SECONDS,
        resolve_seconds: float = RESOLVE_SECONDS,
        clock: Callable[[], float],
    ) -> None:
        self.url = url.rstrip("/") + "/api/v2/alerts"
        self._severity = severity
        self._resend_seconds = resend_seconds
        self._resolve_seconds = resolve_seconds
        self._clock = clock
        self._told_at: dict[str, float] = {}
        self._http = httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def tell(self, rows: Sequence[dict[str, Any]]) -> int:
        """How many alerts were sent."""
        now = self._clock()
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["last_seen"] + self._resolve_seconds > now:
                groups.setdefault(row["id"], []).append(row)
        self._told_at = {
            template: told
            for template, told in self._told_at.items()
            if told + 2 * self._resolve_seconds > now
        }
        due = [
            template
            for template in groups
            if now - self._told_at.get(template, 0.0) >= self._resend_seconds
        ]
        alerts = [self._alert(template, groups[template]) for template in due[:_MOST_ALERTS]]
        if len(due) > _MOST_ALERTS:
            alerts.append(self._overflow(len(due), now))
        if alerts:
            self._post(alerts)
            self._told_at |= dict.fromkeys(due, now)
        return len(alerts)

    def _alert(self, template: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        count = sum(row["count"] for row in rows)
        sources = sorted({row["source"] for row in rows})
        shown = ", ".join(sources[:5]) + (f" (+{len(sources) - 5})" if len(sources) > 5 else "")
        first, last = min(r["first_seen"] for r in rows), max(r["last_seen"] for r in rows)
        newest = max(rows, key=lambda row: row["last_seen"])
        return {
            # Only what stays the same: a label that changes is another alert to Alertmanager.
            "labels": {"alertname": ALERT, "template": template, "severity": self._severity},
            "annotations": {
                "summary": f"{count:,} abnormal log lines of one template from {shown}",
                "summary_zh": f"来自 {shown} 的同一模板异常日志 {count:,} 行",
                "template": newest["template"],
                "example": newest["example"],
                "sources": shown,
                "count": str(count),
                "first_seen": _time(first),
                "last_seen": _time(last),
            },
            "startsAt": _time(first),
            "endsAt": _time(last + self._resolve_seconds),
        }

    def _overflow(self, count: int, now: float) -> dict[str, Any]:
        return {
            "labels": {"alertname": OVERFLOW_ALERT, "severity": self._severity},
            "annotations": {
                "summary": f"{count:,} abnormal templates at once; {_MOST_ALERTS} are shown. "
                "Look at them: python -m services log_pipeline top",
                "summary_zh": f"同时有 {count:,} 个异常模板，只列出 {_MOST_ALERTS} 个",
            },
            "startsAt": _time(now),
            "endsAt": _time(now + self._resolve_seconds),
        }

    def _post(self, alerts: list[dict[str, Any]]) -> None:
        try:
            answer = self._http.post(self.url, json=alerts)
        except httpx.HTTPError as error:
            raise ServerUnavailableError(
                "Alertmanager cannot be reached", where=self.url, got=str(error) or repr(error)
            ) from error
        if not answer.is_success:
            raise ServerAnswerError(
                "Alertmanager refuses the alerts",
                where=self.url,
                expected="200",
                got=f"{answer.status_code}: {answer.text[:200].strip()}",
            )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
