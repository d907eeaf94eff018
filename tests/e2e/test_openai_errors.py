"""Every refusal under `/v1` has OpenAI's form; every field of a job goes through; policies have names everywhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi, pairs, serve
from backends import BASE_MODEL, PROJECT
from played_jobs import start

from core.domain.jobs.failure_codes import FailureCode
from core.services.access import projects
from core.services.attempts import lifecycle

JSON = {"Content-Type": "application/json"}
JOBS = "/v1/fine_tuning/jobs"
FAULTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "no such address": (404, "GET", {"url": "/v1/assistants"}),
    "no address at all": (404, "POST", {"url": "/v1"}),
    "another method": (405, "PATCH", {"url": "/v1/files"}),
    "no JSON": (400, "POST", {"url": JOBS, "content": b"{", "headers": JSON}),
    "a list": (400, "POST", {"url": JOBS, "content": b"[]", "headers": JSON}),
    "no number": (400, "POST", {"url": JOBS, "content": b'{"seed": NaN}', "headers": JSON}),
    "another type": (415, "POST", {"url": JOBS, "content": b"a=b", "headers": {"Content-Type": "text/plain"}}),
    "too large": (413, "POST", {"url": JOBS, "content": b" " * 20_000_000, "headers": JSON}),
    "an unknown parameter": (400, "GET", {"url": "/v1/files", "params": {"colour": "red"}}),
    "a parameter that is none": (400, "GET", {"url": JOBS, "params": {"limit": "all"}}),
    "a foreign place": (400, "GET", {"url": JOBS, "params": {"metadata[a][b]": "c"}}),
    "no form": (400, "POST", {"url": "/v1/files", "content": b"x"}),
    "no file": (400, "POST", {"url": "/v1/files", "data": {"purpose": "fine-tune"}}),
    "odd bytes in the path": (404, "GET", {"url": "/v1/files/%00"}),
    "no such job": (404, "POST", {"url": f"{JOBS}/job_none/cancel"}),
    "no such model": (404, "DELETE", {"url": "/v1/models/ft:a:b:c:d"}),
    "a base model": (409, "DELETE", {"url": f"/v1/models/{BASE_MODEL}"}),
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("openai"))) as running:
        yield running


def upload(api: RunningApi, content: bytes) -> str:
    form, files = {"purpose": "fine-tune"}, {"file": ("p.jsonl", content)}
    return str(api.http.post("/v1/files", data=form, files=files).json()["id"])


def check_form(answer: httpx.Response) -> None:
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert all(isinstance(error[name], str) and error[name] for name in ("message", "type", "param", "code")), error


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_has_openais_form(api: RunningApi, name: str) -> None:
    status, method, request = FAULTS[name]
    answer = api.http.request(method, **request)
    assert answer.status_code == status, answer.text
    check_form(answer)
    if status == 409:
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("failure", "code", "param"),
    [
        (FailureCode.BAD_DATA, "invalid_training_file", "training_file"),
        (FailureCode.BAD_BASE_MODEL, "bad_base_model", "model"),
        (FailureCode.GPU_OOM, "gpu_oom", None),
    ],
)
def test_a_failed_job_says_why_in_openais_words(
    api: RunningApi, failure: FailureCode, code: str, param: str | None
) -> None:
    held = start(api)
    lifecycle.finish_failed(held, failure, "Example 7 is empty.")
    job = api.http.get(f"{JOBS}/{held.job_id}").json()
    assert (job["status"], job["fine_tuned_model"]) == ("failed", None)
    assert job["error"] == {"code": code, "message": "Example 7 is empty.", "param": param}


def test_a_full_project_has_exceeded_its_quota(api: RunningApi) -> None:
    file_id = upload(api, pairs())
    projects.set_limits(api.backend, PROJECT, projects.Limits(max_queued_jobs=0))
    body = {"model": BASE_MODEL, "training_file": file_id, "method": {"type": "dpo"}}
    refused = api.http.post(JOBS, json=body)
    projects.set_limits(api.backend, PROJECT, projects.Limits())
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "exceeded_quota")
    assert refused.headers["retry-after"] == "60"
    check_form(refused)


def test_every_field_of_a_job_goes_through_extra_body(api: RunningApi) -> None:
    file_id = upload(api, pairs())
    extra = {
        "variant": "cdpo",
        "variant_options": {"label_smoothing": 0.2},
        "sft": {"epochs": 2, "batch_size": 2},
        "dpo": {"warmup_steps": 3},
        "lora": {"rank": 8},
        "max_length": 48,
        "precision": "fp32",
        "validation_fraction": 0.2,
        "keep_checkpoints": 3,
        "early_stopping": {"patience": 2},
        "sample_prompts": ["Why?"],
        "priority": 5,
        "max_runtime_seconds": 600,
    }
    body = {"model": BASE_MODEL, "training_file": file_id, "method": {"type": "dpo"}} | extra
    job = api.http.post(JOBS, json=body).json()
    spec = job["spec"]
    for name, value in extra.items():
        found = {key: spec[name][key] for key in value} if isinstance(value, dict) else spec[name]
        assert found == value, name
    api.http.post(f"/jobs/{job['id']}/cancel")


def test_a_policys_name_goes_wherever_a_base_model_goes(api: RunningApi) -> None:
    made = api.finish_job()
    name = api.http.get(f"{JOBS}/{made['job_id']}").json()["fine_tuned_model"]
    assert "/" not in name
    at_step = f"{name}:ckpt-step-3"
    fields = {"dataset_id": upload(api, pairs()), "sft": "skip"}
    for model in (name, at_step):
        job = api.http.post("/jobs", json=fields | {"base_model": model})
        assert job.status_code == 201, job.text
        assert api.http.post("/jobs/preview", json=fields | {"base_model": model}).status_code == 200
        theirs = {"model": model, "training_file": fields["dataset_id"], "method": {"type": "dpo"}}
        assert api.http.post(JOBS, json=theirs).json()["model"] == model
        assert api.http.get(f"/v1/models/{model}").json()["id"] == model
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    supervised = {
        "model": name,
        "training_file": upload(api, json.dumps(chat).encode()),
        "method": {"type": "supervised"},
    }
    assert api.http.post(JOBS, json=supervised).json()["status"] == "queued"
    wrong = api.http.post("/jobs", json=fields | {"base_model": f"{name}:ckpt-step-9"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/base_model")
    for job in json.loads(api.http.get("/jobs", params={"status": "queued", "limit": 100}).text)["data"]:
        api.http.post(f"/jobs/{job['id']}/cancel")
