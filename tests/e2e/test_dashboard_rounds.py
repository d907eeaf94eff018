"""Rounds in a real browser: the timeline while it grows, curves with intervals, steering, and the way to every step."""

from typing import Any

from api_server import RunningApi
from browser import accessibility_faults, open_page
from played_rounds import NUM_PROMPTS, ONE_SENTENCE, add_file, body, get, play, play_to_end
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
        for where in ("rounds", "rounds/new", f"rounds/{made['id']}"):
            page.goto(f"/ui/#/{where}")
            expect(page.locator(f"main[data-page='/{where}'] h1")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_WIDTH, where
            assert accessibility_faults(page) == [], where
        expect(page.get_by_text("A step has failed")).to_be_visible()
        expect(step(page, 1, "Train").locator(".error-text")).to_be_visible()
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("h1 .badge")).to_have_text("running")
        watched.check()


def test_rounds_from_the_form_and_a_copy_of_them(browser: Browser, api: RunningApi) -> None:
    """Faults stand at their fields, those of the job among them, and what is sent is what was meant."""
    for dataset_id in ("ds_3", "ds_4"):
        add_file(api.backend, dataset_id)
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/rounds")
        page.get_by_role("link", name="New rounds").click()
        taken = page.get_by_role("region", name="What the rounds will do")
        expect(taken).to_contain_text("Choose a dataset to see it.")
        page.get_by_label("Dataset", exact=True).select_option(label=f"ds_3 · {NUM_PROMPTS} pairs")
        expect(taken.get_by_role("row", name="Round 1")).to_contain_text("Answer → Judge → Make pairs → Train")
        refuse(page, taken, "Answers to each prompt", "3", "must be even")
        field(page, "Answers to each prompt").fill("4")
        refuse(page, taken, "Beta", "-1", "must be greater than 0")
        field(page, "Beta").fill("0.2")
        page.get_by_label("Who judges").select_option("regex")
        refuse(page, taken, "Regular expression", "(", "unclosed group")
        field(page, "Regular expression").fill(ONE_SENTENCE["pattern"])
        for label, value in FILLED.items():
            field(page, label).fill(value)
        page.get_by_label("Another judge compares them").check()
        page.get_by_label("Start from").select_option("supervised")
        page.get_by_label("End once a round's policy is no better than the one before").uncheck()
        expect(taken.get_by_role("row", name="To answer")).to_contain_text("80 to 20 prompts, in each round")
        expect(taken.get_by_role("row", name="To learn from")).to_contain_text("30 rows at most, in each round")
        expect(taken.get_by_role("row", name="First Hold")).to_contain_text("Hold prompts out → Train the first policy")
        assert accessibility_faults(page) == []
        first = start_rounds(page, api)
        assert first["requested"] == {
            "job": {"base_model": "tiny", "dataset_id": "ds_3@1", "variant": "dpo", "beta": 0.2},
            "initial": {"base_model": "tiny", "dataset_id": "ds_3@1", "method": "supervised"},
            "judge": ONE_SENTENCE,
            "num_rounds": 2,
            "generation": {"num_prompts": 20, "num_samples": 4},
            "file_ratio": 0.5,
            "evaluation": {"held_out_fraction": 0.4, "judge": {"kind": "length", "prefers": "shorter"}},
            "stop_early": False,
            "name": "From the form",
        }
        page.get_by_role("link", name="New rounds like these").click()
        expect(page.get_by_label("Rounds at most", exact=True)).to_have_value("2")
        page.get_by_label("Pairs", exact=True).select_option("all")
        field(page, "Margin").fill("0.5")
        expect(taken.get_by_role("row", name="To learn from")).to_contain_text("180 rows at most, in each round")
        copy = start_rounds(page, api)
        assert copy["requested"] == first["requested"] | {"pairing": {"kind": "all", "margin": 0.5}}
        assert [text for text in watched.complaints if "422" not in text] == []


FILLED = {
    "Name of the rounds": "From the form",
    "Rounds at most": "2",
    "Prompts of a round": "20",
    "Rows of the file for each row of the round": "0.5",
    "Share of prompts held out": "0.4",
}


def refuse(page: Page, taken: Locator, label: str, value: str, told: str) -> None:
    """The fault stands at the field, and nothing can be started."""
    control = field(page, label)
    control.fill(value)
    expect(control).to_have_attribute("aria-invalid", "true")
    expect(page.locator(f"#{control.get_attribute('id')}-fault")).to_contain_text(told)
    expect(taken).to_contain_text("Fix the highlighted fields first.")
    expect(page.get_by_role("button", name="Start the rounds")).to_be_disabled()


def field(page: Page, label: str) -> Locator:
    """The one that is shown: the judge who compares has the same fields."""
    return page.get_by_label(label, exact=True).locator("visible=true")


def start_rounds(page: Page, api: RunningApi) -> dict[str, Any]:
    page.get_by_role("button", name="Start the rounds").click()
    expect(page.locator("h1")).to_contain_text("From the form")
    made: dict[str, Any] = api.http.get(f"/rounds/{page.url.rpartition('/')[2]}").json()
    api.http.post(f"/rounds/{made['id']}/cancel")
    return made


def play_but_training(api: RunningApi) -> None:
    """What a worker does with the next generation or judgement; training is left as it is."""
    states = {item.kind for item in get(api.backend, api_rounds(api)).steps if item.status == "running"}
    if "job" not in states:
        play(api.backend)


def api_rounds(api: RunningApi) -> str:
    return str(api.http.get("/rounds").json()["data"][0]["id"])
