"""``tuning.toml``: what a search on one machine found better than the specs' config.pbtxt.

``python -m loadtest tune`` writes it, everything that writes a config.pbtxt applies it. Without the
file the specs decide alone; with it, so do the drift check and the parity ladder's wire rung.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from contract.errors import ConfigError
from export.config_pbtxt import HEADER, ModelConfig, parse_config

TUNING_FILE = Path("tuning.toml")
_THREAD_PARAMETERS = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}
_PREAMBLE = (
    "# Written by `python -m loadtest tune`, one table a target and Triton model; applies to what\n"
    "# `python -m export` writes from now on. Remove it to go back to the specs.\n"
)


@dataclass(frozen=True)
class Tuning:
    """Settings of one Triton model; None leaves what its spec says.

    instances: three at least, and no queue delay unless asked for: fewer, or a delay, stall
    requests for 500 ms now and then (Triton 2.51). chunk_tokens: of a text front.
    """

    instances: int | None = None
    threads: int | None = None
    max_queue_delay_microseconds: int | None = None
    preferred_batch_size: int | None = None
    chunk_tokens: int | None = None

    def settings(self) -> dict[str, int]:
        """Those that are set."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def merged(self, other: Tuning) -> Tuning:
        """``other``'s settings over these."""
        return dataclasses.replace(self, **other.settings())


Tunings = dict[str, dict[str, Tuning]]
"""{target: {Triton model: its settings}}."""


def read_tunings(path: Path = TUNING_FILE) -> Tunings:
    """Empty where there is no file.

    Raises:
        ConfigError: not TOML, an unknown setting, or a value that is none.
    """
    if not path.is_file():
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the tuning file cannot be read", where=str(path), got=str(error)
        ) from error
    return {
        target: {
            model: _tuning(settings, f"{path}: [{target}.{model}]")
            for model, settings in _table(models, f"{path}: [{target}]").items()
        }
        for target, models in document.items()
    }


def write_tunings(tunings: Tunings, path: Path = TUNING_FILE) -> None:
    """Replace the file."""
    tables = [
        f"[{target}.{model}]\n"
        + "".join(f"{key} = {value}\n" for key, value in tuning.settings().items())
        for target, models in sorted(tunings.items())
        for model, tuning in sorted(models.items())
        if tuning.settings()
    ]
    path.write_text(_PREAMBLE + "".join(f"\n{table}" for table in tables), encoding="utf-8")


def apply_tuning(model: ModelConfig, tuning: Tuning | None) -> ModelConfig:
    """The same config with a tuning's settings.

    Raises:
        ConfigError: a setting that this model has no use for, or more rows than it takes.
    """
    if tuning is None or not tuning.settings():
        return model
    config = parse_config(model.config)
    where = f"{model.triton_name}'s tuning"
    if tuning.instances is not None:
        config.instance_group[0].count = tuning.instances
    if tuning.threads is not None or (config.backend == "openvino" and tuning.instances):
        _set_threads(config, tuning.threads or 1, where)
    batching = tuning.max_queue_delay_microseconds, tuning.preferred_batch_size
    if batching != (None, None) and not config.HasField("dynamic_batching"):
        raise ConfigError(
            "no dynamic batcher to tune", where=where, got=f"backend {config.backend}"
        )
    if tuning.max_queue_delay_microseconds is not None:
        config.dynamic_batching.max_queue_delay_microseconds = tuning.max_queue_delay_microseconds
    if tuning.preferred_batch_size is not None:
        if tuning.preferred_batch_size > config.max_batch_size:
            raise ConfigError(
                "preferred_batch_size is above the model's",
                where=where,
                expected=f"at most {config.max_batch_size}",
                got=str(tuning.preferred_batch_size),
            )
        del config.dynamic_batching.preferred_batch_size[:]
        config.dynamic_batching.preferred_batch_size.append(tuning.preferred_batch_size)
    if tuning.chunk_tokens is not None:
        if config.backend != "python":
            raise ConfigError("only a text front has chunks", where=where)
        config.parameters["text_chunk_tokens"].string_value = str(tuning.chunk_tokens)
    return dataclasses.replace(model, config=HEADER + text_format.MessageToString(config))


def _set_threads(config: Any, threads: int, where: str) -> None:
    if config.backend == "openvino":
        # One compiled model: a stream an instance, each with these threads.
        count = config.instance_group[0].count
        config.parameters["NUM_STREAMS"].string_value = str(count)
        config.parameters["INFERENCE_NUM_THREADS"].string_value = str(count * threads)
    elif config.backend in _THREAD_PARAMETERS:
        config.parameters[_THREAD_PARAMETERS[config.backend]].string_value = str(threads)
    else:
        raise ConfigError("no threads to set", where=where, got=f"backend {config.backend}")


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("not a table", where=where, got=repr(value))
    return value


def _tuning(value: object, where: str) -> Tuning:
    settings = _table(value, where)
    known = {field.name for field in dataclasses.fields(Tuning)}
    for key, number in settings.items():
        least = 0 if key == "max_queue_delay_microseconds" else 1
        if key not in known:
            raise ConfigError(
                "unknown setting",
                where=where,
                expected=f"some of {', '.join(sorted(known))}",
                got=key,
            )
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ConfigError(
                f"{key} makes no sense",
                where=where,
                expected=f"a whole number, at least {least}",
                got=repr(number),
            )
    return Tuning(**settings)
