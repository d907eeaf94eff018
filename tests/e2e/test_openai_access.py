"""Every address under `/v1` asks for a key, keeps to its project, and fails in OpenAI's form."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_server import RunningApi, pairs, serve
from backends import BASE_MODEL

from api.openai.routes import document
from core.domain.access import Scope
from core.services.access import api_keys, projects

KEY = "pt_openai_access_0123456789abcdef"
ROUTES = sorted(
    (method, route.path)  # type: ignore[attr-defined]
    for router in document.ROUTERS
    for route in router.routes
    for method in route.methods  # type: ignore[attr-defined]
)
BODIES = {
    "/v1/fine_tuning/jobs": {"model": BASE_MODEL, "training_file": "ds_1", "method": {"type": "dpo"}},
    "/v1/uploads": {"bytes": 10, "filename": "p.jsonl", "mime_type": "a/b", "purpose": "fine-tune"},
    "/v1/webhook_endpoints": {
        "name": "w",
        "url": "http://127.0.0.1:9/hook",
        "event_types": ["fine_tuning.job.failed"],
    },
    "/v1/webhook_endpoints/{webhook_id}": {"name": "v"},
    "/v1/webhook_endpoints/{webhook_id}/test": {"event_type": "fine_tuning.job.failed"},
    "/v1/webhook_endpoints/{webhook_id}/rotate_secret": {},
    "/v1/uploads/{upload_id}/complete": {"part_ids": ["part_1_1"]},
    "/v1/chat/completions": {"model": BASE_MODEL, "messages": [{"role": "user", "content": "Why?"}]},
    "/v1/completions": {"model": BASE_MODEL, "prompt": "Why?"},
}
USERS_ROUTES = {
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model:path}"),
}
"""What keys of the scope `use` may ask."""
FORMS = {"/v1/files": "file", "/v1/uploads/{upload_id}/parts": "data"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("openai")), api_key=KEY, webhook_allowed_hosts="127.0.0.1") as running:
        projects.create(running.backend, "other")
        yield running


@pytest.fixture(scope="module")
def ids(api: RunningApi) -> dict[str, str]:
    api.http.headers["Authorization"] = f"Bearer {KEY}"
    made = api.finish_job()
    upload = api.http.post("/v1/uploads", json=BODIES["/v1/uploads"]).json()["id"]
    name = api.http.get(f"/v1/fine_tuning/jobs/{made['job_id']}").json()["fine_tuned_model"]
    webhook = api.http.post("/v1/webhook_endpoints", json=BODIES["/v1/webhook_endpoints"]).json()["id"]
    del api.http.headers["Authorization"]
    return made | {"webhook_id": webhook} | {"upload_id": upload, "file_id": "ds_1", "model": name}


def ask(api: RunningApi, method: str, path: str, ids: dict[str, str], token: str | None) -> httpx.Response:
    url = re.sub(r"{(\w+)(:path)?}", lambda found: ids[found[1]], path)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    if path in FORMS and method == "POST":
        form = {"purpose": "fine-tune"} if path == "/v1/files" else {}
        return api.http.post(url, headers=headers, data=form, files={FORMS[path]: ("p.jsonl", pairs())})
    return api.http.request(method, url, headers=headers, json=BODIES.get(path) if method == "POST" else None)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_address_asks_for_a_key_of_its_scope(
    api: RunningApi, ids: dict[str, str], method: str, path: str
) -> None:
    for token in (None, "pt_wrong"):
        refused = ask(api, method, path, ids, token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert refused.headers["x-request-id"]
    for name, seconds in (("revoked", None), ("expired", 0.01)):
        ended = api_keys.create(api.backend, "default", name, Scope.ADMIN, lifetime_seconds=seconds)
        api_keys.revoke(api.backend, ended.key.id) if name == "revoked" else time.sleep(0.02)
        refused = ask(api, method, path, ids, ended.token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key"), name
        assert ended.token not in refused.text
    reader = api_keys.create(api.backend, "default", "reader", Scope.READ).token
    reading = ask(api, method, path, ids, reader)
    if method == "GET":
        # The dataset of this house was made without a file.
        expected = 503 if path == "/v1/files/{file_id}/content" else 200
        assert reading.status_code == expected, reading.text
    else:
        assert (reading.status_code, reading.json()["error"]["code"]) == (403, "scope_missing")
        assert reading.json()["error"]["type"] == "permission_error"
    user = api_keys.create(api.backend, "default", "user", Scope.USE).token
    using = ask(api, method, path, ids, user).status_code
    assert (using == 403) is not ((method, path) in USERS_ROUTES), using


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "{" in route[1]])
def test_things_of_another_project_are_not_there(api: RunningApi, ids: dict[str, str], method: str, path: str) -> None:
    other = api_keys.create(api.backend, "other", "other", Scope.ADMIN).token
    refused = ask(api, method, path, ids, other)
    never = ask(api, method, path, dict.fromkeys(ids, "x_1") | {"model": "ft:a:b:c:d", "job_id": "job_x"}, other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, never.json()["error"]["code"]), refused.text
    assert set(refused.json()["error"]) >= {"message", "type", "param", "code"}


def test_its_document_names_every_address_with_its_scope_and_errors(api: RunningApi) -> None:
    described = api.http.get("/v1/openapi.json").json()
    found = {(method.upper(), path): op for path, item in described["paths"].items() for method, op in item.items()}
    assert sorted(found) == [(method, path.replace(":path}", "}")) for method, path in ROUTES]
    for (method, path), operation in found.items():
        assert operation["security"] == [{"HTTPBearer": []}], path
        scope = "use" if path.endswith("/completions") else "read" if method == "GET" else "write"
        assert operation["x-scope"] == scope, path
        errors = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
        assert {"400", "401", "403", "429", "500", "503"} <= errors.keys(), path
        assert ("404" in errors) == ("{" in path or path.endswith("/completions")), path
        media = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
        assert all(answer["content"] == media for answer in errors.values()), path
    assert not any(path.startswith("/v1") for path in api.http.get("/openapi.json").json()["paths"])
