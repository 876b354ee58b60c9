"""``Alerting``: one alert a template to Alertmanager, however many lines a storm has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from contract.errors import ServerError
from services.alertmanager import Alertmanager, alert, rfc3339

ALERT = "LogAnomaly"
OVERFLOW_ALERT = "LogAnomalyTemplatesOverflow"
RESEND_SECONDS = 60.0
RESOLVE_SECONDS = 300.0
_MOST_ALERTS = 50
"""At once; a model gone wrong must not flood the people on duty."""
_TIMEOUT_SECONDS = 3.0
_FIRST_HOLD_SECONDS = 2.0
_LONGEST_HOLD_SECONDS = 30.0
"""Lines are not delivered while Alertmanager is waited for: where it is away, that is seldom."""


class Alerting:
    """Told at most once in ``resend_seconds`` what is going on, with each template's last time.

    rows: of ``TemplateBook.top``; several sources of one template are one alert. An alert ends
    ``resolve_seconds`` after its last line.

    Raises (``tell``): ServerUnavailableError, ServerAnswerError.
    """

    name = Alertmanager.name

    def __init__(
        self,
        url: str,
        *,
        severity: str = "warning",
        resend_seconds: float = RESEND_SECONDS,
        resolve_seconds: float = RESOLVE_SECONDS,
        clock: Callable[[], float],
    ) -> None:
        self._alertmanager = Alertmanager(url, _TIMEOUT_SECONDS)
        self._severity = severity
        self._resend_seconds = resend_seconds
        self._resolve_seconds = resolve_seconds
        self._clock = clock
        self._told_at: dict[str, float] = {}
        self._hold_seconds = 0.0
        self._held_until = 0.0

    def close(self) -> None:
        self._alertmanager.close()

    def tell(self, rows: Sequence[dict[str, Any]]) -> int:
        """How many alerts were sent; none for a while after a failure."""
        now = self._clock()
        if now < self._held_until:
            return 0
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

    def _post(self, alerts: Sequence[dict[str, Any]]) -> None:
        try:
            self._alertmanager.post(alerts)
        except ServerError:
            self._hold_seconds = min(
                max(_FIRST_HOLD_SECONDS, 2 * self._hold_seconds), _LONGEST_HOLD_SECONDS
            )
            self._held_until = self._clock() + self._hold_seconds
            raise
        self._hold_seconds = 0.0

    def _alert(self, template: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        count = sum(row["count"] for row in rows)
        sources = sorted({row["source"] for row in rows})
        shown = ", ".join(sources[:5]) + (f" (+{len(sources) - 5})" if len(sources) > 5 else "")
        first, last = min(r["first_seen"] for r in rows), max(r["last_seen"] for r in rows)
        newest = max(rows, key=lambda row: row["last_seen"])
        return alert(
            {"alertname": ALERT, "template": template, "severity": self._severity},
            {
                "summary": f"{count:,} abnormal log lines of one template from {shown}",
                "summary_zh": f"来自 {shown} 的同一模板异常日志 {count:,} 行",
                "template": newest["template"],
                "example": newest["example"],
                "sources": shown,
                "count": str(count),
                "first_seen": rfc3339(first),
                "last_seen": rfc3339(last),
            },
            starts_at=first,
            ends_at=last + self._resolve_seconds,
        )

    def _overflow(self, count: int, now: float) -> dict[str, Any]:
        return alert(
            {"alertname": OVERFLOW_ALERT, "severity": self._severity},
            {
                "summary": f"{count:,} abnormal templates at once; {_MOST_ALERTS} are shown. "
                "Look at them: python -m services log_pipeline top",
                "summary_zh": f"同时有 {count:,} 个异常模板，只列出 {_MOST_ALERTS} 个",
            },
            starts_at=now,
            ends_at=now + self._resolve_seconds,
        )
