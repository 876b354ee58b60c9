"""``JobSettings``: what the job-failure service can be told beside ``WebSettings``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_PORT = 8004


class JobSettings(BaseSettings):
    """Frozen; each field is also the variable PRESAGE_JOBS_<FIELD>.

    database_url: sqlite:///file or postgresql://…. spool: what is accepted and not done yet; its
    limit is of accepted logs, beyond it they are refused. answer_seconds: how long a request waits
    for its diagnosis before it is told to come back. files_below: folders whose files a reference
    may name. prometheus_url: where the script exporters' series are, for what happened on a job's
    node; node_events_seconds: how far back where nobody says when it began.
    retention_days: results with a verdict stay for good; 0 keeps all.
    """

    model_config = SettingsConfigDict(env_prefix="PRESAGE_JOBS_", frozen=True, extra="ignore")

    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    triton_url: str = "grpc://127.0.0.1:9001"
    triton_deadline_seconds: float = Field(default=120.0, gt=0)
    database_url: SecretStr = SecretStr("sqlite:///build/job_diagnosis/jobs.sqlite")
    spool: Path = Path("build/job_diagnosis/spool")
    spool_limit_bytes: int = Field(default=2 << 30, ge=1 << 20)
    answer_seconds: float = Field(default=20.0, gt=0)
    workers: int = Field(default=2, ge=1, le=32)
    large_logs: int = Field(default=2, ge=1, le=64)
    """Uploads of more than 4 MiB read at a time; further ones wait their turn."""
    files_below: tuple[Path, ...] = ()
    prometheus_url: str | None = Field(default=None, pattern=r"^https?://")
    prometheus_token_file: Path | None = None
    node_events_seconds: float = Field(default=1800.0, ge=60)
    retention_days: int = Field(default=180, ge=0)
