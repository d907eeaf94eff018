"""Every operation and every component of `/openapi.json` has an example, and it is one: it keeps to its schema."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from api.app import create_app
from api.docs.document import describe
from api.docs.examples import written
from core.settings import Settings

Json = dict[str, Any]
NO_EXAMPLE = ("application/octet-stream", "application/x-tar", "application/vnd.apache.parquet")
"""Bytes."""
HINT = "add it to a file in api/docs/examples"


@pytest.fixture(scope="module")
def document() -> Json:
    return describe(create_app(Settings()))


def media_of(document: Json) -> Iterator[tuple[str, str, Json]]:
    """(operation, media type, description) of every body and every answer that is no problem."""
    for item in document["paths"].values():
        for operation in item.values():
            answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
            for part in [operation.get("requestBody", {}), *answers]:
                for media_type, media in part.get("content", {}).items():
                    yield operation["operationId"], media_type, media


def faults(document: Json, schema: Json, value: Any) -> list[str]:
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return [f"{error.instance_path}: {error.message}"[:300] for error in validator.iter_errors(value)]


def test_every_component_has_an_example_that_keeps_to_it(document: Json) -> None:
    components = document["components"]["schemas"]
    assert [name for name, schema in components.items() if not schema.get("examples")] == [], HINT
    wrong = {
        name: found
        for name, schema in components.items()
        if (found := faults(document, {"$ref": f"#/components/schemas/{name}"}, schema["examples"][0]))
    }
    assert wrong == {}


def test_every_operation_has_examples_that_keep_to_it(document: Json) -> None:
    for operation, media_type, media in media_of(document):
        if media_type not in NO_EXAMPLE:
            assert "example" in media, (operation, media_type, HINT)
            assert faults(document, media["schema"], media["example"]) == [], operation
    for item in document["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if parameter["required"]:
                    assert "example" in parameter, (operation["operationId"], parameter["name"], HINT)
                    assert faults(document, parameter["schema"], parameter["example"]) == []


def test_no_example_is_left_over(document: Json) -> None:
    names = document["components"]["schemas"].keys()
    operations = {operation["operationId"] for item in document["paths"].values() for operation in item.values()}
    assert written()["components"].keys() <= names
    assert written()["texts"].keys() <= operations
