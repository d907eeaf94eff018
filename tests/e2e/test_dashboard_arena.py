"""The arena in a real browser: pairs judged by keyboard, a vote taken back, a job on the votes."""

import json

from api_server import RunningApi
from browser import accessibility_faults, open_page
from playwright.sync_api import Browser, expect

NUM_ROWS = 14
KEYS = ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown")


def test_pairs_are_judged_by_keyboard_and_become_a_job(browser: Browser, api: RunningApi) -> None:
    rows = [{"prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}."} for n in range(NUM_ROWS)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    api.http.post("/datasets", content=content, params={"name": "To judge"})
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/arena")
        page.get_by_label("What is compared").select_option("rows")
        page.get_by_label("Prompts or rows of").select_option(label="To judge")
        page.get_by_label("Name").fill("By keyboard")
        page.get_by_role("button", name="Make the arena").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("By keyboard")
        pair = page.locator("[data-pair]")
        for number in range(12):
            expect(pair).to_have_attribute("aria-label", f"Pair {number + 1}")
            left = pair.locator(".text").nth(1)
            answer = left.inner_text()
            page.keyboard.press(KEYS[number % 4])
            expect(page.get_by_text("Left was")).to_contain_text("chosen" if answer.startswith("Good") else "rejected")
            expect(page.get_by_text(f"{number + 1}, of 1 voter")).to_be_visible()
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="Take the last vote back").click()
        expect(page.get_by_text("11, of 1 voter")).to_be_visible()
        expect(page.get_by_text("Left was")).to_have_count(0)
        page.get_by_label("Comment").fill("ab")
        expect(page.get_by_text("11, of 1 voter")).to_be_visible()
        arena = api.http.get("/arenas").json()["data"][0]
        assert (arena["num_votes"], arena["num_ties"], arena["num_both_bad"]) == (11, 3, 2)
        page.get_by_role("button", name="New job on these votes").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("New job")
        page.get_by_role("button", name="Start the job").click()
        expect(page.locator("h1 .badge")).to_have_text("queued")
        spec = api.http.get(f"/jobs/{page.url.rpartition('/')[2]}").json()["spec"]
        dataset_id = api.http.get(f"/arenas/{arena['id']}").json()["dataset_id"]
        assert (spec["dataset_id"], spec["dataset_version"], spec["num_pairs"]) == (dataset_id, 1, 6)
        watched.check()
