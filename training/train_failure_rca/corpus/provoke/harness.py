"""Scenarios to labelled logs: runs them and finds the lines that prove their labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from training.train_failure_rca.corpus.provoke import scenarios
from training.train_failure_rca.corpus.provoke.normalise import cut, leftovers
from training.train_failure_rca.corpus.provoke.sandbox import missing_needs, run_scenario
from training.train_failure_rca.corpus.provoke.scenario import Scenario


class ProvokeError(Exception):
    """A scenario's output is not what the scenario declares."""


@dataclass(frozen=True)
class ProvokedLog:
    """One row of the corpus. Line numbers count from 1 in ``text`` split at newlines."""

    text: str
    labels: list[str]
    root: str | None
    family: str
    scenario: str
    origin: str
    failed: bool
    decisive_lines: list[int]
    proofs: dict[str, list[int]]

    def as_row(self) -> dict[str, object]:
        return asdict(self)


@cache
def all_scenarios() -> dict[str, Scenario]:
    """By name, in the order of the themes. Raises ProvokeError for a name used twice."""
    found: dict[str, Scenario] = {}
    for module in sorted(iter_modules(scenarios.__path__), key=lambda m: m.name):
        if module.name.startswith("_"):
            continue
        for scenario in import_module(f"{scenarios.__name__}.{module.name}").SCENARIOS:
            if scenario.name in found:
                raise ProvokeError(f"{scenario.name}: two scenarios of that name")
            found[scenario.name] = scenario
    return found


def provoke(scenario: Scenario, *, attempts: int = 2) -> ProvokedLog:
    """Run one scenario; again if it fails, as dying ranks do not always get to print.

    Raises:
        ProvokeError: it ended otherwise than declared, a proof is missing, or the output names
            this machine.
    """
    for _ in range(attempts - 1):
        try:
            return _provoke(scenario)
        except ProvokeError:
            continue
    return _provoke(scenario)


def _provoke(scenario: Scenario) -> ProvokedLog:
    outcome = run_scenario(scenario)
    _check_end(scenario, outcome.exit_code, outcome.text)
    lines = outcome.text.split("\n")
    proofs: dict[str, list[int]] = {}
    for label, patterns in scenario.proofs.items():
        numbers: set[int] = set()
        for pattern in patterns:
            matching = {n for n, line in enumerate(lines, 1) if re.search(pattern, line)}
            if not matching:
                raise ProvokeError(
                    f"{scenario.name}: no line matches {pattern!r} ({label}), got:\n"
                    + _tail(outcome.text)
                )
            numbers |= matching
        proofs[label] = sorted(numbers)
    lines, proofs = cut(lines, proofs)
    text = "\n".join(lines)
    if left := leftovers(text):
        raise ProvokeError(f"{scenario.name}: the output still names this machine: {left}")
    return ProvokedLog(
        text=text,
        labels=list(scenario.labels),
        root=scenario.root,
        family=scenario.family,
        scenario=scenario.name,
        origin=scenario.origin,
        failed=scenario.failed,
        decisive_lines=sorted(set().union(*proofs.values())),
        proofs=proofs,
    )


def provoke_all(
    wanted: Sequence[Scenario], *, jobs: int
) -> Iterator[tuple[Scenario, ProvokedLog | ProvokeError]]:
    """Each scenario with its log, or with what went wrong, as they finish."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(provoke, scenario): scenario for scenario in wanted}
        try:
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except ProvokeError as error:
                    yield futures[future], error
        finally:
            # Interrupted: what runs ends within its time and cleans up, the rest never starts.
            for future in futures:
                future.cancel()


def runnable(wanted: Sequence[Scenario]) -> tuple[list[Scenario], dict[str, list[str]]]:
    """Those that this machine can run, and what the others lack."""
    lacking = {scenario.name: list(missing_needs(scenario)) for scenario in wanted}
    return [s for s in wanted if not lacking[s.name]], {n: m for n, m in lacking.items() if m}


def _check_end(scenario: Scenario, exit_code: int | None, text: str) -> None:
    if exit_code is None:
        raise ProvokeError(
            f"{scenario.name}: still running after {scenario.timeout_seconds} s, got:\n"
            + _tail(text)
        )
    if (exit_code != 0) != scenario.failed:
        raise ProvokeError(
            f"{scenario.name}: ended with {exit_code}, expected"
            f" {'a failure' if scenario.failed else '0'}, got:\n" + _tail(text)
        )


def _tail(text: str) -> str:
    return "\n".join(f"    {line[:300]}" for line in text.split("\n")[-25:])
