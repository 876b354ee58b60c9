"""One program that fails for a known cause, and the two short forms in which they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Literal

Need = Literal["namespaces", "cgroup", "gcc"]
Causes = Mapping[str, str | tuple[str, ...]]

PROGRAM_OUTPUT = "program output"
# Where the machine cannot do a thing for real; the rest of the output is still the program's own.
SHIMMED_OUTPUT = "program output, errno injected"


@dataclass(frozen=True)
class Scenario:
    """A program and what its output proves.

    ``proofs`` maps each label to the patterns of its decisive lines, the root first; every pattern
    must match some line. ``prepare`` and ``epilogue`` are shell text that runs with all privileges
    before and after the command, which itself runs without any: root may read what others may not.
    Without ``root_shown`` the output shows only what followed from a cause that it does not name.
    """

    name: str
    family: str
    proofs: dict[str, tuple[str, ...]]
    command: tuple[str, ...]
    files: dict[str, str]
    failed: bool
    needs: tuple[Need, ...] = ()
    origin: str = PROGRAM_OUTPUT
    prepare: str = ""
    epilogue: str = ""
    style: str | None = None
    timeout_seconds: float = 60.0
    root_shown: bool = True
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.proofs)

    @property
    def root(self) -> str | None:
        return next(iter(self.proofs), None) if self.root_shown else None


def python(
    name: str,
    family: str,
    causes: Causes,
    code: str,
    *,
    script: str = "train.py",
    arguments: Sequence[str] = (),
    failed: bool = True,
    **more: object,
) -> Scenario:
    """A Python program. ``family`` is completed by the root's label."""
    command = ("python", script, *arguments)
    return _scenario(name, family, causes, code, script, command, failed, more)


def shell(
    name: str,
    family: str,
    causes: Causes,
    code: str,
    *,
    failed: bool = True,
    **more: object,
) -> Scenario:
    """A bash script, as a job's entry point often is one."""
    return _scenario(name, family, causes, code, "run.sh", ("bash", "run.sh"), failed, more)


def ranks(
    name: str,
    family: str,
    causes: Causes,
    code: str,
    *,
    processes: int = 2,
    options: Sequence[str] = (),
    script: str = "train.py",
    failed: bool = True,
    **more: object,
) -> Scenario:
    """A program that torchrun starts once per rank."""
    command = (
        *("python", "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *(options or ("--master-addr", "127.0.0.1", "--master-port", "29500")),
        script,
    )
    return _scenario(name, family, causes, code, script, command, failed, more)


def _scenario(
    name: str,
    family: str,
    causes: Causes,
    code: str,
    script: str,
    command: tuple[str, ...],
    failed: bool,
    more: Mapping[str, object],
) -> Scenario:
    proofs = {
        label: (patterns,) if isinstance(patterns, str) else patterns
        for label, patterns in causes.items()
    }
    prefix = next(iter(proofs), "unknown" if failed else "healthy")
    options = dict(more)
    extra = options.pop("files", {})
    assert isinstance(extra, dict)
    files = {script: dedent(code).lstrip("\n")}
    files |= {path: dedent(text).lstrip("\n") for path, text in extra.items()}
    return Scenario(name, f"{prefix}/{family}", proofs, command, files, failed, **options)  # type: ignore[arg-type]
