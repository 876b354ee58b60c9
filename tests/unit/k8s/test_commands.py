"""What the manifests say of our programs is what the programs say of themselves."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.manifests import K8S, ROOT, Document, Pod, config_map, pods

TOOLS = "/opt/presage/tools"
_OURS = ("metric-forecast", "log-anomaly", "train-failure-rca", "forecast-loop", "log-pipeline",
         "job-diagnosis")  # fmt: skip


def _pod(documents: list[Document], name: str) -> Pod:
    (pod,) = (p for p in pods(documents) if p.name == name)
    return pod


def _parsed(pod: Pod, capsys: pytest.CaptureFixture[str]) -> argparse.Namespace:
    """The container's words through the program's own parser; fails with the parser's reason."""
    container = pod.main
    assert container["command"][:3] == ["python", "-m", "services"]
    from services.command import parse_words

    try:
        return parse_words(container["args"])
    except SystemExit:
        pytest.fail(f"{pod.name}: {capsys.readouterr().err}")


@pytest.mark.parametrize("name", _OURS)
def test_the_program_takes_these_words(
    everything: dict[str, list[Document]], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for documents in everything.values():
        _parsed(_pod(documents, name), capsys)


def test_a_word_that_no_program_knows_is_seen(
    rendered: dict[str, list[Document]], capsys: pytest.CaptureFixture[str]
) -> None:
    pod = _pod(rendered["cpu"], "log-pipeline")
    pod.main["args"].append("--spool-limit-gb=8")
    try:
        with pytest.raises(pytest.fail.Exception, match="spool-limit-gb"):
            _parsed(pod, capsys)
    finally:
        pod.main["args"].pop()


def test_ports_are_the_programs_own(
    overlay: list[Document], capsys: pytest.CaptureFixture[str]
) -> None:
    from script_exporter.config import load_config as load_exporter_config
    from services.gateway.ports import PORTS
    from services.job_diagnosis.settings import DEFAULT_PORT

    told = {name: _parsed(_pod(overlay, name), capsys) for name in _OURS}
    for api, port in PORTS.items():
        name = api.replace("_", "-")
        assert (told[name].port, _port(overlay, name, "http")) == (port, port)
        assert told[name].host == "0.0.0.0"
    assert told["job-diagnosis"].port == DEFAULT_PORT == _port(overlay, "job-diagnosis", "http")
    assert told["log-pipeline"].listen == f"0.0.0.0:{_port(overlay, 'log-pipeline', 'http')}"
    exporter = load_exporter_config(K8S / "nodes/config.yml")
    assert exporter.file.global_.http_port == _port(overlay, "script-exporter", "metrics")
    assert exporter.file.web.listen_address == f":{exporter.file.global_.http_port}"


def _port(documents: list[Document], pod: str, name: str) -> int:
    (port,) = (p["containerPort"] for p in _pod(documents, pod).main["ports"] if p["name"] == name)
    return int(port)


def test_the_loops_settings_are_read_by_the_loop(overlay: list[Document], tmp_path: Path) -> None:
    from services.forecast_loop.config import load_config

    pod = _pod(overlay, "forecast-loop")
    (path,) = (w.split("=")[1] for w in pod.main["args"] if w.startswith("--config="))
    (mount,) = (m for m in pod.main["volumeMounts"] if m["name"] == "config")
    file = Path(path).relative_to(mount["mountPath"])
    (tmp_path / file).write_text(config_map(overlay, "forecast-loop")[str(file)])
    config = load_config(tmp_path / file)
    assert config.loop.address == ("0.0.0.0", _port(overlay, "forecast-loop", "metrics"))
    assert _is_writable(pod, config.loop.state_file)
    # The committed rules come from these queries: other ones would alert on nothing.
    committed = load_config(ROOT / "deploy/prometheus/forecast_loop.toml")
    assert config.queries == committed.queries
    assert config.loop.interval == committed.loop.interval
    assert config.loop.horizons == committed.loop.horizons


def test_the_exporters_settings_are_read_by_the_exporter(
    overlay: list[Document], tmp_path: Path
) -> None:
    from script_exporter.config import load_config

    pod = _pod(overlay, "script-exporter")
    assert pod.main["args"] == ["--config.file=/etc/presage/config.yml"]
    (tmp_path / "config.yml").write_text(config_map(overlay, "script-exporter")["config.yml"])
    config = load_config(tmp_path / "config.yml")
    assert not config.warnings
    assert _is_writable(pod, config.state_dir)
    committed = load_config(ROOT / "deploy/script_exporter/config.yml")
    scripts = {c.key: c.settings.script_path for c in committed.collectors}
    assert {c.key: c.settings.script_path for c in config.collectors} == scripts
    mounts = {m["mountPath"] for m in pod.main["volumeMounts"]}
    for collector in config.collectors:
        assert list(collector.settings.args[:2]) == ["--root", "/host"]
        assert (ROOT / collector.settings.script_path).is_file()
    assert {"/host/sys", "/host/proc", "/host/var/log"} <= mounts


def _is_writable(pod: Pod, path: Path) -> bool:
    return any(
        path.is_relative_to(mount["mountPath"]) and not mount.get("readOnly")
        for mount in pod.main["volumeMounts"]
    )


def test_spools_lie_on_their_volumes_and_fit_them(
    overlay: list[Document], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {
        document["metadata"]["name"]: document["spec"]["volumeClaimTemplates"][0]["spec"]
        for document in overlay
        if document["kind"] == "StatefulSet"
    }
    pipeline = _pod(overlay, "log-pipeline")
    told = _parsed(pipeline, capsys)
    assert _is_writable(pipeline, told.spool)
    assert _is_writable(pipeline, told.json_lines)
    assert told.spool_limit_mb << 20 <= _bytes(sizes["log-pipeline"]) // 2
    jobs = _pod(overlay, "job-diagnosis")
    assert _is_writable(jobs, _parsed(jobs, capsys).spool)
    limit = int(_variable(jobs, "PRESAGE_JOBS_SPOOL_LIMIT_BYTES"))
    assert limit <= _bytes(sizes["job-diagnosis"]) // 2


def _bytes(claim: dict[str, Any]) -> int:
    storage = claim["resources"]["requests"]["storage"]
    assert storage.endswith("Gi")
    return int(storage.removesuffix("Gi")) << 30


def _variable(pod: Pod, name: str) -> str:
    (value,) = (v["value"] for v in pod.main["env"] if v["name"] == name)
    return str(value)


def test_variables_are_settings(overlay: list[Document]) -> None:
    """A misspelt variable would be ignored without a word."""
    from services.job_diagnosis.settings import JobSettings
    from services.web.settings import SECRETS_VARIABLE, WebSettings

    known = {
        f"{settings.model_config['env_prefix']}{field}".upper()
        for settings in (JobSettings, WebSettings)
        for field in settings.model_fields
    }
    for pod in pods(overlay):
        for container in pod.containers:
            for variable in container.get("env", []):
                name = variable["name"]
                good = name in known or not name.startswith("PRESAGE_") or name == SECRETS_VARIABLE
                assert good, (pod.name, name)


def test_the_database_is_told_by_a_file(overlay: list[Document], tmp_path: Path) -> None:
    from services.job_diagnosis.settings import JobSettings
    from services.web import settings as web

    pod = _pod(overlay, "job-diagnosis")
    folder = _variable(pod, web.SECRETS_VARIABLE)
    assert folder in {m["mountPath"] for m in pod.main["volumeMounts"]}
    (tmp_path / "presage_jobs_database_url").write_text("postgresql://presage@db/presage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(web.SECRETS_VARIABLE, str(tmp_path))
        settings = web.load_settings(JobSettings, {})
    assert settings.database_url.get_secret_value() == "postgresql://presage@db/presage"


def test_grace_periods_cover_what_the_programs_take(overlay: list[Document]) -> None:
    from services.log_pipeline.serve import DRAIN_SECONDS

    for pod in pods(overlay):
        if pod.kind == "DaemonSet":
            continue
        seconds = pod.main["lifecycle"]["preStop"]["sleep"]["seconds"]
        if pod.name in {"metric-forecast", "log-anomaly", "train-failure-rca", "job-diagnosis"}:
            seconds += float(_variable(pod, "PRESAGE_DRAIN_SECONDS"))
        elif pod.name == "log-pipeline":
            seconds += 3 * DRAIN_SECONDS
        elif pod.name == "forecast-loop":
            seconds += 8
        else:
            seconds += _exit_timeout_seconds(pod)
        assert pod.spec["terminationGracePeriodSeconds"] >= seconds + 5, pod.name


def _exit_timeout_seconds(pod: Pod) -> float:
    from embedded_triton import server

    flags = [w for w in pod.main["args"] if w.startswith("--exit-timeout-secs=")]
    # The embedded server waits that long for tritonserver, which has its own --exit-timeout-secs.
    return float(flags[0].split("=")[1]) if flags else server._STOP_SECONDS


@pytest.fixture(scope="module")
def tritonserver_flags() -> set[str]:
    """Of the very version that the container has (2.51 = 24.10)."""
    from contract.errors import PresageError
    from embedded_triton.environment import inspect_environment

    try:
        environment = inspect_environment(ROOT / ".venv-triton")
    except PresageError as error:
        pytest.skip(f"no tritonserver: {error}")
    done = subprocess.run(
        [str(environment.binaries / "bin/tritonserver"), "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=environment.process_environment(),
        timeout=60,
    )
    flags = set(re.findall(r"^\s*(--[a-z0-9-]+)", done.stdout + done.stderr, re.MULTILINE))
    assert "--model-repository" in flags
    return flags


@pytest.mark.parametrize("where", ["gpu", "kserve"])
def test_tritonserver_takes_these_flags(
    rendered: dict[str, list[Document]], where: str, tritonserver_flags: set[str]
) -> None:
    args = _pod(rendered[where], "triton").main["args"]
    assert {word.partition("=")[0] for word in args} <= tritonserver_flags


@pytest.mark.parametrize("where", ["gpu", "kserve"])
def test_it_loads_every_model_classifiers_before_fronts(
    rendered: dict[str, list[Document]], where: str
) -> None:
    from training.registry import all_specs

    args = _pod(rendered[where], "triton").main["args"]
    loaded = [word.split("=", 1)[1] for word in args if word.startswith("--load-model=")]
    presets = [(spec, preset) for spec in all_specs() for preset in spec.presets]
    graphs = [spec.graph(preset).triton_name for spec, preset in presets]
    fronts = {front.triton_name for spec, preset in presets if (front := spec.front(preset))}
    assert sorted(loaded) == sorted({*graphs, *fronts})
    assert set(loaded[-len(fronts) :]) == fronts
    assert "--model-control-mode=explicit" in args


def test_pods_run_as_the_images_user(everything: dict[str, list[Document]]) -> None:
    users = {
        line.split()[1]
        for file in (ROOT / "deploy/docker").glob("*.Dockerfile")
        for line in file.read_text().splitlines()
        if line.startswith("USER ")
    }
    contexts = [p.spec["securityContext"] for d in everything.values() for p in pods(d)]
    assert {f"{c['runAsUser']}:{c['runAsGroup']}" for c in contexts} == users


def test_the_embedded_servers_folders_are_the_images(
    rendered: dict[str, list[Document]],
) -> None:
    image = (ROOT / "deploy/docker/triton-cpu.Dockerfile").read_text()
    args = _pod(rendered["cpu"], "triton").main["args"]
    for flag in ("--venv", "--backends"):
        (path,) = (word.partition("=")[2] for word in args if word.startswith(f"{flag}="))
        assert f'"{flag}", "{path}"' in image


def test_ports_of_triton_are_its_own(overlay: list[Document]) -> None:
    ports = {p["name"]: p["containerPort"] for p in _pod(overlay, "triton").main["ports"]}
    assert ports == {"triton-http": 8000, "grpc": 8001, "metrics": 8002}


def test_the_embedded_server_takes_these_words(
    everything: dict[str, list[Document]], capsys: pytest.CaptureFixture[str]
) -> None:
    from embedded_triton.command import _parser

    for where in ("cpu", "s3-cpu"):
        pod = _pod(everything[where], "triton")
        assert pod.main["command"] == ["python", "-m", "embedded_triton"]
        try:
            told = _parser().parse_args(pod.main["args"])
        except SystemExit:
            pytest.fail(capsys.readouterr().err)
        assert (told.http_port, told.grpc_port, told.metrics_port) == (8000, 8001, 8002)
        assert told.host == "0.0.0.0"
        assert _is_writable(pod, told.run_folder)


def _tool_calls(documents: list[Document]) -> Iterator[list[str]]:
    """Words of each ``python3 -m`` inside a server's pod, all of them run in the tools' folder."""
    for pod in pods(documents):
        for container in pod.containers:
            words = [*container.get("command", []), *container.get("args", [])]
            if words[:2] == ["python3", "-m"]:
                assert container["workingDir"] == TOOLS
                yield words
            probes = [container.get(f"{p}Probe", {}) for p in ("startup", "readiness", "liveness")]
            commands = [probe["exec"]["command"] for probe in probes if "exec" in probe]
            for command in (words, *commands):
                if command[:2] == ["sh", "-ec"] and "python3 -m" in command[2]:
                    line = command[2].splitlines()[0].strip("()")
                    cd, _, call = line.partition("; ")
                    assert cd == f"cd {TOOLS}"
                    yield shlex.split(call.removeprefix("exec "))


def test_tools_in_the_pod_take_these_words(everything: dict[str, list[Document]]) -> None:
    modules = set()
    for where, documents in everything.items():
        calls = list(_tool_calls(documents))
        assert len(calls) >= 3, where
        for words in calls:
            assert words[:2] == ["python3", "-m"]
            modules.add(words[2])
            _parse_only(words[2], words[3:])
    assert modules == {"embedded_triton.probe", "contract.proven_files"}


def _parse_only(module: str, words: list[str]) -> None:
    code = (
        "import argparse, importlib, sys\n"
        "def stop(self, *given): raise SystemExit(0 if real(self, *given) else 1)\n"
        "real = argparse.ArgumentParser.parse_args\n"
        "argparse.ArgumentParser.parse_args = stop\n"
        "importlib.import_module(sys.argv[1]).main(sys.argv[2:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, module, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "source",
    [
        *(f"contract/{name}.py" for name in ("canary_inputs", "errors", "proven_files")),
        *(f"embedded_triton/{name}.py" for name in ("canary", "http_control", "probe")),
    ],
)
def test_tools_are_the_files_of_this_tree(source: str) -> None:
    copy = K8S / "tools" / Path(source).name
    assert copy.read_bytes() == (ROOT / source).read_bytes(), f"cp {source} {copy.parent}"
