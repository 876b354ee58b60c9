"""Examples of the OpenAPI documents: requests, and what a server with trained models answered."""

from __future__ import annotations

from typing import Any

_SERIES = [
    41.0, 42.5, 40.8, 43.1, 44.0, 43.7, 45.2, 44.9, 46.3, 47.0, 46.1, 48.2, 47.9, 49.5, 50.1,
    49.7, 51.3, 50.8, 52.4, 53.0, 52.1, 54.6, 53.9, 55.2, 56.0, 55.4, 57.1, 56.8, 58.3, 59.0,
]  # fmt: skip
_LINE = "kernel: EDAC MC0: 1 UE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0"
_LOG = (
    "step 1200 loss 2.31\n"
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    "ERROR: process exited with code 1\n"
)

PREDICT_SERIES: dict[str, Any] = {"series": {"series": _SERIES}}
PREDICTED_VALUE: dict[str, Any] = {
    "next_value": 59.2,
    "quantiles": {"0.1": 57.6, "0.5": 59.2, "0.9": 60.8},
    "source": "level",
    "step_seconds": 300.0,
    "model_version": "1",
}
FORECAST_BODIES: dict[str, Any] = {
    "series": {"series": [_SERIES], "preset": "next"},
    "horizons": {"series": [_SERIES], "horizons": ["1h", "12h"], "quantiles": [0.1, 0.9]},
    "csv": {"csv": "timestamp,value\n1700000000,41.0\n1700000300,42.5\n1700000600,40.8\n"},
}
FORECAST_ANSWER: dict[str, Any] = {
    "results": [
        {
            "median": [59.2],
            "quantiles": {"0.1": [57.6], "0.5": [59.2], "0.9": [60.8]},
            "source": "level",
        }
    ],
    "step_seconds": 300.0,
    "horizon_seconds": [300.0],
    "model_version": "1",
}
FORECAST_STREAM = '{"series": [1, 2, 3, 4], "preset": "next"}\n[5, 6, 7, 8]\n'
FORECAST_STREAM_ANSWER = (
    '{"line":1,"median":[4.9],"quantiles":{"0.1":[4.1],"0.5":[4.9],"0.9":[5.6]},"source":"level",'
    '"step_seconds":300.0,"model_version":"1"}\n'
)
QUERY_BODIES: dict[str, Any] = {
    "query": {"query": "avg(node_load1)", "preset": "12h", "horizons": ["1h", "12h"]}
}
QUERY_ANSWER: dict[str, Any] = {
    "results": [
        {
            "labels": {},
            "median": [1.2, 1.4],
            "quantiles": {"0.1": [0.9, 0.8], "0.5": [1.2, 1.4], "0.9": [1.6, 2.1]},
            "source": "seasonal",
            "history": [[1700000000.0, 1.1]],
            "predict_linear": [[1700003600.0, 1.15]],
        }
    ],
    "history": [[1700000000.0, 1.1]],
    "predict_linear": [[1700003600.0, 1.15]],
    "step_seconds": 300.0,
    "horizon_seconds": [3600.0, 43200.0],
    "model_version": "1",
}
PREDICT_LINE: dict[str, Any] = {"line": {"text": _LINE}}
PREDICTED_LINE: dict[str, Any] = {
    "text": _LINE,
    "result": "异常",
    "label": "anomaly",
    "score": 0.98,
    "threshold": 0.5,
    "model_version": "1",
}
LOGS_BODIES: dict[str, Any] = {"lines": {"lines": [_LINE, "session opened for user root"]}}
LOGS_ANSWER: dict[str, Any] = {
    "results": [
        {"label": "anomaly", "result": "异常", "score": 0.98},
        {"label": "normal", "result": "正常", "score": 0.01},
    ],
    "threshold": 0.5,
    "model_version": "1",
}
LOGS_STREAM = '"session opened for user root"\n{"text": "EDAC MC0: 1 UE memory read error"}\n'
LOGS_STREAM_ANSWER = '{"line":1,"label":"normal","result":"正常","score":0.01}\n'
_CAUSE = {
    "label": "OOM",
    "probability": 0.97,
    "root": True,
    "evidence": [{"line_number": 2, "text": _LOG.splitlines()[1]}],
    "action": {"zh": "减小批量或序列长度", "en": "Use a smaller batch or shorter sequences"},
}
PREDICT_LOG: dict[str, Any] = {"log": {"text": _LOG, "threshold": 0.5}}
PREDICTED_CAUSES: dict[str, Any] = {
    "probabilities": {"OOM": 0.97},
    "actions": {"OOM": "减小批量或序列长度"},
    "root": "OOM",
    "unknown": False,
    "causes": [_CAUSE],
    "model_version": "1",
}
DIAGNOSE_BODIES: dict[str, Any] = {
    "one": {"text": _LOG},
    "several": {"texts": [_LOG, "all went well"], "threshold": 0.5, "language": "en"},
}
DIAGNOSE_ANSWER: dict[str, Any] = {
    "results": [
        {"causes": [_CAUSE], "root": "OOM", "unknown": False, "probabilities": {"OOM": 0.97}}
    ],
    "model_version": "1",
}
DIAGNOSE_STREAM = '{"text": "torch.cuda.OutOfMemoryError: CUDA out of memory"}\n"all went well"\n'
DIAGNOSE_STREAM_ANSWER = (
    '{"line":2,"causes":[],"root":null,"unknown":false,"probabilities":{"OOM":0.01},'
    '"model_version":"1"}\n'
)
ALERTMANAGER_BODIES: dict[str, Any] = {
    "webhook": {
        "version": "4",
        "status": "firing",
        "receiver": "presage",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "TrainingJobFailed", "job_id": "job-42", "node": "gpu-7"},
                "annotations": {"log": _LOG},
                "startsAt": "2026-01-01T00:00:00Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus.example/graph",
                "fingerprint": "c0ffee",
            }
        ],
    }
}
ALERTMANAGER_ANSWER: dict[str, Any] = {
    "alerts": [
        {
            "fingerprint": "c0ffee",
            "status": "firing",
            "subject": "job-42",
            "log": "annotation",
            "annotations": {
                "presage_root_cause": "OOM",
                "presage_summary": "OOM (0.97)",
                "presage_action": "Use a smaller batch or shorter sequences",
            },
            "diagnosis": DIAGNOSE_ANSWER["results"][0],
            "notified": False,
            "reason": "",
        }
    ]
}
MODELS_ANSWER: list[dict[str, Any]] = [
    {
        "name": "log_anomaly",
        "version": "1",
        "state": "READY",
        "reason": "",
        "sha256": "0" * 64,
        "quality": [],
        "parity": {"passed": True, "decisions": 3924, "flipped": 0},
        "live": {"requests": 1200, "failures": 0, "mean_latency_ms": 5.1, "mean_queue_ms": 0.2},
    }
]
