"""Each overlay, rendered once."""

from __future__ import annotations

import pytest

from tests.fixtures import manifests
from tests.fixtures.manifests import Document


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Document]]:
    return {
        name: manifests.kustomize(manifests.K8S / "overlays" / name) for name in manifests.OVERLAYS
    }


@pytest.fixture(params=manifests.OVERLAYS)
def overlay(rendered: dict[str, list[Document]], request: pytest.FixtureRequest) -> list[Document]:
    return rendered[request.param]


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Document]]:
    """What the overlays leave out: S3, S3 on CPU, logs of jobs, notices."""
    folder = tmp_path_factory.mktemp("composed")
    return {
        "s3": manifests.with_components(folder / "s3", ["repository-s3", "gpu"]),
        "s3-cpu": manifests.with_components(folder / "s3-cpu", ["repository-s3", "cpu-server"]),
        "job-logs": manifests.with_components(folder / "job-logs", ["repository-pvc", "job-logs"]),
        "notices": manifests.with_components(folder / "notices", ["repository-pvc", "notices"]),
    }


@pytest.fixture(scope="session")
def everything(
    rendered: dict[str, list[Document]], composed: dict[str, list[Document]]
) -> dict[str, list[Document]]:
    return rendered | composed
