"""What the forecast loop reads while it is measured: recorded answers, or a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from contract.errors import ServerSetupError

METRIC = "scale_use_ratio"
SHARD_LABEL = "clu_name"
STEP_SECONDS = 300
_SERIES_A_CLUSTER = 1_000
_SHAPES = 64
"""Different series; the others repeat them. Texts are made once, so that serving is a copy."""
_READY_SECONDS = 60.0


def clusters(series: int) -> list[str]:
    return [f"c{i:04d}" for i in range(-(-series // _SERIES_A_CLUSTER))]


def labels_of(index: int) -> dict[str, str]:
    cluster = f"c{index // _SERIES_A_CLUSTER:04d}"
    return {
        "__name__": METRIC,
        "clu_name": cluster,
        "group": f"group-{index:06d}",
        "instance": f"10.0.{index // 250 % 250}.{index % 250}:9100",
        "job": "node",
    }


def value_at(shape: int, moment: int) -> float:
    """A noisy day between 0.1 and 0.9, with all the digits that a quotient has."""
    wave = math.sin(2 * math.pi * (moment % 86_400) / 86_400 + shape)
    return 0.5 + 0.3 * wave + 0.1 * random.Random(shape * 1_000_003 + moment).random()


class RecordedPrometheus:
    """Answers query_range as Prometheus would, at the speed of memory. Loopback, a free port."""

    def __init__(self, series: int) -> None:
        self.series = series
        self._values: dict[tuple[int, int], list[bytes]] = {}
        self._lock = threading.Lock()
        source = self

        class Handler(_Handler):
            answer = staticmethod(source._answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> RecordedPrometheus:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, form: dict[str, str]) -> bytes:
        if path.startswith("/api/v1/label/"):
            return _success(clusters(self.series))
        if path == "/api/v1/metadata":
            return _success({})
        if path == "/api/v1/query":
            now = time.time()
            if form["query"] == "time()":
                return _success({"resultType": "scalar", "result": [now, str(now)]})
            count = {"metric": {}, "value": [now, str(self.series)]}
            return _success({"resultType": "vector", "result": [count]})
        return self._range(form)

    def _range(self, form: dict[str, str]) -> bytes:
        start, end = int(form["start"]), int(form["end"])
        values = self._values_of(start, end)
        asked = set(re.findall(r"c\d{4}", form["query"]))
        heads = []
        for cluster in clusters(self.series) if asked or '=""' not in form["query"] else []:
            if asked and cluster not in asked:
                continue
            first = int(cluster[1:]) * _SERIES_A_CLUSTER
            for index in range(first, min(first + _SERIES_A_CLUSTER, self.series)):
                metric = json.dumps(labels_of(index), separators=(",", ":")).encode()
                heads.append(
                    b'{"metric":' + metric + b',"values":' + values[index % _SHAPES] + b"}"
                )
        result = b",".join(heads)
        return b'{"status":"success","data":{"resultType":"matrix","result":[' + result + b"]}}"

    def _values_of(self, start: int, end: int) -> list[bytes]:
        with self._lock:
            if (start, end) not in self._values:
                moments = range(start, end + 1, STEP_SECONDS)
                self._values[start, end] = [
                    json.dumps(
                        [[moment, str(value_at(shape, moment))] for moment in moments],
                        separators=(",", ":"),
                    ).encode()
                    for shape in range(_SHAPES)
                ]
            return self._values[start, end]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    answer: Any

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self._send(parts.path, parts.query)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(self.path, body.decode())

    def _send(self, path: str, query: str) -> None:
        form = {name: values[0] for name, values in parse_qs(query).items()}
        body = self.answer(path, form)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _success(data: Any) -> bytes:
    return json.dumps({"status": "success", "data": data}).encode()


@contextlib.contextmanager
def real_prometheus(series: int, points: int, folder: Path) -> Iterator[str]:
    """URL of a Prometheus of our own with that history. Raises ServerSetupError."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        raise ServerSetupError("no prometheus here", next_command="apt-get install prometheus")
    folder.mkdir(parents=True)
    history = folder / "history.om"
    end = int(time.time()) // STEP_SECONDS * STEP_SECONDS
    moments = range(end - (points - 1) * STEP_SECONDS, end + 1, STEP_SECONDS)
    shapes = [[value_at(shape, moment) for moment in moments] for shape in range(_SHAPES)]
    with history.open("w") as file:
        for index in range(series):
            labels = labels_of(index)
            inside = ",".join(f'{k}="{v}"' for k, v in labels.items() if k != "__name__")
            values = zip(moments, shapes[index % _SHAPES], strict=True)
            file.writelines(f"{METRIC}{{{inside}}} {value} {moment}\n" for moment, value in values)
        file.write("# EOF\n")
    data = folder / "data"
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=1000h",
         "openmetrics", "--quiet", str(history), str(data)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    history.unlink()
    (folder / "prometheus.yml").write_text("{}")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}",
             "--storage.tsdb.retention.time=10y",
             "--web.console.templates=/nonexistent", "--web.console.libraries=/nonexistent"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url + "/-/ready", timeout=5):
            return
        time.sleep(0.1)
    raise ServerSetupError("prometheus does not start", where=url)
