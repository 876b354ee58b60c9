""".github/workflows: schema, actionlint, and what this house asks of a pipeline."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
BINARIES = Path(sys.executable).parent
# Who else may write what, and why it must.
MAY_WRITE = {
    ("ci.yml", "images"): {"packages", "id-token"},  # passed on to images.yml
    ("images.yml", "build"): {"packages", "id-token"},  # pushes to GHCR, signs its provenance
    ("release.yml", "ci"): {"packages", "id-token"},
    ("release.yml", "images"): {"packages", "id-token"},
    ("release.yml", "release"): {"contents"},  # creates the release
}
Workflow = dict[Any, Any]


def workflow(name: str) -> Workflow:
    loaded: Workflow = yaml.safe_load((ROOT / ".github/workflows" / name).read_text("utf-8"))
    # YAML 1.1 reads the key `on` as true.
    loaded["on"] = loaded.pop(True, loaded.get("on"))
    return loaded


def steps_of(loaded: Workflow) -> list[dict[str, Any]]:
    return [step for job in loaded["jobs"].values() for step in job.get("steps", [])]


def faults(name: str, loaded: Workflow) -> list[str]:
    """Rules of this house that a workflow breaks, in words."""
    found = []
    if loaded.get("permissions") != {"contents": "read"}:
        found.append("grants more than reading to every job")
    if "concurrency" not in loaded and set(loaded["on"]) != {"workflow_call"}:
        found.append("has no concurrency group")
    for job_name, job in loaded["jobs"].items():
        written = {key for key, value in job.get("permissions", {}).items() if value == "write"}
        if not written <= MAY_WRITE.get((name, job_name), set()):
            found.append(f"{job_name} may write {written}")
        if "uses" in job:
            if not job["uses"].startswith("./"):
                found.append(f"{job_name} runs somebody else's workflow")
            continue
        if not job.get("timeout-minutes"):
            found.append(f"{job_name} may hang")
        for step in job["steps"]:
            used = step.get("uses", "")
            if used and not re.fullmatch(
                r"(actions|docker)/[\w-]+@(v\d+(\.\d+)*|[0-9a-f]{40})", used
            ):
                found.append(f"{job_name} runs {used}")
            if used.startswith("actions/checkout") and (
                step.get("with", {}).get("persist-credentials") is not False
            ):
                found.append(f"{job_name} leaves its token in the checkout")
            if "${{" in step.get("run", ""):
                found.append(f"{job_name} pastes an expression into a shell")
            if "latest" in str(step.get("with", {}).get("tags", "")):
                found.append(f"{job_name} pushes a moving tag")
    return found


def test_they_are_all_here() -> None:
    names = {path.name for path in FILES}
    assert names == {"ci.yml", "images.yml", "nightly.yml", "release.yml", "deploy.yml"}


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        *((path, "vendor.github-workflows") for path in FILES),
        (ROOT / ".github/dependabot.yml", "vendor.dependabot"),
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_it_fits_githubs_schema(path: Path, schema: str) -> None:
    pytest.importorskip("check_jsonschema")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", schema, str(path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_has_nothing_to_say() -> None:
    path = f"{BINARIES}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("actionlint", path=path)
    if program is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run(
        # shellcheck, where it is there, reads the run steps, too.
        [program, "-no-color", *FILES],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_keeps_the_house_rules(path: Path) -> None:
    assert faults(path.name, workflow(path.name)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("permissions:\n  contents: read\n\nc", "permissions: write-all\n\nc", "grants more"),
        ("concurrency:", "x-concurrency:", "has no concurrency group"),
        ("    timeout-minutes: 90\n", "", "test may hang"),
        ("actions/checkout@v6", "actions/checkout@main", "runs actions/checkout@main"),
        ("actions/checkout@v6", "someone/checkout@v6", "runs someone/checkout@v6"),
        ("persist-credentials: false", "fetch-depth: 1", "leaves its token"),
        ("run: make test PYTHON=python", "run: make ${{ github.ref }}", "pastes an expression"),
        ("      packages: write", "      contents: write", "images may write"),
    ],
)
def test_the_rules_notice(old: str, new: str, fault: str) -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    assert old in text
    loaded = yaml.safe_load(text.replace(old, new))
    loaded["on"] = loaded.pop(True)
    assert [line for line in faults("ci.yml", loaded) if fault in line]


def test_a_push_tests_both_pythons() -> None:
    loaded = workflow("ci.yml")
    assert "push" in loaded["on"]
    for job in ("test", "parity"):
        assert loaded["jobs"][job]["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    commands = "\n".join(step.get("run", "") for step in steps_of(loaded))
    assert "make test" in commands
    assert "make parity" in commands


def test_commands_that_they_run_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    wanted = set(workflow("nightly.yml")["jobs"]["long"]["strategy"]["matrix"]["target"])
    missing: set[str] = set()
    for path in FILES:
        text = path.read_text("utf-8")
        wanted |= set(re.findall(r"\bmake ([a-z-]+)", "\n".join(_runs(path))))
        for script in re.findall(r"[\w./-]*\.github/scripts/[\w.]+", text):
            assert (ROOT / script.removeprefix("../../")).is_file(), script
        for file in re.findall(r"requirements/[\w-]+\.(?:txt|sh)", text):
            assert (ROOT / file).is_file(), file
        missing |= {
            book
            for book in re.findall(r"[\w-]+\.yml", "\n".join(_runs(path)))
            if not (ROOT / "deploy/ansible" / book).is_file()
        }
    assert wanted - targets <= {"faults"}
    if missing or wanted - targets:
        pytest.skip(f"not here yet: {', '.join(sorted(missing | (wanted - targets)))}")


def _runs(path: Path) -> list[str]:
    return [step.get("run", "") for step in steps_of(workflow(path.name))]


def test_every_image_of_the_compose_file_is_built() -> None:
    rows = workflow("images.yml")["jobs"]["build"]["strategy"]["matrix"]["include"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    composed = {
        name: (
            Path(service["build"]["dockerfile"]).name.removesuffix(".Dockerfile"),
            service["build"].get("target", ""),
        )
        for name, service in compose["services"].items()
        if "build" in service
    }
    assert {row["image"]: (row["file"], row["target"]) for row in rows} == composed
    push = next(s for s in steps_of(workflow("images.yml")) if "build-push" in s.get("uses", ""))
    assert "mode=max" in push["with"]["provenance"]
    assert push["with"]["sbom"] == "${{ inputs.push }}"


def test_a_roll_out_is_approved_goes_canary_first_and_back_when_it_fails() -> None:
    loaded = workflow("deploy.yml")
    (job,) = loaded["jobs"].values()
    assert job["environment"] == "${{ inputs.environment }}", "nobody would be asked"
    assert loaded["concurrency"]["cancel-in-progress"] is False
    names = [step.get("name", "") for step in job["steps"]]
    order = ["Canaries", "Smoke the canaries", "The rest", "Smoke every host", "Roll back"]
    assert [name for name in names if name in order] == order
    steps = {step.get("name", ""): step for step in job["steps"]}
    assert "--limit presage_canary" in steps["Canaries"]["run"]
    assert "--limit" not in steps["The rest"]["run"]
    assert steps["Roll back"]["if"] == "${{ failure() || cancelled() }}"
    assert "presage_rollback_from" in steps["Roll back"]["run"]
    assert steps["Forget who we are"]["if"] == "always()"


def test_production_waits_for_staging() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert set(jobs["images"]["needs"]) == {"version", "ci"}
    assert "release" in jobs["staging"]["needs"]
    assert "staging" in jobs["production"]["needs"]
    assert jobs["production"]["with"]["environment"] == "production"


@pytest.fixture(scope="module")
def notes() -> ModuleType:
    path = ROOT / ".github/scripts/release_notes.py"
    spec = importlib.util.spec_from_file_location("release_notes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_notes_are_the_section_of_the_version(notes: ModuleType) -> None:
    changelog = (
        "# Changelog\n\n## Unreleased\n\n- new\n\n## 1.2.3 (2026-11-01)\n\n- a\n- b\n\n## 1.2\n"
    )
    assert notes.release_notes(changelog, "1.2.3") == "- a\n- b\n"
    assert notes.release_notes(changelog, "Unreleased") == "- new\n"
    for version in ("1.2", "2.0.0", "1.2.3.4"):
        with pytest.raises(LookupError, match=re.escape(version)):
            notes.release_notes(changelog, version)


def test_the_version_is_that_of_the_images(notes: ModuleType) -> None:
    assert f"PRESAGE_TAG={notes.project_version()}\n" in (ROOT / ".env.example").read_text("utf-8")


INVENTORY = """\
#!/bin/sh
cat <<'JSON'
{"_meta": {"hostvars": {"a": {"ansible_host": "10.0.0.1", "ansible_user": "ops"}, "b": {}}},
 "presage": {"children": ["one"]}, "one": {"hosts": ["a", "b"]}, "presage_canary": {"hosts": ["a"]}}
JSON
"""
SSH = '#!/bin/sh\necho "$*" >> "$SAID"\nexec sleep 60\n'


@pytest.mark.parametrize(
    ("group", "healthy", "code", "asked"),
    [("presage_canary", "0", 0, 1), ("presage", "0", 0, 2), ("nobody", "0", 1, 0)],
)
def test_smoke_asks_every_host_of_a_group_stand_in_ssh_and_clients(
    tmp_path: Path, group: str, healthy: str, code: int, asked: int
) -> None:
    done, said = _smoke(tmp_path, group, healthy)
    assert (done.returncode, len(said)) == (code, asked), done.stdout + done.stderr
    if asked:
        assert "127.0.0.1:19001:127.0.0.1:9001 ops@10.0.0.1" in said[0]


def test_smoke_fails_where_a_tunnel_breaks_stand_in_ssh_and_clients(tmp_path: Path) -> None:
    done, _ = _smoke(tmp_path, "presage", "12", ssh="#!/bin/sh\nexit 255\n")
    assert done.returncode == 1
    assert "a does not serve" in done.stderr
    assert "b does not serve" in done.stderr


def _smoke(
    tmp_path: Path, group: str, health_code: str, ssh: str = SSH
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """smoke.sh in a checkout of its own, with stand-ins for ssh, ansible-inventory and clients."""
    checkout, binaries, said = tmp_path / "checkout", tmp_path / "bin", tmp_path / "said"
    (checkout / ".github/scripts").mkdir(parents=True)
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / "clients").mkdir()
    binaries.mkdir()
    said.touch()
    shutil.copy(ROOT / ".github/scripts/smoke.sh", checkout / ".github/scripts")
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    (checkout / "clients/__main__.py").write_text(f"raise SystemExit({health_code})\n")
    for name, text in (("ssh", ssh), ("ansible-inventory", INVENTORY)):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(checkout / ".github/scripts/smoke.sh"), "hosts.yml", group],
        env=os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "SAID": str(said)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done, said.read_text().splitlines()
