"""/v1/alertmanager: Alertmanager's webhook in, diagnoses out, as notifications and annotations."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from clients import Diagnosis
from contract.errors import PresageError
from services.gateway import examples
from services.gateway.alert_logs import AlertLogs, FoundLog, subject_of
from services.gateway.answers import DiagnosisAnswer, diagnosis_row, json_response
from services.gateway.context import LARGE_BODY_BYTES, Gateway, exchange_of
from services.gateway.requests import check_body
from services.gateway.train_failure_rca import API
from services.web.body import JSON, parse_json, require_content_type

LARGEST_ALERTS = 200
"""Of one webhook; Alertmanager's max_alerts keeps below."""
_EVIDENCE_LINES = 3
_LONGEST_LINE = 300
_logger = logging.getLogger("presage.gateway")


@dataclass(frozen=True)
class DiagnosedAlert:
    """What a notification is made of. subject: the job or node that the alert is about."""

    alert: str
    subject: str
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    diagnosis: Diagnosis


class Notifier(Protocol):
    """Tells people; services/notify behind ``notifying.make_notifier``."""

    def notify(self, alert: DiagnosedAlert) -> Awaitable[None]: ...

    def close(self) -> None: ...


class _Alert(BaseModel):
    """As Alertmanager sends it; later versions may say more."""

    model_config = ConfigDict(extra="ignore", strict=True)

    status: Literal["firing", "resolved"] = "firing"
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    fingerprint: str = Field(default="", max_length=100)
    generatorURL: str = Field(default="", max_length=10_000)  # noqa: N815


class AlertmanagerWebhook(BaseModel):
    """Version 4 of the webhook's body; only the alerts are read."""

    model_config = ConfigDict(extra="ignore", strict=True)

    version: Literal["4"] = "4"
    alerts: Annotated[list[_Alert], Field(max_length=LARGEST_ALERTS)]


class AlertAnswer(BaseModel):
    fingerprint: str
    status: str
    subject: str
    log: Literal["annotation", "configured", "job_failure", "none"]
    annotations: dict[str, str] = Field(description="Ready to be put on the alert.")
    diagnosis: DiagnosisAnswer | None
    notified: bool
    reason: str = Field(description="Why there is no diagnosis.")


class AlertmanagerAnswer(BaseModel):
    alerts: list[AlertAnswer]


def add_alertmanager(gateway: Gateway, logs: AlertLogs, notifier: Notifier | None) -> None:
    """POST /v1/alertmanager."""
    receiver = _Receiver(gateway, logs, notifier)
    gateway.add(
        "/v1/alertmanager",
        receiver.receive,
        API,
        summary="Alertmanager's webhook: why did what is alerted about fail?",
        description="A firing alert's log is its annotation `log` (the text, or an address of an "
        "allowed origin), the file or address that the setting `alert_log` makes of its labels, or "
        "what the job-failure service knows. A model server that is away is answered 503, so that "
        "Alertmanager sends again.",
        **gateway.schemas.describe(
            body=AlertmanagerWebhook,
            body_examples=examples.ALERTMANAGER_BODIES,
            answer=AlertmanagerAnswer,
            answer_example=examples.ALERTMANAGER_ANSWER,
        ),
    )


class _Receiver:
    def __init__(self, gateway: Gateway, logs: AlertLogs, notifier: Notifier | None) -> None:
        self._asker = gateway.asker
        self._logs = logs
        self._notifier = notifier

    async def receive(self, request: Request) -> Response:
        require_content_type(request, JSON)
        webhook = check_body(AlertmanagerWebhook, parse_json(await request.body()))
        seconds = exchange_of(request).deadline_seconds
        return json_response(
            {"alerts": [await self._one(alert, seconds) for alert in webhook.alerts]}
        )

    async def _one(self, alert: _Alert, seconds: float) -> dict[str, Any]:
        told: dict[str, Any] = {
            "fingerprint": alert.fingerprint,
            "status": alert.status,
            "subject": subject_of(alert.labels)[1],
            "log": "none",
            "annotations": {},
            "diagnosis": None,
            "notified": False,
            "reason": "",
        }
        if alert.status == "resolved":
            return told | {"reason": "it is over"}
        found = await self._logs.find(alert.labels, alert.annotations)
        told["log"] = found.source
        if found.diagnosis is not None:
            # Whoever diagnosed it has told people too.
            return told | {
                "annotations": annotations_of(found.diagnosis),
                "diagnosis": diagnosis_row(found.diagnosis),
            }
        if found.source == "none":
            return told | {"reason": found.reason}
        diagnosis = await self._diagnose(found, seconds)
        if diagnosis.error is not None:
            return told | {"reason": diagnosis.error}
        return told | {
            "annotations": annotations_of(diagnosis),
            "diagnosis": diagnosis_row(diagnosis),
            "notified": await self._notify(alert, diagnosis),
        }

    async def _diagnose(self, found: FoundLog, seconds: float) -> Diagnosis:
        """Raises ServerError: the whole webhook is sent again then."""
        text = found.text.decode("utf-8", "replace")
        if len(text) > LARGE_BODY_BYTES:
            [diagnosis] = await self._asker.in_thread(
                lambda: self._asker.diagnose_large([text], None, seconds), seconds
            )
        else:
            [diagnosis] = await self._asker.diagnose([text], None, seconds)
        return diagnosis

    async def _notify(self, alert: _Alert, diagnosis: Diagnosis) -> bool:
        """Whether it was taken. A log without evidence of failure is nobody's news, and one
        notification that fails must not make Alertmanager repeat the others.
        """
        if self._notifier is None or not (diagnosis.causes or diagnosis.unknown):
            return False
        try:
            await self._notifier.notify(
                DiagnosedAlert(
                    alert=alert.labels.get("alertname", "alert"),
                    subject=subject_of(alert.labels)[1],
                    fingerprint=alert.fingerprint,
                    labels=dict(alert.labels),
                    annotations=dict(alert.annotations),
                    generator_url=alert.generatorURL,
                    diagnosis=diagnosis,
                )
            )
        except PresageError as error:
            _logger.warning("a notification was not taken: %s", error)
            return False
        return True


def annotations_of(diagnosis: Diagnosis) -> dict[str, str]:
    """Strings by name, as an alert's annotations are."""
    told = {"presage_model_version": diagnosis.model_version}
    if not diagnosis.causes:
        unknown = diagnosis.unknown
        return told | {
            "presage_root_cause": "unknown" if unknown else "none",
            "presage_summary": "Failed, cause unknown" if unknown else "No evidence of failure",
            "presage_summary_zh": "失败，原因未知" if unknown else "未见失败迹象",
        }
    root = next((c for c in diagnosis.causes if c.label == diagnosis.root), diagnosis.causes[0])
    others = [c.label for c in diagnosis.causes if c is not root]
    more = f"; also {', '.join(others)}" if others else ""
    more_zh = f"；次生：{', '.join(others)}" if others else ""
    return told | {
        "presage_root_cause": root.label,
        "presage_probability": f"{root.probability:.2f}",
        "presage_summary": f"{root.label} ({root.probability:.2f}){more}",
        "presage_summary_zh": f"根因 {root.label}（{root.probability:.2f}）{more_zh}",
        "presage_action": root.action.get("en", ""),
        "presage_action_zh": root.action.get("zh", ""),
        "presage_evidence": _evidence([(line.line_number, line.text) for line in root.evidence]),
    }


def _evidence(lines: Sequence[tuple[int, str]]) -> str:
    return "\n".join(
        f"{number}: {text.strip()[:_LONGEST_LINE]}" for number, text in lines[:_EVIDENCE_LINES]
    )
