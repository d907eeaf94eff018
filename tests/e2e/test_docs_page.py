"""The API reference in a real browser: it fits a telephone, is searched, and sends requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, serve
from browser import Theme, Watched, accessibility_faults, chromium, open_page
from playwright.sync_api import Browser, expect

KEY = "pt_reference_0123456789abcdef0123"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("docs")), api_key=KEY) as running:
        running.http.headers["Authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def check(watched: Watched) -> None:
    """Of the requests without a key the browser remarks on its own that they were refused."""
    watched.complaints = [text for text in watched.complaints if "401 (Unauthorized)" not in text]
    watched.check()


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1280, "dark")])
def test_the_reference_fits_the_screen_and_is_accessible(
    api: RunningApi, browser: Browser, width: int, theme: Theme
) -> None:
    with open_page(browser, api.url, width=width, theme=theme) as watched:
        page = watched.page
        page.goto(f"{api.url}/docs")
        expect(page.get_by_label("Search")).to_be_visible()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert accessibility_faults(page) == []
        page.get_by_role("link", name="Dashboard").click()
        expect(page).to_have_url(f"{api.url}/ui/")
        check(watched)


def test_operations_are_searched_and_tried(api: RunningApi, browser: Browser) -> None:
    job = api.submit(name="Tried from the reference")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"{api.url}/docs")
        page.keyboard.press("/")
        page.keyboard.type("patch /jobs job_id priority")
        expect(page.locator("article:visible")).to_have_count(1)
        article = page.locator("#patch_job")
        article.get_by_role("button", name="Try it").click()
        form = article.get_by_role("form", name="Try patch_job")
        form.get_by_label("job_id").fill(job["id"])
        form.get_by_label("Body, JSON").fill('{"priority": 7}')
        form.get_by_role("button", name="Send PATCH").click()
        expect(form.get_by_role("status")).to_contain_text("401")
        expect(form.get_by_role("status")).to_contain_text("api-key-missing")
        page.get_by_label("API key").fill(KEY)
        form.get_by_role("button", name="Send PATCH").click()
        expect(form.get_by_role("status")).to_contain_text('"priority": 7')
        assert api.http.get(f"/jobs/{job['id']}").json()["priority"] == 7
        page.get_by_label("Search").fill("job-not-found")
        expect(page.locator("#problem-job-not-found")).to_be_visible()
        expect(page.locator("#submit_job")).to_be_hidden()
        check(watched)
