"""Rounds in a real browser: the timeline while it grows, curves with intervals, steering, and the way to every step."""

from api_server import RunningApi
from browser import accessibility_faults, open_page
from played_rounds import add_file, body, get, play, play_to_end
from playwright.sync_api import Browser, Locator, Page, expect

from core.services.rounds import progress

PHONE_WIDTH = 390


def step(page: Page, number: int, name: str) -> Locator:
    return page.locator(f"[data-round='{number}'] .timeline > li", has=page.get_by_text(name, exact=True))


def test_rounds_from_their_first_step_to_the_best_policy(browser: Browser, api: RunningApi) -> None:
    add_file(api.backend)
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/rounds")
        expect(page.get_by_role("heading", name="No rounds yet")).to_be_visible()
        made = api.http.post("/rounds", json=body(name="One sentence")).json()
        row = page.get_by_role("row", name="One sentence")
        expect(row).to_contain_text("0 of 2 rounds done")
        row.get_by_role("link", name="One sentence").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("One sentence running")
        for _ in range(2):
            progress.advance(api.backend, made["id"])
        expect(step(page, 1, "Answer").locator(".badge")).to_have_text("running")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("h1 .badge")).to_have_text("paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("h1 .badge")).to_have_text("running")
        play(api.backend)
        found = play_to_end(api.backend, made["id"])
        expect(page.locator("h1 .badge")).to_have_text("finished")
        expect(page.get_by_text("All rounds are done.")).to_be_visible()
        curve = page.locator("figure", has=page.get_by_role("heading", name="Win rate", exact=True))
        curve.locator(".plot").focus()
        page.keyboard.press("End")
        expect(curve.locator(".where")).to_have_text("round 2")
        share = found.rounds[1].win_rate_first
        assert share is not None
        expect(curve.get_by_role("button", name="Against the first")).to_contain_text(f"{100 * share['value']:.1f} %")
        drift = page.locator("figure", has=page.get_by_role("heading", name="Drift from the first policy"))
        expect(drift).to_be_visible()
        assert accessibility_faults(page) == []
        page.get_by_text("Allow more rounds").click()
        page.get_by_label("Rounds at most").fill("3")
        page.get_by_role("button", name="Extend").click()
        expect(page.locator("h1 .badge")).to_have_text("running")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel the run of rounds").click()
        expect(page.locator("h1 .badge")).to_have_text("cancelled")
        progress.advance(api.backend, made["id"])
        step(page, 2, "Train").get_by_role("link", name="Train").click()
        page.get_by_role("link", name="part of rounds").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("One sentence")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete the run of rounds").click()
        expect(page.get_by_role("heading", name="No rounds yet")).to_be_visible()
        watched.check()


def test_a_failed_step_is_told_and_the_page_fits_a_telephone(browser: Browser, api: RunningApi) -> None:
    add_file(api.backend, "ds_2")
    asked = body(name="A name that is long enough for two lines " * 3, job={"base_model": "tiny", "dataset_id": "ds_2"})
    made = api.http.post("/rounds", json=asked).json()
    while not (
        waiting := [
            item for item in get(api.backend, made["id"]).steps if item.stage == "train" and item.status == "running"
        ]
    ):
        progress.advance(api.backend, made["id"])
        play_but_training(api)
    api.http.post(f"/jobs/{waiting[0].child_id}/cancel")
    progress.advance(api.backend, made["id"])
    with open_page(browser, api.url, theme="dark", width=PHONE_WIDTH) as watched:
        page = watched.page
        for where in ("rounds", f"rounds/{made['id']}"):
            page.goto(f"/ui/#/{where}")
            expect(page.locator(f"main[data-page='/{where}'] h1")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_WIDTH, where
            assert accessibility_faults(page) == [], where
        expect(page.get_by_text("A step has failed")).to_be_visible()
        expect(step(page, 1, "Train").locator(".error-text")).to_be_visible()
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("h1 .badge")).to_have_text("running")
        watched.check()


def play_but_training(api: RunningApi) -> None:
    """What a worker does with the next generation or judgement; training is left as it is."""
    states = {item.kind for item in get(api.backend, api_rounds(api)).steps if item.status == "running"}
    if "job" not in states:
        play(api.backend)


def api_rounds(api: RunningApi) -> str:
    return str(api.http.get("/rounds").json()["data"][0]["id"])
