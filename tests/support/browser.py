"""A real headless Chromium for tests of the dashboard, with everything it complains about written down."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 20_000
Theme = Literal["light", "dark"]
_NOTE_VIOLATIONS = """
window.policyViolations = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.policyViolations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}`));
"""


def find_chromium() -> str | None:
    """CHROMIUM names another one than the system's."""
    return os.environ.get("CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


AXE_CORE = Path(__file__).resolve().parents[2] / ".venv" / "axe-core" / "4.14.1" / "axe.min.js"
_AXE_FAULTS = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) =>
    `${id}: ${target.join(" ")}: ${failureSummary}`));
}"""


def accessibility_faults(page: Page) -> list[str]:
    """What axe-core finds in the page as it stands; nothing where `make axe-core` has not been run."""
    if not AXE_CORE.is_file():
        warnings.warn("the dashboard is not checked by axe-core; run `make axe-core`", stacklevel=2)
        return []
    page.evaluate(AXE_CORE.read_text(encoding="utf-8"))
    faults: list[str] = page.evaluate(_AXE_FAULTS)
    return faults


@dataclass
class Watched:
    """A page, and what went wrong in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def note_console(self, message: ConsoleMessage) -> None:
        is_elsewhere = "ERR_NETWORK_CHANGED" in message.text  # an interface of this machine came or went
        if message.type in ("error", "warning") and not is_elsewhere:
            self.complaints.append(f"console {message.type}: {message.text} ({message.location.get('url')})")

    def note_error(self, error: Any) -> None:
        self.complaints.append(f"uncaught: {error}")

    def check(self) -> None:
        """Nothing was logged as an error or warning, and the page's policy refused nothing."""
        assert self.complaints == []
        assert self.page.evaluate("window.policyViolations") == []


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips where there is none. The profile is new and empty, and is removed at the end."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium here; on Debian: apt install chromium; or set CHROMIUM to the browser's path")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, url: str, *, theme: Theme = "light", width: int = 1280) -> Iterator[Watched]:
    """A page of a new, empty profile at `url`, whose certificate, if it has one, is of a test's making."""
    context: BrowserContext = browser.new_context(
        base_url=url,
        color_scheme=theme,
        reduced_motion="reduce",  # what pulses takes a processor to draw
        viewport={"width": width, "height": 900},
        accept_downloads=True,
        ignore_https_errors=True,
    )
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(_NOTE_VIOLATIONS)
    page = context.new_page()
    watched = Watched(page)
    page.on("console", watched.note_console)
    page.on("pageerror", watched.note_error)
    try:
        page.goto(f"{url}/ui/")
        yield watched
    finally:
        context.close()
