"""`/jobs` over HTTP, and what hangs below a job; the worker's part is played by its services."""

import csv
import io
import json
import struct
from typing import Any

import pytest
from api_server import RunningApi, pointers
from backends import BASE_MODEL, PROJECT, checkpoint, claim, make_base_model, point, publication
from sqlalchemy.orm import Session

from core.database.tables.jobs import Job as JobRow
from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.failure_codes import FailureCode
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob


@pytest.fixture
def job(api: RunningApi) -> dict[str, Any]:
    """The only queued job."""
    drain_queue(api)
    return api.submit(name="mine", metadata={"team": "a"})


def drain_queue(api: RunningApi) -> None:
    for queued in api.http.get("/jobs", params={"status": "queued", "limit": 100}).json()["data"]:
        api.http.post(f"/jobs/{queued['id']}/cancel")


def start(api: RunningApi, job: dict[str, Any]) -> ClaimedJob:
    held = claim(api.backend)
    assert held.job_id == job["id"]
    lifecycle.begin(held)
    return held


def test_the_least_that_works_shows_resolved_numbers(api: RunningApi) -> None:
    response = api.http.post("/jobs", json={"base_model": BASE_MODEL, "dataset_id": api.dataset_id()})
    assert response.status_code == 201, response.text
    job = response.json()
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert job["requested"] == {"base_model": BASE_MODEL, "dataset_id": "ds_1"}
    assert (job["spec"]["variant"], job["spec"]["beta"]) == ("dpo", 0.1)
    assert (job["status"], job["desired"], job["attempt"]) == ("queued", "run", 0)
    assert [stage["name"] for stage in job["stages"]] == [
        "staging", "sft", "reference", "dpo", "evaluation", "publishing"
    ]  # fmt: skip
    assert job["progress"] == {
        "stage": None, "step": 0, "total_steps": 0, "fraction": 0.0, "eta_seconds": None, "tokens_per_second": None
    }  # fmt: skip
    assert api.http.get(f"/jobs/{job['id']}").json()["id"] == job["id"]


def test_pages_are_newest_first_and_stable_under_inserts(api: RunningApi) -> None:
    mine = [api.submit(metadata={"page": "one/two"})["id"] for _ in range(3)]
    params: dict[str, Any] = {"metadata.page": "one/two", "limit": 2}
    first = api.http.get("/jobs", params=params).json()
    api.submit(metadata={"page": "one/two"})
    second = api.http.get("/jobs", params=params | {"cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["data"] + second["data"]] == mine[::-1]
    assert second["next_cursor"] is None
    assert api.http.get("/jobs", params={"metadata.page": "other"}).json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    "query",
    ["metadata.a=1&metadata.b=x:y", "metadata[a]=1&metadata[b]=x:y", "metadata=a:1&metadata=b:x:y",
     "metadata=a:1&metadata.b=x:y", "metadata%5Ba%5D=1&metadata=b:x:y"],
)  # fmt: skip
def test_metadata_is_asked_for_in_each_way_that_clients_write(api: RunningApi, query: str) -> None:
    mine = api.submit(metadata={"a": "1", "b": "x:y", "c": "2"})["id"]
    api.submit(metadata={"a": "1", "b": "z"})
    assert api.http.get(f"/jobs?{query}&limit=1").json()["data"][0]["id"] == mine


@pytest.mark.parametrize("query", ["metadata.a[0]=x", "metadata[a[0]]=x", "metadata=a[0]:x"])
def test_metadata_keys_may_have_brackets(api: RunningApi, query: str) -> None:
    mine = api.submit(metadata={"a[0]": "x"})["id"]
    assert [job["id"] for job in api.http.get(f"/jobs?{query}&limit=1").json()["data"]] == [mine]


def test_metadata_asked_for_wrongly_is_refused(api: RunningApi) -> None:
    for query in ("metadata=team", "metadata=:a", "metadata=a:1&metadata=a:2", "metadata=a:1&metadata.a=2"):
        response = api.http.get(f"/jobs?{query}")
        assert (response.status_code, pointers(response)[0].split("/")[1]) == (422, "metadata"), query


def test_seeds_are_numbers_that_every_reader_holds(api: RunningApi) -> None:
    """A job that an earlier version took with a larger one is run again as it was."""
    body = {"base_model": BASE_MODEL, "dataset_id": api.dataset_id(), "seed": 2**53}
    refused = api.http.post("/jobs", json=body)
    assert (refused.status_code, pointers(refused)) == (422, ["/seed"])
    job = api.submit(seed=2**53 - 1)

    def widen(session: Session) -> None:
        row = session.get_one(JobRow, job["id"])
        row.requested, row.spec = row.requested | {"seed": 2**60}, row.spec | {"seed": 2**60}

    api.backend.database.write(widen)
    api.http.post(f"/jobs/{job['id']}/cancel")
    again = api.http.post(f"/jobs/{job['id']}/rerun", json={"exclude_lines": [1]})
    assert (again.status_code, again.json()["spec"]["seed"]) == (201, 2**60), again.text
    assert api.http.post(f"/jobs/{job['id']}/retry").json()["spec"]["seed"] == 2**60


@pytest.mark.parametrize("cursor", ["x", "!", "AA", "bm8", "a" * 600, "\x00"])
def test_made_up_cursors_are_refused_or_empty(api: RunningApi, cursor: str) -> None:
    for path in ("/jobs", "/datasets", "/models"):
        response = api.http.get(path, params={"cursor": cursor})
        assert response.status_code in (200, 422), response.text


def test_patching(api: RunningApi, job: dict[str, Any]) -> None:
    changed = api.http.patch(f"/jobs/{job['id']}", json={"name": None, "priority": 7}).json()
    assert (changed["name"], changed["priority"], changed["metadata"]) == (None, 7, {"team": "a"})
    assert api.http.patch(f"/jobs/{job['id']}", json={"metadata": {"k": "v"}}).json()["metadata"] == {"k": "v"}
    assert api.http.patch(f"/jobs/{job['id']}", json={"nodes": 2}).json()["spec"]["nodes"] == 2
    assert "nodes" not in api.http.patch(f"/jobs/{job['id']}", json={"nodes": None}).json()["spec"]
    refused = api.http.patch(f"/jobs/{job['id']}", json={"priority": 1000, "beta": 1})
    assert (refused.status_code, sorted(pointers(refused))) == (422, ["/beta", "/priority"])


def test_steering(api: RunningApi, job: dict[str, Any]) -> None:
    path = f"/jobs/{job['id']}"
    statuses = [api.http.post(f"{path}/{verb}").status_code for verb in ("pause", "pause", "resume", "resume")]
    assert statuses == [202, 200, 202, 200]
    start(api, job)
    cancelled = api.http.post(f"{path}/cancel", params={"save": "true"})
    assert (cancelled.status_code, cancelled.json()["desired"]) == (202, "cancel")
    assert api.http.post(f"{path}/cancel").status_code == 200
    refused = api.http.post(f"{path}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "job-not-pausable")
    with_body = api.http.post(f"{path}/cancel", json={"save": True})
    assert with_body.status_code == 422
    assert api.http.post("/jobs/job_none/cancel").json()["code"] == "job-not-found"


def test_retry_and_delete(api: RunningApi, job: dict[str, Any]) -> None:
    path = f"/jobs/{job['id']}"
    assert api.http.delete(path).json()["code"] == "job-not-deletable"
    held = start(api, job)
    recording.record_points(held, [point(1), point(2)])
    checkpoint(api.backend, held, 1)
    lifecycle.finish_failed(held, FailureCode.BAD_DATA, "Line 3 is empty.")
    failed = api.http.get(path).json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "bad_data")
    retried = api.http.post(f"{path}/retry")
    assert retried.status_code == 201, retried.text
    assert retried.json()["source_job_id"] == job["id"]
    points = api.http.get(f"{retried.headers['location']}/metrics").json()["points"]
    assert [found["step"] for found in points] == [1]
    assert api.http.delete(path).status_code == 204
    assert api.http.get(path).status_code == 404
    assert api.http.get(f"{path}/metrics").json()["code"] == "job-not-found"


def test_curves(api: RunningApi, job: dict[str, Any]) -> None:
    path = f"/jobs/{job['id']}/metrics"
    assert api.http.get(path).json() == {
        "job_id": job["id"], "status": "queued", "points": [], "last_seq": 0, "has_more": False, "reset": False
    }  # fmt: skip
    held = start(api, job)
    points = [point(step, loss=0.7 - step / 100, **{"rewards/margins": step / 10}) for step in range(1, 11)]
    recording.record_points(held, points)
    recording.record_points(held, [point(10, split="validation")])
    page = api.http.get(path, params={"after": 0}).json()
    assert [found["step"] for found in page["points"]] == [*range(1, 11), 10]
    assert page["last_seq"] == page["points"][-1]["seq"]
    later = api.http.get(path, params={"after": page["last_seq"]}).json()
    assert (later["points"], later["last_seq"]) == ([], page["last_seq"])
    chosen = api.http.get(path, params={"names": "rewards/margins", "split": "train", "max_points": 2}).json()
    assert [found["values"] for found in chosen["points"]] == [{"rewards/margins": 0.1}, {"rewards/margins": 1.0}]
    table = api.http.get(f"{path}.csv", params={"split": "train", "names": "loss"})
    assert table.text == api.http.get(path, params={"format": "csv", "split": "train", "names": "loss"}).text
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [float(row["loss"]) for row in rows] == [found.values["loss"] for found in points]
    for params, pointer in (
        ({"stage": "x"}, "/stage"),
        ({"after": "-1"}, "/after"),
        ({"max_points": "1"}, "/max_points"),
    ):
        refused = api.http.get(path, params=params)
        assert (refused.status_code, pointers(refused)) == (422, [pointer])


def test_numbers_that_are_none_are_null(api: RunningApi, job: dict[str, Any]) -> None:
    held = start(api, job)
    recording.record_points(held, [point(1, loss=float("nan"), grad_norm=float("inf"))])
    response = api.http.get(f"/jobs/{job['id']}/metrics")
    assert response.json()["points"][0]["values"] == {"loss": None, "grad_norm": None}
    assert "NaN" not in response.text


def test_events_samples_and_checkpoints(api: RunningApi, job: dict[str, Any]) -> None:
    held = start(api, job)
    recording.record_samples(held, 5, [{"prompt": "p", "reference": "r", "policy": "q"}])
    checkpoint_id = checkpoint(api.backend, held, 5)
    path = f"/jobs/{job['id']}"
    events = api.http.get(f"{path}/events").json()
    assert [event["seq"] for event in events["data"]] == list(range(1, len(events["data"]) + 1))
    assert (events["data"][0]["kind"], events["has_more"]) == ("submitted", False)
    rest = api.http.get(f"{path}/events", params={"after": 1, "limit": 1}).json()
    assert ([event["seq"] for event in rest["data"]], rest["last_seq"], rest["has_more"]) == ([2], 2, True)
    assert api.http.get(f"{path}/samples").json()["data"] == [
        {"prompt": "p", "reference": "r", "policy": "q", "step": 5}
    ]
    checkpoints = api.http.get(f"{path}/checkpoints").json()["data"]
    assert [(found["id"], found["stage"], found["step"]) for found in checkpoints] == [(checkpoint_id, "dpo", 5)]


def test_a_finished_job_is_a_model_to_start_from(api: RunningApi, job: dict[str, Any]) -> None:
    names = [model["name"] for model in api.http.get("/models").json()["data"]]
    assert names[0] == BASE_MODEL
    held = start(api, job)
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    tuned = next(model for model in api.http.get("/models").json()["data"] if model["kind"] == "tuned")
    assert (tuned["name"], tuned["job_id"]) == (job["id"], job["id"])
    following = api.submit(base_model=job["id"])
    assert following["spec"]["base_model"] == job["id"]


BAD_JOBS: list[tuple[dict[str, Any], list[str]]] = [
    ({"base_model": "mystery"}, ["/base_model"]),
    ({"base_model": "../../etc/passwd"}, ["/base_model"]),
    ({"base_model": "http://169.254.169.254/"}, ["/base_model"]),
    ({"base_model": "job_none"}, ["/base_model"]),
    ({"base_model": ""}, ["/base_model"]),
    ({"base_model": None}, ["/base_model"]),
    ({"dataset_id": "ds_none"}, ["/dataset_id"]),
    ({"dataset_id": "job_1"}, ["/dataset_id"]),
    ({"dataset_id": "ds_demonstrations"}, ["/dataset_id"]),
    ({"sft": {"dataset_id": "ds_1"}}, ["/sft/dataset_id"]),
    ({"variant": "mystery"}, ["/variant"]),
    ({"variant": "dpo", "variant_options": {"label_smoothing": 0.1}}, ["/variant_options/label_smoothing"]),
    ({"variant_options": {"a/b~c": 1}}, ["/variant_options/a~1b~0c"]),
    ({"beta": 0}, ["/beta"]),
    ({"beta": -0.1}, ["/beta"]),
    ({"beta": "much"}, ["/beta"]),
    ({"sft": "skp"}, ["/sft"]),
    ({"sft": {"learning_rate": 5}}, ["/sft/learning_rate"]),
    ({"dpo": {"epochs": 0, "epcohs": 1}}, ["/dpo/epcohs", "/dpo/epochs"]),
    ({"lora": {"rank": "many"}}, ["/lora/rank"]),
    ({"learning_rate": 1e-5}, ["/learning_rate"]),
    ({"name": "a\u0000b"}, ["/name"]),
    ({"metadata": {"k": "\ud800"}}, ["/metadata/k"]),
    ({"sample_prompts": ["ok", "\udfff"]}, ["/sample_prompts/1"]),
    ({"seed": 10**30}, ["/seed"]),
    ({"validation_dataset_id": "ds_1", "validation_fraction": 0.1}, [""]),
]


@pytest.mark.parametrize(("fields", "expected"), BAD_JOBS, ids=lambda value: ascii(value)[:60])
def test_bad_jobs_are_refused_naming_the_field(api: RunningApi, fields: dict[str, Any], expected: list[str]) -> None:
    api.dataset_id("ds_demonstrations", DatasetKind.DEMONSTRATION)
    before = api.http.get("/jobs").json()
    body = json.dumps({"base_model": BASE_MODEL, "dataset_id": api.dataset_id()} | fields)  # escapes what is no UTF-8
    response = api.http.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert sorted(pointers(response)) == expected
    for fault in response.json()["errors"]:
        assert "Input should" not in fault["detail"]
        assert "literal" not in fault["detail"]
    assert api.http.get("/jobs").json() == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "no causal language model"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised weights"),
        ({"text_config": {"compression_config": {"format": "pack"}}}, "quantised weights"),
        ("F8_E4M3", "quantised weights"),
    ],
    ids=str,
)
def test_untrainable_base_models_are_refused_before_they_wait(
    api: RunningApi, change: dict[str, Any] | str, reason: str
) -> None:
    """Named by preview and submission alike, where the configuration or the weights' header tells."""
    folder = api.settings.models_dir / "untrainable"
    make_base_model(folder)
    if isinstance(change, dict):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
    else:
        header = json.dumps({"w.weight": {"dtype": change, "shape": [48], "data_offsets": [0, 48]}}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(48))
    before = api.http.get("/jobs").json()
    body = {"base_model": "untrainable", "dataset_id": api.dataset_id()}
    for path in ("/jobs/preview", "/jobs"):
        response = api.http.post(path, json=body)
        assert (response.status_code, pointers(response)) == (422, ["/base_model"]), response.text
        assert reason in response.json()["errors"][0]["detail"]
    assert api.http.get("/jobs").json() == before


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b'{"beta": NaN}', 422, "/beta"),
        (b'{"dpo": {"learning_rate": -Infinity}}', 422, "/dpo/learning_rate"),
        (b'{"beta": 1e999}', 422, "/beta"),
        (b'{"beta": 1, "beta": 2}', 422, ""),
        (b'{"seed": ' + b"9" * 5000 + b"}", 422, ""),
        (b"[" * 100_000, 422, ""),
        (b"[]", 422, ""),
        (b"null", 422, ""),
        (b"{", 400, None),
        (b"\xff", 400, None),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bodies_that_are_no_job(api: RunningApi, body: bytes, status: int, pointer: str | None) -> None:
    response = api.http.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    found = pointers(response)
    assert (found == []) if pointer is None else (pointer in found)


def test_only_json_is_taken(api: RunningApi) -> None:
    body = b'{"base_model": "tiny", "dataset_id": "ds_1"}'
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = api.http.post("/jobs", content=body, headers={"Content-Type": content_type})
        assert (response.status_code, response.json()["code"]) == (415, "unsupported-body")
    assert api.http.post("/jobs", content=body).status_code == 415
    assert PROJECT not in response.text
