"""Pages of one job and of many in a real browser: results with intervals, pairs, log, exports, lists."""

from typing import Any

import pytest
from api_server import RunningApi
from backends import claim, set_architecture
from browser import open_page
from played_jobs import learn, publish, start
from playwright.sync_api import Browser, expect

from core.domain.jobs.failure_codes import FailureCode
from core.services.attempts import lifecycle, recording
from core.services.attempts.log_parts import append_log
from core.services.requests import exports, requests

FIGURE = {"value": 0.9, "low": 0.8, "high": 0.96}
PAIRS = [
    {"line": line, "split": "train", "reference_margin": 0.1, "margin_first": -1.0, "margin_last": line - 1.5,
     "chosen_reward": 0.0, "rejected_reward": 0.0, "gradient_weight": 0.5, "length_difference": 1,
     "mislabelled_score": 2.0, "flags": ["never_learned"] if line == 1 else []}
    for line in (1, 2, 3)
]  # fmt: skip


def results(num_rows: int, **figures: Any) -> dict[str, Any]:
    held_out = {"num_rows": num_rows, "loss": FIGURE, "reward_accuracy": FIGURE, "reward_margin": FIGURE} | figures
    training = {
        "epoch": 2,
        "is_whole_epoch": True,
        "num_rows": 100,
        "loss": 0.1,
        "reward_accuracy": 1.0,
        "reward_margin": 5.0,
    }
    return {"step": 7, "held_out": held_out, "training": training}


def evaluation(low: float) -> dict[str, Any]:
    better = {"value": 0.1, "low": low, "high": 0.2}
    name = "before_dpo_likelihood_per_token"
    held = {"num_pairs": 60, "reward_accuracy": FIGURE, "baselines": {name: FIGURE}, "better_than": {name: better}}
    return {"held_out": held}


@pytest.mark.parametrize(
    ("num_rows", "low", "verdict"),
    [
        (60, 0.02, "Better than before by 10.0 (2.0 to 20.0) points"),
        (60, -0.02, "No clear gain"),
        (4, 0.02, "Only 4 held-out rows"),
    ],
)
def test_results_are_held_out_with_intervals_and_baselines(
    browser: Browser, api: RunningApi, num_rows: int, low: float, verdict: str
) -> None:
    held = start(api, name="Judged")
    learn(api, held, range(1, 4))
    publish(api, held, {"evaluation.json": [evaluation(low)]}, results(num_rows))
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{held.job_id}")
        card = page.get_by_role("region", name="Results")
        expect(card).to_contain_text(verdict)
        expect(card.get_by_role("row", name="Accuracy").first).to_contain_text("90.0 %")
        expect(card.get_by_role("row", name="Accuracy").first).to_contain_text("80.0 % to 96.0 %")
        expect(card).to_contain_text("mean over epoch 2")
        expect(card.get_by_role("row", name="likelier response, per token")).to_be_visible()
        expect(page.locator(".tile", has_text="Accuracy")).to_contain_text("held-out")
        expect(page.locator(".title-row").get_by_role("link", name="ds_1")).to_be_visible()
        watched.check()


def test_nothing_held_out_is_said(browser: Browser, api: RunningApi) -> None:
    held = start(api, name="Blind", validation_fraction=0)
    learn(api, held, range(1, 4))
    publish(api, held, {}, results(0) | {"held_out": None})
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{held.job_id}")
        expect(page.get_by_role("region", name="Results")).to_contain_text("Nothing was held out")
        accuracy = page.locator(".tile", has_text="Accuracy")
        expect(accuracy).to_contain_text("mean over epoch 2")
        watched.check()


def test_pairs_are_looked_at_and_the_job_runs_again_without_them(browser: Browser, api: RunningApi) -> None:
    held = start(api, name="With pairs")
    publish(api, held, {"pairs.jsonl": PAIRS}, results(60))
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{held.job_id}")
        page.get_by_role("navigation", name="Pages of the job").get_by_role("link", name="Pairs").click()
        expect(page.get_by_role("row", name="Text of line 3")).to_contain_text("+1.5000")
        page.get_by_label("Flag").select_option(label="never learned")
        expect(page.get_by_text("its margin was never positive")).to_be_visible()
        expect(page.get_by_role("row", name="Text of line 3")).to_have_count(0)
        page.get_by_label("Leave out line 1").check()
        page.get_by_label("Swap line 1").check()
        expect(page.get_by_label("Leave out line 1")).not_to_be_checked()
        page.get_by_label("Leave out line 1").check()
        page.get_by_label("Flag").select_option(label="All pairs")
        page.get_by_label("Swap line 2").check()
        expect(page.get_by_text("1 left out, 1 swapped")).to_be_visible()
        page.get_by_role("button", name="Run again with these changes").click()
        expect(page.locator("h1 .badge")).to_have_text("queued")
        made = api.http.get(f"/jobs/{page.url.rpartition('/')[2]}").json()
        assert (made["spec"]["exclude_lines"], made["spec"]["swap_lines"]) == ([1], [2])
        assert made["source_job_id"] == held.job_id
        watched.check()
    api.http.post(f"/jobs/{made['id']}/cancel")


def test_name_tags_and_notes_are_written_and_found(browser: Browser, api: RunningApi) -> None:
    job = api.submit(name="Old name", metadata={"team": "kept"})
    other = api.submit(name="Another")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{job['id']}")
        page.get_by_role("button", name="Edit name, tags, notes").click()
        page.get_by_label("Name", exact=True).fill("New name")
        page.get_by_role("textbox", name="Tags").fill("paper, run 2")
        page.get_by_role("textbox", name="Notes").fill("As in table 3")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("New name")
        expect(page.get_by_text("As in table 3")).to_be_visible()
        assert api.http.get(f"/jobs/{job['id']}").json()["metadata"] == {
            "team": "kept", "tags": "paper, run 2", "notes": "As in table 3",
        }  # fmt: skip
        page.get_by_role("link", name="run 2").click()
        expect(page.get_by_role("row", name="New name")).to_be_visible()
        expect(page.get_by_role("row", name="Another")).to_have_count(0)
        page.get_by_role("button", name="tag: run 2").click()
        expect(page.get_by_role("row", name="Another")).to_be_visible()
        page.get_by_label("Search jobs").fill("TABLE 3")
        expect(page.get_by_role("row", name="Another")).to_have_count(0)
        expect(page.get_by_role("row", name="New name")).to_be_visible()
        assert "search=TABLE" in page.url
        page.reload()
        expect(page.get_by_label("Search jobs")).to_have_value("TABLE 3")
        expect(page.get_by_role("row", name="Another")).to_have_count(0)
        watched.check()
    for made in (job, other):
        api.http.post(f"/jobs/{made['id']}/cancel")


def test_several_jobs_are_cancelled_and_deleted_at_once(browser: Browser, api: RunningApi) -> None:
    ids = [api.submit(name=f"Bulk {n}")["id"] for n in range(10)]
    held = start(api, name="Bulk that runs")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/jobs?search=Bulk")
        expect(page.get_by_role("row", name="Bulk 0")).to_be_visible()
        page.get_by_label("Choose all shown jobs").check()
        expect(page.get_by_text("At most 8 can be compared.")).to_be_visible()
        page.get_by_label("Choose Bulk that runs").uncheck()
        page.get_by_role("button", name="Cancel 10").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel 10").click()
        expect(page.get_by_text("Asked to cancel: 10 of 10.")).to_be_visible()
        expect(page.get_by_role("row", name="Bulk 3")).to_contain_text("cancelled")
        page.get_by_label("Choose all shown jobs").check()
        page.get_by_role("button", name="Delete 11").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete 11").click()
        expect(page.get_by_text("Deleted: 10 of 11.")).to_be_visible()
        expect(page.get_by_text("Bulk that runs: The job is running")).to_be_visible()
        assert api.http.get(f"/jobs/{ids[0]}").status_code == 404
        assert [text for text in watched.complaints if "409" not in text] == []
    lifecycle.finish_failed(held, FailureCode.INTERNAL, "The end.")


def test_a_failed_job_says_it_once_and_what_helps(browser: Browser, api: RunningApi) -> None:
    held = start(api, name="Hopeless")
    append_log(held, 1, "=== attempt 1 ===\nreading rows\nValueError: line 3 is empty\n")
    recording.record_events(held, [])
    lifecycle.finish_failed(held, FailureCode.BAD_DATA, "Line 3 is empty.")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{held.job_id}")
        expect(page.get_by_text("The job ended before its first step of training.")).to_be_visible()
        expect(page.locator(".notice:visible", has_text="Line 3 is empty.")).to_have_count(1)
        expect(page.get_by_role("button", name="Retry")).not_to_have_class("primary")
        expect(page.get_by_role("link", name="New job like this")).to_have_class("button primary")
        page.get_by_role("navigation", name="Pages of the job").get_by_role("link", name="Log").click()
        log = page.get_by_label("Log", exact=True)
        expect(log).to_contain_text("reading rows")
        page.get_by_label("Show only lines with").fill("valueerror")
        expect(log).to_have_text("ValueError: line 3 is empty")
        page.goto(f"/ui/#/jobs/{held.job_id}/scores")
        expect(page.get_by_text("Nothing to score with yet")).to_be_visible()
        page.goto("/ui/#/nowhere")
        expect(page.get_by_role("heading", name="Not found")).to_be_visible()
        watched.check()


def test_an_export_is_asked_for(browser: Browser, api: RunningApi) -> None:
    set_architecture(api.settings, "LlamaForCausalLM")
    held = start(api, name="To export")
    publish(api, held, {"model.safetensors": []}, None)
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{held.job_id}")
        page.get_by_text("For llama.cpp and programs built on it").click()
        page.get_by_label("Format of the export").select_option("gguf-q8_0")
        page.get_by_role("button", name="Export", exact=True).click()
        expect(page.get_by_role("row", name="gguf-q8_0")).to_contain_text("queued")
        lease = exports.claim(api.backend, 60)
        assert lease is not None
        requests.fail(api.backend, lease.lease, "llama.cpp does not know this tokenizer.")
        expect(page.get_by_role("row", name="gguf-q8_0")).to_contain_text("llama.cpp does not know this tokenizer.")
        watched.check()


def test_jobs_with_and_without_sft_are_compared_as_they_are(browser: Browser, api: RunningApi) -> None:
    ids = []
    for name, fields in (("With SFT", {}), ("Without", {"sft": "skip", "lora": {"rank": 4}})):
        job = api.submit(name=name, priority=50, **fields)
        held = claim(api.backend)
        assert held.job_id == job["id"]
        lifecycle.begin(held)
        learn(api, held, range(1, 6))
        publish(api, held, {}, results(60))
        ids.append(job["id"])
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/compare?jobs={','.join(ids)}")
        expect(page.get_by_role("row", name="Supervised fine-tuning (SFT) yes no")).to_be_visible()
        expect(page.get_by_role("row", name="Train a LoRA adapter instead of all weights no yes")).to_be_visible()
        watched.check()
