"""What the command needs before it loads anything heavy."""

from __future__ import annotations

from pathlib import Path

PORTS = {"metric_forecast": 8001, "log_anomaly": 8002, "train_failure_rca": 8003}
"""Of the seed, by API."""
RUN_FOLDER = Path("build/gateway")
