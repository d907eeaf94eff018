"""The form of a job in a real browser: what it sends is what was meant, of copies and of links from other pages too."""

from typing import Any

import pytest
from api_server import RunningApi
from browser import Watched, open_page
from played_jobs import finish, learn, start
from playwright.sync_api import Browser, Page, expect

from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.job_spec import JobRequest

ALL_SETTINGS: dict[str, Any] = {
    "variant": "ipo",
    "dataset_version": 1,
    "beta": 0.2,
    "variant_options": {"normalization": "sum"},
    "sft": {"epochs": 2, "schedule": "linear", "dataset_id": "ds_demos"},
    "dpo": {"epochs": 3, "schedule": "constant", "optimizer": "rmsprop", "weight_decay": 0.1, "max_grad_norm": 2.5},
    "method": "preference",
    "lora": {"rank": 4, "target_modules": ["q_proj", "v_proj"], "target_parameters": []},
    "max_length": 512,
    "precision": "fp32",
    "artifact_dtype": "bfloat16",
    "seed": 2**53 - 1,
    "validation_fraction": 0,
    "validation_dataset_id": "ds_held",
    "evaluate_every_steps": 7,
    "checkpoint_every_steps": 14,
    "keep_checkpoints": 5,
    "group_by_prompt": False,
    "keep_best": "rewards/accuracies",
    "early_stopping": {"metric": "rewards/margins", "patience": 2, "min_delta": 0.01, "restore_best": False},
    "score_training_pairs": False,
    "sample_prompts": ["One line", "Two\nlines, [and] brackets"],
    "chat_template_kwargs": {},
    "exclude_lines": [3, 17],
    "swap_lines": [5],
    "reuse": False,
    "name": "All of it",
    "metadata": {"team": "a, b", "tags": "x"},
    "priority": -3,
    "max_runtime_seconds": 3600,
    "nodes": 2,
}


@pytest.fixture(scope="module")
def data(api: RunningApi) -> RunningApi:
    """With a dataset for training, one held out, demonstrations, and single responses, which is the newest."""
    api.dataset_id("ds_train")
    api.dataset_id("ds_held")
    api.dataset_id("ds_demos", DatasetKind.DEMONSTRATION)
    api.dataset_id("ds_unpaired", DatasetKind.UNPAIRED)
    return api


def start_job(page: Page, api: RunningApi) -> dict[str, Any]:
    """Send the form as it stands."""
    page.get_by_role("button", name="Start the job").click()
    expect(page.locator("h1 .badge")).to_have_text("queued")
    job: dict[str, Any] = api.http.get(f"/jobs/{page.url.rpartition('/')[2]}").json()
    api.http.post(f"/jobs/{job['id']}/cancel")
    return job


def without_refusals(watched: Watched) -> list[str]:
    return [text for text in watched.complaints if "422" not in text]


def test_a_copy_of_a_job_has_every_setting(browser: Browser, data: RunningApi) -> None:
    """All but `tracking`, which is refused where the operator has set no tracking server."""
    assert JobRequest.model_fields.keys() - ALL_SETTINGS.keys() == {"base_model", "dataset_id", "tracking", "reward"}
    source = data.submit(dataset_id="ds_train", **ALL_SETTINGS)
    with open_page(browser, data.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{source['id']}")
        page.get_by_role("link", name="New job like this").click()
        expect(page.locator("#f-early_stopping-patience")).to_have_value("2")
        expect(page.locator("#f-dpo-weight_decay")).to_be_visible()
        copy = start_job(page, data)
        assert copy["requested"] == source["requested"]
        assert copy["spec"] == source["spec"]
        page.go_back()
        page.get_by_label("Name", exact=True).fill("Changed")
        page.get_by_role("link", name="Datasets").click()
        expect(page.get_by_role("heading", name="Datasets", exact=True)).to_be_visible()
        page.go_back()
        expect(page.get_by_label("Name", exact=True)).to_have_value("Changed")
        watched.check()
    data.http.post(f"/jobs/{source['id']}/cancel")


def test_a_dataset_is_used_as_it_is_and_none_is_chosen_for_one(browser: Browser, data: RunningApi) -> None:
    with open_page(browser, data.url) as watched:
        page = watched.page
        page.goto("/ui/#/new")
        expect(page.get_by_text("Choose a dataset to see it.")).to_be_visible()
        expect(page.get_by_role("button", name="Start the job")).to_be_disabled()
        page.get_by_label("Dataset", exact=True).select_option(label="ds_train · 100 pairs")
        expect(page.get_by_text("on 95 pairs")).to_be_visible()
        page.goto("/ui/#/datasets/ds_unpaired")
        page.get_by_role("link", name="Use in a job").click()
        expect(page.get_by_label("Variant")).to_have_text("kto · Kahneman-Tversky Optimization")
        expect(page.get_by_role("button", name="Start the job")).to_be_enabled()
        job = start_job(page, data)
        assert (job["spec"]["dataset_id"], job["spec"]["variant"]) == ("ds_unpaired", "kto")
        page.goto("/ui/#/new?dataset_id=ds_unpaired&variant=dpo")
        expect(page.get_by_text("dpo does not train on rows of this dataset, so kto is chosen.")).to_be_visible()
        assert [text for text in watched.complaints if "/rows" not in text] == []  # made without a file


def test_continuing_from_a_model_keeps_lora_and_what_is_held_out(browser: Browser, data: RunningApi) -> None:
    held = start(data, name="First", dataset_id="ds_train", lora={"rank": 8}, validation_dataset_id="ds_held")
    learn(data, held, range(1, 4))
    finish(data, held)
    with open_page(browser, data.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{held.job_id}")
        page.get_by_role("link", name="Continue from this model").click()
        expect(page.get_by_text("“ds_held” stays held out.")).to_be_visible()
        dataset = page.get_by_label("Dataset", exact=True)
        assert dataset.locator("option:checked").inner_text() == "Choose a dataset"
        expect(page.get_by_label("Base model").locator("option:checked")).to_contain_text("First · tuned here")
        dataset.select_option(label="ds_held · 100 pairs · held out")
        expect(page.get_by_text("trained on and held out at once")).to_be_visible()
        dataset.select_option(label="ds_train · 100 pairs")
        expect(page.get_by_text("trained on and held out at once")).to_have_count(0)
        expect(page.get_by_text("through a LoRA adapter of rank 8")).to_be_visible()
        spec = start_job(page, data)["spec"]
        assert (spec["base_model"], spec["lora"]["rank"], spec["dataset_id"]) == (held.job_id, 8, "ds_train")
        assert spec["validation_dataset_id"] == "ds_held"
        watched.check()


def test_beta_is_explained_for_the_variant_and_orpo_has_no_sft(browser: Browser, data: RunningApi) -> None:
    with open_page(browser, data.url) as watched:
        page = watched.page
        page.goto("/ui/#/new?dataset_id=ds_train")
        meaning = page.locator("#f-beta-hint")
        expect(meaning).to_contain_text("held to the reference")
        expect(page.get_by_text("About 5 rows held out: too few to tell")).to_be_visible()
        expect(page.get_by_text("of SFT on the chosen responses")).to_be_visible()
        page.get_by_label("Variant").select_option(label="simpo · Simple Preference Optimization")
        expect(meaning).to_contain_text("There is no reference")
        expect(page.get_by_role("heading", name="What beta does").locator("..")).not_to_contain_text("0.01")
        page.get_by_label("Variant").select_option(label="orpo · Odds Ratio Preference Optimization")
        expect(page.get_by_text("No SFT.")).to_be_visible()
        expect(meaning).to_contain_text("Weight of the odds ratio")
        watched.check()


def test_faults_of_the_form_stand_at_their_fields(browser: Browser, data: RunningApi) -> None:
    with open_page(browser, data.url) as watched:
        page = watched.page
        page.goto("/ui/#/new?dataset_id=ds_train")
        start_button = page.get_by_role("button", name="Start the job")
        beta = page.locator("#f-beta")
        beta.fill("-1")
        expect(page.locator("#f-beta-fault")).to_contain_text("must be greater than 0")
        expect(beta).to_have_attribute("aria-invalid", "true")
        expect(start_button).to_be_disabled()
        beta.fill("0.5")
        expect(page.locator("#f-beta-fault")).to_be_empty()
        expect(start_button).to_be_enabled()
        page.get_by_label("Variant").select_option(label="simpo · Simple Preference Optimization")
        page.locator("#f-variant_options-gamma").fill("99")
        expect(page.locator("#f-variant_options-gamma-fault")).to_contain_text("20")
        page.locator("#f-variant_options-gamma").fill("0.5")
        page.get_by_text("Run", exact=True).click()
        page.locator("#f-metadata").fill("{not json")
        expect(page.locator("#f-metadata-fault")).not_to_be_empty()
        page.locator("#f-metadata").fill('{"team": "a"}')
        page.get_by_label("Train a LoRA adapter").check()
        page.locator("#f-lora-rank").fill("8")
        expect(page.get_by_text("through a LoRA adapter of rank 8")).to_be_visible()
        page.get_by_label("Supervised fine-tuning first").select_option(label="No: start from the base model")
        expect(page.get_by_text("No SFT.")).to_be_visible()
        assert start_job(page, data)["requested"] == {
            "base_model": "tiny", "dataset_id": "ds_train", "variant": "simpo", "beta": 0.5, "sft": "skip",
            "variant_options": {"gamma": 0.5}, "lora": {"rank": 8}, "metadata": {"team": "a"},
        }  # fmt: skip
        assert without_refusals(watched) == []
