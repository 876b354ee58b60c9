"""Thin clients of the served models.

    from clients import MetricForecastClient

    with MetricForecastClient() as client:
        forecast = client.forecast([values], step_seconds=300)

Labels, units, context lengths and thresholds come from the server. No torch, no training code.
"""

from clients.diagnose import AsyncTrainFailureRCAClient, TrainFailureRCAClient
from clients.forecast import AsyncMetricForecastClient, MetricForecastClient
from clients.logs import AsyncLogAnomalyClient, LogAnomalyClient
from clients.policy import CallPolicy
from clients.results import Cause, Diagnosis, EvidenceLine, Forecast, LogVerdict
from clients.server import AsyncServerClient, ModelState, ModelStatistics, ServerClient

__all__ = [
    "AsyncLogAnomalyClient",
    "AsyncMetricForecastClient",
    "AsyncServerClient",
    "AsyncTrainFailureRCAClient",
    "CallPolicy",
    "Cause",
    "Diagnosis",
    "EvidenceLine",
    "Forecast",
    "LogAnomalyClient",
    "LogVerdict",
    "MetricForecastClient",
    "ModelState",
    "ModelStatistics",
    "ServerClient",
    "TrainFailureRCAClient",
]
