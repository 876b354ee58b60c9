"""Is what lies beside a model file the run's? config.pbtxt, labels, manifest, tokenizer, modules.

Names what differs in the words of whoever has to mend it, not only that a hash does.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from contract.errors import ExportError
from contract.manifest import MANIFEST_FILE
from export.candidate import GOLDEN_FILE, MODEL_FILES, REPORT_FILE, Candidate
from export.config_pbtxt import CONFIG_FILE, LABELS_FILE, parse_config
from export.version_folder import VersionFolder, version_folders

# Not the run's: judged by asking it, written by the gate itself, or both.
_JUDGED_ELSEWHERE = (*MODEL_FILES.values(), REPORT_FILE, GOLDEN_FILE)
# Part of a path inside tokenizer.json → what it means to the text.
_TOKENIZER_WORDS = (
    ("lowercase", "casing"),
    ("strip_accents", "accents"),
    ("normalizer", "masking rules"),
    ("truncation", "truncation length"),
    ("padding", "padding"),
    ("vocab", "vocabulary"),
    ("added_tokens", "special tokens"),
    ("post_processor", "special tokens"),
    ("pre_tokenizer", "word splitting"),
)
_MANIFEST_WORDS = {
    "thresholds": "threshold of another run",
    "labels": "labels of another version",
    "settings.max_tokens": "truncation length changed",
    "run_id": "manifest of another run",
}
_DIFFERENCES_NAMED = 3


def version_faults(candidate: Candidate, repository: Path, version: int) -> Iterator[ExportError]:
    """Every difference between a version folder (and what it shares) and the candidate's own."""
    for model in version_folders(candidate):
        folder = repository / model.triton_name
        yield from _config_faults(model, folder)
        yield from _labels_faults(model, folder)
        with tempfile.TemporaryDirectory(prefix="presage-inspect-") as scratch:
            model.write(Path(scratch))
            for path in sorted(Path(scratch).rglob("*")):
                relative = path.relative_to(scratch)
                if path.is_dir() or relative.name in _JUDGED_ELSEWHERE:
                    continue
                yield from _file_faults(model, path, folder / str(version) / relative, relative)


def _config_faults(model: VersionFolder, folder: Path) -> Iterator[ExportError]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        yield ExportError(f"{model.triton_name}: no {CONFIG_FILE}", where=str(folder))
        return
    text = path.read_text(encoding="utf-8")
    wanted = parse_config(model.config.config)
    try:
        got = parse_config(text)
    except ExportError as error:
        yield ExportError(
            f"{model.triton_name}: {CONFIG_FILE} cannot be read", where=str(path), got=error.got
        )
        return
    for field in ("input", "output"):
        yield from _tensor_faults(model, field, getattr(wanted, field), getattr(got, field), path)
    for descriptor in pb.ModelConfig.DESCRIPTOR.fields:
        name = descriptor.name
        want, have = getattr(wanted, name), getattr(got, name)
        if name not in ("input", "output") and str(want) != str(have):
            yield _config_fault(model, name, _short(want), _short(have), path)


def _tensor_faults(
    model: VersionFolder, kind: str, wanted: Any, got: Any, path: Path
) -> Iterator[ExportError]:
    names = [tensor.name for tensor in got]
    if [tensor.name for tensor in wanted] != names:
        expected = ", ".join(tensor.name for tensor in wanted)
        yield _config_fault(model, f"{kind}s", expected, ", ".join(names), path)
        return
    for want, have in zip(wanted, got, strict=True):
        if list(want.dims) != list(have.dims):
            yield _config_fault(
                model, f"dims of {kind} {want.name!r}", list(want.dims), list(have.dims), path
            )
        if want.data_type != have.data_type:
            words = (pb.DataType.Name(want.data_type), pb.DataType.Name(have.data_type))
            yield _config_fault(model, f"dtype of {kind} {want.name!r}", *words, path)
        if list(want.dims) == list(have.dims) and want.data_type == have.data_type and want != have:
            yield _config_fault(model, f"{kind} {want.name!r}", _short(want), _short(have), path)


def _config_fault(
    model: VersionFolder, what: str, expected: object, got: object, path: Path
) -> ExportError:
    return ExportError(
        f"{model.triton_name}: {CONFIG_FILE}: {what} is wrong",
        where=str(path),
        expected=str(expected),
        got=str(got),
        next_command="python -m export config --write",
    )


def _labels_faults(model: VersionFolder, folder: Path) -> Iterator[ExportError]:
    path = folder / LABELS_FILE
    if model.config.labels is None:
        return
    wanted = model.config.labels.splitlines()
    got = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if wanted != got:
        how = "in another order" if sorted(wanted) == sorted(got) else "of another version"
        yield ExportError(
            f"{model.triton_name}: {LABELS_FILE} holds labels {how}",
            where=str(path),
            expected=", ".join(wanted),
            got=", ".join(got) or "no such file",
            next_command="python -m export config --write",
        )


def _file_faults(
    model: VersionFolder, wanted: Path, got: Path, relative: Path
) -> Iterator[ExportError]:
    if not got.is_file():
        yield ExportError(f"{model.triton_name}: {relative} is missing", where=str(got))
        return
    if wanted.read_bytes() == got.read_bytes():
        return
    if relative.suffix != ".json":
        yield ExportError(
            f"{model.triton_name}: {relative} is not the project's",
            where=str(got),
            next_command="publish again",
        )
        return
    try:
        found = json.loads(got.read_text(encoding="utf-8"))
    except ValueError as error:
        yield ExportError(
            f"{model.triton_name}: {relative} cannot be read", where=str(got), got=str(error)
        )
        return
    differences = list(json_differences(json.loads(wanted.read_text(encoding="utf-8")), found))
    if not differences:
        yield ExportError(
            f"{model.triton_name}: {relative} is not the run's, byte for byte", where=str(got)
        )
        return
    meaning = _meaning(relative.name, [place for place, _, _ in differences])
    named = "; ".join(
        f"{place}: expected {_short(want)}, got {_short(have)}"
        for place, want, have in differences[:_DIFFERENCES_NAMED]
    )
    more = len(differences) - _DIFFERENCES_NAMED
    yield ExportError(
        f"{model.triton_name}: {relative}: {meaning}",
        where=str(got),
        got=named + (f" and {more} more differences" if more > 0 else ""),
        next_command="publish again from the run",
    )


def json_differences(
    expected: Any, got: Any, place: str = ""
) -> Iterator[tuple[str, object, object]]:
    """(place, expected, got) wherever two JSON documents differ."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        for key in dict.fromkeys([*expected, *got]):
            inner = f"{place}.{key}" if place else str(key)
            yield from json_differences(
                expected.get(key, "nothing"), got.get(key, "nothing"), inner
            )
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for index, (one, other) in enumerate(zip(expected, got, strict=True)):
            yield from json_differences(one, other, f"{place}[{index}]")
    elif isinstance(expected, list) and isinstance(got, list):
        lost = [one for one in expected if one not in got]
        added = [one for one in got if one not in expected]
        yield (
            f"{place} ({len(lost)} removed, {len(added)} added)",
            lost[0] if lost else f"{len(expected)} entries",
            added[0] if added else f"{len(got)} entries",
        )
    elif expected != got:
        yield place, expected, got


def _meaning(file: str, places: list[str]) -> str:
    if file == MANIFEST_FILE:
        known = (words for key, words in _MANIFEST_WORDS.items() if places[0].startswith(key))
        return next(known, "not the run's manifest")
    if any(place.endswith("[PAD]") for place in places):
        return "wrong pad id"
    known = (words for key, words in _TOKENIZER_WORDS if key in places[0])
    return f"{next(known, 'contents')} changed"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "…"
