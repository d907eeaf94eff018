"""Supervised jobs and reward models over HTTP: what is accepted, what is refused and where, what a job shows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, pointers, serve
from backends import BASE_MODEL, checkpoint_with_policy, claim, publication, set_architecture

from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.job_state import Stage
from core.services.attempts import lifecycle


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("methods"))) as running:
        set_architecture(running.settings, "LlamaForCausalLM")
        yield running


@pytest.fixture
def demonstrations(api: RunningApi) -> str:
    return api.dataset_id("ds_demos", DatasetKind.DEMONSTRATION)


def test_a_supervised_job_shows_its_own_settings_and_stages(api: RunningApi, demonstrations: str) -> None:
    job = api.submit(method="supervised", dataset_id=demonstrations, sft={"epochs": 2})
    assert [stage["name"] for stage in job["stages"]] == ["staging", "sft", "evaluation", "publishing"]
    assert job["spec"]["method"] == "supervised"
    assert not {"variant", "beta", "dpo"} & job["spec"].keys()
    body = {"base_model": BASE_MODEL, "dataset_id": demonstrations, "method": "supervised"}
    shown = api.http.post("/jobs/preview", json=body).json()["spec"]
    assert not {"variant", "beta", "dpo"} & shown.keys()
    assert api.http.get(f"/jobs/{job['id']}/pairs").status_code in (404, 409)
    api.http.post(f"/jobs/{job['id']}/cancel")


def test_it_is_refused_with_the_place_of_every_fault(api: RunningApi, demonstrations: str) -> None:
    body = {"base_model": BASE_MODEL, "dataset_id": demonstrations, "method": "supervised"}
    refused = api.http.post("/jobs", json=body | {"beta": 0.1, "dpo": {"epochs": 1}, "swap_lines": [1]})
    assert refused.status_code == 422
    assert pointers(refused) == ["/beta", "/dpo", "/swap_lines"]
    assert "reference model" in refused.json()["errors"][0]["detail"]
    unknown = api.http.post("/jobs", json=body | {"method": "telepathy"})
    assert (unknown.status_code, pointers(unknown)) == (422, ["/method"])
    preference = api.http.post("/jobs", json={"base_model": BASE_MODEL, "dataset_id": demonstrations})
    assert pointers(preference) == ["/dataset_id"]


def test_its_policies_have_names_and_give_no_rewards(api: RunningApi, demonstrations: str) -> None:
    job = api.submit(method="supervised", dataset_id=demonstrations)
    held = claim(api.backend)
    checkpoint_with_policy(api.backend, held, 3, {"config.json": b"{}"}, stage=Stage.SFT)
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    refused = api.http.post(f"/jobs/{job['id']}/scores", json={"items": [{"prompt": "a", "response": "b"}]})
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing-to-score-with")
    name = f"ft:{BASE_MODEL}:default::{job['id'].removeprefix('job_')}"
    for base_model in (job["id"], name, f"{name}:ckpt-step-3"):
        chained = api.submit(base_model=base_model, sft="skip")
        assert chained["spec"]["base_model"] == base_model
        api.http.post(f"/jobs/{chained['id']}/cancel")


def test_a_reward_model_shows_its_own_settings_and_stages(api: RunningApi) -> None:
    dataset_id = api.dataset_id()
    job = api.submit(method="reward", dataset_id=dataset_id, reward={"center_rewards_coefficient": 0.01})
    assert [stage["name"] for stage in job["stages"]] == ["staging", "reward", "evaluation", "publishing"]
    assert job["spec"]["reward"]["center_rewards_coefficient"] == 0.01
    assert not {"variant", "beta", "dpo", "sft", "sample_prompts"} & job["spec"].keys()
    listed = api.http.get("/v1/fine_tuning/jobs").json()["data"][0]
    assert (listed["id"], listed["method"], listed["fine_tuned_model"]) == (job["id"], None, None)
    api.http.post(f"/jobs/{job['id']}/cancel")


def test_a_reward_model_is_no_policy(api: RunningApi) -> None:
    job = api.submit(method="reward")
    held = claim(api.backend)
    checkpoint_with_policy(api.backend, held, 3, {"config.json": b"{}"}, stage=Stage.REWARD)
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    body = {"base_model": job["id"], "dataset_id": api.dataset_id()}
    for method in ("preference", "supervised", "reward"):
        refused = api.http.post("/jobs", json=body | {"method": method})
        assert (refused.status_code, pointers(refused)) == (422, ["/base_model"])
        assert f"Name what it started from, {BASE_MODEL}" in refused.json()["errors"][0]["detail"]
    assert job["id"] not in [model["name"] for model in api.http.get("/models").json()["data"]]
    assert not [model for model in api.http.get("/v1/models").json()["data"] if job["id"][4:] in model["id"]]
    asked = {"model": job["id"], "messages": [{"role": "user", "content": "Hello"}]}
    assert api.http.post("/v1/chat/completions", json=asked).status_code == 404
    assert api.http.get(f"/v1/fine_tuning/jobs/{job['id']}/checkpoints").json()["data"] == []
    shown = api.http.get(f"/v1/fine_tuning/jobs/{job['id']}").json()
    assert (shown["status"], shown["fine_tuned_model"]) == ("succeeded", None)


def test_a_reward_model_is_refused_with_the_place_of_every_fault(api: RunningApi, demonstrations: str) -> None:
    body = {"base_model": BASE_MODEL, "dataset_id": demonstrations, "method": "reward"}
    refused = api.http.post("/jobs", json=body | {"beta": 0.1, "sft": "skip", "sample_prompts": ["a"]})
    assert refused.status_code == 422
    assert pointers(refused) == ["/beta", "/sft", "/sample_prompts", "/dataset_id"]
    bad = api.http.post("/jobs", json=body | {"reward": {"center_rewards_coefficient": -1}})
    assert pointers(bad) == ["/reward/center_rewards_coefficient"]


def test_a_base_model_without_a_class_for_sequences_is_refused_with_advice(api: RunningApi) -> None:
    set_architecture(api.settings, "GraniteForCausalLM")
    body = {"base_model": BASE_MODEL, "dataset_id": api.dataset_id(), "method": "reward"}
    refused = api.http.post("/jobs/preview", json=body)
    accepted = api.http.post("/jobs/preview", json=body | {"method": "preference"})
    set_architecture(api.settings, "LlamaForCausalLM")
    assert (refused.status_code, pointers(refused), accepted.status_code) == (422, ["/base_model"], 200)
    assert "transformers has no class for sequence classification" in refused.json()["errors"][0]["detail"]
