"""A log classifier of BERT-base's size, for a speed row: what it answers is worth nothing.

Its encoder has bert-base's shape and the default encoder's vocabulary, with random weights of one
seed; it is trained for a moment, so that it has a threshold, and goes through the export gate as
any other run does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ExportError

FOLDER = Path("build/bert_base")
SEED = 0
_TRAINING = ("--epochs", "1", "--draws", "64", "--quiet")


@dataclass(frozen=True)
class BertBasePlaces:
    """Where its encoder, its run and its published versions lie."""

    root: Path = FOLDER

    @property
    def encoder(self) -> Path:
        return self.root / "encoder"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def repository(self, target: str) -> Path:
        return self.root / "repositories" / target


def make_bert_base(places: BertBasePlaces, targets: tuple[str, ...]) -> None:
    """Encoder and run (once), then one published version a target.

    Raises:
        EncoderError: no default encoder to take the vocabulary from.
        ExportError: training or export failed; the gate's own words are on stderr.
    """
    if not (places.encoder / "model.safetensors").is_file():
        _write_encoder(places.encoder)
    if not list(places.artifacts.glob("log_anomaly/*/manifest.json")):
        words = ("training", "train", "log_anomaly", "--encoder", str(places.encoder))
        _run(*words, "--artifacts", str(places.artifacts), "--seed", str(SEED), *_TRAINING)
    for target in targets:
        folders = ("--artifacts", str(places.artifacts))
        repository = ("--repository", str(places.repository(target)))
        report = ("--report-folder", str(places.root / "parity"))
        _run("export", "log_anomaly", "--target", target, *folders, *repository, *report)


def _write_encoder(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    from training.text.encoder import DEFAULT_ENCODER, find_encoder

    source = find_encoder(DEFAULT_ENCODER).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    torch.manual_seed(SEED)
    # BertConfig's own defaults are bert-base's.
    BertModel(BertConfig()).save_pretrained(folder)


def _run(*words: str) -> None:
    print("python -m " + " ".join(words), flush=True)
    done = subprocess.run([sys.executable, "-m", *words], cwd=Path.cwd(), check=False)
    if done.returncode:
        raise ExportError(
            "the BERT-base row could not be made",
            where=f"python -m {' '.join(words[:3])}",
            got=f"exit code {done.returncode}; the reason is above",
        )
