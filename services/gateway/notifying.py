"""A diagnosed alert as a notification of services/notify."""

from __future__ import annotations

import asyncio
import importlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from contract.errors import ConfigError
from services.gateway.alertmanager import DiagnosedAlert, Notifier, annotations_of

_LONGEST_NAME = 200
_LONGEST_LINK = 2_000


def make_notifier(config: Path | None) -> Notifier | None:
    """None without settings. Raises ConfigError."""
    if config is None:
        return None
    try:
        settings = importlib.import_module("services.notify.config")
        notifier = importlib.import_module("services.notify.notifier")
        notification = importlib.import_module("services.notify.notification")
    except ImportError as error:
        raise ConfigError(
            "notifications cannot be sent", where="PRESAGE_NOTIFY_CONFIG", got=str(error)
        ) from error
    told = notifier.Notifier(settings.load_notify_config(config))
    return _Told(told, notification.Notification)


class _Told:
    """services/notify keeps, routes, de-duplicates and repeats what it is given."""

    def __init__(self, notifier: Any, notification: Any) -> None:
        self._notifier = notifier
        self._notification = notification

    async def notify(self, alert: DiagnosedAlert) -> None:
        fields = notification_fields(alert)
        await asyncio.to_thread(self._notifier.notify, self._notification(**fields))

    def close(self) -> None:
        self._notifier.close()


def notification_fields(alert: DiagnosedAlert) -> dict[str, Any]:
    """One of a firing: the fingerprint and the root are its identity."""
    told = annotations_of(alert.diagnosis)
    root = told["presage_root_cause"]
    causes = [c for c in alert.diagnosis.causes if c.label == alert.diagnosis.root]
    return {
        "kind": "alert",
        "cause": root,
        "subject": (alert.subject or alert.alert)[:_LONGEST_NAME],
        "key": f"{alert.fingerprint}\n{root}" if alert.fingerprint else "",
        "node": alert.labels.get("node") or alert.labels.get("instance", ""),
        "user": alert.labels.get("user", ""),
        "created_at": time.time(),
        "summary": {"en": told["presage_summary"], "zh": told["presage_summary_zh"]},
        "action": causes[0].action if causes else {},
        "evidence": [
            f"{line.line_number}: {line.text.strip()}" for c in causes for line in c.evidence
        ],
        "link": plain_link(alert.generator_url),
    }


def plain_link(link: str) -> str:
    """The address with what could end it early in a message encoded; "" for what is none."""
    if not link.startswith(("http://", "https://")) or any(c.isspace() for c in link):
        return ""
    encoded = quote(link, safe="%/:?#@!$&*+,;=-._~{}|")
    return encoded if len(encoded) <= _LONGEST_LINK else ""
