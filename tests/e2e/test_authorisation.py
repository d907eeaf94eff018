"""Who may do what: every operation of the OpenAPI document, with every kind of key; and what limits keep to."""

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi, pairs, serve
from backends import BASE_MODEL, set_architecture
from deployments import COMMAND, reach, start
from played_rounds import store_rows
from servers import free_port

from api.app import create_app
from api.docs.document import describe
from core.database.columns import database_now
from core.database.tables.republications import RepublishRequest
from core.domain.access import Scope
from core.domain.request_status import RequestStatus
from core.services.access import api_keys, projects
from core.services.backend import Backend, open_backend
from core.services.feedback import answers
from core.settings import Settings, load_settings
from preftune import Client

KEY = "pt_canary_0123456789abcdef"
OTHER = "other"
REVOCATION_SECONDS = 5
BODIES: dict[str, Any] = {
    "POST /jobs": {"base_model": BASE_MODEL, "dataset_id": "ds_1"},
    "PATCH /datasets/{dataset_id}": {"name": "x"},
    "PATCH /jobs/{job_id}": {"name": "x"},
    "POST /jobs/{job_id}/rerun": {"exclude_lines": [1]},
    "POST /jobs/{job_id}/exports": {"format": "gguf-f16"},
    "POST /jobs/{job_id}/scores": {"items": [{"prompt": "Why?", "response": "So."}]},
    "POST /sweeps": {"job": {"base_model": BASE_MODEL, "dataset_id": "ds_1"}, "grid": {"beta": [0.1]}},
    "POST /sweeps/preview": {"job": {"base_model": BASE_MODEL, "dataset_id": "ds_1"}, "grid": {"beta": [0.1]}},
    "POST /sweeps/{sweep_id}/extend": {"members": [{"beta": 0.2}]},
    "POST /datasets/{dataset_id}/versions": {"drop_lines": [1]},
    "POST /datasets/{dataset_id}/split": {"fractions": [0.5, 0.5]},
    "POST /datasets/merge": {"dataset_ids": ["ds_1"]},
    "POST /arenas": {"dataset_id": "ds_1"},
    "PATCH /arenas/{arena_id}": {"is_open": True},
    "POST /arenas/{arena_id}/leases": {"voter": "x"},
    "POST /arenas/{arena_id}/votes": {"pair_id": "pair_none", "verdict": "tie"},
    "POST /generations": {"models": [BASE_MODEL], "prompts": ["Why?"]},
    "POST /judgements": {"dataset_id": "ds_1", "judge": {"kind": "length"}},
    "POST /rounds": {"job": {"base_model": BASE_MODEL, "dataset_id": "ds_1"}, "judge": {"kind": "length"}},
    "POST /rounds/preview": {"job": {"base_model": BASE_MODEL, "dataset_id": "ds_1"}, "judge": {"kind": "length"}},
    "POST /rounds/{rounds_id}/extend": {"num_rounds": 5},
    "POST /feedback": {"answer_id": "chatcmpl_x-0", "thumb": "up"},
    "POST /feedback/dataset": {"kind": "unpaired"},
    "POST /webhooks": {"url": "http://127.0.0.1:9/hook", "event_types": ["fine_tuning.job.failed"]},
    "PATCH /webhooks/{webhook_id}": {"name": "x"},
    "POST /webhooks/{webhook_id}/ping": {},
    "POST /webhooks/{webhook_id}/rotate": {},
    "POST /keys": {"name": "x", "scope": "read"},
    "POST /keys/{key_id}/rotate": {},
    "POST /uploads": {"num_bytes": 10, "filename": "pairs.jsonl"},
}
CONTENTS = {
    "POST /datasets": pairs(),
    "POST /datasets/raw": pairs(),
    "PUT /uploads/{upload_id}/parts/{number}": b"0123456789",
}
NOT_IN_THIS_HOUSE = {
    "GET /datasets/{dataset_id}/answers",
    "GET /datasets/{dataset_id}/tokens",
    *(f"GET /jobs/{{job_id}}/pairs{form}" for form in ("", ".csv", ".jsonl")),
}
"""Its dataset holds no responses, its base model has no tokenizer, its job left no report: the holder of a key is told
that, and nobody else is."""
READ_BY_USERS = {"GET /jobs/{job_id}/scores/{score_id}"}
"""Readings that keys of the scope `use` may do as well."""
QUERIES = {
    "GET /judgements/{judgement_id}/agreement": {"against": "{judgement_id}"},
    "GET /datasets/{dataset_id}/diff": {"against": "{dataset_id}"},
    "GET /datasets/{dataset_id}/tokens": {"base_model": BASE_MODEL},
    "PUT /uploads/{upload_id}/parts/{number}": {"sha256": hashlib.sha256(b"0123456789").hexdigest()},
}


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    document = describe(create_app(Settings()))
    return [(method.upper(), path, op) for path, item in document["paths"].items() for method, op in item.items()]


SECURED = [(method, path, op["x-scope"]) for method, path, op in operations() if op["security"]]
NAMES = [f"{method} {path}" for method, path, _ in SECURED]


@dataclass(kw_only=True)
class House:
    """One service with two projects; everything that paths name is in the default one."""

    api: RunningApi
    tokens: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, key: str | None) -> httpx.Response:
        name = f"{method} {path}"
        url = path.format(**self.ids) if "{" in path else path
        headers = {} if key is None else {"Authorization": f"Bearer {self.tokens[key]}"}
        with self.api.http.stream(
            method,
            url,
            headers=headers,
            params={key: value.format(**self.ids) for key, value in QUERIES.get(name, {}).items()},
            json=BODIES.get(name),
            content=CONTENTS.get(name),
        ) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return response  # it goes on for as long as somebody listens
            response.read()
            return response


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serve(Path(tmp_path_factory.mktemp("house")), api_key=KEY, webhook_allowed_hosts="127.0.0.1") as api:
        backend = api.backend
        projects.create(backend, OTHER)
        made = {scope.value: api_keys.create(backend, "default", scope.value, scope) for scope in Scope}
        made["other"] = api_keys.create(backend, OTHER, "other", Scope.ADMIN)
        made["revoked"] = api_keys.create(backend, "default", "revoked", Scope.ADMIN)
        api_keys.revoke(backend, made["revoked"].key.id)
        made["expired"] = api_keys.create(backend, "default", "expired", Scope.ADMIN, lifetime_seconds=0.01)
        tokens = {name: new.token for name, new in made.items()}
        secret = made["admin"].token
        tokens |= {"wrong": secret[:-1] + ("0" if secret[-1] != "0" else "1"), "bootstrap": KEY, "nonsense": "x"}
        api.http.headers["Authorization"] = f"Bearer {KEY}"
        api.dataset_id()
        house = House(api=api, tokens=tokens)
        set_architecture(api.settings, "LlamaForCausalLM")  # one that can be exported
        house.ids = {"dataset_id": upload_dataset(api), "path": "model.safetensors"} | api.finish_job()
        upload = api.http.post("/uploads", json=BODIES["POST /uploads"])
        house.ids |= {"upload_id": upload.json()["id"], "number": "1"}
        scores = api.http.post(f"/jobs/{house.ids['job_id']}/scores", json=BODIES["POST /jobs/{job_id}/scores"])
        export = api.http.post(f"/jobs/{house.ids['job_id']}/exports", json=BODIES["POST /jobs/{job_id}/exports"])
        house.ids["key_id"] = made["read"].key.id
        house.ids |= {"score_id": scores.json()["id"], "export_id": export.json()["id"]}
        house.ids["republication_id"] = add_republication(backend, house.ids["job_id"])
        house.ids["webhook_id"] = api.http.post("/webhooks", json=BODIES["POST /webhooks"]).json()["webhook"]["id"]
        arena = api.http.post("/arenas", json={"dataset_id": house.ids["dataset_id"]}).json()
        pair = api.http.post(f"/arenas/{arena['id']}/leases", json={}).json()["data"][0]
        vote = api.http.post(f"/arenas/{arena['id']}/votes", json={"pair_id": pair["id"], "verdict": "left"})
        house.ids |= {"arena_id": arena["id"], "vote_id": vote.json()["id"]}
        house.ids["answer_id"] = keep_answer(backend)
        generation = api.http.post("/generations", json=BODIES["POST /generations"]).json()
        house.ids["generation_id"] = generation["id"]
        judged = {"dataset_id": house.ids["dataset_id"], "judge": {"kind": "length"}}
        house.ids["judgement_id"] = api.http.post("/judgements", json=judged).json()["id"]
        house.ids["sweep_id"] = api.http.post("/sweeps", json=BODIES["POST /sweeps"]).json()["id"]
        store_rows(backend, "ds_1")
        house.ids["rounds_id"] = api.http.post("/rounds", json=BODIES["POST /rounds"]).json()["id"]
        del api.http.headers["Authorization"]
        yield house


def keep_answer(backend: Backend) -> str:
    answer = answers.NewAnswer(id="chatcmpl_x-0", model=BASE_MODEL, prompt="Why?", text="So.")
    answers.keep(backend, "default", None, [answer])
    return answer.id


def add_republication(backend: Backend, job_id: str) -> str:
    """A request that has failed, as of a policy that an earlier version published."""
    row = RepublishRequest(
        id="republish_1",
        job_id=job_id,
        project_id="default",
        status=RequestStatus.FAILED,
        error_detail="It failed.",
        outcome={},
        created_at=database_now(),
        finished_at=database_now(),
    )
    backend.database.write(lambda session: session.add(row))
    return "republish_1"


def upload_dataset(api: RunningApi) -> str:
    return str(api.http.post("/datasets", content=pairs()).json()["id"])


@pytest.mark.parametrize(("method", "path", "scope"), SECURED, ids=NAMES)
def test_every_operation_asks_for_a_key_of_its_scope(house: House, method: str, path: str, scope: str) -> None:
    missing = house.ask(method, path, None)
    assert (missing.status_code, missing.json()["code"]) == (401, "api-key-missing")
    for key in ("revoked", "expired", "wrong", "nonsense"):
        refused = house.ask(method, path, key)
        assert (refused.status_code, refused.json()["code"]) == (401, "api-key-invalid"), key
        assert house.tokens[key] not in refused.text or key == "nonsense"
    reading = house.ask(method, path, "read")
    is_shared = f"{method} {path}" in READ_BY_USERS
    assert scope == "use" or is_shared or house.ask(method, path, "use").status_code == 403
    if scope == "use":
        assert house.ask(method, path, "use").status_code not in (401, 403)
    if is_shared:
        assert house.ask(method, path, "use").status_code == 200
    if scope != "read":
        assert (reading.status_code, reading.json()["code"]) == (403, "scope-missing")
        assert f'error="insufficient_scope", scope="{scope}"' in reading.headers["www-authenticate"]
        lesser = [other for other in Scope if not other.includes(Scope(scope))]
        assert [house.ask(method, path, other.value).status_code for other in lesser] == [403] * len(lesser)
        assert method != "GET" or house.ask(method, path, scope).status_code in (200, 404)
    elif f"{method} {path}" in NOT_IN_THIS_HOUSE:
        assert reading.status_code in (404, 409, 422), reading.text
        assert reading.json()["code"] not in ("job-not-found", "dataset-not-found")
    else:
        assert reading.status_code == 200, reading.text


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, path, _ in SECURED if "{" in path],
    ids=[n for n in NAMES if "{" in n],
)
def test_things_of_another_project_are_not_there(house: House, method: str, path: str) -> None:
    """As things that never were: nobody learns that they exist."""
    answer = house.ask(method, path, "other")
    assert answer.status_code == 404 or f"{method} {path}" in NOT_IN_THIS_HOUSE, answer.text
    never = House(
        api=house.api, tokens=house.tokens, ids=house.ids | dict.fromkeys(re.findall(r"{(\w+_id)}", path), "x_1")
    )
    assert never.ask(method, path, "other").json()["code"] == answer.json()["code"]


def test_what_has_no_id_in_its_path_stays_in_its_project(house: House) -> None:
    assert house.ask("GET", "/jobs", "other").json()["data"] == []
    assert house.ask("GET", "/datasets", "other").json()["data"] == []
    assert {model["kind"] for model in house.ask("GET", "/models", "other").json()["data"]} == {"base"}
    assert {model["kind"] for model in house.ask("GET", "/models", "read").json()["data"]} == {"base", "tuned"}
    foreign = house.ask("POST", "/jobs", "other")
    assert (foreign.status_code, foreign.json()["errors"][0]["pointer"]) == (422, "/dataset_id")
    theirs = house.ask("POST", "/datasets", "other")
    assert theirs.status_code == 201
    assert house.api.http.get(
        f"/datasets/{theirs.json()['id']}", headers={"Authorization": f"Bearer {KEY}"}
    ).status_code == 404  # fmt: skip


def test_only_operators_are_told_versions(house: House) -> None:
    for key in (None, "revoked", "wrong", "read", "write", "admin"):
        answer = house.ask("GET", "/health/ready", key)
        assert answer.status_code == 200
        assert answer.json().keys() == {"status", "database", "store", "broker"}, key
    for key in ("operator", "bootstrap"):
        versions = house.ask("GET", "/health/ready", key).json()["versions"]
        assert versions["fastapi"] == version("fastapi")
        assert {"preftune", "python", "sqlalchemy"} <= versions.keys()


def test_whoever_may_write_may(house: House) -> None:
    for key in ("write", "admin", "bootstrap"):
        assert house.ask("POST", "/datasets", key).status_code == 201
        assert house.ask("PATCH", "/jobs/{job_id}", key).status_code == 200


def test_a_revoked_key_ends_within_seconds(house: House) -> None:
    made = api_keys.create(house.api.backend, "default", "short", Scope.READ)
    house.tokens["short"] = made.token
    assert house.ask("GET", "/jobs", "short").status_code == 200
    api_keys.revoke(house.api.backend, made.key.id)
    deadline = time.monotonic() + REVOCATION_SECONDS
    while house.ask("GET", "/jobs", "short").status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_browser_may_what_its_key_may_and_for_as_long(house: House) -> None:
    made = api_keys.create(house.api.backend, OTHER, "browser", Scope.READ)
    own = {"Origin": house.api.url}
    with httpx.Client(base_url=house.api.url, headers=own) as browser:
        assert browser.post("/ui/session", json={"api_key": made.token}).status_code == 204
        assert browser.get("/ui/session").json() == {"needs_key": True, "is_signed_in": True, "scope": "read"}
        assert browser.get("/datasets").status_code == 200
        assert browser.get(f"/jobs/{house.ids['job_id']}").status_code == 404
        assert browser.post("/datasets", content=pairs()).json()["code"] == "scope-missing"
        api_keys.revoke(house.api.backend, made.key.id)
        deadline = time.monotonic() + REVOCATION_SECONDS
        while browser.get("/datasets").status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    forged = {"preftune_session": f"9999999999.x.bootstrap.{'0' * 64}"}
    assert httpx.get(f"{house.api.url}/jobs", cookies=forged).status_code == 401


def test_requests_over_the_rate_are_told_when_to_come_again(house: House) -> None:
    projects.create(house.api.backend, "busy")
    projects.set_limits(house.api.backend, "busy", projects.Limits(max_requests_per_minute=60))
    house.tokens["busy"] = api_keys.create(house.api.backend, "busy", "busy", Scope.READ).token
    answers = [house.ask("GET", "/variants", "busy") for _ in range(30)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 15 <= len(refused) <= 20  # ten at once, then one a second
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(429, "rate-limited")}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    time.sleep(1.1)
    assert house.ask("GET", "/variants", "busy").status_code == 200
    assert house.ask("GET", "/variants", "read").status_code == 200, "each key has its own"


def test_quotas(house: House) -> None:
    backend = house.api.backend
    projects.create(backend, "small")
    house.tokens["small"] = api_keys.create(backend, "small", "small", Scope.WRITE).token
    assert house.ask("POST", "/datasets", "small").status_code == 201
    projects.set_limits(backend, "small", projects.Limits(max_stored_bytes=len(pairs()) + 1))
    for path in ("/datasets", "/uploads"):
        full = house.ask("POST", path, "small")
        assert (full.status_code, full.json()["code"], full.json()["quota"]) == (
            413,
            "storage-quota-exceeded",
            "max_stored_bytes",
        )
        assert full.json()["stored"]["datasets"] >= len(pairs())
    house.tokens["small-reader"] = api_keys.create(backend, "small", "reader", Scope.READ).token
    usage = house.ask("GET", "/usage", "small-reader").json()
    assert usage["limits"]["max_stored_bytes"] == len(pairs()) + 1
    assert usage["largest"][0]["id"].startswith("ds_")
    projects.set_limits(backend, "small", projects.Limits(max_queued_jobs=0, max_upload_bytes=5))
    time.sleep(2.1)  # keys carry the limit of uploads, and are asked anew by then
    assert house.ask("POST", "/datasets", "small").status_code == 413
    assert house.ask("POST", "/uploads", "small").json()["quota"] == "max_upload_bytes"
    body = {"base_model": BASE_MODEL, "dataset_id": "ds_1"}
    headers = {"Authorization": f"Bearer {house.tokens['small']}"}
    queued = house.api.http.post("/jobs", json=body, headers=headers)
    assert (queued.status_code, queued.json()["quota"]) == (429, "max_queued_jobs")


def test_a_first_key_closes_the_service(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        assert api.http.get("/jobs").status_code == 200
        token = api_keys.create(api.backend, "default", "first", Scope.READ).token
        deadline = time.monotonic() + REVOCATION_SECONDS
        while api.http.get("/jobs").status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert api.http.get("/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert api.http.get("/health/live", headers={"Host": "preftune.example"}).status_code == 200


def test_no_key_is_logged(tmp_path: Path) -> None:
    """Of a process as it is deployed, at its most talkative."""
    port = free_port()
    settings = {"DATA_DIR": str(tmp_path / "data"), "PORT": str(port), "API_KEY": KEY, "LOG_LEVEL": "debug"}
    with start("api", tmp_path, settings, [*COMMAND, "api"]) as process:
        client = Client(f"http://127.0.0.1:{port}", api_key=KEY)
        reach(client, tmp_path, settings, process)
        backend = open_backend(load_settings(data_dir=tmp_path / "data"))
        token = api_keys.create(backend, "default", "read", Scope.READ).token
        backend.close()
        for shown in (KEY, token, token[:-1] + "g"):
            face = ("/v1/files", f"/v1/models/{shown}", f"/v1/files?after={shown}", f"/v1/{shown}")
            for path in ("/jobs", f"/jobs/{shown}", f"/jobs?key={shown}", "/docs", *face):
                httpx.get(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {shown}"})
    log = (tmp_path / "api.log").read_text()
    assert log.count("status=200") >= 4
    assert KEY not in log
    assert token.rpartition("_")[2][:-1] not in log
