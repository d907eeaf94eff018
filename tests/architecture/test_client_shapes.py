"""Both OpenAPI documents are ones that generators of typed clients read: each rule is a client that could not be used.

`docs/guide/generated-clients.md` says which tool fell over what.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app
from api.docs.client_shapes import each_schema
from api.docs.document import describe
from api.openai.routes.document import described
from core.domain.json_numbers import MAX_WHOLE
from core.settings import Settings

Json = dict[str, Any]
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
NO_BODY = "204"
MIXED = {"GET /v1/files/{file_id}/content"}
"""As OpenAI has it: a file of any type."""


@pytest.fixture(scope="module", params=["/openapi.json", "/v1/openapi.json"])
def document(request: pytest.FixtureRequest) -> Json:
    app = create_app(Settings())
    return describe(app) if request.param == "/openapi.json" else described(app)


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def schemas(document: Json) -> Iterator[tuple[str, Json]]:
    """Every schema, inner ones too, with where it stands."""
    for name, schema in document["components"]["schemas"].items():
        yield from ((name, inner) for inner in each_schema(schema))
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            yield from ((f"{name}: {parameter['name']}", inner) for inner in each_schema(parameter["schema"]))
        for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for media in part.get("content", {}).values():
                yield from ((name, inner) for inner in each_schema(media["schema"]))


def test_no_text_is_a_constant(document: Json) -> None:
    """openapi-python-client makes a job, then raises: it compares every number of a union with the word."""
    assert [where for where, schema in schemas(document) if isinstance(schema.get("const"), str)] == []


def test_no_field_is_null_alone(document: Json) -> None:
    """openapi-generator stops at it."""
    fields = [
        f"{where}: {name}"
        for where, schema in schemas(document)
        for name, field in schema.get("properties", {}).items()
        if field.get("type") == "null"
    ]
    assert fields == []


def test_maps_have_additional_properties(document: Json) -> None:
    """Elsewhere they become `Any` and `unknown`."""
    assert [where for where, schema in schemas(document) if "patternProperties" in schema] == []


def test_only_components_have_titles(document: Json) -> None:
    """A title becomes the name of a type: `Prompt1` beside `Prompt`."""
    components = [id(schema) for schema in document["components"]["schemas"].values()]
    titled = [where for where, schema in schemas(document) if "title" in schema and id(schema) not in components]
    assert titled == []


def test_types_have_plain_names(document: Json) -> None:
    """Two classes of one name get their modules as a name, and openapi-python-client leaves one out."""
    assert [name for name in document["components"]["schemas"] if not name.isalnum()] == []


def test_lists_say_of_what(document: Json) -> None:
    assert [
        where for where, schema in schemas(document) if schema.get("type") == "array" and "items" not in schema
    ] == []


def test_choices_have_names(document: Json) -> None:
    """Nameless, each of them becomes a type of its own, `Status3`. Add yours to `api/docs/enum_names.py`."""
    if "/v1/files" in document["paths"]:
        pytest.skip("the words of /v1 are OpenAI's, whose own clients have names for them")
    components = [id(schema) for schema in document["components"]["schemas"].values()]
    nameless = [
        f"{where}: {schema['enum']}"
        for where, schema in schemas(document)
        if len(schema.get("enum", ())) > 1 and id(schema) not in components
    ]
    assert nameless == []


def test_whole_numbers_fit_every_reader(document: Json) -> None:
    """JavaScript rounds beyond 2**53, and a bound written as 9.2e18 is no whole number to others."""
    wide = [
        f"{where}: {key} {schema[key]}"
        for where, schema in schemas(document)
        for key in BOUNDS
        if abs(schema.get(key, 0)) > MAX_WHOLE
    ]
    assert wide == []


def test_operations_have_names_of_our_own(document: Json) -> None:
    names = Counter(operation["operationId"] for _, operation in operations(document))
    assert [name for name, number in names.items() if number > 1] == []
    assert [name for name in names if not name.isidentifier() or "_get" in name or "__" in name] == []
    # openapi-generator's clients have such a variant of each operation
    assert [name for name in names if name.endswith(("_raw", "_with_http_info", "_without_preload_content"))] == []


def test_an_answer_has_one_type(document: Json) -> None:
    """JSON beside CSV makes the plain poll untyped: what is not JSON has an address of its own."""
    mixed = []
    for name, operation in operations(document):
        found = {
            str(media["schema"])
            for status, answer in operation["responses"].items()
            if status[0] in "23" and status != NO_BODY
            for media in answer.get("content", {"none": {"schema": None}}).values()
        }
        if len(found) > 1 and name not in MIXED:
            mixed.append(name)
    assert mixed == []


def test_nothing_is_asked_for_twice(document: Json) -> None:
    """A client sends the defaults of both, and the service refuses a field of the form that stands in the query too."""
    for name, operation in operations(document):
        (body,) = operation.get("requestBody", {"content": {"": {"schema": {}}}})["content"].values()
        queried = {parameter["name"] for parameter in operation.get("parameters", [])}
        assert queried & body["schema"].get("properties", {}).keys() == set(), name


def test_no_parameter_is_an_object(document: Json) -> None:
    """Each generator writes one its own way, and openapi-python-client knows one way only."""
    objects = [
        f"{name}: {parameter['name']}"
        for name, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if parameter["schema"].get("type") == "object"
    ]
    assert objects == ([] if "/jobs" in document["paths"] else ["GET /v1/fine_tuning/jobs: metadata"])


def test_servers_and_security_are_stated(document: Json) -> None:
    assert document["servers"] == [{"url": "/"}]
    below = create_app(Settings(root_path="/tools/preftune"))
    assert describe(below)["servers"] == described(below)["servers"] == [{"url": "/tools/preftune"}]
    for name, operation in operations(document):
        is_open = "/health/" in name
        assert operation["security"] == ([] if is_open else [{"HTTPBearer": []}]), name
        assert ("x-scope" in operation) != is_open, name


def test_headers_of_answers_are_stated(document: Json) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            headers = answer.get("headers", {})
            assert ("Location" in headers) == ("`Location`" in answer["description"]), name
            if "/v1/files" not in document["paths"]:
                assert ("Retry-After" in headers) == (status in ("429", "503")), name
                is_json = "application/json" in answer.get("content", {})
                assert ("ETag" in headers) == (name.startswith("GET ") and status == "200" and is_json), name
