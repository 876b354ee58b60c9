"""Right models in a wrong repository: config.pbtxt, and files changed after their proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from contract.manifest import MANIFEST_FILE
from export.config_pbtxt import CONFIG_FILE, parse_config
from export.mutation.mutation import Mutation, Staged


def _edit_config(staged: Staged, change: Callable[[Any], None]) -> None:
    path = staged.model_folder / CONFIG_FILE
    config = parse_config(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(text_format.MessageToString(config), encoding="utf-8")


def wrong_dims(staged: Staged) -> None:
    """The batch axis among the dims: Triton's users' most frequent mistake."""
    _edit_config(staged, lambda config: config.output[0].dims.insert(0, 1))


def wrong_dtype(staged: Staged) -> None:
    def change(config: Any) -> None:
        config.input[-1].data_type = pb.TYPE_INT32

    _edit_config(staged, change)


def wrong_batch_size(staged: Staged) -> None:
    def change(config: Any) -> None:
        config.max_batch_size *= 4

    _edit_config(staged, change)


def wrong_backend(staged: Staged) -> None:
    def change(config: Any) -> None:
        config.backend = "tensorrt"

    _edit_config(staged, change)


def config_unreadable(staged: Staged) -> None:
    path = staged.model_folder / CONFIG_FILE
    path.write_text(path.read_text(encoding="utf-8") + "max_batch_size { 3", encoding="utf-8")


def manifest_lost(staged: Staged) -> None:
    (staged.model_folder / "1" / MANIFEST_FILE).unlink()


REPOSITORY_MUTATIONS = (
    Mutation("config.pbtxt: dims wrong", "any", wrong_dims, r"dims of output .* is wrong"),
    Mutation("config.pbtxt: dtype wrong", "any", wrong_dtype, r"dtype of input .* is wrong"),
    Mutation(
        "config.pbtxt: max_batch_size wrong", "any", wrong_batch_size, "max_batch_size is wrong"
    ),
    Mutation("config.pbtxt: backend wrong", "any", wrong_backend, "backend is wrong"),
    Mutation("config.pbtxt cut off", "any", config_unreadable, r"config\.pbtxt cannot be read"),
    Mutation("manifest lost", "any", manifest_lost, r"manifest\.json is missing"),
)
