"""Sweeps in a real browser: from the form of a job, with their number and what they take, to the best of them."""

from typing import Any

from api_server import RunningApi
from backends import BASE_MODEL, claim, point
from browser import accessibility_faults, open_page
from played_jobs import publish
from playwright.sync_api import Browser, Page, expect

from core.services.attempts import lifecycle, recording
from core.services.sweeps import progress


def finish_next(api: RunningApi, accuracy: float) -> str:
    held = claim(api.backend)
    lifecycle.begin(held)
    figure = {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1}
    held_out = {"num_rows": 60, "loss": figure, "reward_accuracy": figure, "reward_margin": figure}
    publish(api, held, {}, {"step": 7, "held_out": held_out, "training": None})
    return held.job_id


def members(api: RunningApi, page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.http.get(f"/sweeps/{page.url.rpartition('/')[2]}").json()["members"]
    return found


def test_a_sweep_from_the_form_to_its_best_job(browser: Browser, api: RunningApi) -> None:
    api.dataset_id("ds_train")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/new?dataset_id=ds_train")
        page.get_by_label("Name", exact=True).fill("Which beta")
        page.get_by_text("Run", exact=True).click()
        page.locator("#f-reuse").select_option(label="no")
        taken = page.get_by_role("region", name="What the sweep will take")
        vary(page, 1, "beta", "0.05, -1")
        expect(page.get_by_text("member 2: beta")).to_be_visible()
        expect(page.get_by_role("button", name="Start")).to_be_disabled()
        page.get_by_label("Values of setting 1").fill("0.05, 0.1")
        expect(taken.get_by_role("row", name="Jobs")).to_contain_text("2 jobs")
        vary(page, 2, "variant", None)
        page.get_by_role("group", name="Values of setting 2").get_by_label("dpo", exact=True).check()
        page.get_by_role("group", name="Values of setting 2").get_by_label("ipo", exact=True).check()
        expect(taken.get_by_role("row", name="Jobs")).to_contain_text("4 jobs")
        page.get_by_role("button", name="Do not vary setting 2").click()
        expect(taken.get_by_role("row", name="Jobs")).to_contain_text("2 jobs")
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="Start 2 jobs").click()
        expect(page.locator("h1")).to_contain_text("Which beta")
        best = finish_next(api, 0.7), finish_next(api, 0.8)
        expect(page.get_by_text("Best so far: Beta 0.1")).to_be_visible()
        assert [member["job_id"] for member in members(api, page)] == list(best)
        page.get_by_label("Order of the jobs").select_option(label="Best first")
        rows = page.locator("tbody tr")
        expect(rows.first).to_contain_text("80.0 % (best)")
        page.get_by_text("Add a job to this sweep").click()
        page.get_by_label("Beta", exact=True).fill("0.3")
        page.get_by_role("button", name="Add the job").click()
        expect(rows).to_have_count(3)
        expect(page.locator("h1 .badge")).to_have_text("running")
        expect(page.get_by_role("link", name="Compare the best 2")).to_be_visible()
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel the sweep").click()
        expect(page.locator("h1 .badge")).to_have_text("cancelled")
        page.get_by_role("link", name="Job 1").click()
        page.get_by_role("link", name="part of a sweep").click()
        page.get_by_role("link", name="New sweep like this").click()
        expect(page.get_by_label("Values of setting 1")).to_have_value("0.05, 0.1")
        page.get_by_label("Values of setting 1").fill("0.01 to 1 log")
        expect(taken.get_by_role("row", name="Jobs")).to_contain_text("8 jobs")
        page.get_by_role("link", name="Sweeps").click()
        expect(page.get_by_role("row", name="Which beta")).to_contain_text("1 cancelled")
        page.get_by_role("link", name="Which beta").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete the sweep").click()
        expect(page.get_by_role("heading", name="No sweeps yet")).to_be_visible()
        assert [text for text in watched.complaints if "422" not in text] == []


def test_a_copy_of_a_sweep_keeps_its_successive_halving(browser: Browser, api: RunningApi) -> None:
    job = {"base_model": BASE_MODEL, "dataset_id": api.dataset_id("ds_train"), "reuse": False, "priority": 100}
    grid, halving = {"beta": [0.03, 0.1, 0.3, 0.5]}, {"eta": 2, "min_share": 0.25}
    body = {"job": job, "grid": grid, "strategy": "successive_halving", "halving": halving}
    source = api.http.post("/sweeps", json=body).json()
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/new?sweep={source['id']}")
        expect(page.get_by_label("Course")).to_have_value("successive_halving")
        taken = page.get_by_role("region", name="What the sweep will take")
        expect(taken.get_by_role("row", name="Compared at")).to_contain_text("25.0 %, 50.0 % of their steps")
        page.get_by_role("button", name="Start 4 jobs").click()
        expect(page.locator("h1 .badge")).to_have_text("running")
        copy = api.http.get(f"/sweeps/{page.url.rpartition('/')[2]}").json()
        assert copy["id"] != source["id"]
        assert copy["halving"] == source["halving"] == {"eta": 2, "rungs": [0.25, 0.5]}
        for accuracy in (0.5, 0.6, 0.7, 0.8):
            held = claim(api.backend)
            lifecycle.begin(held)
            values = {"rewards/accuracies": accuracy}
            recording.record_points(held, [point(5, split="validation", **values)])
            lifecycle.finish_at_rung(held)
        progress.advance(api.backend, source["id"])
        page.goto(f"/ui/#/sweeps/{source['id']}")
        expect(page.get_by_text("the sweep goes on without it")).to_have_count(2)
        expect(page.get_by_role("row", name="Job 1")).to_contain_text("50.0 %at step 5")
        assert watched.complaints == []


def vary(page: Page, place: int, setting: str, values: str | None) -> None:
    page.get_by_role("button", name="Vary a setting").click()
    page.get_by_label(f"Setting {place}", exact=True).select_option(setting)
    if values:
        page.get_by_label(f"Values of setting {place}").fill(values)
