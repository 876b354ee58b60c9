"""The command line of the clients: files or stdin in, a table or JSON lines out."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clients._transport import DEFAULT_URL
from clients.csv_series import read_csv_series
from clients.diagnose import TrainFailureRCAClient, check_threshold
from clients.forecast import MetricForecastClient
from clients.logs import LogAnomalyClient
from clients.policy import CallPolicy
from clients.results import Diagnosis
from clients.server import ModelState, ModelStatistics, ServerClient, not_ready
from clients.table import GREEN, RED, YELLOW, render
from contract.errors import (
    DataFileError,
    InputError,
    PresageError,
    SeriesError,
    ServerUnavailableError,
)

URL_VARIABLE = "PRESAGE_URL"
TOKEN_VARIABLE = "PRESAGE_TOKEN"
_STATE_COLOURS = {"READY": GREEN, "LOADING": YELLOW, "UNLOADING": YELLOW, "UNAVAILABLE": RED}
_DEFAULT_STEP_SECONDS = 300.0


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code (see contract.errors)."""
    arguments = _parser().parse_args(argv)
    try:
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except PresageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader (head, less) went away.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help=f"grpc://host:port or http://host:port (default: ${URL_VARIABLE} or {DEFAULT_URL})",
    )
    common.add_argument(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE),
        help=f"bearer token, where a proxy before the server asks for one (default: "
        f"${TOKEN_VARIABLE}, which other users of this machine cannot see)",
    )
    common.add_argument("--deadline-seconds", type=float, default=60.0)
    common.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser = argparse.ArgumentParser(prog="python -m clients", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    forecast = commands.add_parser("forecast", parents=[common], help="where will a metric be?")
    forecast.add_argument("files", nargs="*", default=["-"], help="CSV timestamp,value; - is stdin")
    forecast.add_argument(
        "--preset", default="12h", help="12h, fleet (a day of context, for many series) or next"
    )
    forecast.add_argument("--step-seconds", type=float, help="default: from the timestamps")
    forecast.set_defaults(run=_forecast)

    logs = commands.add_parser("logs", parents=[common], help="which log lines are abnormal?")
    logs.add_argument("files", nargs="*", default=["-"], help="one line a text; - is stdin")
    logs.add_argument("--all", action="store_true", help="print normal lines too")
    logs.set_defaults(run=_logs)

    diagnose = commands.add_parser("diagnose", parents=[common], help="why did a job die?")
    diagnose.add_argument("files", nargs="*", default=["-"], help="one log a file; - is stdin")
    diagnose.add_argument("--threshold", type=float)
    diagnose.add_argument("--language", choices=["zh", "en"], default="en")
    diagnose.set_defaults(run=_diagnose)

    models = commands.add_parser(
        "models", parents=[common], help="how do the served models do, since the server started?"
    )
    models.set_defaults(run=_models)

    health = commands.add_parser("health", parents=[common], help="what does the server serve?")
    health.set_defaults(run=_health)
    return parser


def _connection(arguments: argparse.Namespace) -> dict[str, Any]:
    """What every client is made with."""
    policy = CallPolicy(deadline_seconds=arguments.deadline_seconds)
    return {"url": arguments.url, "policy": policy, "token": arguments.token}


def _read(name: str) -> bytes:
    """A file or stdin. Raises DataFileError."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise DataFileError("file cannot be read", where=name, got=error.strerror) from error


def _read_all(names: list[str]) -> Iterator[tuple[str, bytes | None, str]]:
    """Name, content and reason: a file that cannot be read does not lose the others."""
    for name in names:
        try:
            yield name, _read(name), ""
        except DataFileError as error:
            yield name, None, str(error)


def _print(record: dict[str, Any]) -> None:
    print(json.dumps(record, ensure_ascii=False))


def _fail(reasons: list[str]) -> int:
    for reason in reasons:
        print(f"error: {reason}", file=sys.stderr)
    return InputError.exit_code if reasons else 0


def _forecast(arguments: argparse.Namespace) -> int:
    series: list[list[float]] = []
    names: list[str] = []
    steps: list[float] = []
    failures: list[str] = []
    for name, content, reason in _read_all(arguments.files):
        try:
            if content is None:
                raise DataFileError(reason)
            read = read_csv_series(name, content.decode("utf-8-sig", "replace"))
        except (DataFileError, SeriesError) as error:
            failures.append(str(error))
            continue
        series.append(read.values)
        names.append(name)
        steps.append(arguments.step_seconds or read.step_seconds or _DEFAULT_STEP_SECONDS)
    rows = []
    with MetricForecastClient(**_connection(arguments)) as client:
        for step in dict.fromkeys(steps):
            group = [i for i, own in enumerate(steps) if own == step]
            answer = client.forecast(
                [series[i] for i in group],
                step_seconds=step,
                preset=arguments.preset,
                on_error="skip",
            )
            failures.extend(f"{names[group[i]]}: {why}" for i, why in answer.errors.items())
            for i, index in enumerate(group):
                if i in answer.errors:
                    continue
                if arguments.json:
                    _print(
                        {
                            "series": names[index],
                            "source": answer.source[i],
                            "step_seconds": answer.step_seconds,
                            "quantiles": {
                                f"{q:g}": [round(float(v), 6) for v in values[i]]
                                for q, values in answer.quantiles.items()
                            },
                            "model_version": answer.model_version,
                        }
                    )
                    continue
                horizon = answer.median.shape[1]
                for step_ahead in sorted({0, horizon // 12 - 1, horizon - 1} & set(range(horizon))):
                    seconds = (step_ahead + 1) * answer.step_seconds
                    band = [f"{answer.quantiles[q][i, step_ahead]:.6g}" for q in answer.quantiles]
                    finite = [v for v in series[index] if math.isfinite(v)]
                    rows.append(
                        [names[index], f"{finite[-1]:.6g}", _span(seconds), *band, answer.source[i]]
                    )
            header = [f"q{q:g}" for q in answer.quantiles]
    if rows:
        print(render(["series", "last", "in", *header, "source"], rows))
    return _fail(failures)


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _logs(arguments: argparse.Namespace) -> int:
    failures: list[str] = []
    rows = []
    counts = {"normal": 0, "anomaly": 0}
    with LogAnomalyClient(**_connection(arguments)) as client:
        for name, content, reason in _read_all(arguments.files):
            if content is None:
                failures.append(reason)
                continue
            lines = [
                (i, line)
                for i, line in enumerate(content.splitlines(), 1)
                if line.decode("utf-8", "replace").strip()
            ]
            try:
                verdicts = client.classify([line for _, line in lines], on_error="skip")
            except InputError as error:
                failures.append(f"{name}: {error}")
                continue
            for (number, line), verdict in zip(lines, verdicts, strict=True):
                if verdict.label is None:
                    failures.append(f"{name}:{number}: {verdict.error}")
                    continue
                counts[verdict.label] += 1
                text = line.decode("utf-8", "replace")
                if arguments.json:
                    record = {"file": name, "line": number, "label": verdict.label}
                    _print(record | {"score": round(verdict.score, 6), "text": text})
                elif arguments.all or verdict.label == "anomaly":
                    rows.append(
                        [f"{name}:{number}", verdict.label, f"{verdict.score:.3f}", text.strip()]
                    )
    if not arguments.json:
        if rows:
            colours = {"anomaly": RED} if _colours() else None
            print(render(["line", "verdict", "score", "text"], rows, colours=colours))
        print(f"{counts['anomaly']} abnormal, {counts['normal']} normal")
    return _fail(failures)


def _diagnose(arguments: argparse.Namespace) -> int:
    failures: list[str] = []
    check_threshold(arguments.threshold)
    with TrainFailureRCAClient(**_connection(arguments)) as client:
        for name, content, reason in _read_all(arguments.files):
            if content is None:
                failures.append(reason)
                continue
            try:
                [diagnosis] = client.diagnose([content], arguments.threshold, on_error="skip")
            except InputError as error:
                failures.append(f"{name}: {error}")
                continue
            if diagnosis.error is not None:
                failures.append(f"{name}: {diagnosis.error}")
            elif arguments.json:
                _print({"file": name} | asdict(diagnosis))
            else:
                print(_story(name, diagnosis, arguments.language, colour=_colours()))
    return _fail(failures)


def _colours() -> bool:
    """Whether a person looks on. NO_COLOR: https://no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _highlighted(text: str) -> str:
    """Evidence in bold red; what a log sent along to steer the terminal is left out."""
    return f"\x1b[1;31m{''.join(c for c in text if c.isprintable() or c == chr(9))}\x1b[0m"


def _story(name: str, diagnosis: Diagnosis, language: str, *, colour: bool = False) -> str:
    """A diagnosis as a person reads it, its evidence highlighted in a terminal."""
    zh = language == "zh"
    if diagnosis.unknown:
        return f"{name}: " + ("失败, 原因未知" if zh else "failed, cause unknown")
    if not diagnosis.causes:
        return f"{name}: " + ("未见失败迹象" if zh else "no evidence of failure")
    lines = []
    for cause in diagnosis.causes:
        is_root = cause.label == diagnosis.root
        role = ("根因" if is_root else "次生") if zh else ("root cause" if is_root else "also")
        lines.append(f"{name}: {role} {cause.label} ({cause.probability:.2f})")
        for line in cause.evidence:
            text = line.text.strip()
            lines.append(f"  {line.line_number}: {_highlighted(text) if colour else text}")
        lines.append(f"  → {cause.action.get(language, '')}")
    return "\n".join(lines)


def _health(arguments: argparse.Namespace) -> int:
    with ServerClient(**_connection(arguments)) as client:
        states = client.models()
    if arguments.json:
        for one in states:
            _print(
                {
                    "model": one.name,
                    "version": one.version,
                    "state": one.state,
                    "reason": one.reason,
                }
            )
    else:
        rows = [[one.name, one.version, one.state, one.reason] for one in states]
        print(render(["model", "version", "state", "reason"], rows, colours=_state_colours()))
    return _readiness(states)


def _readiness(states: list[ModelState]) -> int:
    """Exit code: 0 only where everything that the server should serve is ready."""
    broken = not_ready(states)
    if broken:
        print(f"not ready: {', '.join(broken)}", file=sys.stderr)
    healthy = not broken and any(one.is_ready for one in states)
    return 0 if healthy else ServerUnavailableError.exit_code


def _models(arguments: argparse.Namespace) -> int:
    with ServerClient(**_connection(arguments)) as client:
        states = client.models()
        told = {(row.name, row.version): row for row in client.statistics()}
    header = ["model", "version", "state", "requests", "failures", "latency", "queue", "compute"]
    rows = []
    for one in states:
        statistics = told.get((one.name, one.version))
        if arguments.json:
            _print(_model_record(one, statistics))
        elif statistics is None:
            rows.append([one.name, one.version, one.state, *[""] * 6])
        else:
            rows.append(
                [one.name, one.version, one.state]
                + [f"{statistics.requests:,}", f"{statistics.failures:,}"]
                + [
                    f"{value:.1f} ms"
                    for value in (
                        statistics.mean_latency_milliseconds,
                        statistics.mean_queue_milliseconds,
                        statistics.mean_compute_milliseconds,
                    )
                ]
                + [f"{statistics.mean_batch_size:.1f}"]
            )
    if not arguments.json:
        print(render([*header, "rows a batch"], rows, colours=_state_colours()))
    return _readiness(states)


def _model_record(state: ModelState, statistics: ModelStatistics | None) -> dict[str, Any]:
    figures = {} if statistics is None else asdict(statistics)
    return {"model": state.name, **asdict(state), **figures}


def _state_colours() -> dict[str, str] | None:
    return _STATE_COLOURS if _colours() else None
