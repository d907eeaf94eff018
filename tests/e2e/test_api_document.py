"""The API against its own OpenAPI document, by schemathesis: no 5xx, and every answer is of a documented form."""

import os

import schemathesis
from api_server import RunningApi
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.openapi import describe
from core.settings import Settings

MAX_EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "4"))
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


schema = schemathesis.openapi.from_dict(describe(create_app(Settings())))


@schema.exclude(path_regex=r"/stream$").parametrize()  # a stream ends with its job
@settings(
    max_examples=MAX_EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_no_operation_breaks_its_document(case: schemathesis.Case, api: RunningApi) -> None:
    response = case.call(base_url=api.url, timeout=60)
    case.validate_response(response, checks=CHECKS)
