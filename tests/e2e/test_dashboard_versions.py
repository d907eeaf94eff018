"""Versions of datasets and feedback in a real browser: changed, compared, split, merged; judged, cut, deleted."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, serve
from browser import accessibility_faults, open_page
from playwright.sync_api import Browser, expect
from scripted_runner import ScriptedRunner
from tiny_models import make_tiny_model

MODEL = "talker"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("versions"))
    make_tiny_model(folder / "models" / MODEL)
    with serve(folder, runner=ScriptedRunner(answers=[(40, 41, 42, 2), (50, 51, 2)])) as running:
        yield running


def upload(api: RunningApi, name: str, numbers: range) -> str:
    rows = [{"prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}."} for n in numbers]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return str(api.http.post("/datasets", content=content, params={"name": name}).json()["id"])


def test_a_dataset_is_changed_compared_and_split(browser: Browser, api: RunningApi) -> None:
    dataset_id = upload(api, "First", range(6))
    upload(api, "More", range(10, 13))
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/datasets/{dataset_id}")
        rows = page.get_by_role("region", name="Rows")
        rows.get_by_role("article", name="Line 1").get_by_label("Leave out").check()
        rows.get_by_role("article", name="Line 2").get_by_label("Swap chosen and rejected").check()
        page.get_by_role("button", name="Make a version with these changes").click()
        expect(page.get_by_text("version 2, by a change")).to_be_visible()
        versions = page.get_by_role("region", name="Versions")
        expect(versions.get_by_role("row", name=re.compile("Version 2.*5"))).to_be_visible()
        versions.get_by_text("Add rows of another dataset").click()
        versions.get_by_label("Rows of").select_option(label="More, 3 rows")
        versions.get_by_role("button", name="Make the next version").click()
        expect(page.get_by_text("version 3, by a change")).to_be_visible()
        versions.get_by_role("link", name="Compare with version 1").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("What differs")
        expect(page.get_by_role("region", name="Rows").locator("dd")).to_have_text(["3", "1", "1", "4"])
        expect(page.locator("article .badge")).to_have_text(["swapped", "added", "added", "added", "removed"])
        page.get_by_label("Older").select_option(f"{dataset_id}@2")
        expect(page.locator("article .badge")).to_have_text(["added", "added", "added"])
        assert accessibility_faults(page) == []
        page.get_by_role("link", name="First").click()
        versions.get_by_text("Split it in two").click()
        versions.get_by_label("Per cent in the first").fill("50")
        versions.get_by_role("button", name="Split").click()
        expect(versions.get_by_role("link", name=re.compile("First.*")).first).to_be_visible()
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="Delete this version").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("version 2, by a change")).to_be_visible()
        watched.check()
    assert [item["version"] for item in api.http.get(f"/datasets/{dataset_id}/versions").json()["data"]] == [2, 1]


def test_datasets_are_merged(browser: Browser, api: RunningApi) -> None:
    upload(api, "Left part", range(20, 23))
    upload(api, "Right part", range(22, 25))
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/datasets")
        page.get_by_text("Merge datasets into a new one").click()
        parts = page.get_by_label("Datasets of one kind")
        parts.select_option(label=["Left part, preference, 3 rows", "Right part, preference, 3 rows"])
        page.get_by_label("Name of the new dataset").fill("Both")
        page.get_by_label("Of equal rows keep the first").check()
        page.get_by_role("button", name="Merge", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Both")
        expect(page.get_by_text("version 1, by a merge")).to_be_visible()
        expect(page.get_by_text("5 rows read: 5 usable")).to_be_visible()
        watched.check()


def test_feedback_is_given_becomes_a_dataset_and_is_deleted(browser: Browser, api: RunningApi) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"Why {HOSTILE}?"}], "n": 2, "store": True}
    completion = api.http.post("/v1/chat/completions", json=body).json()["id"]
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/feedback")
        first, second = (page.locator(f"[data-answer='{completion}-{index}']") for index in (0, 1))
        expect(first).to_contain_text(f"Why {HOSTILE}?")
        expect(first).to_contain_text("if nothing is said of it")
        first.get_by_role("button", name="Good").click()
        expect(first.locator(".badge")).to_have_text("good")
        expect(first).to_contain_text("somebody has said something of it")
        second.get_by_text("Edit it").click()
        second.get_by_role("textbox").fill(f"Better {HOSTILE}.")
        second.get_by_role("button", name="Save the edit").click()
        expect(second).to_contain_text(f"Better {HOSTILE}.")
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="Dataset of pairs").click()
        expect(page.get_by_text("version 1, by feedback")).to_be_visible()
        page.goto("/ui/#/feedback")
        first.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(first).to_have_count(0)
        page.get_by_role("button", name="Delete all").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="No answers are kept")).to_be_visible()
        assert page.locator("main img").count() == 0
        watched.check()
    assert api.http.get("/feedback/answers").json()["data"] == []
