"""The HTTP contract, kept: paths, parameters, fields and statuses as recorded in `openapi_snapshot.json`.

Internal tools are written against them. Fields may be added; run this file as a script to record that.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.docs.document import describe
from api.docs.openapi import problem_codes
from api.http.problems import STATUS_OF_KIND
from core.domain.errors import DomainError
from core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("openapi_snapshot.json")
CONTRACT = {
    "/datasets": {"get", "post"},
    "/datasets/{dataset_id}": {"get", "delete"},
    "/datasets/{dataset_id}/report": {"get"},
    "/datasets/{dataset_id}/rows": {"get"},
    "/datasets/{dataset_id}/content": {"get"},
    "/uploads": {"post"},
    "/uploads/{upload_id}": {"get"},
    "/uploads/{upload_id}/parts/{number}": {"put"},
    "/uploads/{upload_id}/complete": {"post"},
    "/jobs": {"get", "post"},
    "/jobs/{job_id}": {"get", "patch", "delete"},
    "/jobs/{job_id}/cancel": {"post"},
    "/jobs/{job_id}/pause": {"post"},
    "/jobs/{job_id}/resume": {"post"},
    "/jobs/{job_id}/retry": {"post"},
    "/jobs/{job_id}/events": {"get"},
    "/jobs/{job_id}/metrics": {"get"},
    "/jobs/{job_id}/stream": {"get"},
    "/jobs/{job_id}/samples": {"get"},
    "/jobs/{job_id}/checkpoints": {"get"},
    "/jobs/{job_id}/artifact": {"get"},
    "/jobs/{job_id}/artifact/archive": {"get"},
    "/jobs/{job_id}/artifact/files/{path}": {"get"},
    "/variants": {"get"},
    "/models": {"get"},
    "/health/live": {"get"},
    "/health/ready": {"get"},
    "/metrics": {"get"},
}
JOB_FIELDS = {
    "id", "name", "status", "desired", "stage", "spec", "requested", "created_at", "started_at", "finished_at",
    "attempt", "progress", "queue_position", "stages", "error", "artifact", "metadata", "priority",
}  # fmt: skip
DATASET_FIELDS = {
    "id", "name", "status", "kind", "format", "sha256", "num_bytes", "num_rows", "num_accepted", "num_rejected",
    "num_set_aside", "report", "metadata", "created_at",
}  # fmt: skip


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe(create_app(Settings()))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def reduced(document: dict[str, Any]) -> dict[str, Any]:
    """What a client depends on, without wording: it may get better at any time."""
    return {
        "operations": {
            name: {
                "parameters": sorted(f"{p['in']} {p['name']}" for p in operation.get("parameters", [])),
                "body": sorted(operation.get("requestBody", {}).get("content", {})),
                "statuses": sorted(operation["responses"]),
            }
            for name, operation in operations(document)
        },
        "schemas": {
            name: {"fields": sorted(schema.get("properties", {})), "required": sorted(schema.get("required", []))}
            for name, schema in document["components"]["schemas"].items()
        },
    }


def test_the_document_is_as_recorded(document: dict[str, Any]) -> None:
    recorded = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert reduced(document) == recorded, f"if this is meant: {sys.executable} {__file__}"


def test_the_contract_is_served(document: dict[str, Any]) -> None:
    served = {path: set(item) for path, item in document["paths"].items()}
    assert {path: served.get(path, set()) & methods for path, methods in CONTRACT.items()} == CONTRACT
    schemas = document["components"]["schemas"]
    assert schemas["Job"]["properties"].keys() >= JOB_FIELDS
    assert schemas["Dataset"]["properties"].keys() >= DATASET_FIELDS


def test_every_operation_says_how_it_fails(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        problems = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
        assert "500" in problems, name
        if not name.startswith("GET /health"):
            assert {"401", "403"} <= problems.keys(), name
            assert operation["security"], name
        if "{" in name:
            assert "404" in problems, name
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= problems.keys(), name
        for answer in problems.values():
            assert answer["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }, name
        assert operation["description"], name


def test_everything_is_described(document: dict[str, Any]) -> None:
    bare = [
        f"{name}: {p['name']}"
        for name, op in operations(document)
        for p in op.get("parameters", [])
        if not p.get("description")
    ]
    for name, schema in document["components"]["schemas"].items():
        for field, inner in schema.get("properties", {}).items():
            if not inner.get("description"):
                bare.append(f"{name}.{field}")
    assert bare == []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= document["components"]["schemas"].keys()


def test_problem_codes_are_stable_names() -> None:
    def classes(base: type[DomainError]) -> Iterator[type[DomainError]]:
        for error in base.__subclasses__():
            yield error
            yield from classes(error)

    codes: dict[str, type[DomainError]] = {}
    for error in classes(DomainError):
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", error.code), error
        assert error.kind in STATUS_OF_KIND
        assert error.title != DomainError.title, error
        if "code" in vars(error):
            assert codes.setdefault(error.code, error) is error, f"{error} and {codes[error.code]}"
    assert codes.keys() <= problem_codes().keys()


def test_the_api_loads_no_training_code() -> None:
    code = (
        "import sys, api.server, api.app; "
        "print(sorted({'torch', 'transformers', 'peft', 'core.training'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


if __name__ == "__main__":
    recorded = reduced(describe(create_app(Settings())))
    SNAPSHOT.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n", encoding="utf-8")
