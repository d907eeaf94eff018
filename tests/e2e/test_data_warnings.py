"""Warnings of a dataset are seen where they matter: at upload, on its page, before a job starts, and in the job."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from backends import BASE_MODEL
from browser import open_page
from playwright.sync_api import Browser, Page, expect
from tiny_models import write_tiny_tokenizer
from typer.testing import CliRunner

from cli.main import app
from preftune import ApiError, Client

LONG = "word " * 1500
ROWS = [
    {"prompt": "Say hi.", "chosen": "Hi there, friend.", "rejected": "No.", "context": "A letter from home."},
    {"prompt": "Say it long.", "chosen": LONG, "rejected": "Short.", "context": "A library."},
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("warnings"))
    with serve(folder) as running:
        write_tiny_tokenizer(folder / "models" / BASE_MODEL)
        yield running


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def upload(api: RunningApi, rows: list[dict[str, Any]]) -> dict[str, Any]:
    response = api.http.post("/datasets", content="".join(json.dumps(row) + "\n" for row in rows).encode())
    assert response.status_code == 201, response.text
    dataset: dict[str, Any] = response.json()
    return dataset


def codes(warnings: list[dict[str, Any]]) -> set[str]:
    return {warning["code"] for warning in warnings}


def test_the_dashboard_shows_them_before_a_job_starts(browser: Browser, api: RunningApi, tmp_path: Path) -> None:
    path = write(tmp_path, "letters.jsonl", ROWS)
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/datasets")
        page.locator("#file").set_input_files(path)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("Ready to use")).to_be_visible()
        expect(notice(page, "Before you train on it")).to_contain_text("'context' seems to be")
        expect(notice(page, "Before you train on it")).to_contain_text("meaningful-field-ignored")
        page.get_by_role("link", name="Use in a job").click()
        before = notice(page, "Before you start")
        expect(before).to_contain_text("'context' seems to be")
        expect(before).to_contain_text("1 of 2 rows have more than 64 tokens and would be set aside.")
        expect(page.get_by_role("button", name="Start the job")).to_be_enabled()
        page.goto("/ui/#/datasets")
        expect(page.get_by_role("row", name="letters.jsonl")).to_contain_text("warning")
        watched.check()


def test_a_good_data_set_has_no_notice_but_of_its_size(browser: Browser, api: RunningApi) -> None:
    dataset = upload(api, good_rows())
    assert dataset["warnings"] == []
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/datasets/{dataset['id']}")
        expect(page.get_by_text("Ready to use")).to_be_visible()
        expect(notice(page, "Before you train on it")).to_have_count(0)
        page.goto(f"/ui/#/new?dataset_id={dataset['id']}")
        expect(page.get_by_role("heading", name="What the job will do")).to_be_visible()
        expect(notice(page, "Before you start").locator("li")).to_have_text([LITTLE, FEW_HELD_OUT])
        watched.check()


def test_preview_and_the_jobs_first_event_have_them(api: RunningApi) -> None:
    dataset = upload(api, ROWS)
    body = {"base_model": BASE_MODEL, "dataset_id": dataset["id"]}
    preview = api.http.post("/jobs/preview", json=body).json()
    assert "meaningful-field-ignored" in codes(preview["warnings"])
    assert preview["warnings"] == dataset["warnings"]
    job = api.http.post("/jobs", json=body).json()
    (event,) = api.http.get(f"/jobs/{job['id']}/events").json()["data"]
    assert (event["kind"], event["level"]) == ("submitted", "warning")
    assert "'context'" in event["message"]
    assert codes(event["data"]["warnings"]) == codes(dataset["warnings"])


def test_rows_that_were_skipped_are_said(api: RunningApi) -> None:
    content = "".join(json.dumps(row) + "\n" for row in good_rows()).encode() + b"not json\n"
    dataset = api.http.post("/datasets", content=content, params={"on_error": "skip"}).json()
    (warning,) = dataset["warnings"]
    assert (warning["code"], warning["num_found"]) == ("rows-left-out", 1)


def test_submit_prints_them(api: RunningApi) -> None:
    dataset = upload(api, ROWS)
    asked = [BASE_MODEL, dataset["id"], "--url", api.url]
    refused = CliRunner().invoke(app, ["submit", *asked, "--strict"])
    assert refused.exit_code == 1
    assert "--strict" in refused.stderr
    posted = CliRunner().invoke(app, ["submit", *asked])
    assert posted.exit_code == 0, posted.stderr
    assert "\njob_" in f"\n{posted.stdout}"
    assert "'context' seems to be" in posted.stderr
    assert "1 of 2 rows would be set aside: they have more than 64 tokens" in posted.stderr
    quiet = CliRunner().invoke(
        app, ["submit", BASE_MODEL, upload(api, good_rows())["id"], "--strict", "--url", api.url]
    )
    assert (quiet.exit_code, quiet.stderr) == (0, "")


def test_submit_takes_variables_of_the_chat_template(api: RunningApi) -> None:
    """As an option of its own, and of the client; what is no JSON object is refused before anything is sent."""
    asked = [BASE_MODEL, upload(api, good_rows())["id"], "--url", api.url, "--chat-template-kwargs"]
    for wrong in ("{", "[1]"):
        assert CliRunner().invoke(app, ["submit", *asked, wrong]).exit_code == 2
    refused = CliRunner().invoke(app, ["submit", *asked, '{"enable_thinking": false}'])
    assert refused.exit_code == 1
    assert "enable_thinking" in refused.stderr  # which the tiny model's template does not read
    with pytest.raises(ApiError, match="enable_thinking"):
        Client(api.url).jobs.submit(
            base_model=BASE_MODEL, dataset_id=asked[1], chat_template_kwargs={"enable_thinking": False}
        )


def test_a_strict_upload_fails_by_warnings(api: RunningApi, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    for rows, code in ((ROWS, 1), (good_rows(), 0)):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sent = CliRunner().invoke(app, ["datasets", "upload", str(file), "--strict", "--url", api.url])
        assert (sent.exit_code, "ds_" in sent.stdout) == (code, True), sent.stderr


LITTLE = re.compile("2 rows is little to learn from")
FEW_HELD_OUT = re.compile("held out: too few to tell")


def good_rows() -> list[dict[str, Any]]:
    texts = [("Name a colour.", "Blue.", "I do not know."), ("Count to two.", "One, then two.", "Two.")]
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in texts]


def notice(page: Page, title: str) -> Any:
    return page.locator(".notice", has=page.get_by_text(title, exact=True))
