"""What the platform, the SRE and the trainer of the next model get from a running service."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.jobs_process import JobsProcess

MakeService = Callable[..., JobsProcess]
# A random model: what matters is that it says the same each time, not what.
LOG = (
    b"step 100 loss 2.1\nkernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus\n"
    b"RuntimeError: CUDA error: unspecified launch failure\n"
)


@pytest.fixture
def service(make_service: MakeService) -> JobsProcess:
    return make_service().start()


def test_a_failure_is_answered_found_and_told_in_figures(service: JobsProcess) -> None:
    answer = service.fail("job-1", LOG, node="gpu-17", user="li", cluster="a")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    print(answer.text)
    assert told["status"] == "diagnosed"
    assert (told["node"], told["user"], told["cluster"]) == ("gpu-17", "li", "a")
