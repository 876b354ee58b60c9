"""Every rendered document against the schema of its kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.fixtures import custom_resources
from tests.fixtures.manifests import Document, find

# preStop.sleep needs 1.30; the newest that the validator knows.
VERSIONS = ("1.30", "1.37")


def _title(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_them_strictly(
    everything: dict[str, list[Document]], version: str
) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    documents = {repr(d): d for rendered in everything.values() for d in rendered}
    unknown = set()
    for document in documents.values():
        try:
            validator.validate(document, version, strict=True)
        except validator.SchemaNotFoundError:
            unknown.add(document["kind"])
        except validator.ValidationError as error:
            pytest.fail(f"{_title(document)}: {error.message}")
    # Nothing else goes unchecked here.
    assert unknown == {*custom_resources.PROMETHEUS_KINDS, *custom_resources.KSERVE_KINDS}


def test_a_field_that_kubernetes_does_not_know_is_seen(rendered: dict[str, list[Document]]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    broken = copy.deepcopy(find(rendered["gpu"], "Deployment", "triton"))
    broken["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSecond"] = 3
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, VERSIONS[0], strict=True)


def test_custom_resources_have_only_fields_their_makers_publish(overlay: list[Document]) -> None:
    kinds = {*custom_resources.PROMETHEUS_KINDS, *custom_resources.KSERVE_KINDS}
    custom = [document for document in overlay if document["kind"] in kinds]
    assert custom
    assert {_title(d): custom_resources.faults(d) for d in custom} == {
        _title(d): [] for d in custom
    }


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("PodMonitor", "triton", ("spec", "podMetricsEndpoints", 0, "portt"), "metrics"),
        ("PodMonitor", "triton", ("spec", "podMetricsEndpoints", 0, "honorLabels"), [1]),
        ("ServiceMonitor", "gateway", ("spec", "endpoint"), []),
        ("ServingRuntime", "presage-triton", ("spec", "containers", 0, "argz"), []),
        ("ServingRuntime", "presage-triton", ("spec", "supportedModelFormats", 0, "version"), 1),
        ("InferenceService", "triton", ("spec", "predictor", "model", "storageUrl"), "pvc://x"),
        ("InferenceService", "triton", ("spec", "predictor", "minReplicas"), "two"),
    ],
)
def test_a_wrong_field_of_a_custom_resource_is_seen(
    rendered: dict[str, list[Document]], kind: str, name: str, path: tuple[Any, ...], value: Any
) -> None:
    broken: Any = copy.deepcopy(find(rendered["kserve"], kind, name))
    inside = broken
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    assert custom_resources.faults(broken)
