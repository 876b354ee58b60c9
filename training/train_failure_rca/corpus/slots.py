"""Slots: the parts of a program's message that differ from log to log.

``{name}`` is a drawn value, ``{2-64}`` a whole number of that range, ``{a|b}`` one of the choices.
What names a thing (host, rank, path …) stays the same within one message, because a program that
complains about rank 3 goes on about rank 3; a trailing digit makes another one (``{host2}``) or
ties a number (``{int1}`` twice is the same number). What belongs to the job stays for a whole log.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np

from training.train_failure_rca.corpus.draws import Draws

Draw = Callable[[Draws], str]


def _integer(low: int, high: int) -> Draw:
    return lambda generator: str(generator.integers(low, high))


def _hexadecimal(digits: int) -> Draw:
    return lambda generator: f"{generator.integers(16**digits):0{digits}x}"


def _decimal(low: float, high: float, places: int) -> Draw:
    return lambda generator: f"{generator.uniform(low, high):.{places}f}"


def _one_of(*choices: str) -> Draw:
    return lambda generator: choices[generator.integers(len(choices))]


def pick(generator: Draws | np.random.Generator, items: tuple[str, ...] | list[str]) -> str:
    """One item; much faster than ``generator.choice``."""
    return items[int(generator.integers(len(items)))]


_USERS = ("wangl", "zhang.wei", "mkowalski", "jdoe", "li-na", "svc-train", "a.rossi", "chenyu")
_PROJECTS = (
    "llm-pretrain",
    "vit-det",
    "asr_conformer",
    "proj",
    "moe-exp3",
    "speech",
    "rlhf",
    "ocr",
)
_ROOTS = (
    "/workspace",
    "/home/{u}",
    "/mnt/nas/users/{u}",
    "/data/{u}",
    "/root",
    "/gpfs/scratch/{u}",
)
_STEMS = ("train", "main", "pretrain_gpt", "finetune", "run", "trainer", "run_clm", "launch")
_MODULES = (
    "engine/loop",
    "models/attention",
    "models/backbone",
    "data/dataset",
    "utils/io",
    "losses",
)
_FUNCTIONS = ("main", "train", "forward", "train_one_epoch", "fit", "_run", "build_model", "step")
_CLASSES = ("GPTModel", "ResNet", "EncoderLayer", "MaskDecoder", "LlamaForCausalLM", "Net", "UNet")
_KEYS = (
    "backbone.layer4.2.conv3.weight",
    "model.layers.31.mlp.down_proj.weight",
    "decoder.embed_tokens.weight",
    "head.bias",
    "transformer.h.11.attn.c_attn.weight",
    "module.encoder.blocks.7.norm1.bias",
    "classifier.out_proj.weight",
)
_OPTIONS = (
    "learning_rate",
    "micro_batch_size",
    "warmup_steps",
    "data.train_path",
    "num_layers",
    "seq_length",
    "optimizer.lr",
    "trainer.max_epochs",
    "grad_accum",
    "hidden_size",
)
_DATA = ("shard-00{n}.tar", "train_{n}.parquet", "part-{n}.bin", "corpus_{n}.idx", "img_{n}.jpg")
_CHECKPOINTS = (
    "checkpoint-{n}/pytorch_model.bin",
    "global_step{n}/mp_rank_00_model_states.pt",
    "epoch={n}.ckpt",
    "iter_{n}/mp_rank_00/model_optim_rng.pt",
    "step_{n}.pth",
    "last.ckpt",
    "model-00001-of-00004.safetensors",
)
_IMAGES = (
    "registry.local/ai/pytorch:2.3.1-cu121",
    "nvcr.io/nvidia/pytorch:24.05-py3",
    "harbor.corp.io/train/llm:v1.4",
    "docker.io/team/trainer:latest",
    "registry.cn-hangzhou.aliyuncs.com/lab/megatron:23.10",
    "ghcr.io/lab/vllm-train:0.6.2",
)


def _host(g: Draws) -> str:
    stem = pick(g, ("gpu", "node", "a800-", "worker", "dgx-", "cn", "h100-", "bm-"))
    return f"{stem}{g.integers(1, 400):03d}"


def _ip(g: Draws) -> str:
    head = pick(g, ("10", "172.16", "192.168", "10.244", "100.64"))
    rest = [str(g.integers(1, 255)) for _ in range(3 - head.count("."))]
    return ".".join([head, *rest])


def _folder(g: Draws) -> str:
    root = pick(g, _ROOTS).replace("{u}", pick(g, _USERS))
    return f"{root}/{pick(g, _PROJECTS)}"


def _numbered(names: tuple[str, ...]) -> Draw:
    return lambda g: pick(g, names).replace("{n}", str(g.integers(10, 90000)))


def _file(g: Draws) -> str:
    return f"{_folder(g)}/{pick(g, (*_STEMS, *_MODULES))}.py"


# Drawn afresh at every place.
VALUES: dict[str, Draw] = {
    "int": _integer(2, 4096),
    "small": _integer(2, 64),
    "bigint": _integer(100_000, 999_999_999),
    "pct": _integer(1, 100),
    "gb": _decimal(0.5, 79, 2),
    "mb": _decimal(2, 1000, 2),
    "secs": _decimal(0.1, 900, 2),
    "ms": _decimal(0.2, 2000, 1),
    "unit": _decimal(0.001, 0.999, 3),
    "lr": lambda g: f"{g.uniform(1, 9.9):.2f}e-0{g.integers(3, 7)}",
    "hex": _hexadecimal(8),
    "hexs": _hexadecimal(2),
    "hexm": _hexadecimal(4),
    "sha": _hexadecimal(12),
    "addr": lambda g: f"0x7f{g.integers(16**10):010x}",
    "uuid": lambda g: f"{g.integers(16**8):08x}-{g.integers(16**4):04x}-4{g.integers(16**3):03x}",
    "uptime": _decimal(100, 9_000_000, 6),
}
# One value within one message.
NAMES: dict[str, Draw] = {
    "rank": _integer(0, 16),
    "world": _one_of("2", "4", "8", "16", "32", "64", "128", "512"),
    "pid": _integer(300, 400_000),
    "port": _one_of("29500", "6379", "12355", "29400", "6000", "60000", "443", "8476", "23456"),
    "ip": _ip,
    "pci": lambda g: f"0000:{g.integers(1, 255):02x}:00",
    "gpu": _integer(0, 8),
    "hca": lambda g: f"{pick(g, ('mlx5_', 'mlx5_bond_', 'bnxt_re', 'irdma'))}{g.integers(0, 9)}",
    "nic": _one_of("eth0", "bond0", "ens5f0np0", "ib0", "enp175s0f1", "net1", "ibs20", "eth2"),
    "dev": _one_of("sda1", "nvme0n1p1", "nvme1n1", "dm-0", "vdb", "sdc", "md0"),
    "file": _file,
    "func": _one_of(*_FUNCTIONS),
    "cls": _one_of(*_CLASSES),
    "key": _one_of(*_KEYS),
    "opt": _one_of(*_OPTIONS),
    "data": lambda g: f"{_folder(g)}/{_numbered(_DATA)(g)}",
    "ckpt": lambda g: f"{_folder(g)}/ckpt/{_numbered(_CHECKPOINTS)(g)}",
    "out": lambda g: f"{_folder(g)}/{pick(g, ('outputs', 'logs', 'runs/exp1', 'ckpt', 'cache'))}",
    "cfg": lambda g: f"{pick(g, ('configs', 'conf', 'recipes'))}/{pick(g, _PROJECTS)}.yaml",
    "lib": _one_of(
        "libcusparse.so.12", "libnvrtc.so", "libGL.so.1", "libmpi.so.40", "libtbb.so.12"
    ),
    "mod": _one_of("flash_attn", "apex", "deepspeed", "einops", "timm", "xformers", "torchaudio"),
    "dtype": _one_of("Float", "Half", "BFloat16", "Double"),
    "url": _one_of(
        "https://huggingface.co/api/models/org/base-7b",
        "http://minio.storage:9000/train-data",
        "https://pypi.org/simple/einops/",
        "http://dataset-svc.ml.svc.cluster.local:8080/v1/shards",
        "https://oss-cn-beijing.aliyuncs.com/lab-data",
    ),
}
# One value within one log.
JOB: dict[str, Draw] = {
    "user": _one_of(*_USERS),
    "job": _integer(10_000, 9_999_999),
    "host": _host,
    "pod": lambda g: f"{pick(g, _PROJECTS).replace('_', '-')}-worker-{g.integers(0, 9)}",
    "ns": _one_of("ml", "training", "team-a", "kubeflow", "default", "ai-lab"),
    "image": _one_of(*_IMAGES),
    "proj": _folder,
    "lang": _one_of("3.8", "3.9", "3.10", "3.11", "3.12"),
    "site": _one_of(
        "/opt/conda/lib/python3.10/site-packages",
        "/usr/local/lib/python3.10/dist-packages",
        "/usr/lib/python3/dist-packages",
        "/root/miniconda3/envs/train/lib/python3.11/site-packages",
        "/venv/lib/python3.12/site-packages",
    ),
    "mount": _one_of(
        "/mnt/nas", "/lustre/scratch", "/gpfs/work", "/home", "/cephfs/data", "/mnt/oss"
    ),
    "card": _one_of(
        "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "Tesla V100-SXM2-32GB", "NVIDIA L40S"
    ),
}
# A training's course: the composer advances it from line to line.
COURSE = ("step", "steps", "epoch", "epochs", "loss", "done", "rate", "time")

_CHOICE = r"(?:[^{}|\n]|\{(?:[a-z]+[1-9]?|\d+-\d+)\})*"
SLOT = re.compile(rf"\{{(?:([a-z]+)([1-9]?)|(\d+)-(\d+)|({_CHOICE}(?:\|{_CHOICE})+))\}}")
_KNOWN = frozenset({*VALUES, *NAMES, *JOB, *COURSE})


def unknown_slots(template: str) -> list[str]:
    """Names in braces that no slot has, in choices too; other braces are the program's own."""
    unknown: list[str] = []
    for match in SLOT.finditer(template):
        if match[1] and match[1] not in _KNOWN:
            unknown.append(match[0])
        elif match[5]:
            unknown += unknown_slots(match[5])
    return unknown


class Slots:
    """Fills templates for one log; deterministic for a generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._draws = Draws(generator)
        self._job: dict[str, str] = {}
        self._message: dict[str, str] = {}
        self._step = int(self._draws.integers(0, 40_000))
        self._stride = int(self._draws.integers(1, 4)) * 10
        self._steps = self._step + int(self._draws.integers(2_000, 90_000))
        self._epochs = int(self._draws.integers(2, 90))
        self._loss = self._draws.uniform(0.5, 9)
        offset = int(self._draws.integers(0, 300 * 86_400))
        self._start = datetime(2025, 11, 1) + timedelta(seconds=offset)
        self._now = self._start

    @property
    def start(self) -> datetime:
        """The job's first moment; the times in its messages run on from there."""
        return self._start

    def next_message(self) -> None:
        """What named a thing in the last message may name another now."""
        self._message = {}

    def next_step(self) -> None:
        """One report of progress further on."""
        self._step += self._stride
        self._loss *= self._draws.uniform(0.97, 1.025)

    def fill(self, template: str) -> str:
        """The template with every known slot filled; other braces stay."""
        return SLOT.sub(self._value, template) if "{" in template else template

    def _value(self, match: re.Match[str]) -> str:
        name, digit, low, high, choices = match.groups()
        if low is not None:
            return str(self._draws.integers(int(low), int(high) + 1))
        if choices is not None:
            return self.fill(pick(self._draws, choices.split("|")))
        if name in COURSE:
            return self._course(name)
        if name in VALUES and not digit:
            return VALUES[name](self._draws)
        memory = self._job if name in JOB else self._message
        whole = name + digit
        if whole not in memory:
            draw = JOB.get(name) or NAMES.get(name) or VALUES.get(name)
            if draw is None:
                return match[0]
            memory[whole] = draw(self._draws)
        return memory[whole]

    def _course(self, name: str) -> str:
        if name == "time":
            self._now += timedelta(seconds=self._draws.integers(0, 9))
            return f"{self._now:%Y-%m-%d %H:%M:%S}"
        share = self._step / self._steps
        match name:
            case "step":
                return str(self._step)
            case "steps":
                return str(self._steps)
            case "epoch":
                return str(int(share * self._epochs))
            case "epochs":
                return str(self._epochs)
            case "loss":
                return f"{self._loss:.4f}"
            case "done":
                return str(int(share * 100))
        return f"{5 + self._stride / 7:.2f}"
