"""`Idempotency-Key`: created once, answered the same, however often and however concurrently it is sent."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from api_server import RunningApi, pairs, pointers
from backends import BASE_MODEL, PROJECT, claim

from core.domain.jobs.failure_codes import FailureCode
from core.services.access import idempotency
from core.services.access.idempotency import IdempotentRequest, Reservation
from core.services.attempts import lifecycle

NUM_CONCURRENT = 20


@pytest.fixture
def body(api: RunningApi) -> dict[str, Any]:
    return {"base_model": BASE_MODEL, "dataset_id": api.dataset_id()}


def submit(api: RunningApi, key: str, body: dict[str, Any]) -> httpx.Response:
    return api.http.post("/jobs", json=body, headers={"Idempotency-Key": key})


def num_named(api: RunningApi, name: str) -> int:
    jobs = api.http.get("/jobs", params={"limit": 100}).json()["data"]
    return sum(job["name"] == name for job in jobs)


def test_the_same_key_and_body_gets_the_first_answer(api: RunningApi, body: dict[str, Any]) -> None:
    first = submit(api, "k1", body | {"name": "same"})
    again = submit(api, "k1", {"name": "same", **body})  # another order of the fields is the same body
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert num_named(api, "same") == 1


def test_another_body_is_refused(api: RunningApi, body: dict[str, Any]) -> None:
    submit(api, "k2", body | {"name": "one"})
    other = submit(api, "k2", body | {"name": "two"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert num_named(api, "two") == 0


def test_twenty_at_once_create_one_job(api: RunningApi, body: dict[str, Any]) -> None:
    with ThreadPoolExecutor(NUM_CONCURRENT) as pool:
        asked = [pool.submit(submit, api, "k3", body | {"name": "crowd"}) for _ in range(NUM_CONCURRENT)]
        responses = [future.result() for future in asked]
    assert {response.status_code for response in responses} <= {201, 409}
    assert len({response.json()["id"] for response in responses if response.status_code == 201}) == 1
    conflicts = [response.json()["code"] for response in responses if response.status_code == 409]
    assert set(conflicts) <= {"idempotency-key-in-use"}
    assert submit(api, "k3", body | {"name": "crowd"}).status_code == 201
    assert num_named(api, "crowd") == 1


def test_while_the_first_is_in_flight_others_get_409(api: RunningApi, body: dict[str, Any]) -> None:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    first = IdempotentRequest(key="k5", route="POST /jobs", body_sha256=digest)
    held = idempotency.begin(api.backend, PROJECT, first)  # a request whose answer is still being made
    assert isinstance(held, Reservation)
    response = submit(api, "k5", body)
    assert (response.status_code, response.json()["code"]) == (409, "idempotency-key-in-use")
    idempotency.abandon(api.backend, held)
    assert submit(api, "k5", body).json()["id"] == held.resource_id("job")


def test_a_refused_request_keeps_nothing_and_may_be_sent_again(api: RunningApi, body: dict[str, Any]) -> None:
    waiting = body | {"dataset_id": "ds_later"}
    assert submit(api, "k6", waiting).status_code == 422
    api.dataset_id("ds_later")
    assert submit(api, "k6", waiting).status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\u00e9"])
def test_keys_that_are_none(api: RunningApi, body: dict[str, Any], key: str) -> None:
    response = httpx.post(f"{api.url}/jobs", json=body, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert (response.status_code, pointers(response)) == (422, ["/Idempotency-Key"])


def test_uploads_and_retries_are_created_once_too(api: RunningApi) -> None:
    def upload() -> httpx.Response:
        return api.http.post("/datasets", content=pairs(), headers={"Idempotency-Key": "k7"})

    first, again = upload(), upload()
    assert (first.status_code, again.content) == (201, first.content)
    other = api.http.post("/datasets", content=pairs(4), headers={"Idempotency-Key": "k7"})
    assert other.json()["code"] == "idempotency-key-reused"
    for job in api.http.get("/jobs", params={"status": "queued", "limit": 100}).json()["data"]:
        api.http.post(f"/jobs/{job['id']}/cancel")
    job = api.submit()
    lifecycle.finish_failed(claim(api.backend), FailureCode.BAD_DATA, "Line 3 is empty.")
    retries = [api.http.post(f"/jobs/{job['id']}/retry", headers={"Idempotency-Key": "k8"}) for _ in range(2)]
    assert [retry.status_code for retry in retries] == [201, 201]
    assert retries[0].json()["id"] == retries[1].json()["id"]
