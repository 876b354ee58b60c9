"""Messages: families of the catalogue written out as lines of one log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.train_failure_rca.corpus.catalogue import TRACEBACK, Family, Wording
from training.train_failure_rca.corpus.slots import Slots

JOB = "job"
_PREFIXED = ("kernel", "event", "state")
_NO_TRACEBACK_SHARE = 0.15
_MOST_USER_FRAMES = 4
# A traceback runs from a launcher through the user's files into a framework: file, function, code.
_LAUNCHERS = (
    (
        ("/usr/lib/python{lang}/runpy.py", "_run_module_as_main", "return _run_code(code)"),
        ("/usr/lib/python{lang}/runpy.py", "_run_code", "exec(code, run_globals)"),
    ),
    (
        ("{site}/hydra/_internal/utils.py", "_run_hydra", "_run_app("),
        ("{site}/hydra/core/utils.py", "run_job", "ret.return_value = task_function(task_cfg)"),
    ),
    (("{site}/torch/multiprocessing/spawn.py", "_wrap", "fn(i, *args)"),),
)
_USER = (
    ("{file}", "<module>", "main()"),
    ("{file}", "main", "train(args)"),
    ("{file}", "{func}", "trainer.fit(model, datamodule=data)"),
    ("{file2}", "{func}", "loss = model(**batch).loss"),
    ("{file}", "{func}", "for step, batch in enumerate(loader):"),
    ("{file2}", "{func}", "self.run_step(batch, step)"),
    ("{file3}", "{func}", "state = self.prepare(cfg)"),
    ("{file3}", "{func}", "engine = build_engine(cfg)"),
)
_FRAMEWORKS = (
    (
        (
            "{site}/torch/nn/modules/module.py",
            "_wrapped_call_impl",
            "return self._call_impl(*args)",
        ),
        ("{site}/torch/nn/modules/module.py", "_call_impl", "return forward_call(*args, **kwargs)"),
        ("{site}/torch/nn/modules/linear.py", "forward", "return F.linear(input, self.weight)"),
    ),
    (
        ("{site}/torch/utils/data/dataloader.py", "__next__", "data = self._next_data()"),
        ("{site}/torch/utils/data/dataloader.py", "_next_data", "idx, data = self._get_data()"),
    ),
    (
        ("{site}/torch/_tensor.py", "backward", "torch.autograd.backward("),
        ("{site}/torch/autograd/__init__.py", "backward", "_engine_run_backward("),
    ),
    (
        ("{site}/torch/distributed/c10d_logger.py", "wrapper", "return func(*args, **kwargs)"),
        ("{site}/torch/distributed/distributed_c10d.py", "barrier", "work.wait()"),
    ),
    (
        ("{site}/transformers/trainer.py", "train", "return inner_training_loop("),
        (
            "{site}/transformers/trainer.py",
            "_inner_training_loop",
            "self.training_step(model, inputs)",
        ),
        (
            "{site}/transformers/trainer.py",
            "training_step",
            "loss = self.compute_loss(model, inputs)",
        ),
    ),
    (
        ("{site}/lightning/pytorch/trainer/trainer.py", "fit", "call._call_and_handle_interrupt("),
        ("{site}/lightning/pytorch/trainer/trainer.py", "_run", "results = self._run_stage()"),
    ),
    (
        ("{site}/deepspeed/__init__.py", "initialize", "engine = DeepSpeedEngine(args=args,"),
        ("{site}/deepspeed/runtime/engine.py", "__init__", "self._configure_optimizer(optimizer)"),
    ),
    (
        ("{site}/megatron/training/training.py", "pretrain", "iteration = train("),
        ("{site}/megatron/training/training.py", "train_step", "losses = forward_backward_func("),
    ),
    (("{site}/accelerate/accelerator.py", "backward", "self.scaler.scale(loss).backward()"),),
)
_CARETS = "    ^^^^^^^^^^^^^^^^"


@dataclass(frozen=True)
class LabelledLine:
    """A physical line of a log and the labels it proves (none for most)."""

    text: str
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DraftLine:
    """A line before it is dressed: who prints it decides what stands before it.

    ``message`` is the same for the lines that one program printed at once; ``decisive`` is also
    true for the lines of unknown failures, which prove no label; ``progress`` may be overwritten
    by the next of its kind.
    """

    text: str
    labels: frozenset[str] = frozenset()
    decisive: bool = False
    program: str = JOB
    message: int = 0
    rank: int = 0
    progress: bool = False


class Messages:
    """Writes families out, all in one log's names and language."""

    def __init__(self, generator: np.random.Generator, *, chinese: bool) -> None:
        self.generator = generator
        self.chinese = chinese
        self.slots = Slots(generator)
        self._count = 0

    def write(self, family: Family, *, rank: int = 0) -> list[DraftLine]:
        """One message of the family: a wording, its slots filled, its traceback drawn."""
        self.slots.next_message()
        self._count += 1
        progress = "progress" in family.tags
        if progress:
            self.slots.next_step()
        wordings = family.of_language(chinese=self.chinese)
        wording: Wording = wordings[self.generator.integers(len(wordings))]
        program = next((tag for tag in _PREFIXED if tag in family.tags), JOB)
        lines: list[DraftLine] = []
        for line in wording.lines:
            if line.text == TRACEBACK:
                lines += [DraftLine(text) for text in self._traceback()]
            else:
                lines.append(DraftLine(self.slots.fill(line.text), line.labels, line.decisive))
        return [
            replace(line, program=program, message=self._count, rank=rank, progress=progress)
            for line in lines
        ]

    def write_one_of(
        self, families: Sequence[Family], count: int, *, ranks: int = 1
    ) -> list[DraftLine]:
        """``count`` messages, each of some family and some rank below ``ranks``."""
        lines: list[DraftLine] = []
        for _ in range(count if families else 0):
            rank = int(self.generator.integers(ranks)) if ranks > 1 else 0
            lines += self.write(families[int(self.generator.integers(len(families)))], rank=rank)
        return lines

    def _traceback(self) -> list[str]:
        """A traceback's head and frames, or nothing: many loggers print only the exception."""
        generator = self.generator
        if generator.random() < _NO_TRACEBACK_SHARE:
            return []
        lines = ["Traceback (most recent call last):"]
        carets = generator.random() < 0.25
        frames = [
            _USER[i] for i in sorted(generator.integers(len(_USER), size=_user_frames(generator)))
        ]
        if generator.random() < 0.25:
            frames = [*_LAUNCHERS[generator.integers(len(_LAUNCHERS))], *frames]
        if generator.random() < 0.5:
            frames += _FRAMEWORKS[generator.integers(len(_FRAMEWORKS))]
        for path, function, code in frames:
            number = int(generator.integers(12, 2600))
            lines.append(self.slots.fill(f'  File "{path}", line {number}, in {function}'))
            lines.append(f"    {code}")
            if carets:
                lines.append(_CARETS)
        return lines


def _user_frames(generator: np.random.Generator) -> int:
    return 1 + int(generator.integers(_MOST_USER_FRAMES))


def interleave(
    generator: np.random.Generator, first: Sequence[DraftLine], second: Sequence[DraftLine]
) -> list[DraftLine]:
    """Both sequences in one, each in its own order, as two ranks write to one file.

    The first line stays the first sequence's: what failed first is also read first.
    """
    lines = list(first[:1])
    left, right = list(first[1:]), list(second)
    while left or right:
        take_left = left and (
            not right or generator.random() < len(left) / (len(left) + len(right))
        )
        lines.append((left if take_left else right).pop(0))
    return lines
