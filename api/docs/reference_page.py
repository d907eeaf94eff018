"""Reference page of the API, made from the OpenAPI document: nothing inline, nothing from elsewhere.

It can be read without its script, which searches it and sends requests.
"""

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from api.docs.openapi import problem_codes
from core.domain.jobs.event_kinds import EVENT_KINDS
from core.domain.jobs.failure_codes import TITLES

Json = dict[str, Any]
_METHODS = ("get", "post", "put", "patch", "delete")
_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    '<link rel="icon" type="image/svg+xml" href="ui/icon.svg">'
    '<link rel="stylesheet" href="ui/base.css"><link rel="stylesheet" href="docs.css">'
    '<script type="module" src="docs.js"></script>'
)
_TOOLS = (
    '<div id="tools" hidden><label>Search <input type="search" id="search" placeholder="job, metrics, /pairs, 409 …" '
    'autocomplete="off"></label><span id="found" role="status"></span><label>API key <input type="password" id="key" '
    'autocomplete="off" placeholder="for Try it; kept by this page alone"></label></div>'
)


def render(document: Json) -> str:
    """Return the page as HTML."""
    info = document["info"]
    schemas: Json = document["components"]["schemas"]
    sections = [_tag_section(document, tag) for tag in document["tags"]]
    return (
        f"{_HEAD}<title>{escape(info['title'])} API</title></head><body>"
        f'<header class="top"><a class="brand" href="ui/"><img src="ui/icon.svg" alt="" width="22" height="22">'
        f'{escape(info["title"])}</a><nav aria-label="Main"><a href="ui/">Dashboard</a>'
        '<a href="#problems">Error codes</a><a href="#events">Event kinds</a><a href="openapi.json">openapi.json</a>'
        "</nav></header>"
        f'<div class="page"><nav class="contents" aria-label="Operations">{_contents(document)}</nav><main>'
        f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
        f"<p>{_text(info['description'])}</p>{_TOOLS}{''.join(sections)}{_problem_section()}{_event_section()}"
        f'<section id="schemas"><h2>Schemas</h2>{"".join(_schema(name, schemas[name]) for name in sorted(schemas))}'
        "</section></main></div></body></html>"
    )


def _operations(document: Json, tag: str) -> Iterable[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item and tag in item[method].get("tags", []):
                yield method, path, item[method]


def _contents(document: Json) -> str:
    groups = []
    for tag in document["tags"]:
        links = "".join(
            f'<li><a href="#{escape(operation["operationId"])}"><b>{method.upper()}</b> {escape(path)}</a></li>'
            for method, path, operation in _operations(document, tag["name"])
        )
        groups.append(f'<li class="group"><b>{escape(tag["name"])}</b><ul>{links}</ul></li>')
    return f'<ul>{"".join(groups)}<li><a href="#schemas">Schemas</a></li></ul>'


def _tag_section(document: Json, tag: Json) -> str:
    operations = "".join(_operation(*parts) for parts in _operations(document, tag["name"]))
    return f"<section><h2>{escape(tag['name'])}</h2><p>{_text(tag['description'])}</p>{operations}</section>"


def _operation(method: str, path: str, operation: Json) -> str:
    parameters = [
        (
            f"<code>{escape(parameter['name'])}</code> <small>{escape(parameter['in'])}</small>",
            parameter["schema"],
            parameter,
        )
        for parameter in operation.get("parameters", [])
    ]
    answers = "".join(_answer(status, answer) for status, answer in operation["responses"].items())
    return (
        f'<article id="{escape(operation["operationId"])}"><h3><b>{method.upper()}</b> <code>{escape(path)}</code></h3>'
        f"<p>{_text(operation['description'])}</p>"
        f'<p><button type="button" class="try" hidden data-method="{method}" data-path="{escape(path)}">Try it</button>'
        "</p>"
        f"{_fields('Parameters', parameters)}{_body(operation.get('requestBody'))}"
        f"<h4>Answers</h4><table><tr><th>status</th><th>meaning</th><th>body</th></tr>{answers}</table></article>"
    )


def _body(body: Json | None) -> str:
    if body is None:
        return ""
    ((_, media),) = body["content"].items()
    fields = _schema_fields(media["schema"])
    return f"<h4>Body</h4><p>{_content(body)}</p>{fields}{_example('Example of a body', media)}"


def _answer(status: str, answer: Json) -> str:
    examples = "".join(_example("Example", media) for media in answer.get("content", {}).values())
    return f"<tr><td>{status}</td><td>{_text(answer['description'])}</td><td>{_content(answer)}{examples}</td></tr>"


def _example(title: str, described: Json) -> str:
    if "example" not in described:
        return ""
    value = described["example"]
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f'<details><summary>{title}</summary><pre tabindex="0">{escape(text)}</pre></details>'


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
    body = _schema_fields(schema) or f"<p>{_type(schema)}</p>"
    about = _text(schema.get("description", ""))
    examples = [{"example": value} for value in schema.get("examples", [])]
    shown = "".join(_example("Example", example) for example in examples)
    return f'<article id="schema-{escape(name)}"><h3>{escape(name)}</h3><p>{about}</p>{body}{shown}</article>'


def _schema_fields(schema: Json) -> str:
    required = set(schema.get("required", []))
    fields = [
        (f"<code>{escape(field)}</code>" + (" <small>required</small>" if field in required else ""), inner, inner)
        for field, inner in schema.get("properties", {}).items()
    ]
    return _fields("Fields", fields)


def _problem_section() -> str:
    rows = "".join(
        f'<tr id="problem-{escape(code)}"><td><code>{escape(code)}</code></td>'
        f"<td>{status}</td><td>{escape(title)}</td></tr>"
        for code, (status, title) in sorted(problem_codes().items())
    )
    failures = "".join(
        f'<tr id="failure-{code.value}"><td><code>{code.value}</code></td><td>{escape(title)}</td></tr>'
        for code, title in TITLES.items()
    )
    return (
        '<section id="problems"><h2>Error codes</h2><p>The <code>code</code> of a problem document never changes its '
        "meaning; its <code>type</code> leads here.</p>"
        f"<table><tr><th>code</th><th>status</th><th>title</th></tr>{rows}</table>"
        "<h3>Why a job failed</h3><p>The <code>code</code> in <code>error</code> of a failed job.</p>"
        f"<table><tr><th>code</th><th>title</th></tr>{failures}</table></section>"
    )


def _event_section() -> str:
    rows = "".join(
        f'<tr id="event-{escape(kind)}"><td><code>{escape(kind)}</code></td><td>{_text(meaning)}</td></tr>'
        for kind, meaning in sorted(EVENT_KINDS.items())
    )
    return (
        '<section id="events"><h2>Event kinds</h2><p>What <code>kind</code> of a job\'s events can be; more are added '
        f"over time.</p><table><tr><th>kind</th><th>meaning</th></tr>{rows}</table></section>"
    )


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    for key, joint in (("anyOf", " | "), ("oneOf", " | "), ("allOf", " and ")):
        if key in schema:
            return joint.join(_type(inner) for inner in schema[key])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("type", "any"))) + _bounds(schema)


def _bounds(schema: Json) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    words |= {"minLength": "length ≥", "maxLength": "length ≤"}
    found = [f"{word} {schema[key]:,}" for key, word in words.items() if key in schema]
    return f" <small>{escape(', '.join(found))}</small>" if found else ""


def _default(schema: Json) -> str:
    return (
        f" <small>default <code>{escape(json.dumps(schema['default']))}</code></small>" if "default" in schema else ""
    )


def _text(text: str) -> str:
    """Escape text, with `code` shown as such, and paragraphs."""
    pieces = escape(text).replace("\n\n", "<br>").split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
