"""The dashboard in a real browser, with the real trainer: upload, start, watch, pause, resume, download."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from browser import Watched, open_page
from playwright.sync_api import Browser, Page, expect
from tiny_models import make_tiny_model
from toy_jobs import InProcessWorker

from worker.app import TRAINER_COMMAND

NUM_ROWS = 24
LONG_MS = 180_000
"""For what waits on the trainer."""
SETTINGS = {
    "#f-dpo-epochs": "1000",
    "#f-dpo-batch_size": "4",
    "#f-dpo-learning_rate": "1e-3",
    "#f-sft-batch_size": "4",
    "#f-sft-learning_rate": "1e-3",
    "#f-max_length": "64",
    "#f-validation_fraction": "0.25",
    "#f-evaluate_every_steps": "5",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("service"))
    make_tiny_model(folder / "models" / "tiny-llama")
    with serve(folder) as api, InProcessWorker(api.backend, TRAINER_COMMAND):
        yield api


def rows_file(folder: Path) -> Path:
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"Good answer {n}.", "rejected": f"Bad {n}!"} for n in range(NUM_ROWS)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.timeout(600)
def test_from_a_file_to_a_policy(browser: Browser, service: RunningApi, tmp_path: Path) -> None:
    with open_page(browser, service.url) as watched:
        page = watched.page
        expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
        upload(page, rows_file(tmp_path))
        fill_form(page)
        page.get_by_role("button", name="Start the job").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("My first job")
        page.evaluate("window.isTheSamePage = true")
        check_curves_move(page)
        check_pause_and_resume(page)
        check_what_is_shown(page)
        keep_the_policy(page)
        check_download(page, service)
        assert page.evaluate("window.isTheSamePage"), "all of it without a reload"
        check_no_complaints(watched)


def upload(page: Page, path: Path) -> None:
    page.get_by_role("link", name="Upload data").click()
    page.locator("#file").set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("Ready to use")).to_be_visible(timeout=LONG_MS)
    expect(page.get_by_text(f"{NUM_ROWS} rows read: {NUM_ROWS} usable")).to_be_visible()
    expect(page.locator(".row-view").first.locator(".chosen")).to_have_text("Good answer 0.")


def fill_form(page: Page) -> None:
    page.get_by_role("link", name="Use in a job").click()
    model = page.locator("#f-base_model option", has_text="tiny-llama").inner_text()
    page.get_by_label("Base model").select_option(label=model)
    page.get_by_label("Name", exact=True).fill("My first job")
    resolved = page.locator("section", has=page.get_by_role("heading", name="What the job will do"))
    expect(resolved.get_by_role("row", name="Beta")).to_contain_text("0.1 auto")
    expect(page.get_by_text("gradient weight 0.1")).to_contain_text("21.97 nats")
    for summary in page.locator("form .card:not([aria-label]) details > summary:visible").all():
        summary.click()
    for selector, value in SETTINGS.items():
        page.locator(selector).fill(value)
    page.locator("#f-precision").select_option(label="fp32")
    expect(resolved.get_by_role("row", name="DPO epochs")).to_contain_text("1000")
    expect(resolved).to_contain_text("steps of Direct Preference Optimization on 18 pairs, with 6 pairs held out")


def badge(page: Page) -> Any:
    return page.locator("h1 .badge")


def chart(page: Page, title: str) -> Any:
    return page.locator("figure", has=page.get_by_role("heading", name=title, exact=True))


def check_curves_move(page: Page) -> None:
    """Two pictures of one chart differ, and its newest value too, while nobody touches the page."""
    rewards = chart(page, "Implicit rewards")
    expect(rewards).to_be_visible(timeout=LONG_MS)
    expect(page.get_by_text("DPO step", exact=True)).to_be_visible()
    step = page.locator(".tile", has_text="DPO step").locator(".value")
    canvas, picture = rewards.locator("canvas"), "(canvas) => canvas.toDataURL()"
    first_step, first_picture = step.inner_text(), canvas.evaluate(picture)
    expect(step).not_to_have_text(first_step, timeout=LONG_MS)
    page.wait_for_timeout(300)
    assert canvas.evaluate(picture) != first_picture
    expect(chart(page, "Loss").get_by_role("button", name="SFT")).to_be_visible()


def check_pause_and_resume(page: Page) -> None:
    page.get_by_role("button", name="Pause").click()
    expect(badge(page)).to_have_text("paused", timeout=LONG_MS)
    expect(page.get_by_text("Paused at a checkpoint")).to_be_visible()
    step = page.locator(".tile", has_text="DPO step").locator(".value")
    paused_at = int(step.inner_text())
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".events")).to_contain_text("Goes on", timeout=LONG_MS)
    expect(step).not_to_have_text(str(paused_at), timeout=LONG_MS)
    assert int(step.inner_text()) > paused_at


def keep_the_policy(page: Page) -> None:
    """A run of a thousand epochs cannot be over before it is looked at; here it ends early, with what it has learnt."""
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel, keep the policy").click()
    expect(badge(page)).to_have_text("cancelled", timeout=LONG_MS)


def check_what_is_shown(page: Page) -> None:
    for title in ("Margin distribution", "Reward accuracy", "Log-probabilities", "How much is left to learn"):
        expect(chart(page, title)).to_be_visible()
        expect(chart(page, title).locator("canvas")).to_have_count(1)
    validation = chart(page, "Implicit rewards").get_by_role("button", name="Margin, validation")
    expect(validation.locator(".value")).not_to_have_text("–")
    expect(page.locator(".stages li")).to_have_count(6)
    expect(page.locator(".stages progress").first).to_have_js_property("value", 1)
    machinery = page.get_by_text("Gradient norm, learning rate, throughput")
    machinery.click()
    expect(chart(page, "Gradient norm").locator("canvas")).to_be_visible()


def check_download(page: Page, service: RunningApi) -> None:
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download the policy").click()
    content = Path(waiting.value.path()).read_bytes()
    job_id = waiting.value.suggested_filename.removesuffix(".tar")
    files = service.http.get(f"/jobs/{job_id}/artifact").json()["files"]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = {member.name for member in archive.getmembers() if member.isfile()}
    assert names == {f"{job_id}/{file['path']}" for file in files}
    assert f"{job_id}/model.safetensors" in names


def check_no_complaints(watched: Watched) -> None:
    watched.check()
