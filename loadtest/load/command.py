"""``python -m loadtest run|ui|cross-check|reference``: load on the running server or one's own."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import ServerAnswerError, ServerError

if TYPE_CHECKING:
    from loadtest.load.figures import RunFigures
    from loadtest.load.locust_run import LoadSettings
    from loadtest.load.own_server import Endpoints
    from loadtest.load.slo import Slo, Verdict

_SHAPES = ("constant", "step", "ramp", "spike", "soak", "fleet")
_CHANNELS = {"grpc": "gRPC", "http": "HTTP", "gateway": "gateway"}
_FLEET_MODELS = {
    "series": "metric_forecast_fleet",
    "lines": "log_anomaly",
    "jobs": "train_failure_rca",
}
_CLOSED_LOOP_SECONDS = 10.0

Address = Callable[[str, str], str]


def add_load_parsers(
    commands: Any, add_places: Callable[[argparse.ArgumentParser], None], address: Address
) -> None:
    """add_places: --url, --http-url, --repository, --artifacts. address: host:port of a URL."""
    run = commands.add_parser(
        "run",
        help="a bounded Locust run, every answer checked",
        description="Without --shape a closed loop: users who ask again once answered. With one an "
        "open loop: requests are due at their rate, and latency counts from then.",
    )
    add_places(run)
    _add_servers(run)
    run.add_argument("--shape", choices=_SHAPES, help="of an open loop")
    run.add_argument("--users", type=_positive, default=8, help="of a closed loop (%(default)s)")
    run.add_argument("--seconds", type=_positive_number, help="(10; the shape's own)")
    run.add_argument(
        "--rate",
        action="append",
        default=[],
        type=_rate,
        metavar="[MODEL=]N",
        help="requests a second of every model, or of one; repeatable (slo.toml's)",
    )
    run.add_argument("--times", type=_positive_number, default=1.0, help="all rates (%(default)s)")
    run.add_argument("--process", choices=("poisson", "constant"), default="poisson")
    run.add_argument("--model", action="append", default=[], help="only this one; repeatable")
    run.add_argument(
        "--channel", action="append", choices=tuple(_CHANNELS), help="only this way; repeatable"
    )
    run.add_argument(
        "--senders",
        type=_positive,
        default=32,
        help="requests of one model and way that may be unanswered at a time (%(default)s)",
    )
    run.add_argument(
        "--give-up-seconds",
        type=_positive_number,
        default=10.0,
        help="a request that could not be sent so long after it was due failed (%(default)s)",
    )
    for word, model in _FLEET_MODELS.items():
        run.add_argument(f"--{word}", type=_positive, help=f"of the fleet's minute, to {model}")
    run.add_argument("--fresh", action="store_true", help="no text comes twice (defeats caches)")
    run.add_argument("--data", type=Path, help="logs and job logs to ask (PRESAGE_DATA)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--slo", type=Path, help="objectives (loadtest/slo.toml)")
    run.add_argument("--report", type=Path, metavar="FILE.html", help="one page with plots")
    run.add_argument("--markdown", type=Path, metavar="FILE.md")
    run.add_argument(
        "--cross-check", action="store_true", help="then ask one model by perf_analyzer, too"
    )
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.set_defaults(run=lambda arguments: _run(arguments, address))

    page = commands.add_parser("ui", help="Locust's own web page, on the loopback interface")
    add_places(page)
    _add_servers(page)
    page.add_argument("--port", type=int, default=8089, help="of the page (%(default)s)")
    page.add_argument("--data", type=Path)
    page.add_argument("--fresh", action="store_true")
    page.set_defaults(run=lambda arguments: _ui(arguments, address))

    check = commands.add_parser(
        "cross-check", help="the same load by perf_analyzer, a client that nobody here wrote"
    )
    add_places(check)
    _add_servers(check)
    check.add_argument("--model", help="(the forecaster of the longest context)")
    check.add_argument("--concurrency", type=_positive, default=8, help="(%(default)s)")
    check.add_argument("--rounds", type=_positive, default=5, help="(%(default)s)")
    check.add_argument("--seconds", type=_positive_number, default=5.0, help="of each, a round")
    check.add_argument("--data", type=Path, help="(PRESAGE_DATA)")
    check.add_argument("--markdown", type=Path, default=Path("build/load/cross_check.md"))
    check.set_defaults(run=lambda arguments: _cross_check(arguments, address))

    answers = commands.add_parser("reference", help="eager's answers to a run's payloads")
    answers.add_argument("plan", type=Path)
    answers.add_argument("--quiet", action="store_true")
    answers.set_defaults(run=_reference)


def _add_servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--own-server",
        action="store_true",
        help="start tritonserver on the repository and the gateway, on free ports; end them after",
    )
    parser.add_argument(
        "--gateway", action="store_true", help="start a gateway to the running server, ask it too"
    )


@contextlib.contextmanager
def _endpoints(arguments: argparse.Namespace, address: Address) -> Iterator[Endpoints]:
    from loadtest.load.own_server import Endpoints, own_server
    from loadtest.services.gateway_speed import gateway

    if arguments.own_server:
        with own_server(arguments.repository) as endpoints:
            yield endpoints
        return
    grpc = address(arguments.url, "grpc")
    http = address(arguments.http_url, "http")
    with contextlib.ExitStack() as stack:
        ports: dict[str, int] = {}
        if arguments.gateway:
            ports = stack.enter_context(gateway(f"grpc://{grpc}", arguments.repository))
        yield Endpoints(grpc, http, ports)


def _settings(arguments: argparse.Namespace, endpoints: Endpoints) -> LoadSettings:
    from loadtest.load.locust_run import CHANNELS, LoadSettings

    channels = tuple(
        channel
        for channel in CHANNELS
        if not arguments.channel or channel in [_CHANNELS[word] for word in arguments.channel]
    )
    fleet = {
        model: getattr(arguments, word)
        for word, model in _FLEET_MODELS.items()
        if getattr(arguments, word) is not None
    }
    seconds = arguments.seconds
    if seconds is None and arguments.shape is None:
        seconds = _CLOSED_LOOP_SECONDS
    return LoadSettings(
        grpc_address=endpoints.grpc_address,
        http_address=endpoints.http_address,
        repository=arguments.repository,
        artifacts=arguments.artifacts,
        users=arguments.users,
        seconds=seconds,
        fresh=arguments.fresh,
        shape=arguments.shape,
        models=tuple(arguments.model),
        channels=channels,
        gateway_ports=endpoints.gateway_ports,
        rates=dict(arguments.rate),
        times=arguments.times,
        process=arguments.process,
        senders=arguments.senders,
        give_up_seconds=arguments.give_up_seconds,
        fleet_rows=fleet,
        data=arguments.data,
        seed=arguments.seed,
        ready_requests=endpoints.ready_requests,
    )


def _run(arguments: argparse.Namespace, address: Address) -> int:
    from loadtest.load.locust_run import run_locust
    from loadtest.load.slo import SLO_FILE, read_slo
    from loadtest.load.table import load_markdown, load_table

    slo = read_slo(arguments.slo or SLO_FILE)
    with _endpoints(arguments, address) as endpoints:
        settings = _settings(arguments, endpoints)
        if settings.shape == "ramp":
            return _ramp(arguments, settings, slo)
        figures = run_locust(settings, slo=slo, progress=not arguments.quiet)
        checked = _checked(arguments, endpoints) if arguments.cross_check else None
    found = _verdicts(figures, slo)
    # Told, not judged: on a shared machine the clients' own cost is in both figures.
    told = "" if checked is None else f"\n{checked[0]}\n"
    print(load_table(figures, found) + told)
    _write(arguments.markdown, lambda: load_markdown(figures, found) + told)
    _write_page(arguments.report, [figures], found, slo, told)
    return exit_code([figures], found)


def _ramp(arguments: argparse.Namespace, settings: LoadSettings, slo: Slo) -> int:
    """Each model by itself, or one would break for what another takes."""
    from dataclasses import replace

    from loadtest.load.locust_run import asked_models, run_locust
    from loadtest.load.slo import wrong_answers
    from loadtest.load.table import ramp_row, ramp_table

    runs: list[RunFigures] = []
    for model in asked_models(settings):
        own = replace(
            settings,
            models=(model.name,),
            channels=tuple(c for c in settings.channels if c == "gRPC") or settings.channels[:1],
        )
        runs.append(run_locust(own, slo=slo, progress=not arguments.quiet))
    table = ramp_table([ramp_row(run, slo) for run in runs])
    found = [verdict for run in runs for verdict in wrong_answers(run)]
    print(table)
    for verdict in found:
        print(f"missed {verdict}")
    _write(arguments.markdown, lambda: f"```\n{table}\n```\n")
    _write_page(arguments.report, runs, found, slo)
    return exit_code(runs, found)


def _verdicts(figures: RunFigures, slo: Slo) -> list[Verdict]:
    from loadtest.load.slo import fleet_verdicts, verdicts, wrong_answers

    if figures.plan.loop == "closed":
        return wrong_answers(figures)
    if figures.plan.shape == "fleet":
        return wrong_answers(figures) + fleet_verdicts(figures)
    return wrong_answers(figures) + verdicts(slo, figures)


def exit_code(runs: Sequence[RunFigures], found: Sequence[Verdict]) -> int:
    """Of a wrong answer, of a missed objective or failed request, or 0."""
    if any(run.wrong for run in runs):
        return ServerAnswerError.exit_code
    failed = any(run.failures and run.plan.loop == "closed" for run in runs)
    missed = any(not verdict.kept for verdict in found)
    return ServerError.exit_code if failed or missed else 0


def _write(path: Path | None, text: Callable[[], str]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(), encoding="utf-8")


def _write_page(
    path: Path | None,
    runs: Sequence[RunFigures],
    found: Sequence[Verdict],
    slo: Slo,
    checked: str = "",
) -> None:
    if path is None:
        return
    from loadtest.load.page import load_page

    _write(path, lambda: load_page(runs, found, slo, checked))
    print(f"report: {path}")


def _ui(arguments: argparse.Namespace, address: Address) -> int:
    from loadtest.load.locust_page import serve_page

    with _endpoints(arguments, address) as endpoints:
        return serve_page(arguments, endpoints)


def _cross_check(arguments: argparse.Namespace, address: Address) -> int:
    with _endpoints(arguments, address) as endpoints:
        table, agrees = _checked(
            arguments,
            endpoints,
            model=arguments.model,
            concurrency=arguments.concurrency,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
        )
    _write(arguments.markdown, lambda: table + "\n")
    print(table)
    return ServerError.exit_code if agrees is False else 0


def _checked(
    arguments: argparse.Namespace, endpoints: Endpoints, **facts: Any
) -> tuple[str, bool | None]:
    """The cross-check's table, and whether the clients agree; None: not measured."""
    from loadtest.load.cross_check import CrossCheckSettings, cross_check, cross_check_table

    settings = CrossCheckSettings(
        grpc_address=endpoints.grpc_address,
        http_address=endpoints.http_address,
        repository=arguments.repository,
        artifacts=arguments.artifacts,
        data=arguments.data,
        **facts,
    )
    result = cross_check(settings)
    return cross_check_table(result, settings), result.agrees


def _reference(arguments: argparse.Namespace) -> int:
    from loadtest.load.plan import LoadPlan
    from loadtest.load.reference import write_answers

    write_answers(LoadPlan.read(arguments.plan), progress=not arguments.quiet)
    return 0


def _rate(text: str) -> tuple[str, float]:
    model, _, number = text.rpartition("=")
    return model, _positive_number(number)


def _positive_number(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number
