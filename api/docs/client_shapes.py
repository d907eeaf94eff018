"""Shapes of a document that generators of typed clients read: what pydantic and FastAPI write, said as they expect it.

Nothing here changes what the service takes or answers. `docs/guide/generated-clients.md` says which tool needs what.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

Json = dict[str, Any]

_MAPS = ("properties", "patternProperties", "$defs")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "propertyNames", "contains", "not", "contentSchema")
_NULL = {"type": "null"}
_BESIDE_A_NAME = ("description", "default", "examples", "deprecated")


def shape_for_clients(document: Json, names: Mapping[str, Any]) -> None:
    """Reshape the document in place.

    Args:
        names: a name for each `Literal` of several texts, by which it becomes a component.
    """
    _rename_by_title(document)
    components = document["components"]["schemas"]
    known = {get_args(literal): name for name, literal in names.items()}
    for schema in [*components.values(), *_inline_schemas(document)]:
        for inner in each_schema(schema):
            _say_plainly(inner)
    for schema in [*components.values(), *_inline_schemas(document)]:
        for inner in each_schema(schema):
            if schema is not inner or not _is_component(schema, components):
                _drop_title(inner)
                _name_choices(inner, known, components)
    for operation in operations(document):
        for parameter in operation.get("parameters", []):
            parameter["schema"] = without_null(parameter["schema"])
    document["components"]["schemas"] = dict(sorted(components.items()))


def _rename_by_title(document: Json) -> None:
    """A component of a generic class, `Page_Job_`, gets the class's own name: `JobPage`."""
    components = document["components"]["schemas"]
    names = {name: schema["title"] for name, schema in components.items() if name.endswith("_")}
    for old, new in names.items():
        components[new] = components.pop(old)
    for schema in [*components.values(), *_inline_schemas(document)]:
        for inner in each_schema(schema):
            prefix, _, name = inner.get("$ref", "").rpartition("/")
            if name in names:
                inner["$ref"] = f"{prefix}/{names[name]}"


def operations(document: Json) -> Iterator[Json]:
    for item in document["paths"].values():
        yield from item.values()


def each_schema(schema: Json) -> Iterator[Json]:
    """Yield a schema and all schemas inside it; one may be changed once it has been yielded."""
    yield schema
    for key in _MAPS:
        for inner in schema.get(key, {}).values():
            yield from each_schema(inner)
    for key in _LISTS:
        for inner in schema.get(key, []):
            yield from each_schema(inner)
    for key in _SINGLE:
        if isinstance(schema.get(key), dict):
            yield from each_schema(schema[key])


def _inline_schemas(document: Json) -> Iterator[Json]:
    """Yield the schemas of parameters, bodies, answers and headers."""
    for operation in operations(document):
        for parameter in operation.get("parameters", []):
            yield parameter["schema"]
        for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for media in part.get("content", {}).values():
                yield media["schema"]
            for header in part.get("headers", {}).values():
                yield header["schema"]


def _is_component(schema: Json, components: Json) -> bool:
    return any(schema is component for component in components.values())


def _say_plainly(schema: Json) -> None:
    """A constant text is an enumeration of one; a map with a pattern for its keys is a map."""
    if isinstance(schema.get("const"), str):
        schema["enum"] = [schema.pop("const")]
    if len(schema.get("patternProperties", {})) == 1:
        ((pattern, values),) = schema.pop("patternProperties").items()
        schema["additionalProperties"] = values
        schema["propertyNames"] = schema.get("propertyNames", {}) | {"pattern": pattern}


def _drop_title(schema: Json) -> None:
    """A title would become the name of a type, where two fields of one name need two."""
    if isinstance(schema.get("title"), str):
        del schema["title"]


def _name_choices(schema: Json, known: Mapping[tuple[Any, ...], str], components: Json) -> None:
    name = known.get(tuple(schema.get("enum", ())))
    if name is None:
        return
    components.setdefault(name, {"type": "string", "enum": schema["enum"]})
    kept = {key: schema[key] for key in _BESIDE_A_NAME if key in schema}
    schema.clear()
    schema.update({"$ref": f"#/components/schemas/{name}", **kept})


def without_null(schema: Json) -> Json:
    """Return the schema of a parameter or form field, which is left out and never null."""
    others = [inner for inner in schema.get("anyOf", ()) if inner != _NULL]
    if len(others) != 1:
        return schema
    kept = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
    merged: Json = others[0] | kept
    return merged
