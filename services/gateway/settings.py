"""``GatewaySettings``: the web services' settings, and where models, metrics and logs are."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.web.settings import WebSettings


class GatewaySettings(WebSettings):
    """Each field is also the variable PRESAGE_<FIELD>.

    url: Triton. metrics_url: its /metrics, for live figures. repository: where versions lie, for
    hashes, quality and parity; left out where it is not on this machine. prometheus: servers that
    /v1/forecast/query may ask, by name. alert_log: where an alert's log is, with its labels in
    braces: ``/var/log/jobs/{job_id}.log`` or ``https://logs.example/{job_id}``. job_failure_url:
    the job-failure service. notify_config: settings of services/notify.
    """

    url: str = "grpc://127.0.0.1:9001"
    repository: Path = Path("model_repository")
    prometheus: dict[str, str] = Field(default_factory=dict)
    alert_log: str = ""
    alert_log_origins: tuple[str, ...] = ()
    alert_log_token_file: Path | None = None
    job_failure_url: str = ""
    job_failure_token_file: Path | None = None
    notify_config: Path | None = None
    calls_in_flight: int = Field(default=2, ge=1, le=64)
    batch_rows: int = Field(default=64, ge=1, le=1024)
    queue_rows: int = Field(default=4096, ge=512)
