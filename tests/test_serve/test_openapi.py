"""The OpenAPI document against the running server: no server error, and only documented answers, whatever is sent."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def attack(server: Any, n_examples: int) -> int:
    schema = schemathesis.openapi.from_url(f"{server.url}openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    n_calls = 0

    @settings(
        max_examples=n_examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of([operation.as_strategy() for operation in operations]))
    def call(case: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        case.call_and_validate(base_url=server.url.rstrip("/"), checks=CHECKS, timeout=30)

    call()
    return n_calls


def test_two_hundred_generated_requests_find_no_server_error(server: Any) -> None:
    assert attack(server, 200) >= 200


@pytest.mark.slow
def test_five_thousand_generated_requests_find_no_server_error(server: Any) -> None:
    assert attack(server, 5000) >= 5000
