"""``LoadPlan``: one run as its processes are told it, by a JSON file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from loadtest.load.shapes import Process, Stage

Channel = Literal["gRPC", "HTTP", "gateway"]
PLAN_VARIABLE = "PRESAGE_LOADTEST_PLAN"
# The gateway's /predict: which model answers, and the request's field.
GATEWAY_MODELS = {
    "metric_forecast_next": ("metric_forecast", "series"),
    "log_anomaly": ("log_anomaly", "text"),
    "train_failure_rca": ("train_failure_rca", "text"),
}


@dataclass(frozen=True)
class Flow:
    """One model asked one way. ``rows``: of one request. ``rate_per_second``: requests at ×1."""

    model: str
    channel: Channel
    rate_per_second: float
    rows: int = 1

    @property
    def title(self) -> str:
        return f"{self.model} {self.channel}"


@dataclass(frozen=True)
class LoadPlan:
    """Addresses are host:port; ``gateway_ports`` by API, empty where no gateway runs.

    senders: of each flow at most that many requests are on their way (open loop), or users ask
    in a circle (closed loop)
    break_milliseconds: p99 above which a ramp ends; 0: none
    pool_rows: that many complete rows in turn, as another client can ask them, too
    """

    grpc_address: str
    http_address: str
    gateway_ports: dict[str, int]
    repository: str
    artifacts: str
    flows: tuple[Flow, ...]
    stages: tuple[Stage, ...]
    loop: Literal["open", "closed"]
    folder: str
    shape: str = "constant"
    process: Process = "poisson"
    senders: int = 32
    give_up_seconds: float = 10.0
    deadline_seconds: float = 30.0
    fresh: bool = False
    seed: int = 0
    data: str | None = None
    break_milliseconds: float = 0.0
    pool_rows: int | None = None

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def file(self) -> Path:
        return Path(self.folder, "plan.json")

    @property
    def answers_file(self) -> Path:
        """Payloads with eager's answers."""
        return Path(self.folder, "answers.pickle")

    @property
    def records_file(self) -> Path:
        return Path(self.folder, "records.npz")

    @property
    def summary_file(self) -> Path:
        return Path(self.folder, "summary.json")

    def rows_of(self, model: str) -> int:
        """Rows that the run will ask of a model, for an open loop."""
        factor_seconds = sum(stage.seconds * stage.factor for stage in self.stages)
        return int(
            sum(
                flow.rate_per_second * factor_seconds * flow.rows
                for flow in self.flows
                if flow.model == model
            )
        )

    def write(self) -> Path:
        self.file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        return self.file

    @classmethod
    def read(cls, path: Path) -> LoadPlan:
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored["flows"] = tuple(Flow(**flow) for flow in stored["flows"])
        stored["stages"] = tuple(Stage(**stage) for stage in stored["stages"])
        return cls(**stored)

    @classmethod
    def of_environment(cls) -> LoadPlan:
        return cls.read(Path(os.environ[PLAN_VARIABLE]))
