"""Datasets in a real browser: upload with a mapping, what a refusal advises, rows searched, tokenised, changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi
from browser import open_page
from playwright.sync_api import Browser, expect
from tiny_models import make_tiny_model

NUM_ROWS = 40


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def dataset_id(api: RunningApi) -> str:
    rows = [
        {
            "prompt": f"Question {n}?",
            "chosen": f"Good answer {n}.",
            "rejected": f"Bad {n}!" if n != 7 else f"Good answer {n}.",
        }
        for n in range(1, NUM_ROWS + 1)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    made: str = api.http.post("/datasets", content=content, params={"name": "Numbered"}).json()["id"]
    return made


def test_columns_are_mapped_where_the_file_is_uploaded(browser: Browser, api: RunningApi, tmp_path: Path) -> None:
    odd = write(tmp_path, 'odd "names".jsonl', [{"q": f"Q{n}", "good": f"yes {n}", "bad": f"no {n}"} for n in range(5)])
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/datasets")
        page.locator("#file").set_input_files(odd)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("The file was refused")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_contain_text('odd "names".jsonl')
        page.get_by_role("link", name="Upload it again with these columns").click()
        expect(page.get_by_text('odd "names".jsonl (')).to_be_visible()
        for role, column in (("prompt", "q"), ("chosen", "good"), ("rejected", "bad")):
            expect(page.get_by_label(f"Column of the {role}")).to_have_value(column)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("Ready to use")).to_be_visible()
        expect(page.locator(".row-view .chosen").first).to_have_text("yes 0")
        page.get_by_role("link", name="Datasets").click()
        page.get_by_role("button", name="Delete 1 refused file").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.locator("table.jobs .badge")).to_have_text(["ready"])
        answers = write(tmp_path, "answers.jsonl", [{"prompt": "Why?", "response": "So.", "by": by} for by in "ab"])
        page.get_by_label("Type of data").select_option("Responses of models (to be judged)")
        page.get_by_text("Columns and layout").click()
        page.get_by_label("Column of the model").fill("by")
        page.locator("#file").set_input_files(answers)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("Ready to use")).to_be_visible()
        stored = api.http.get(f"/datasets/{page.url.rsplit('/', 1)[-1]}/rows").json()["data"]
        assert [row["model"] for row in stored] == ["a", "b"]
        watched.check()


def test_rows_are_searched_and_jumped_to(browser: Browser, api: RunningApi, dataset_id: str) -> None:
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/datasets/{dataset_id}")
        rows = page.locator(".row-view")
        expect(rows).to_have_count(5)
        page.get_by_label("Search rows").fill("ANSWER 33")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("Line 33")
        page.get_by_label("Search rows").fill("")
        page.get_by_role("button", name="Show line 7").click()
        expect(page.get_by_text("Line 7 is not among the usable rows; the next one is shown.")).to_be_visible()
        expect(rows.first).to_contain_text("Line 8")
        watched.check()


def test_rows_are_left_out_and_swapped_for_a_job(browser: Browser, api: RunningApi, dataset_id: str) -> None:
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/datasets/{dataset_id}")
        page.get_by_role("article", name="Line 1", exact=True).get_by_label("Leave out").check()
        page.get_by_role("article", name="Line 2", exact=True).get_by_label("Swap chosen and rejected").check()
        page.get_by_role("link", name="New job with these changes").click()
        expect(page.locator("#f-exclude_lines")).to_have_value("1")
        expect(page.locator("#f-swap_lines")).to_have_value("2")
        page.get_by_role("button", name="Start the job").click()
        expect(page.locator("h1 .badge")).to_have_text("queued")
        spec = api.http.get(f"/jobs/{page.url.rpartition('/')[2]}").json()["spec"]
        assert (spec["dataset_id"], spec["exclude_lines"], spec["swap_lines"]) == (dataset_id, [1], [2])
        page.goto(f"/ui/#/datasets/{dataset_id}")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        refusal = page.get_by_role("alert")
        expect(refusal).to_contain_text("“Numbered” was not deleted")
        refusal.get_by_role("link", name="Show the jobs that use it").click()
        expect(page.locator("table.jobs tbody tr")).to_have_count(1)
        assert [text for text in watched.complaints if "409" not in text] == []


def test_tokens_are_shown_as_a_model_sees_them(browser: Browser, api: RunningApi, dataset_id: str) -> None:
    make_tiny_model(api.settings.models_dir / "tiny-llama")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/datasets/{dataset_id}")
        page.get_by_label("Seen by").select_option("tiny-llama")
        chosen = page.locator(".row-view .chosen").first
        expect(chosen.locator(".token.is-scored").first).to_be_visible()
        assert "".join(chosen.locator(".token.is-scored").all_inner_texts()).startswith("Good answer 1.")
        expect(page.locator(".row-view .prompt .is-scored")).to_have_count(0)
        expect(page.get_by_role("region", name="Tokens of tiny-llama")).to_contain_text("Prompt and longest response")
        page.goto(f"/ui/#/new?dataset_id={dataset_id}&base_model=tiny-llama")
        page.get_by_text("Data, validation and length").click()
        page.locator("#f-max_length").fill("8")
        expect(page.get_by_text("No row of this dataset can be trained on: the job would fail.")).to_be_visible()
        watched.check()
