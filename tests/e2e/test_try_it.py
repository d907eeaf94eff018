"""From a trained job to the next dataset, in a real browser: `make test-chat`.

Job page, playground, three answers side by side, arena of two of the models, twelve votes by keyboard, a new job.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, serve
from browser import Theme, accessibility_faults, open_page
from playwright.sync_api import Browser, expect
from runner_process import running_runner
from tiny_models import make_tiny_model
from toy_jobs import InProcessWorker
from trained_jobs import FIELDS, run_to_end

from worker.app import TRAINER_COMMAND

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MODEL = "talker"
PATIENCE_MS = 240_000
NUM_ROWS, NUM_VOTES = 24, 12
KEYS = ("ArrowLeft", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningApi, str]]:
    folder = Path(tmp_path_factory.mktemp("try"))
    make_tiny_model(folder / "models" / MODEL)
    with running_runner(folder) as runner, serve(folder, **runner.settings()) as api:
        rows = "".join(
            f'{{"prompt": "Question {n}?", "chosen": "Good answer {n}.", "rejected": "Bad {n}!"}}\n'
            for n in range(NUM_ROWS)
        )
        dataset_id = api.http.post("/datasets", content=rows.encode(), params={"name": "Questions"}).json()["id"]
        quick = {"epochs": 2, "batch_size": 4, "learning_rate": 3e-2}  # else both models draw the same tokens
        own = {"base_model": MODEL, "dataset_id": dataset_id, "sample_prompts": [], "name": "Kinder"}
        settings = FIELDS | own | {"sft": quick, "dpo": quick}
        with InProcessWorker(api.backend, TRAINER_COMMAND):
            job_id = api.http.post("/jobs", json=settings).json()["id"]
            assert run_to_end(api.backend, job_id).status.value == "succeeded"
        yield api, job_id


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_looked_at_becomes_the_next_dataset(
    browser: Browser, trained: tuple[RunningApi, str], theme: Theme
) -> None:
    api, job_id = trained
    with open_page(browser, api.url, theme=theme) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{job_id}")
        page.get_by_role("link", name="Try it").click()
        columns = page.locator(".play-column")
        expect(columns).to_have_count(3)
        expect(columns.get_by_role("heading")).to_have_text([MODEL, re.compile("SFT|@sft"), re.compile("Kinder")])
        page.get_by_label("Prompts of a dataset").select_option(label="Questions")
        page.get_by_role("button", name="Take a prompt").click()
        page.get_by_label("Most tokens").fill("12")
        page.get_by_label("Seed").fill("3")
        page.get_by_role("button", name="Send to all").click()
        for number in range(3):
            expect(columns.nth(number)).to_contain_text("log-probability", timeout=PATIENCE_MS)
        expect(columns.nth(2)).to_contain_text("implicit reward")
        assert accessibility_faults(page) == []
        page.get_by_role("link", name="Arena").click()
        page.get_by_label("First model").fill(MODEL)
        page.get_by_label("Second model").fill(job_id)
        page.get_by_label("Longest answer, in tokens").fill("8")
        page.get_by_label("Prompts or rows of").select_option(label="Questions")
        page.get_by_label("Name").fill(f"By eye, {theme}")
        page.get_by_role("button", name="Make the arena").click()
        pair = page.locator("[data-pair]")
        for number in range(NUM_VOTES):
            expect(pair).to_be_visible(timeout=PATIENCE_MS)
            page.keyboard.press(KEYS[number % len(KEYS)])
            expect(page.get_by_text(f"{number + 1}, of 1 voter")).to_be_visible(timeout=PATIENCE_MS)
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="New job on these votes").click()
        page.get_by_role("button", name="Start the job").click()
        expect(page.locator("h1 .badge")).to_have_text("queued")
        spec = api.http.get(f"/jobs/{page.url.rpartition('/')[2]}").json()["spec"]
        arena = next(each for each in api.http.get("/arenas").json()["data"] if each["name"] == f"By eye, {theme}")
        assert (arena["num_votes"], arena["dataset_id"], spec["num_pairs"]) == (NUM_VOTES, spec["dataset_id"], 8)
        watched.check()
