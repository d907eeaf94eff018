"""Every page of the dashboard in a real browser: live lists, faults, hostile names, keyboard, small screens."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, pairs, serve
from backends import checkpoint
from browser import Theme, Watched, accessibility_faults, open_page
from played_jobs import finish, learn, start
from playwright.sync_api import Browser, Locator, Page, expect

from core.domain.jobs.failure_codes import FailureCode
from core.domain.trainer_protocol import TrainerEvent
from core.services.attempts import lifecycle, recording

HOSTILE = "<img src=x onerror=alert(1)>\"'</td><script>alert(2)</script>"
PHONE_WIDTH = 390
KEY = "pt_canary_0123456789abcdef"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("keyed")), api_key=KEY) as running:
        yield running


def figure(page: Page, title: str) -> Locator:
    return page.locator("figure", has=page.get_by_role("heading", name=title, exact=True))


def badge(page: Page) -> Locator:
    return page.locator("h1 .badge")


def test_the_list_of_jobs_lives(browser: Browser, api: RunningApi) -> None:
    with open_page(browser, api.url) as watched:
        page = watched.page
        expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
        check_what_is_loaded(page)
        held = start(api, name="The one that runs")
        waiting = api.submit(name="The one that waits")
        row = page.get_by_role("row", name="The one that runs")
        expect(row.locator(".badge")).to_have_text("running")
        expect(page.get_by_role("row", name="The one that waits")).to_contain_text("place 1 in the queue")
        lifecycle.finish_failed(held, FailureCode.BAD_DATA, "Line 3 is empty.")
        expect(row.locator(".badge")).to_have_text("failed")
        expect(row).to_contain_text("The data cannot be trained on")
        page.get_by_role("link", name="Failed").click()
        expect(page.get_by_role("row", name="The one that waits")).to_have_count(0)
        page.get_by_role("link", name="Succeeded").click()
        expect(page.get_by_role("heading", name="No succeeded jobs")).to_be_visible()
        watched.check()
    api.http.post(f"/jobs/{waiting['id']}/cancel")


_LOADED = """() => performance.getEntries().filter(({ transferSize }) => transferSize > 0).map(
  ({ name, transferSize, renderBlockingStatus }) => [name, transferSize, renderBlockingStatus])"""


def check_what_is_loaded(page: Page) -> None:
    """One answer paints the page, a dozen show its list, and opened again it asks only for what changes."""
    first = page.evaluate(_LOADED)
    assert [name for name, _, blocking in first if blocking == "blocking" and not name.endswith("/ui/")] == []
    assert next(size for name, size, _ in first if name.endswith("/ui/")) < 30_000
    assert len(first) <= 14
    assert sum(size for _, size, _ in first) < 90_000
    page.reload()
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    again = {name.partition("?")[0].rpartition("/ui/")[2].rpartition("/")[2] for name, *_ in page.evaluate(_LOADED)}
    assert again <= {"", "session", "jobs"}, again


def test_the_page_of_a_job_follows_it(browser: Browser, api: RunningApi) -> None:
    held = start(api, name="Live", sample_prompts=["Why?"])
    learn(api, held, range(1, 11))
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{held.job_id}")
        margin = figure(page, "Implicit rewards").get_by_role("button", name="Margin").locator(".value")
        expect(margin).to_have_text("+1.0000")
        learn(api, held, range(11, 21))
        expect(margin).to_have_text("+2.0000")
        warning = TrainerEvent(
            level="warning", kind="collapse", message="Chosen responses become less likely.", data={"share": 0.9}
        )
        recording.record_events(held, [warning])
        finding = page.locator(".notice.is-warning")
        expect(finding).to_contain_text("Chosen responses become less likely.")
        finding.get_by_text("Evidence").click()
        expect(finding).to_contain_text("0.9")
        recording.record_samples(held, 20, [{"prompt": "Why?", "reference": "No.", "policy": "So."}])
        finish(api, held)
        expect(badge(page)).to_have_text("succeeded")
        page.get_by_text("Single files").click()
        expect(page.get_by_role("link", name="model.safetensors")).to_be_visible()
        expect(page.locator(".sample .policy")).to_have_text("So.")
        watched.check()


def test_a_rewound_attempt_takes_its_points_back(browser: Browser, api: RunningApi) -> None:
    """The curve of a run that is killed has one point per step: no fork."""
    held = start(api, name="Killed")
    learn(api, held, range(1, 6))
    checkpoint(api.backend, held, 5)
    learn(api, held, range(6, 11))
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{held.job_id}")
        step = page.locator(".tile", has_text="DPO step").locator(".value")
        expect(step).to_have_text("10")
        lifecycle.release(held, lifecycle.AttemptOutcome.DRAINED)
        again = lifecycle.claim(api.backend, worker="worker-2", host="host", device="cpu")
        assert again is not None
        assert again.job_id == held.job_id
        lifecycle.begin(again)
        learn(api, again, range(6, 8), slope=0.2)
        expect(step).to_have_text("7")
        margin = figure(page, "Implicit rewards").get_by_role("button", name="Margin").locator(".value")
        expect(margin).to_have_text("+1.4000")
        chart = figure(page, "Implicit rewards").get_by_role("img")
        chart.focus()
        read = []
        for _ in range(7):
            page.keyboard.press("ArrowRight")
            read.append(margin.inner_text())
        assert read == ["+0.1000", "+0.2000", "+0.3000", "+0.4000", "+0.5000", "+1.2000", "+1.4000"]
        watched.check()
    finish(api, again)


def test_without_a_free_stream_the_page_polls(browser: Browser, api: RunningApi) -> None:
    held = start(api, name="Polled")
    learn(api, held, range(1, 4))
    refusal = {"status": 429, "code": "too-many-streams", "title": "Too many streams are open", "detail": "Later."}
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.route("**/stream", lambda route: route.fulfill(status=429, json=refusal))
        page.goto(f"/ui/#/jobs/{held.job_id}")
        step = page.locator(".tile", has_text="DPO step").locator(".value")
        expect(step).to_have_text("3")
        learn(api, held, range(4, 8))
        expect(step).to_have_text("7")
        finish(api, held)
        expect(badge(page)).to_have_text("succeeded")
        assert all("429" in text for text in watched.complaints)


def test_hostile_names_are_shown_as_text(browser: Browser, api: RunningApi, tmp_path: Path) -> None:
    row = {"prompt": HOSTILE, "chosen": f"yes {HOSTILE}", "rejected": f"no {HOSTILE}", HOSTILE: 1}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {"chosen": "", "prompt": f"2 {HOSTILE}"}) + "\n")
    with open_page(browser, api.url) as watched:
        page = watched.page
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto("/ui/#/datasets")
        page.locator("#file").set_input_files(path)
        page.get_by_role("textbox", name="Name").fill(HOSTILE)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("Ready to use")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
        expect(page.locator(".row-view .chosen")).to_have_text(f"yes {HOSTILE}")
        dataset_id = page.url.rpartition("/")[2]
        held = start(api, name=HOSTILE, dataset_id=dataset_id, metadata={HOSTILE: HOSTILE}, sample_prompts=[HOSTILE])
        learn(api, held, range(1, 3))
        event = TrainerEvent(level="warning", kind=HOSTILE, message=HOSTILE, data={HOSTILE: HOSTILE})
        recording.record_events(held, [event])
        sample = {"prompt": HOSTILE, "reference": HOSTILE, "policy": HOSTILE}
        recording.record_samples(held, 2, [sample])
        page.goto(f"/ui/#/jobs/{held.job_id}")
        expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
        expect(page.locator(".notice.is-warning strong")).to_have_text(HOSTILE)
        expect(page.locator(".sample .policy")).to_have_text(HOSTILE)
        for where in ("jobs", "datasets", f"new?from={held.job_id}", f"compare?jobs={held.job_id}"):
            page.goto(f"/ui/#/{where}")
            expect(page.locator("main")).to_contain_text(HOSTILE)
        page.goto(f"/ui/#/jobs/{'%3Cimg%20src=x%20onerror=alert(3)%3E'}")
        expect(page.get_by_role("alert")).to_be_visible()
        assert dialogs == []
        assert page.locator("main img, main script").count() == 0
        missing = [text for text in watched.complaints if "404" not in text]  # the last address names no job
        assert missing == []
        assert page.evaluate("window.policyViolations") == []
    finish(api, held)


def test_the_policy_of_the_page_would_stop_what_gets_through(browser: Browser, api: RunningApi) -> None:
    """The test's own check: HTML from text, inline scripts and foreign addresses are refused, and are reported."""
    with open_page(browser, api.url) as watched:
        page = watched.page
        expect(page.locator("h1")).to_be_visible()
        refused = "(work) => { try { work(); return false } catch (error) { return error instanceof TypeError } }"
        assert page.evaluate(f"({refused})(() => (document.querySelector('main').innerHTML = '<b>x</b>'))")
        page.evaluate("() => fetch('http://127.0.0.1:1/').catch(() => {})")
        page.evaluate(
            "() => document.head.append(Object.assign(document.createElement('style'), {textContent: 'a{}'}))"
        )
        page.wait_for_function("() => window.policyViolations.length >= 3")
        with pytest.raises(AssertionError):
            watched.check()


def test_a_refused_file_says_what_to_mend(browser: Browser, api: RunningApi, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(pairs(2) + b'{"prompt": "p", "chosen": "c"}\nnot json\n')
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/datasets")
        page.locator("#file").set_input_files(path)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("The file was refused")).to_be_visible()
        table = page.get_by_role("table")
        expect(table.get_by_role("row", name="missing-field")).to_contain_text("3")
        expect(table.get_by_role("row", name="invalid-json")).to_contain_text("4")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="Datasets", exact=True)).to_be_visible()
        watched.check()


def test_jobs_compared(browser: Browser, api: RunningApi) -> None:
    ids = []
    for beta, slope in ((0.1, 0.1), (0.5, 0.2)):
        held = start(api, name=f"beta {beta}", beta=beta)
        learn(api, held, range(1, 21), slope)
        finish(api, held)
        ids.append(held.job_id)
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.get_by_label("Choose beta 0.1").check()
        page.get_by_label("Choose beta 0.5").check()
        page.get_by_role("button", name="Compare 2").click()
        plot = figure(page, "Reward margin")
        expect(plot.locator("canvas")).to_be_visible()
        for name, newest in (("beta 0.1", "2.0000"), ("beta 0.5", "4.0000")):
            expect(plot.get_by_role("button", name=name).locator(".value")).to_have_text(newest)
        expect(page.get_by_role("row", name="Beta 0.1 0.5")).to_be_visible()
        page.get_by_label("DPO loss").check()
        loss = figure(page, "DPO loss")
        expect(loss.locator("canvas")).to_be_visible()
        with page.expect_download() as table:
            loss.get_by_role("button", name="save as table").click()
        lines = Path(table.value.path()).read_text().splitlines()
        assert lines[0] == "step,beta 0.1,beta 0.5"
        assert (len(lines), lines[1].split(",")[0]) == (21, "1")
        with page.expect_download() as picture:
            loss.get_by_role("button", name="save as picture").click()
        assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")
        newest = loss.get_by_role("button", name="beta 0.5").locator(".value")
        before = newest.inner_text()
        page.get_by_label("Smoothing").fill("0.9")
        expect(newest).not_to_have_text(before)
        page.get_by_label("Smoothing").fill("0")
        expect(newest).to_have_text(before)
        drawn = "() => [...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"
        linear = page.evaluate(drawn)
        page.get_by_label("Logarithmic axis").check()
        page.wait_for_function(f"(linear) => ({drawn})()[0] !== linear", arg=linear[0])
        page.get_by_label("Logarithmic axis").uncheck()
        box = plot.locator(".u-over").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 40, steps=4)
        page.mouse.up()
        expect(page.get_by_role("button", name="Show all steps")).to_be_visible()
        zoomed = page.evaluate(drawn)
        assert all(now != then for now, then in zip(zoomed, linear, strict=True)), "charts are zoomed together"
        page.get_by_role("button", name="Show all steps").click()
        page.wait_for_function(f"(linear) => ({drawn})()[2] === linear", arg=linear[2])
        watched.check()


def test_too_many_jobs_are_not_compared_in_silence(browser: Browser, api: RunningApi) -> None:
    ids = [api.submit(name=f"Many {n}")["id"] for n in range(10)]
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/compare?jobs={','.join(ids)}")
        expect(page.get_by_text("the last 2 of 10 are left out")).to_be_visible()
        watched.check()
    for job_id in ids:
        api.http.post(f"/jobs/{job_id}/cancel")


def test_by_keyboard_alone(browser: Browser, api: RunningApi) -> None:
    held = start(api, name="Typed")
    learn(api, held, range(1, 4))
    with open_page(browser, api.url) as watched:
        page = watched.page
        link = page.get_by_role("link", name="Typed")
        expect(link).to_be_visible()
        press_until(page, page.locator("#skip"), "Tab")
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        press_until(page, link, "Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        press_until(page, page.get_by_role("button", name="Cancel"), "Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(badge(page)).to_have_text("running")
        toggle = figure(page, "Implicit rewards").get_by_role("button", name="Margin")
        press_until(page, toggle, "Tab")
        page.keyboard.press("Space")
        expect(toggle).to_have_attribute("aria-pressed", "false")
        watched.check()
    finish(api, held)


def press_until(page: Page, wanted: Locator, key: str, times: int = 60) -> None:
    for _ in range(times):
        page.keyboard.press(key)
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"{wanted} was not reached by {key}")


def test_a_service_out_of_reach_is_told_and_comes_back(browser: Browser, api: RunningApi) -> None:
    with open_page(browser, api.url) as watched:
        page = watched.page
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
        page.context.set_offline(True)
        expect(page.locator("#banner")).to_contain_text("does not answer")
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
        page.context.set_offline(False)
        expect(page.locator("#banner")).to_be_hidden()
        assert all("ERR_INTERNET_DISCONNECTED" in text for text in watched.complaints)


@pytest.mark.parametrize(("theme", "width"), [("light", PHONE_WIDTH), ("dark", PHONE_WIDTH), ("dark", 1280)])
def test_pages_fit_the_screen_and_are_accessible(browser: Browser, api: RunningApi, theme: Theme, width: int) -> None:
    held = start(api, name="A name that is long enough to need more than one line on a telephone " * 2)
    learn(api, held, range(1, 30))
    with open_page(browser, api.url, theme=theme, width=width) as watched:
        for where in places(api, held.job_id):
            watched.page.goto(f"/ui/#/{where}")
            expect(watched.page.locator(f"main[data-page='/{where.partition('?')[0]}'] h1")).to_be_visible()
            expect(watched.page.locator(".spinner")).to_have_count(0)
            assert watched.page.evaluate("document.documentElement.scrollWidth") <= width, where
            assert accessibility_faults(watched.page) == [], where
        background = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) is (theme == "dark")
        watched.check()
    finish(api, held)


def places(api: RunningApi, job_id: str) -> list[str]:
    dataset_id = api.http.post("/datasets", content=pairs(3), params={"name": "small"}).json()["id"]
    api.http.post(f"/datasets/{dataset_id}/versions", json={"swap_lines": [1], "drop_lines": [3]})
    inner = [f"jobs/{job_id}/{name}" for name in ("pairs", "scores", "log")]
    of_data = ["datasets", f"datasets/{dataset_id}", f"diff?new={dataset_id}@2&old={dataset_id}@1"]
    of_answers = ["play", "arena", "feedback"]
    rest = ["sweeps", "new", f"compare?jobs={job_id}", "words"]
    return ["jobs", f"jobs/{job_id}", *inner, *of_data, *of_answers, *rest]


def test_signing_in(browser: Browser, keyed: RunningApi, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(pairs(3))
    with open_page(browser, keyed.url) as watched:
        page = watched.page
        key = page.get_by_label("API key")
        expect(key).to_be_focused()
        expect(page.get_by_text("one made with preftune keys create")).to_be_visible()
        key.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("does not know this key")
        key.fill(KEY)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
        assert KEY not in page.evaluate("document.cookie + JSON.stringify(localStorage) + location.href")
        page.get_by_role("link", name="Upload data").click()
        page.locator("#file").set_input_files(path)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("Ready to use")).to_be_visible()
        page.reload()
        expect(page.get_by_text("Ready to use")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_visible()
        assert keyed_complaints(watched) == []


def keyed_complaints(watched: Watched) -> list[str]:
    """But for the browser's own lines about answers of 401, which are part of it."""
    return [text for text in watched.complaints if "401" not in text]
