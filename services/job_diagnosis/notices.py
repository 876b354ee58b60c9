"""``JobNotices``: what is told of a diagnosis, to whom, and the alert that gets a node cordoned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from clients.results import Cause
from contract.errors import ConfigError
from services.job_diagnosis.announcing import NoNotices, Notices
from services.job_diagnosis.culprit import HARDWARE_LABELS
from services.job_diagnosis.record import JobRecord
from services.notify.causes import UNKNOWN
from services.notify.escaping import plain
from services.notify.notification import LANGUAGES, Fact, Language, Notification

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from services.notify.notifier import Notifier

ALERT = "TrainingHardwareFault"
_MOST_EVIDENCE = 8
_LINES_OF_UNKNOWN = 12
_JOB = "{job_id}"
_UNKNOWN_ACTION: dict[Language, str] = {
    "zh": "没有已知原因与日志相符。请查看日志末尾；找到原因后请提交判定（verdict），"
    "模型下次训练会学到它。",
    "en": "No known cause fits. Read the end of the log; once you know the cause, send it as a "
    "verdict: the next training learns it.",
}


class NoticeSettings(BaseSettings):
    """Each field is also the variable PRESAGE_JOBS_<FIELD>.

    notify_config: the TOML file of channels; none: nobody is told
    job_url: where a job can be read, with {job_id} in it; goes into notifications
    """

    model_config = SettingsConfigDict(env_prefix="PRESAGE_JOBS_", frozen=True, extra="ignore")

    notify_config: Path | None = None
    job_url: str = Field(default="", pattern=r"^(https?://[^\s<>\"'()\[\]`]+)?$")


def make_notices(settings: NoticeSettings, registry: CollectorRegistry | None = None) -> Notices:
    """Raises ConfigError (which setting), ServerSetupError (the outbox). Close what it gives.

    registry: the service's own, where notifications are counted as well
    """
    if settings.notify_config is None:
        return NoNotices()
    from services.notify.config import load_notify_config
    from services.notify.notifier import Notifier
    from services.notify.telemetry import Telemetry

    if settings.job_url and _JOB not in settings.job_url:
        raise ConfigError(
            "every job would have the same page", where="job_url", expected=f"{_JOB} in it"
        )
    config = load_notify_config(settings.notify_config)
    return JobNotices(Notifier(config, telemetry=Telemetry(registry)), settings.job_url)


class JobNotices:
    """The root cause decides who is told; other causes are named beside it. A root cause that is
    hardware is also an alert, by node and device. What comes again is told once.

    Owns ``notifier``.
    """

    def __init__(self, notifier: Notifier, job_url: str = "") -> None:
        self._notifier = notifier
        self._job_url = job_url
        self._table = notifier.config.table()

    def announce(self, record: JobRecord) -> None:
        """Raises ServerUnavailableError: it is not safe on disk; announce it again."""
        told = self.notification(record)
        if told is None:
            return
        if told.cause in HARDWARE_LABELS and self._table.severity(told, "sre") != "none":
            key = f"{record.result_id}\n{told.cause}"
            labels, annotations = self.alert(record, told)
            self._notifier.raise_alert(labels, annotations, starts_at=told.created_at, key=key)
        self._notifier.notify(told)

    def close(self) -> None:
        self._notifier.close()

    def notification(self, record: JobRecord) -> Notification | None:
        """None: the log shows no failure."""
        root = next((cause for cause in record.causes if cause.label == record.root), None)
        if root is None and not record.unknown:
            return None
        return Notification(
            cause=UNKNOWN if root is None else root.label,
            subject=record.job_id,
            created_at=record.diagnosed_at.timestamp(),
            node=record.node or "",
            user=record.user or "",
            action=_UNKNOWN_ACTION if root is None else _known(root.action),
            evidence=_evidence(record, root),
            facts=tuple(_facts(record, root)),
            link=self._link(record.job_id),
        )

    def alert(self, record: JobRecord, told: Notification) -> tuple[dict[str, str], dict[str, str]]:
        """Labels and annotations. Labels are what stays the same, so that all jobs that one device
        killed are one alert, which ends ``hold_minutes`` after the last of them.
        """
        labels = {
            "alertname": ALERT,
            "cause": told.cause,
            "severity": self._table.severity(told, "sre"),
            "cluster": record.cluster,
            "node": record.node,
            "device": record.device,
        }
        place = " ".join(word for word in (record.node, record.device) if word)
        english, chinese = (self._table.name(told.cause, name) for name in ("en", "zh"))
        annotations = {
            "summary": f"{english} on {place or 'an unknown node'} killed job {record.job_id}",
            "summary_zh": f"{place or '未知节点'} {chinese}，导致作业 {record.job_id} 失败",
            "action": told.action.get("en", ""),
            "action_zh": told.action.get("zh", ""),
            "evidence": "\n".join(told.evidence),
            "job": record.job_id,
            "user": told.user,
            "model_version": record.model_version,
            "link": told.link,
        }
        return (
            {name: plain(value) for name, value in labels.items() if value},
            # Whoever shows an alert may read it as HTML or markdown: no tag, no mention in it.
            {
                name: "\n".join(plain(line) for line in value.split("\n"))
                for name, value in annotations.items()
                if value
            },
        )

    def _link(self, job_id: str) -> str:
        if not self._job_url:
            return ""
        try:
            link = self._job_url.replace(_JOB, quote(job_id, safe=""))
        except UnicodeEncodeError:
            logging.getLogger("presage.jobs").warning("a job id that no URL can hold")
            return ""
        return link if len(link) <= 2_000 else ""


def _facts(record: JobRecord, root: Cause | None) -> list[Fact]:
    others = [
        f"{cause.label} ({cause.probability:.2f})" for cause in record.causes if cause is not root
    ]
    values = [
        ("置信度", "probability", None if root is None else f"{root.probability:.2f}"),
        ("其他原因", "other causes", ", ".join(others)),
        ("设备", "device", record.device),
        ("集群", "cluster", record.cluster),
        ("模型版本", "model version", record.model_version),
    ]
    return [Fact(name={"zh": zh, "en": en}, value=value) for zh, en, value in values if value]


def _evidence(record: JobRecord, root: Cause | None) -> tuple[str, ...]:
    """Of an unknown failure the end of what is kept of its log."""
    if root is None:
        lines = [line for line in record.excerpt.splitlines() if line.strip()]
        return tuple(lines[-_LINES_OF_UNKNOWN:])
    return tuple(f"{line.line_number}: {line.text}" for line in root.evidence[:_MOST_EVIDENCE])


def _known(action: Mapping[str, str]) -> dict[Language, str]:
    return {language: action[language] for language in LANGUAGES if language in action}
