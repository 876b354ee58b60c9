"""``tune``: which settings of a served model give the most within a p99, on this machine.

One knob after another (coordinate descent): all values of a knob are served at once and measured in
turns, and the best one is the base of the next knob. Besides the load that is tuned for, few
callers ask as well: Triton 2.51 leaves their requests waiting for 500 ms now and then where a model
has a queue delay, one instance or two. What stalls is never chosen, however fast it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from contract.errors import InputError, PresageError, UnknownModelError
from export.config_pbtxt import CONFIG_FILE, ModelConfig
from export.tuning import Tuning, Tunings, apply_tuning
from loadtest.served import Questions, ServedModel
from loadtest.speed.grpc_load import GrpcLoad
from loadtest.speed.infer_message import infer_message
from loadtest.speed.presage_server import PresageServer, presage_server, stage_newest

STALL_SECONDS = 0.4
_STALL_RATIO = 10.0
SPARSE_CALLERS = 3
_WARM_UP_SECONDS = 1.0
# A later value must be this much faster to replace the base: below it is the noise of the rounds.
_WORTH = 1.03
# What is known to stall is watched so much longer: stalls are seconds apart.
_RISKY_PATIENCE = 5


@dataclass(frozen=True)
class Knob:
    """One setting of one Triton model, and the values to try besides what it is."""

    model: str
    setting: str
    values: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.model}.{self.setting}"


Settings = tuple[tuple[str, Tuning], ...]
"""(Triton model, its settings), sorted: a key."""


@dataclass
class Trial:
    """One combination: rates (rows/s) and latencies under load, latencies of few callers."""

    settings: Settings
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sparse_seconds: list[float] = field(default_factory=list)
    refused: str = ""

    @property
    def rate(self) -> float:
        return median(self.rates) if self.rates else 0.0

    @property
    def p50(self) -> float:
        return float(np.median(self.seconds)) if self.seconds else float("inf")

    @property
    def p99(self) -> float:
        return float(np.quantile(self.seconds, 0.99)) if self.seconds else float("inf")

    @property
    def stalls(self) -> int:
        """Requests of few callers that waited for what nothing explains."""
        if not self.sparse_seconds:
            return 0
        limit = max(STALL_SECONDS, _STALL_RATIO * median(self.sparse_seconds))
        return sum(seconds >= limit for seconds in self.sparse_seconds)

    def __str__(self) -> str:
        told = [
            f"{model}: {', '.join(f'{key} {value}' for key, value in one.settings().items())}"
            for model, one in self.settings
            if one.settings()
        ]
        return "; ".join(told) or "as the specs say"


@dataclass(frozen=True)
class TuneSettings:
    """p99_seconds: of requests under ``concurrency`` callers. seconds: of one trial's round."""

    repository: Path
    artifacts: Path
    target: str = "cpu"
    p99_seconds: float = 0.02
    concurrency: int = 32
    rounds: int = 3
    seconds: float = 2.0
    fresh: bool = True


def knobs(model: ServedModel) -> Iterator[Knob]:
    """What there is to turn, the most promising first. Few instances are tried too, to see it."""
    graph = model.manifest.graph
    sizes = sorted({max(1, graph.max_batch_size // 4), graph.max_batch_size})
    if model.manifest.front is None:
        yield Knob(graph.triton_name, "instances", (1, 2, 3, 4))
        yield Knob(graph.triton_name, "threads", (1, 2))
        yield Knob(graph.triton_name, "preferred_batch_size", tuple(sizes))
        yield Knob(graph.triton_name, "max_queue_delay_microseconds", (0, 500, 2000))
        return
    front = model.manifest.front
    yield Knob(graph.triton_name, "instances", (1, 2, 3))
    yield Knob(front.triton_name, "instances", (1, 2, 3, 4))
    yield Knob(front.triton_name, "chunk_tokens", (128, 256, 512, 1024))
    yield Knob(graph.triton_name, "threads", (1, 2))
    yield Knob(front.triton_name, "preferred_batch_size", (16, 64, front.max_batch_size))
    yield Knob(front.triton_name, "max_queue_delay_microseconds", (0, 500, 2000))


def search(
    turned: Sequence[Knob],
    measure: Callable[[Sequence[Trial]], None],
    p99_seconds: float,
    *,
    base: Settings = (),
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Trial, list[Trial]]:
    """The best trial and all of them. ``measure`` fills the trials it is given, in turns.

    The base is measured again beside each knob's values: rates of different moments do not compare.
    """
    best = Trial(base)
    tried: dict[Settings, Trial] = {}
    for knob in turned:
        tell(str(knob))
        incumbent = Trial(best.settings)
        others = [
            Trial(candidate)
            for value in knob.values
            if (candidate := with_value(best.settings, knob, value)) != best.settings
        ]
        measure([incumbent, *others])
        tried.update({trial.settings: trial for trial in (incumbent, *others)})
        best = choose(incumbent, others, p99_seconds)
    return best, list(tried.values())


def choose(incumbent: Trial, others: Sequence[Trial], p99_seconds: float) -> Trial:
    """The fastest within the p99 that did not stall; where none is within it, the lowest p99."""
    sound = [trial for trial in (incumbent, *others) if not trial.refused and not trial.stalls]
    within = [trial for trial in sound if trial.p99 <= p99_seconds]
    if within:
        fastest = max(within, key=lambda trial: trial.rate)
        worth = fastest.rate >= _WORTH * incumbent.rate
        return fastest if worth or incumbent not in within else incumbent
    if not sound:
        return incumbent
    nearest = min(sound, key=lambda trial: trial.p99)
    worth = nearest.p99 * _WORTH <= incumbent.p99
    return nearest if worth or incumbent not in sound else incumbent


def pareto(trials: Sequence[Trial]) -> list[Trial]:
    """Those that no other sound one beats in both rate and p99, the fastest first."""
    sound = [trial for trial in trials if trial.rates and not trial.refused and not trial.stalls]
    front: list[Trial] = []
    for trial in sorted(sound, key=lambda one: (-one.rate, one.p99)):
        if not front or trial.p99 < front[-1].p99:
            front.append(trial)
    return front


def risky(settings: Settings) -> bool:
    """One or two instances, or a queue delay: known to stall."""
    return any(
        tuning.instances in (1, 2) or tuning.max_queue_delay_microseconds for _, tuning in settings
    )


def with_value(settings: Settings, knob: Knob, value: int) -> Settings:
    """The settings with one of them changed."""
    changed = dict(settings)
    known = changed.get(knob.model, Tuning())
    changed[knob.model] = dataclasses.replace(known, **{knob.setting: value})
    return tuple(sorted(changed.items(), key=lambda pair: pair[0]))


def measurer(
    model: ServedModel, settings: TuneSettings, step_done: Callable[[], object]
) -> Callable[[Sequence[Trial]], None]:
    """Serves trials side by side and fills them; one that cannot be served is refused."""
    asked = Questions(model, fresh=settings.fresh, seed=1)
    messages = (infer_message(model.name, inputs, model.outputs) for inputs in asked)

    def measure(trials: Sequence[Trial]) -> None:
        with contextlib.ExitStack() as stack:
            loads = []
            for trial in trials:
                try:
                    server = stack.enter_context(_serve(model, settings, trial))
                    loads.append((trial, *_loads(server, messages, settings.concurrency)))
                    loads[-1][1].run(_WARM_UP_SECONDS)
                except PresageError as error:
                    loads = [one for one in loads if one[0] is not trial]
                    trial.refused = str(error)[:120]
            for _ in range(settings.rounds):
                for trial, many, few in loads:
                    taken, rate = many.run(settings.seconds)
                    trial.rates.append(rate)
                    trial.seconds += taken
                    patience = _RISKY_PATIENCE if risky(trial.settings) else 1
                    trial.sparse_seconds += few.run(patience * settings.seconds / 2)[0]
                step_done()

    return measure


def _loads(
    server: PresageServer, messages: Iterator[bytes], concurrency: int
) -> tuple[GrpcLoad, GrpcLoad]:
    return (
        GrpcLoad(server.grpc_address, messages, concurrency),
        GrpcLoad(server.grpc_address, messages, min(SPARSE_CALLERS, concurrency)),
    )


@contextlib.contextmanager
def _serve(model: ServedModel, settings: TuneSettings, trial: Trial) -> Iterator[PresageServer]:
    with tempfile.TemporaryDirectory(prefix="presage-tune-") as folder:
        repository = Path(folder) / "repository"
        stage_newest(settings.repository, repository, (model.name,), twins=False)
        for name, tuning in trial.settings:
            path = repository / name / CONFIG_FILE
            config = ModelConfig(name, path.read_text(encoding="utf-8"), None)
            path.write_text(apply_tuning(config, tuning).config, encoding="utf-8")
        with presage_server(repository, (model.name,), twins=False) as server:
            yield server


def tune(
    name: str,
    served: Sequence[ServedModel],
    settings: TuneSettings,
    *,
    progress: bool = True,
) -> tuple[Trial, list[Trial]]:
    """Search for one model as clients name it.

    Raises:
        UnknownModelError: it is not published.
        InputError: a p99 or a number of callers that makes no sense.
    """
    from tqdm import tqdm

    model = next((one for one in served if one.name == name), None)
    if model is None:
        raise UnknownModelError(
            f"unknown model {name!r}",
            where=str(settings.repository),
            expected=f"one of {', '.join(one.name for one in served)}",
        )
    if settings.p99_seconds <= 0:
        raise InputError("--p99-ms makes no sense", expected="more than 0")
    turned = [knob for knob in knobs(model) if _tunable(knob, settings)]
    with tqdm(
        total=len(turned) * settings.rounds, desc=f"tune {name}", unit="round", disable=not progress
    ) as bar:
        return search(
            turned,
            measurer(model, settings, bar.update),
            settings.p99_seconds,
            tell=lambda what: bar.set_description(f"tune {what}"),
        )


def _tunable(knob: Knob, settings: TuneSettings) -> bool:
    """The openvino backend has no dynamic batcher to tune."""
    text = (settings.repository / knob.model / CONFIG_FILE).read_text(encoding="utf-8")
    batched = "dynamic_batching" in text
    return batched or knob.setting in ("instances", "threads", "chunk_tokens")


def merged(known: Tunings, target: str, best: Trial) -> Tunings:
    """The tuning file's content with what was found for one model."""
    models = dict(known.get(target, {}))
    for model, tuning in best.settings:
        models[model] = models.get(model, Tuning()).merged(tuning)
    return {**known, target: models}


def tune_table(best: Trial, trials: Sequence[Trial], name: str, settings: TuneSettings) -> str:
    """Markdown: every trial, the fastest first; those no other beats are marked."""
    from loadtest.hardware import hardware

    unbeaten = {id(trial) for trial in pareto(trials)}
    lines = [
        f"`python -m loadtest tune {name} --p99-ms {1000 * settings.p99_seconds:g}`: "
        f"{settings.concurrency} callers, medians of {settings.rounds} rounds in turns; "
        f"{hardware()}. A stall: one of {SPARSE_CALLERS} callers waited {STALL_SECONDS:g} s or "
        "more.",
        "",
        "| settings | requests/s | p50, ms | p99, ms | stalls | |",
        "|---|---|---|---|---|---|",
    ]
    for trial in sorted(trials, key=lambda one: -one.rate):
        notes = [
            "chosen" if trial.settings == best.settings else "",
            "Pareto" if id(trial) in unbeaten else "",
            trial.refused,
        ]
        told = ", ".join(note for note in notes if note)
        lines.append(
            f"| {trial} | {trial.rate:,.0f} | {1000 * trial.p50:.1f} | {1000 * trial.p99:.1f} "
            f"| {trial.stalls} | {told} |"
        )
    if best.p99 > settings.p99_seconds:
        lines += [
            "",
            f"None kept p99 within {1000 * settings.p99_seconds:g} ms: the lowest stands.",
        ]
    return "\n".join(lines)
