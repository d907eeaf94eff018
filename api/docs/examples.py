"""Examples of the OpenAPI document: `examples/*.json` holds answers and bodies by component, as a service gave them.

Parts of them are the examples of the components inside; operations show those of their bodies and answers. What no
file has is made up from the schema.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

Json = dict[str, Any]

_TEXTS = {"text/csv": "csv", "application/x-ndjson": "jsonl", "text/plain": "plain", "text/html": "html"}
_KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip


@cache
def written() -> Json:
    """Return the examples in the files: `components` by name, `parameters` and `texts` by name."""
    found: Json = {"components": {}, "parameters": {}, "texts": {}}
    for file in sorted((resources.files("api") / "docs" / "examples").iterdir(), key=lambda each: each.name):
        for part, examples in json.loads(file.read_text(encoding="utf-8")).items():
            found[part] |= examples
    return found


def add_examples(document: Json) -> None:
    """Give every component, body, answer and required parameter an example, as far as there are any."""
    components = document["components"]["schemas"]
    examples: Json = {}
    for name, value in written()["components"].items():
        if name in components:
            reference = {"$ref": f"#/components/schemas/{name}"}
            _collect(reference, completed(reference, value, components), components, examples)
    for name, schema in components.items():
        examples.setdefault(name, made_up(schema, components))
        schema["examples"] = [examples[name]]
    for operation in (each for item in document["paths"].values() for each in item.values()):
        _of_operation(operation, examples, components)


def _of_operation(operation: Json, examples: Json, components: Json) -> None:
    for parameter in operation.get("parameters", []):
        if parameter["required"]:
            known = written()["parameters"]
            parameter["example"] = known.get(parameter["name"]) or made_up(parameter["schema"], components)
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    for part in [operation.get("requestBody", {}), *answers]:
        for media_type, media in part.get("content", {}).items():
            value = _of_media(operation["operationId"], media_type, media["schema"], examples)
            if value is not None:
                media["example"] = value


def _of_media(operation_id: str, media_type: str, schema: Json, examples: Json) -> Any:
    if media_type == "multipart/form-data":
        return written()["texts"].get(operation_id)
    if media_type in _TEXTS:
        return written()["texts"].get(operation_id)
    return examples.get(schema.get("$ref", "").rpartition("/")[2])


def _collect(schema: Json, value: Any, components: Json, found: Json) -> None:
    """Note the value for the component that the schema names, and its parts for those inside."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        found.setdefault(name, value)
        schema = components[name]
    for inner, part in _parts(schema, value, components):
        _collect(inner, part, components, found)


def _parts(schema: Json, value: Any, components: Json) -> Iterator[tuple[Json, Any]]:
    for inner in schema.get("anyOf", ()):
        if fits(inner, value, components):
            yield inner, value
            return
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties")
        for key, part in value.items():
            inner = known.get(key, others)
            if isinstance(inner, dict):
                yield inner, part
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        yield from ((schema["items"], part) for part in value)


def completed(schema: Json, value: Any, components: Json) -> Any:
    """Return the value with what the schema has come to require since."""
    if "$ref" in schema:
        return completed(components[schema["$ref"].rpartition("/")[2]], value, components)
    for inner in schema.get("anyOf", ()):
        if not isinstance(value, dict | list) or inner.get("type") == "null":
            continue
        return completed(inner, value, components) if "$ref" in inner or "items" in inner else value
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [completed(schema["items"], part, components) for part in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    known = schema["properties"]
    missing = {name: made_up(known[name], components) for name in schema.get("required", ()) if name not in value}
    return {key: completed(known.get(key, {}), part, components) for key, part in value.items()} | missing


def made_up(schema: Json, components: Json) -> Any:
    """Return a value of the schema, the plainest one."""
    if "$ref" in schema:
        return made_up(components[schema["$ref"].rpartition("/")[2]], components)
    if "enum" in schema or "default" in schema:
        return schema["default"] if "default" in schema else schema["enum"][0]
    if "anyOf" in schema:
        return made_up(schema["anyOf"][0], components)
    match schema.get("type"):
        case "object":
            known = schema.get("properties", {})
            return {name: made_up(known[name], components) for name in schema.get("required", ())}
        case "array":
            return [made_up(schema["items"], components)] * max(1, schema.get("minItems", 1))
        case "string":
            return _made_up_text(schema)
        case "integer":
            return max(1, schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1)
        case "number":
            low: float = schema.get("minimum") or schema.get("exclusiveMinimum") or 0
            high: float = schema.get("maximum") or schema.get("exclusiveMaximum") or low + 2
            return (low + high) / 2
        case "boolean":
            return False
    return {}


def _made_up_text(schema: Json) -> str:
    if schema.get("format") == "date-time":
        return "2026-11-30T16:26:34Z"
    return "0" * 64 if "{64}" in schema.get("pattern", "") else "text"


def fits(schema: Json, value: Any, components: Json) -> bool:
    """Whether a value is of the schema's type and has the fields that it requires."""
    if "$ref" in schema:
        return fits(components[schema["$ref"].rpartition("/")[2]], value, components)
    if "anyOf" in schema:
        return any(fits(inner, value, components) for inner in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, _KINDS[kind]) or (kind != "boolean" and isinstance(value, bool))):
        return False
    if isinstance(value, dict) and "properties" in schema:
        is_closed = schema.get("additionalProperties") is False
        has_others = bool(value.keys() - schema["properties"].keys())
        return set(schema.get("required", ())) <= value.keys() and not (is_closed and has_others)
    return True
