"""A tritonserver of one published repository, with a twin of each text front that forgets."""

from __future__ import annotations

import contextlib
import http.client
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.errors import ArtifactMissingError, ServerAnswerError
from loadtest.speed.process_cpu import ProcessCpu

UNCACHED = "__uncached"
CONFIG_FILE = "config.pbtxt"
_STARTUP_SECONDS = 180.0
_TIMEOUT_SECONDS = 30.0
# A front tells what it counted up to a quarter of a second late.
_COUNTERS_LATE_SECONDS = 0.35
_SETTLE_SECONDS = 0.1
_SETTLE_TRIES = 50


@dataclass(frozen=True)
class PresageServer:
    """One running server. ``ready_seconds``: from its start until every model answered."""

    grpc_address: str
    http_address: str
    metrics_address: str
    pid: int
    ready_seconds: float

    def statistics(self, model: str) -> ModelCounts:
        """What Triton has counted of a model's newest version, once it counts no further: Triton
        counts a request after its answer has left. Raises ServerAnswerError."""
        counts = self._counted(model)
        for _ in range(_SETTLE_TRIES):
            time.sleep(_SETTLE_SECONDS)
            before, counts = counts, self._counted(model)
            if counts == before:
                break
        return counts

    def _counted(self, model: str) -> ModelCounts:
        document = json.loads(_get(self.http_address, f"/v2/models/{model}/stats"))
        newest = document["model_stats"][-1]
        parts = newest["inference_stats"]
        return ModelCounts(
            requests=int(parts["success"]["count"]),
            rows=int(newest["inference_count"]),
            executions=int(newest["execution_count"]),
            queue_seconds=parts["queue"]["ns"] / 1e9,
            compute_seconds=sum(
                parts[f"compute_{part}"]["ns"] for part in ("input", "infer", "output")
            )
            / 1e9,
        )

    def text_counters(self, model: str) -> dict[str, float]:
        """The front's own counters (``presage_text_*``), {kind or step: total}, all instances;
        waits until they have all been told."""
        time.sleep(_COUNTERS_LATE_SECONDS)
        totals: dict[str, float] = {}
        for line in _get(self.metrics_address, "/metrics").decode().splitlines():
            if not line.startswith("presage_text_") or f'model="{model}"' not in line:
                continue
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            if not name.endswith("_total"):
                continue
            kinds = dict(part.split("=", 1) for part in labels.replace('"', "").split(","))
            kind = next(kinds[key] for key in ("by", "kind", "step") if key in kinds)
            totals[kind] = totals.get(kind, 0.0) + float(value)
        return totals

    def cpu(self) -> ProcessCpu:
        return ProcessCpu(self.pid)


@dataclass(frozen=True)
class ModelCounts:
    requests: int
    rows: int
    executions: int
    queue_seconds: float
    compute_seconds: float

    def __sub__(self, other: ModelCounts) -> ModelCounts:
        return ModelCounts(
            self.requests - other.requests,
            self.rows - other.rows,
            self.executions - other.executions,
            self.queue_seconds - other.queue_seconds,
            self.compute_seconds - other.compute_seconds,
        )


@contextlib.contextmanager
def presage_server(
    repository: Path, models: Sequence[str] = (), *, twins: bool = True
) -> Iterator[PresageServer]:
    """Serve the newest versions of ``models`` (and of what their fronts call), or of all.

    Raises:
        ArtifactMissingError: one of them is not published there.
        ServerSetupError: the server does not start.
    """
    from embedded_triton.server import EmbeddedServer, ServerSettings

    with tempfile.TemporaryDirectory(prefix="presage-compare-") as folder:
        staged = Path(folder) / "repository"
        stage_newest(repository, staged, models, twins=twins)
        settings = ServerSettings(
            staged,
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            run_folder=Path(folder) / "server",
            startup_timeout_seconds=_STARTUP_SECONDS,
        )
        begun = time.perf_counter()
        with EmbeddedServer(settings) as server:
            ready_seconds = time.perf_counter() - begun
            assert server.server_pid is not None
            yield PresageServer(
                server.grpc_url,
                server.http_url,
                server.metrics_url,
                server.server_pid,
                ready_seconds,
            )


def stage_newest(
    repository: Path, folder: Path, models: Sequence[str] = (), *, twins: bool = True
) -> None:
    """Links to newest versions, under copies of their configs. Raises ArtifactMissingError."""
    published = {
        path.name: max(versions, key=int)
        for path in (sorted(repository.iterdir()) if repository.is_dir() else ())
        if (versions := [one.name for one in path.iterdir() if one.name.isdigit()])
    }
    wanted = {name for name in published if not models or _belongs(name, models)}
    missing = [name for name in models if name not in published]
    if missing or not wanted:
        raise ArtifactMissingError(
            f"not published: {', '.join(missing) or 'anything'}",
            where=str(repository),
            next_command="publish it: python -m export all",
        )
    for name in sorted(wanted):
        source = repository / name
        text = (source / CONFIG_FILE).read_text(encoding="utf-8")
        _stage_one(source, folder / name, published[name], text)
        if twins and 'backend: "python"' in text:
            twin = uncached_config(text, name)
            _stage_one(source, folder / (name + UNCACHED), published[name], twin)


def uncached_config(text: str, name: str) -> str:
    """A front's config under another name, with nothing remembered between its calls."""
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    config.name = name + UNCACHED
    config.parameters["text_cache_entries"].string_value = "0"
    config.ClearField("response_cache")
    return str(text_format.MessageToString(config))


def _belongs(name: str, models: Sequence[str]) -> bool:
    return any(name in (model, f"{model}_classifier") for model in models)


def _stage_one(source: Path, folder: Path, version: str, config: str) -> None:
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
    for path in source.iterdir():
        if path.is_file() and path.name != CONFIG_FILE:
            (folder / path.name).symlink_to(path.absolute())
    (folder / version).symlink_to((source / version).absolute())


def _get(address: str, path: str) -> bytes:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ServerAnswerError("the server does not tell", where=path, got=body.decode()[:200])
    return body
