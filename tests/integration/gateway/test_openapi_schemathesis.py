"""Schemathesis against each OpenAPI document: nothing that fits it, or breaks it, breaks us."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.fixtures.gateway_process import APIS, Gateway

_EXAMPLES = 50
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
)
CONFIG = schemathesis.Config.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": [400, 405, 413, 415, 422]}}}
)


@pytest.mark.parametrize("api", APIS)
def test_no_request_breaks_it(gateway: Gateway, api: str) -> None:
    url = gateway.urls[api]
    document = schemathesis.openapi.from_url(f"{url}/openapi.json", config=CONFIG)
    asked = 0
    for result in document.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy(
            generation_mode=schemathesis.GenerationMode.POSITIVE
        ) | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

        @hypothesis.given(case=strategy)
        @hypothesis.settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        def fits(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(base_url=url, checks=CHECKS, timeout=30)

        fits()
    assert asked >= _EXAMPLES * 2
