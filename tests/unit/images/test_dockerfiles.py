"""deploy/docker: hadolint, and the rules that it has no words for."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "deploy/docker"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
LABELS = {"title", "description", "licenses", "version", "revision"}
HADOLINT = Path(sys.executable).with_name("hadolint")
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, value) of a Dockerfile, comments left out."""
    parser = pytest.importorskip("dockerfile_parse").DockerfileParser(
        fileobj=path.open("rb"), cache_content=True
    )
    return [
        (row["instruction"], row["value"])
        for row in parser.structure
        if row["instruction"] != "COMMENT"
    ]


def last_stage(path: Path) -> list[tuple[str, str]]:
    """Of a file with several targets: what every one of them ends with."""
    rows = instructions(path)
    starts = [i for i, (word, _) in enumerate(rows) if word == "FROM"]
    # Targets (FROM gateway AS …) add to the stage before them.
    named = {value.split()[-1] for word, value in rows if word == "FROM" and " AS " in value}
    first = next(
        i for i in reversed(starts) if rows[i][1].split()[0] not in named or i == starts[0]
    )
    return rows[first:]


def test_one_file_a_role() -> None:
    assert [path.name.removesuffix(".Dockerfile") for path in FILES] == [
        *("forecast-loop", "gateway", "job-diagnosis", "log-pipeline"),
        *("script-exporter", "triton-cpu", "triton"),
    ]


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    lint = [HADOLINT, "--config", FOLDER / ".hadolint.yaml"]
    done = subprocess.run([*lint, *FILES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text(FILES[0].read_text("utf-8").replace("WORKDIR /app", "WORKDIR app"), "utf-8")
    assert subprocess.run([*lint, bad], capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(not SHELLCHECK.exists(), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(repository_root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.sh", ".ci/run"],
        cwd=repository_root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert listed
    done = subprocess.run(
        [SHELLCHECK, "--severity=warning", *listed],
        cwd=repository_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_image_keeps_the_house_rules(path: Path) -> None:
    rows = instructions(path)
    assert rows[0][0] == "ARG", "the base comes first, so that --build-arg may give its digest"
    name, _, image = rows[0][1].partition("=")
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image), "a base without a version"
    froms = [value.split() for word, value in rows if word == "FROM"]
    stages = {words[-1] for words in froms if "AS" in words}
    assert all(words[0] == f"${{{name}}}" or words[0] in stages for words in froms)
    assert len(froms) >= 2, "one stage would leave pip's work in the image"
    stage = last_stage(path)
    words = [word for word, _ in stage]
    values = dict(stage)
    assert values["USER"] == "10001:10001"
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD", "EXPOSE", "STOPSIGNAL"} <= set(words)
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "COPY")
    assert "RUN" not in words, "nothing is installed into the final stage"
    labels = " ".join(value for word, value in stage if word == "LABEL")
    assert {f"org.opencontainers.image.{label}=" in labels for label in LABELS} == {True}
    for word in ("ENTRYPOINT", "CMD"):
        assert json.loads(values[word]), "exec form: signals must reach the program"
    assert "ADD" not in words
    assert "PYTHONDONTWRITEBYTECODE=1" in " ".join(v for w, v in stage if w == "ENV")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_is_here_and_not_ignored(path: Path, repository_root: Path) -> None:
    allowed = [
        line[1:]
        for line in (repository_root / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for word, value in instructions(path):
        if word != "COPY" or value.startswith("--from"):
            continue
        for source in value.split()[:-1]:
            assert (repository_root / source).exists(), source
            assert any(source.startswith(root) for root in allowed), f".dockerignore: {source}"


def test_compose_says_what_the_images_say(repository_root: Path) -> None:
    """A health check, user, bases and file of an image stand in docker-compose.yml, too."""
    compose = yaml.safe_load((repository_root / "docker-compose.yml").read_text("utf-8"))
    built = {n: s for n, s in compose["services"].items() if "build" in s}
    assert {s["build"]["dockerfile"] for s in built.values()} == {
        str(path.relative_to(repository_root)) for path in FILES
    }
    for name, service in built.items():
        path = repository_root / service["build"]["dockerfile"]
        rows = instructions(path)
        (health,) = [value for word, value in rows if word == "HEALTHCHECK"]
        assert json.loads(health.partition(" CMD ")[2]) == service["healthcheck"]["test"][1:], name
        for key in ("interval", "timeout"):
            assert f"--{key.replace('_', '-')}={service['healthcheck'][key]}" in health, name
        argument, _, base = rows[0][1].partition("=")
        assert service["build"]["args"][argument] == f"${{{argument}:-{base}}}", name
        target = service["build"].get("target")
        assert target is None or f" AS {target}" in "\n".join(value for _, value in rows)
        exposed = {v for word, value in rows if word == "EXPOSE" for v in value.split()}
        assert {port.rsplit(":", 1)[1] for port in service["ports"]} <= exposed, name


def test_images_have_the_requirements_of_their_role(repository_root: Path) -> None:
    """The same package has the same pin wherever it stands, and constraints.txt agrees."""
    pins: dict[str, set[str]] = {}
    for path in sorted((repository_root / "requirements").glob("*.txt")):
        if path.name.startswith("server") or path.name == "gpu.txt":
            continue  # the server's own environment, which has another numpy
        for line in path.read_text("utf-8").splitlines():
            row = line.partition("#")[0].strip()
            if "==" in row and path.name != "constraints.txt":
                name, _, version = row.partition("==")
                pins.setdefault(re.sub(r"\[.*\]", "", name).lower(), set()).add(version)
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}
    constraints = {
        name.lower(): version
        for name, _, version in (
            line.partition("==")
            for line in (repository_root / "requirements/constraints.txt").read_text().splitlines()
            if "==" in line
        )
    }
    for name, (version,) in pins.items():
        if name in constraints:
            assert re.fullmatch(re.escape(version).replace(r"\*", r"[\d.]+"), constraints[name]), (
                name
            )


def test_no_image_pulls_torch(repository_root: Path) -> None:
    """Services, clients and exporter never need it, nor does tritonserver without TorchScript."""
    for path in FILES:
        for _, value in instructions(path):
            for name in re.findall(r"requirements/([\w-]+\.txt)", value):
                assert "torch" not in _packages(repository_root / "requirements" / name)


def _packages(path: Path) -> set[str]:
    found: set[str] = set()
    for line in path.read_text("utf-8").splitlines():
        row = line.partition("#")[0].strip()
        if row.startswith("-r "):
            found |= _packages(path.parent / row[3:])
        elif row and path.name != "constraints.txt":
            found.add(re.split(r"[=\[<>]", row)[0].lower())
    return found


def test_fronts_meet_the_same_tokenizers_as_in_training(repository_root: Path) -> None:
    pins = {
        re.search(r"^tokenizers==\S+", (repository_root / "requirements" / name).read_text(), re.M)
        for name in ("container.txt", "server.txt", "train.txt", "log-pipeline.txt")
    }
    assert len({pin and pin[0] for pin in pins}) == 1


def test_every_image_has_a_budget() -> None:
    budgets: dict[str, Any] = tomllib.loads((FOLDER / "budgets.toml").read_text("utf-8"))
    assert set(budgets) == {path.name.removesuffix(".Dockerfile") for path in FILES}
    for name, row in budgets.items():
        assert row.get("measured", 0) <= row["budget"], name


def test_the_health_check_tells_yes_from_no(tmp_path: Path) -> None:
    """healthcheck.py against a server that answers 200 and 503."""
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/well" else 503)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        codes = {}
        for path in ("/well", "/ill"):
            url = f"http://127.0.0.1:{server.server_port}{path}"
            codes[path] = _health(url)
        codes["nobody"] = _health("http://127.0.0.1:1/")
        codes["unset"] = _health("")
    finally:
        server.shutdown()
    assert codes == {"/well": 0, "/ill": 1, "nobody": 1, "unset": 1}


def _health(url: str) -> int:
    python = shutil.which("python3") or sys.executable
    return subprocess.run(
        [python, FOLDER / "healthcheck.py"],
        env={"PRESAGE_HEALTH_URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    ).returncode


def test_no_variable_hides_a_secret_file(repository_root: Path) -> None:
    """Variables win over files of secrets: one set in the image would win for ever."""
    compose = yaml.safe_load((repository_root / "docker-compose.yml").read_text("utf-8"))
    seen = 0
    for name, service in compose["services"].items():
        for secret in service.get("secrets", []):
            if "build" not in service:
                continue
            rows = instructions(repository_root / service["build"]["dockerfile"])
            set_here = " ".join(value for word, value in rows if word == "ENV")
            assert f"{secret.upper()}=" not in set_here, name
            assert secret.upper() not in service["environment"], name
            assert service["environment"]["PRESAGE_SECRETS_DIR"] == "/run/secrets", name
            seen += 1
    assert seen == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_copies_the_requirements_that_it_installs(path: Path, repository_root: Path) -> None:
    """Every file that pip will read, and no other: a change elsewhere costs no rebuild."""
    copied: set[str] = set()
    installed: set[str] = set()
    for word, value in instructions(path):
        if word == "COPY":
            copied |= {Path(w).name for w in value.split() if w.endswith(".txt")}
        if word == "RUN":
            installed |= {Path(name).name for name in re.findall(r"-[rc] (\S+\.txt)", value)}
    for name in list(installed):
        installed |= _included(repository_root / "requirements" / name)
    assert copied == installed


def _included(path: Path) -> set[str]:
    names = re.findall(r"^-r (\S+)", path.read_text("utf-8"), re.M)
    return set(names).union(*(_included(path.parent / name) for name in names))


ROOT = FOLDER.parents[1]
PACKAGES = ("clients", "contract", "embedded_triton", "script_exporter", "services")


def copied_modules(path: Path) -> set[Path]:
    """The project's own .py files that a Dockerfile brings along."""
    found: set[Path] = set()
    for word, value in instructions(path):
        if word == "COPY" and "--from" not in value:
            for source in map(ROOT.joinpath, value.split()[:-1]):
                found |= set(source.rglob("*.py")) if source.is_dir() else {source}
    return {file.relative_to(ROOT) for file in found if file.suffix == ".py"}


def imported_names(file: Path) -> set[str]:
    """Dotted names that are imported when ``file`` is, some of them of what a module holds."""
    names: set[str] = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_modules(file: Path) -> set[Path]:
    """The project's own files among what is imported when ``file`` is."""
    names = imported_names(ROOT / file)
    files = {
        Path(*name.split(".")).with_suffix(".py")
        for name in names
        if name.partition(".")[0] in PACKAGES
    }
    return {file for file in files if (ROOT / file).is_file()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_copied_finds_what_it_imports(path: Path) -> None:
    copied = copied_modules(path)
    assert copied
    needed = {one for file in copied for one in imported_modules(file)}
    assert needed - copied == set()


def test_the_servers_environment_has_what_its_supervisor_imports() -> None:
    """Of the image triton-cpu, which has no other; elsewhere the supervisor runs in Presage's."""
    files = ROOT.glob("embedded_triton/*.py")
    imported = {name.partition(".")[0] for file in files for name in imported_names(file)}
    foreign = imported - sys.stdlib_module_names - set(PACKAGES)
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "requirements/server.txt").read_text("utf-8"), re.M)
    assert foreign <= {name.replace("-", "_") for name in pinned}
    assert "prometheus_client" in foreign
