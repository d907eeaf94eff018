"""The playground in a real browser, with a real runner: from a job's page in one click, answers side by side."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, pairs, serve
from browser import accessibility_faults, open_page
from playwright.sync_api import Browser, expect
from published_models import publish_model
from runner_process import running_runner
from tiny_models import make_tiny_model

MODEL = "talker"
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("play"))
    make_tiny_model(folder / "models" / MODEL)
    with running_runner(folder) as runner, serve(folder, **runner.settings()) as running:
        yield running


def test_a_job_is_tried_beside_what_it_came_from(browser: Browser, api: RunningApi, tmp_path: Path) -> None:
    policy = make_tiny_model(tmp_path / "policy", seed=1)
    job_id = publish_model(api, policy, base_model=MODEL, sft="skip", name="Kind answers")
    api.http.post("/datasets", content=pairs(), params={"name": "questions"})
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{job_id}")
        page.get_by_role("link", name="Try it").click()
        columns = page.locator(".play-column")
        expect(columns).to_have_count(2)
        expect(columns.nth(0).get_by_role("heading")).to_have_text(MODEL)
        expect(columns.nth(1).get_by_role("heading")).to_contain_text("Kind answers")
        page.get_by_label("Prompts of a dataset").select_option(label="questions")
        page.get_by_role("button", name="Take a prompt").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value(re.compile(r"What is \d plus one\?"))
        page.get_by_label("Most tokens").fill("8")
        page.get_by_label("Seed").fill("3")
        page.get_by_role("button", name="Send to all").click()
        expect(columns.nth(1)).to_contain_text("implicit reward", timeout=PATIENCE_MS)
        expect(columns.nth(0)).to_contain_text("8 tokens · log-probability", timeout=PATIENCE_MS)
        expect(columns.nth(1).locator(".text.policy [title]").first).to_have_attribute("title", re.compile("nats"))
        first = columns.nth(0).locator(".text.policy").inner_text()
        page.get_by_role("button", name="Send to all").click()  # a second turn of the same conversation
        expect(columns.nth(0).locator(".text.policy")).to_have_count(2)
        expect(columns.nth(0)).to_contain_text(
            re.compile("log-probability.*log-probability", re.S), timeout=PATIENCE_MS
        )
        address = page.url
        assert f"model={job_id}" in address
        page.goto("about:blank")
        page.goto(address)
        expect(columns).to_have_count(2)
        page.get_by_role("button", name="Send to all").click()
        expect(columns.nth(0)).to_contain_text("log-probability", timeout=PATIENCE_MS)
        expect(columns.nth(0).locator(".text.policy")).to_have_text(first)
        assert accessibility_faults(page) == []
        watched.check()


def test_what_a_model_cannot_do_is_told_in_its_column(browser: Browser, api: RunningApi) -> None:
    with open_page(browser, api.url, theme="dark") as watched:
        page = watched.page
        page.goto(f"/ui/#/play?model={MODEL}&prompt=word&max_tokens=500")
        page.get_by_role("button", name="Send to all").click()
        expect(page.locator(".play-column .notice")).to_contain_text("context holds", timeout=PATIENCE_MS)
