"""Trained models side by side in a real browser: what is recommended, the picture, differences, pairs that changed."""

from collections.abc import Iterator
from contextlib import contextmanager

from api_server import RunningApi
from backends import BASE_MODEL
from browser import accessibility_faults, open_page
from compared_jobs import add_judgement, make_sweep
from playwright.sync_api import Browser, expect
from sqlalchemy import event

from core.services.backend import Backend

ROW = {"line": 30, "prompt": "Why?", "chosen": "So.", "rejected": "No."}
SCORES = {
    "id": "score_1",
    "status": "succeeded",
    "results": [{"tokens": [{"text": "So.", "log_ratio": 1.0}]}, {"tokens": [{"text": "No.", "log_ratio": -3.0}]}],
}
"""The answer of a worker, which tests/numerics/test_scores.py has for real."""


def test_a_sweep_is_compared(browser: Browser, api: RunningApi) -> None:
    sweep_id = make_sweep(api, name="Which beta")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.route("**/rows?line=30*", lambda route: route.fulfill(json={"data": [ROW], "next_cursor": None}))
        page.route("**/scores?wait=*", lambda route: route.fulfill(status=202, json=SCORES))
        page.goto(f"/ui/#/sweeps/{sweep_id}")
        page.get_by_role("link", name="Accuracy and divergence").click()
        expect(page.get_by_text("3 nats from the reference instead of 8")).to_be_visible()
        picture = page.get_by_role("img", name="Reward accuracy against divergence")
        expect(picture.locator("circle")).to_have_count(6)
        expect(picture.locator("circle.filled")).to_have_count(3)
        expect(picture.get_by_text("β 0.05", exact=True)).to_be_visible()
        expect(page.get_by_role("row", name="Which beta 3 (β 0.5)").first).to_contain_text("25.0 %")
        page.get_by_role("button", name="pairs of Which beta 2 (β 0.1) that changed sides").click()
        changed = page.get_by_role("region", name="Pairs that changed sides")
        expect(changed.get_by_text("Line 30", exact=True)).to_be_visible()
        changed.get_by_role("button", name="Colour the tokens").click()
        expect(changed.locator(".tokens .up-2")).to_have_count(2)
        expect(changed.locator(".tokens .down-4")).to_have_count(2)
        expect(changed.get_by_title("-3.00").first).to_have_text("No.")
        assert accessibility_faults(page) == []
        with page.expect_download() as download:
            page.get_by_role("link", name="Report (HTML)").click()
        assert download.value.suggested_filename == f"comparison-{sweep_id}.html"
        members = api.http.get(f"/sweeps/{sweep_id}").json()["members"]
        page.goto(f"/ui/#/compare?jobs={members[2]['job_id']},{members[0]['job_id']}")
        page.get_by_role("link", name="Accuracy and divergence").click()
        expect(page.get_by_text("Paired differences from Which beta 3 (β 0.5)")).to_be_visible()
        expect(page.get_by_role("button", name="that changed sides")).to_have_text("+20 −0")


@contextmanager
def selects(backend: Backend) -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    event.listen(backend.database.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(backend.database.engine, "before_cursor_execute", note)


NUM_RUNS = 24
MAX_QUERIES = 20
_ASKED = """() => performance.getEntriesByType("resource").filter(({ transferSize }) => transferSize > 0).map(
  ({ name, transferSize }) => [name.replace(/.*[/]ui[/]v-[^/]*[/]/, "").replace(location.origin, ""), transferSize])"""


def test_a_page_of_24_runs_asks_for_little_before_it_is_painted(browser: Browser, api: RunningApi) -> None:
    """One answer compares them all; what is not seen yet is loaded when it is opened."""
    sweep_id = make_sweep(api, name="Many", betas=[round(0.01 * number, 2) for number in range(1, NUM_RUNS + 1)])
    with selects(api.backend) as asked_of_database:
        api.http.get(f"/sweeps/{sweep_id}/comparison").raise_for_status()
    assert len(asked_of_database) <= MAX_QUERIES, asked_of_database
    with open_page(browser, api.url) as watched:
        page = watched.page
        expect(page.locator("#main h1")).to_be_visible()  # the dashboard's own modules are kept from here on
        page.goto("about:blank")
        page.goto(f"/ui/#/comparison?sweep={sweep_id}")
        expect(page.get_by_role("img", name="Reward accuracy against divergence").locator("circle")).to_have_count(48)
        asked = dict(page.evaluate(_ASKED))
        own = {"pages/comparison.js", "charts/scatter.js", f"/sweeps/{sweep_id}/comparison"}
        assert own <= set(asked) <= own | {"/ui/session", "words.js"}, asked
        assert sum(asked.values()) < 90_000
        watched.check()


def test_what_is_drawn_against_the_divergence_can_be_a_judges_win_rates(browser: Browser, api: RunningApi) -> None:
    sweep_id = make_sweep(api, name="Judged")
    members = [member["job_id"] for member in api.http.get(f"/sweeps/{sweep_id}").json()["members"]]
    for job_id, share in zip(members, (0.75, 0.875, 0.25), strict=True):
        add_judgement(api.backend, (job_id, BASE_MODEL), share)
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/comparison?sweep={sweep_id}")
        measure = f"Win rate against {BASE_MODEL}, judged by length, on ds_answers"
        picture = page.get_by_role("img", name=measure)
        expect(page.get_by_role("img", name="Reward accuracy against divergence")).to_be_visible()
        page.get_by_label("Measure").select_option(
            label=f"Win rate against {BASE_MODEL}, judged by length, on ds_answers"
        )
        expect(picture.locator("circle.filled")).to_have_count(3)
        expect(picture.get_by_text("win rate", exact=True)).to_be_visible()
        row = page.get_by_role("row", name="Judged 2 (β 0.1)").first
        expect(row).to_contain_text("87.5 %")
        expect(row).to_contain_text("1 without a verdict")
        assert accessibility_faults(page) == []
        page.get_by_label("Measure").select_option("0")
        expect(page.get_by_role("img", name="Reward accuracy against divergence").locator("circle")).to_have_count(6)
        watched.check()
