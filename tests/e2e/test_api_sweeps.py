"""`/sweeps` over HTTP; the worker's part is played by its services."""

from typing import Any

from api_server import RunningApi, pointers
from backends import BASE_MODEL


def body(api: RunningApi, **fields: Any) -> dict[str, Any]:
    job = {"base_model": BASE_MODEL, "dataset_id": api.dataset_id(), "reuse": False}
    return {"job": job, "grid": {"beta": [0.05, 0.1, 0.3]}} | fields


def test_a_sweep_is_made_once_for_a_key_and_queues_its_members(api: RunningApi) -> None:
    request, headers = body(api, max_parallel=2, name="betas"), {"Idempotency-Key": "sweep-once"}
    first = api.http.post("/sweeps", json=request, headers=headers)
    assert first.status_code == 201, first.text
    sweep = first.json()
    assert first.headers["location"] == f"/sweeps/{sweep['id']}"
    assert (sweep["status"], sweep["num_members"], sweep["counts"]) == ("running", 3, {"queued": 2, "waiting": 1})
    again = api.http.post("/sweeps", json=request, headers=headers)
    assert again.json()["id"] == sweep["id"]
    other = api.http.post("/sweeps", json=body(api, grid={"beta": [0.2]}), headers=headers)
    assert other.status_code == 422
    job = api.http.get(f"/jobs/{sweep['members'][0]['job_id']}").json()
    assert (job["spec"]["beta"], job["metadata"], job["name"]) == (0.05, {"sweep": sweep["id"]}, "betas 1")
    assert api.http.get("/sweeps", params={"limit": 1}).json()["data"][0]["id"] == sweep["id"]
    for action, status, answer in (("pause", "paused", 202), ("pause", "paused", 200), ("resume", "running", 202)):
        response = api.http.post(f"/sweeps/{sweep['id']}/{action}")
        assert (response.status_code, response.json()["status"]) == (answer, status)
    cancelled = api.http.post(f"/sweeps/{sweep['id']}/cancel").json()
    assert (cancelled["status"], cancelled["counts"]) == ("cancelled", {"cancelled": 2, "waiting": 1})
    assert api.http.post(f"/sweeps/{sweep['id']}/resume").json()["code"] == "sweep-ended"
    assert api.http.delete(f"/sweeps/{sweep['id']}").status_code == 204
    assert api.http.get(f"/sweeps/{sweep['id']}").json()["code"] == "sweep-not-found"


def test_halving_tells_its_rungs_and_what_happened(api: RunningApi) -> None:
    request = body(api, strategy="successive_halving")
    preview = api.http.post("/sweeps/preview", json=request).json()
    assert (preview["rungs"], preview["no_best_reason"]) == ([1 / 3], None)
    made = api.http.post("/sweeps", json=request).json()
    assert made["halving"] == {"eta": 3, "rungs": [1 / 3]}
    assert [(member["is_dropped"], member["rungs"]) for member in made["members"]] == [(False, [])] * 3
    api.http.post(f"/sweeps/{made['id']}/cancel")
    page = api.http.get(f"/sweeps/{made['id']}/events", params={"limit": 2}).json()
    assert [event["kind"] for event in page["data"]] == ["created", "cancelled"]
    rest = api.http.get(f"/sweeps/{made['id']}/events", params={"after": page["last_seq"]}).json()
    assert ([event["kind"] for event in rest["data"]], rest["has_more"]) == (["ended"], False)
    assert api.http.get("/sweeps/sweep_none/events").json()["code"] == "sweep-not-found"
    without = api.http.post("/sweeps", json=body(api, strategy="successive_halving") | {"job": held_out_nothing(api)})
    assert pointers(without) == ["/job/validation_fraction"]


def held_out_nothing(api: RunningApi) -> dict[str, Any]:
    return {"base_model": BASE_MODEL, "dataset_id": api.dataset_id(), "validation_fraction": 0}


def test_a_preview_counts_jobs_and_says_why_it_has_no_time(api: RunningApi) -> None:
    shown = api.http.post("/sweeps/preview", json=body(api, grid={"beta": [0.1, 0.3], "seed": [0, 1]})).json()
    assert shown["num_members"] == 4
    assert shown["members"][1] == {"beta": 0.1, "seed": 1}
    assert (shown["seconds"], shown["num_shared"]) == (None, {"sft": 0, "reference": 0})
    assert shown["reason"]


def test_faults_are_named_by_member(api: RunningApi) -> None:
    refused = api.http.post("/sweeps", json=body(api, grid={"beta": [0.1, -3]}))
    assert refused.status_code == 422
    assert "member 2: beta" in refused.json()["errors"][0]["detail"]
    both = api.http.post("/sweeps", json=body(api, members=[{"beta": 1}]))
    assert both.status_code == 422
    unknown = api.http.post("/sweeps", json=body(api, grid=None, members=[{"base_model": "nothing"}]))
    assert pointers(unknown) == ["/job/base_model"]
