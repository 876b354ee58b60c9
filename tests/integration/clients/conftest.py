"""Stand-ins of the served models: the contract's tensors, with answers a test can foresee."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from tests.fixtures.stand_in_forecaster import write_forecaster

FRONT_CONFIG = """backend: "python"
max_batch_size: {rows}
input [{{name: "text" data_type: TYPE_STRING dims: [1]}}{more_inputs}]
output [{outputs}]
instance_group [{{count: {instances} kind: KIND_CPU}}]
dynamic_batching {{ default_queue_policy {{ max_queue_size: {queue} }} }}
"""

LOG_FRONT = '''"""Stand-in for log_anomaly, no model: a line's score is its first number / 100,000.

"wait N s" makes the request last N seconds.
"""

import json
import re
import time

import numpy as np
import triton_python_backend_utils as pb_utils

MANIFEST = json.dumps({"labels": ["normal", "anomaly"], "thresholds": {"anomaly": 0.05}})


def column(values, kind):
    return np.array(list(values), dtype=kind).reshape(-1, 1)


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        for text in texts:
            if wait := re.search(rb"wait ([0-9.]+) s", text):
                time.sleep(float(wait[1]))
        found = [re.search(rb"[0-9]+", text) for text in texts]
        scores = [int(number[0]) / 100_000 if number else 0.0 for number in found]
        outputs = {
            "label": column([b"anomaly" if s >= 0.05 else b"normal" for s in scores], object),
            "score": column(scores, np.float32),
            "threshold": column([0.05] * len(texts), np.float32),
            "manifest": column([MANIFEST.encode()] * len(texts), object),
        }
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, outputs[name]) for name in request.requested_output_names()]
        )
'''

RCA_FRONT = '''"""Stand-in for train_failure_rca, no model: a line with OOM or ENOSPC is evidence.

"wait N s" makes the request last N seconds; a log with "refuse me" is refused as a bad one.
"""

import json
import re
import time

import numpy as np
import triton_python_backend_utils as pb_utils

LABELS = {"OOM": b"OOM", "Disk_Full": b"ENOSPC"}
MANIFEST = json.dumps({"labels": list(LABELS)})
ACTION = {"zh": "减小批量", "en": "use a smaller batch"}


def diagnose(text, threshold):
    causes = []
    for number, line in enumerate(text.split(b"\\n"), 1):
        for label, word in LABELS.items():
            if word in line and 0.9 >= threshold:
                evidence = [{"line_number": number, "text": line.decode("utf-8", "replace")}]
                causes.append(
                    {"label": label, "probability": 0.9, "evidence": evidence, "action": ACTION}
                )
    root = causes[0]["label"] if causes else None
    return {"causes": causes, "root": root, "unknown": not causes and b"exit code 1" in text}


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        asked = pb_utils.get_input_tensor_by_name(request, "threshold")
        thresholds = np.full(len(texts), 0.5) if asked is None else asked.as_numpy().reshape(-1)
        for text in texts:
            if wait := re.search(rb"wait ([0-9.]+) s", text):
                time.sleep(float(wait[1]))
            if b"refuse me" in text:
                error = pb_utils.TritonError("refused, as asked", pb_utils.TritonError.INVALID_ARG)
                return pb_utils.InferenceResponse(output_tensors=[], error=error)
        probabilities = [[0.9 * (word in text) for word in LABELS.values()] for text in texts]
        diagnoses = [json.dumps(diagnose(*pair)).encode() for pair in zip(texts, thresholds)]
        outputs = {
            "probabilities": np.array(probabilities, dtype=np.float32),
            "diagnosis": np.array(diagnoses, dtype=object).reshape(-1, 1),
            "manifest": np.array([MANIFEST.encode()] * len(texts), dtype=object).reshape(-1, 1),
        }
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, outputs[name]) for name in request.requested_output_names()]
        )
'''


def _write_front(
    folder: Path,
    code: str,
    outputs: dict[str, tuple[str, int]],
    *,
    rows: int,
    instances: int,
    queue: int,
    more_inputs: str = "",
) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.py").write_text(code, encoding="utf-8")
    shapes = ", ".join(
        f'{{name: "{name}" data_type: TYPE_{kind} dims: [{columns}]}}'
        for name, (kind, columns) in outputs.items()
    )
    config = FRONT_CONFIG.format(
        rows=rows, instances=instances, queue=queue, outputs=shapes, more_inputs=more_inputs
    )
    (folder / "config.pbtxt").write_text(config)


def write_log_front(repository: Path) -> None:
    outputs = {
        "label": ("STRING", 1),
        "score": ("FP32", 1),
        "threshold": ("FP32", 1),
        "manifest": ("STRING", 1),
    }
    # Four instances: a request that waits must not hold up the next test.
    _write_front(repository / "log_anomaly", LOG_FRONT, outputs, rows=256, instances=4, queue=1024)


def write_rca_front(repository: Path) -> None:
    """Its queue holds one request, so that it can be filled."""
    outputs = {"probabilities": ("FP32", 2), "diagnosis": ("STRING", 1), "manifest": ("STRING", 1)}
    _write_front(
        repository / "train_failure_rca",
        RCA_FRONT,
        outputs,
        rows=4,
        instances=1,
        queue=1,
        more_inputs=', {name: "threshold" data_type: TYPE_FP32 dims: [1] optional: true}',
    )


@pytest.fixture(scope="session")
def stand_ins(
    tmp_path_factory: pytest.TempPathFactory, repository_root: Path
) -> Iterator[EmbeddedServer]:
    """A real tritonserver with the four stand-ins."""
    folder = tmp_path_factory.mktemp("stand_ins")
    write_forecaster(folder / "repository/metric_forecast_next", 30, 1)
    write_forecaster(folder / "repository/metric_forecast_12h", 2016, 144)
    write_log_front(folder / "repository")
    write_rca_front(folder / "repository")
    settings = ServerSettings(
        folder / "repository",
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        venv=repository_root / ".venv-triton",
        run_folder=folder / "run",
    )
    with EmbeddedServer(settings) as server:
        yield server


@pytest.fixture(scope="session")
def urls(stand_ins: EmbeddedServer) -> dict[str, str]:
    return {"grpc": f"grpc://{stand_ins.grpc_url}", "http": f"http://{stand_ins.http_url}"}


def run_clients(
    root: Path, url: str, *words: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """``python -m clients …`` against ``url`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "clients", *words],
        cwd=root,
        input=stdin,
        capture_output=True,
        timeout=60,
        env=os.environ | {"PRESAGE_URL": url},
    )
