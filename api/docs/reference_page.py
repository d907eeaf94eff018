"""Reference page of the API, made from the OpenAPI document without a CDN."""

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from api.docs.openapi import problem_codes

Json = dict[str, Any]
_METHODS = ("get", "post", "put", "patch", "delete")


def render(document: Json) -> str:
    info = document["info"]
    schemas: Json = document["components"]["schemas"]
    sections = [_tag_section(document, tag) for tag in document["tags"]]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(info["title"])} API</title><link rel="stylesheet" href="docs.css"></head><body>'
        f"<header><h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
        f'<p>{_text(info["description"])}</p><p><a href="openapi.json">openapi.json</a></p></header>'
        f"<nav>{_contents(document)}</nav><main>{''.join(sections)}{_problem_section()}"
        f'<section id="schemas"><h2>Schemas</h2>{"".join(_schema(name, schemas[name]) for name in sorted(schemas))}'
        "</section></main></body></html>"
    )


def _operations(document: Json, tag: str) -> Iterable[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item and tag in item[method].get("tags", []):
                yield method, path, item[method]


def _contents(document: Json) -> str:
    parts = []
    for tag in document["tags"]:
        links = "".join(
            f'<li><a href="#{escape(operation["operationId"])}"><b>{method.upper()}</b> {escape(path)}</a></li>'
            for method, path, operation in _operations(document, tag["name"])
        )
        parts.append(f"<h3>{escape(tag['name'])}</h3><ul>{links}</ul>")
    return "".join(parts) + '<ul><li><a href="#problems">Problems</a></li><li><a href="#schemas">Schemas</a></li></ul>'


def _tag_section(document: Json, tag: Json) -> str:
    operations = "".join(_operation(*parts) for parts in _operations(document, tag["name"]))
    return f"<section><h2>{escape(tag['name'])}</h2><p>{_text(tag['description'])}</p>{operations}</section>"


def _operation(method: str, path: str, operation: Json) -> str:
    parameters = [
        (f"{parameter['name']} <small>{escape(parameter['in'])}</small>", parameter["schema"], parameter)
        for parameter in operation.get("parameters", [])
    ]
    answers = "".join(
        f"<tr><td>{status}</td><td>{_text(answer['description'])}</td><td>{_content(answer)}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    body = f"<h4>Body</h4><p>{_content(operation['requestBody'])}</p>" if "requestBody" in operation else ""
    return (
        f'<article id="{escape(operation["operationId"])}"><h3><b>{method.upper()}</b> <code>{escape(path)}</code></h3>'
        f"<p>{_text(operation.get('description', ''))}</p>{_fields('Parameters', parameters)}{body}"
        f"<h4>Answers</h4><table><tr><th>status</th><th>meaning</th><th>body</th></tr>{answers}</table></article>"
    )


def _fields(title: str, fields: list[tuple[str, Json, Json]]) -> str:
    if not fields:
        return ""
    rows = "".join(
        f"<tr><td>{name}</td><td>{_type(schema)}{_default(schema)}</td>"
        f"<td>{_text(about.get('description', ''))}</td></tr>"
        for name, schema, about in fields
    )
    return f"<h4>{title}</h4><table><tr><th>name</th><th>type</th><th>meaning</th></tr>{rows}</table>"


def _content(part: Json) -> str:
    kinds = [
        f"<code>{escape(media)}</code>: {_type(body['schema'])}" for media, body in part.get("content", {}).items()
    ]
    return "<br>".join(kinds)


def _schema(name: str, schema: Json) -> str:
    required = set(schema.get("required", []))
    fields = [
        (escape(field) + (" <small>required</small>" if field in required else ""), inner, inner)
        for field, inner in schema.get("properties", {}).items()
    ]
    body = _fields("Fields", fields) if fields else f"<p>{_type(schema)}</p>"
    about = _text(schema.get("description", ""))
    return f'<article id="schema-{escape(name)}"><h3>{escape(name)}</h3><p>{about}</p>{body}</article>'


def _problem_section() -> str:
    rows = "".join(
        f'<tr id="problem-{escape(code)}"><td><code>{escape(code)}</code></td>'
        f"<td>{status}</td><td>{escape(title)}</td></tr>"
        for code, (status, title) in sorted(problem_codes().items())
    )
    return (
        '<section id="problems"><h2>Problems</h2><p>The <code>code</code> of a problem document never changes its '
        f"meaning.</p><table><tr><th>code</th><th>status</th><th>title</th></tr>{rows}</table></section>"
    )


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    for key, joint in (("anyOf", " | "), ("oneOf", " | "), ("allOf", " and ")):
        if key in schema:
            return joint.join(_type(inner) for inner in schema[key])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " | ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("type", "any"))) + _bounds(schema)


def _bounds(schema: Json) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    words |= {"minLength": "length ≥", "maxLength": "length ≤"}
    found = [f"{word} {schema[key]:g}" for key, word in words.items() if key in schema]
    return f" <small>{escape(', '.join(found))}</small>" if found else ""


def _default(schema: Json) -> str:
    return (
        f" <small>default <code>{escape(json.dumps(schema['default']))}</code></small>" if "default" in schema else ""
    )


def _text(text: str) -> str:
    """Escape text, with `code` shown as such."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
