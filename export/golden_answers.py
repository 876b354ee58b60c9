"""Questions and answers that travel inside a published version: its canary, wherever it is served.

``golden_answers.npz`` holds rows of the graph's inputs with eager's outputs and, for a text model,
golden questions with the front's answers over eager. Asking them needs neither the run nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contract.errors import ArtifactCorruptError, PresageError
from contract.manifest import Front, Manifest, read_manifest
from export.agreement import front_disagreement, graph_disagreement
from export.candidate import GOLDEN_FILE, Candidate
from export.front_parity import front_requests, local_front
from export.grid import strangers
from export.ladder import Rung
from export.report import read_report
from export.target import CPU, TARGETS, Target
from export.wire import WireClient
from training.spec import Arrays

QUESTIONS = 8
_INPUT, _OUTPUT, _FRONT_INPUT, _FRONT_OUTPUT = "input:", "output:", "front input:", "front output:"


def collect(candidate: Candidate, eager: Rung) -> None:
    """Write the candidate's golden answers beside its exported files."""
    inputs = strangers(candidate)
    outputs = eager.run(inputs)
    arrays = {_INPUT + name: array for name, array in inputs.items()}
    arrays |= {_OUTPUT + name: array for name, array in outputs.items()}
    if candidate.front is not None:
        questions = list(candidate.spec.golden_questions(candidate.artifact))[:QUESTIONS]
        request = front_requests(candidate.front, questions)[0]
        answer = local_front(candidate, candidate.front, eager).answer([request])[0]
        if isinstance(answer, Exception):
            raise ArtifactCorruptError(
                f"{candidate.title}: a golden question is refused by the front", got=str(answer)
            )
        # The manifest is bound by its hash; here it would only take room.
        answer.pop("manifest", None)
        arrays |= {_FRONT_INPUT + name: _as_text(array) for name, array in request.items()}
        arrays |= {_FRONT_OUTPUT + name: _as_text(array) for name, array in answer.items()}
    np.savez_compressed(candidate.folder / GOLDEN_FILE, allow_pickle=False, **arrays)


def disagreement(
    grpc_address: str,
    folder: Path,
    *,
    version: str = "",
    names: Sequence[str] = (),
) -> str | None:
    """Ask the golden answers of the version in ``folder``; None when the server agrees.

    folder: the classifier's or forecaster's version folder
    version: number to ask for; "" is the one that the server routes to
    names: Triton names to ask under, graph and front (default: their own)
    """
    manifest = read_manifest(folder, verify_files=False)
    arrays = _read(folder)
    report = read_report(folder)
    target = CPU if report is None else TARGETS[report.target]
    graph_name, front_name = [*names, "", ""][:2]
    client = WireClient("grpc", grpc_address)
    try:
        wrong = _ask_graph(
            client, graph_name or manifest.graph.triton_name, version, manifest, target, arrays
        )
        if wrong is None and manifest.front is not None and _part(arrays, _FRONT_INPUT):
            wrong = _ask_front(
                client,
                front_name or manifest.front.triton_name,
                version,
                manifest.front,
                manifest,
                target,
                arrays,
            )
        return wrong
    except PresageError as error:
        return str(error)
    finally:
        client.close()


def _ask_graph(
    client: WireClient,
    name: str,
    version: str,
    manifest: Manifest,
    target: Target,
    arrays: Arrays,
) -> str | None:
    graph = manifest.graph
    inputs, expected = _part(arrays, _INPUT), _part(arrays, _OUTPUT)
    types = {tensor.name: tensor.dtype for tensor in graph.inputs}
    outputs = client.infer(name, inputs, types, {one: one for one in expected}, version)
    wrong = graph_disagreement(manifest, target, inputs, expected, outputs)
    return None if wrong is None else f"{name}: {wrong}"


def _ask_front(
    client: WireClient,
    name: str,
    version: str,
    front: Front,
    manifest: Manifest,
    target: Target,
    arrays: Arrays,
) -> str | None:
    inputs = {key: _as_bytes(array) for key, array in _part(arrays, _FRONT_INPUT).items()}
    expected = {key: _as_bytes(array) for key, array in _part(arrays, _FRONT_OUTPUT).items()}
    types = {tensor.name: tensor.dtype for tensor in front.inputs}
    outputs = client.infer(name, inputs, types, {one: one for one in expected}, version)
    wrong = front_disagreement(manifest, target, expected, outputs)
    return None if wrong is None else f"{name}: {wrong}"


def _read(folder: Path) -> Arrays:
    path = folder / GOLDEN_FILE
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactCorruptError(
            "golden answers cannot be read",
            where=str(path),
            got=str(error),
            next_command="publish again: python -m export <model>",
        ) from error


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _as_text(array: np.ndarray) -> np.ndarray:
    """Bytes as text: an array that needs no pickle."""
    if array.dtype != np.object_:
        return array
    texts = [value.decode("utf-8", "replace") for value in array.ravel()]
    return np.array(texts, dtype=np.str_).reshape(array.shape)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "U":
        return array
    values = [str(value).encode() for value in array.ravel()]
    return np.array(values, dtype=object).reshape(array.shape)
