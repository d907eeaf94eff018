"""Generations and judgements in a real browser: from a job's page to answers, verdicts, and its win rate by step."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, pairs, serve
from backends import BASE_MODEL, checkpoint_with_policy
from browser import Theme, accessibility_faults, open_page
from played_jobs import learn, publish, start
from played_judging import answer_next, judge_next
from playwright.sync_api import Browser, Locator, Page, expect

from core.domain.judging.judgements import PairVerdict
from core.services.judgements import judging
from core.services.judgements.judging import Batch, Outcome, Tally

PHONE_WIDTH = 390
NUM_ROWS = 60
LONG = "A name that is long enough to need more than one line on a telephone " * 2
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """One server, whose operator has a language model as judge; the test says what it answers."""
    model = {"judge_url": "http://127.0.0.1:9/v1", "judge_model": "judge", "judge_allowed_hosts": "127.0.0.1"}
    with serve(Path(tmp_path_factory.mktemp("judging")), **model) as running:
        yield running


@pytest.fixture(scope="module")
def job(api: RunningApi) -> dict[str, str]:
    """A published job with two checkpoints: names of its policies, and its dataset."""
    dataset_id = api.http.post("/datasets", content=pairs(NUM_ROWS), params={"name": "Sums"}).json()["id"]
    fields = {"dataset_id": dataset_id, "sft": "skip", "validation_fraction": 0.25}
    held = start(api, name="Tuned", **fields)
    learn(api, held, range(1, 21))
    early, late = (checkpoint_with_policy(api.backend, held, step, {"config.json": b"{}"}) for step in (5, 10))
    publish(api, held, {}, {"step": 20, "held_out": None, "training": None})
    name = held.job_id
    return {"id": name, "early": f"{name}@{early}", "late": f"{name}@{late}", "dataset": dataset_id}


def better_with_training(model: int, prompt: int, sample: int) -> str:
    """Answers of one sentence in a third of the prompts, of later models in more of them."""
    is_short = prompt % 3 < 1 + (model > 0) or (model > 1 and prompt % 2 == 0)
    return f"Model {model} on {prompt}, try {sample}." + ("" if is_short else " And a second sentence.")


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def test_from_a_job_to_its_win_rate_by_step(browser: Browser, api: RunningApi, job: dict[str, str]) -> None:
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/jobs/{job['id']}")
        own = page.locator("section", has=page.get_by_role("heading", name="Win rate", exact=True))
        expect(own).to_contain_text("Nothing of this job has been judged yet")
        own.get_by_role("link", name="Generate with checkpoints").click()
        ask_for_answers(page, job)
        answer_next(api.backend, better_with_training)
        expect(page.locator("h1 .badge")).to_have_text("succeeded")
        read_answers(page)
        page.get_by_role("link", name="Judge these answers").click()
        ask_for_verdicts(page)
        for _ in range(3):
            judge_next(api.backend)
        rows = page.locator("tbody tr")
        expect(rows.get_by_text("succeeded")).to_have_count(3)
        expect(rows.first).to_contain_text("Tuned")
        rows.last.get_by_role("link", name="Short: Tuned, DPO step 5").click()
        read_verdicts(page)
        page.goto(f"/ui/#/jobs/{job['id']}")
        chart = page.locator("figure", has=page.get_by_role("heading", name=f"Win rate against {BASE_MODEL}"))
        expect(chart.locator(".plot")).to_have_attribute("aria-label", re.compile("Win rate [67].*At equal length"))
        chart.locator(".plot").focus()
        page.keyboard.press("Home")
        expect(chart.locator(".where")).to_have_text("DPO step 5")
        expect(own.get_by_role("row", name="Published policy")).to_be_visible()
        expect(own.get_by_role("row", name="DPO step 10")).to_be_visible()
        assert accessibility_faults(page) == []
        own.get_by_text("Answers of this job’s policies").click()
        own.get_by_role("link", name="Along the way").click()
        expect(card(page, "Judgements of these answers").get_by_role("row")).to_have_count(4)
        assert [text for text in watched.complaints if "422" not in text] == []


def ask_for_answers(page: Page, job: dict[str, str]) -> None:
    """The form is filled in; a model that is not there is told at its field."""
    models = [page.get_by_label(f"Model {number}", exact=True) for number in range(1, 5)]
    for field, name in zip(models, [BASE_MODEL, job["early"], job["late"], job["id"]], strict=True):
        expect(field).to_have_value(name)
    expect(page.get_by_label("Where they are from")).to_have_value("held_out_of")
    page.get_by_label("Answers of each model to each prompt").fill("2")
    page.get_by_label("Name", exact=True).fill("Along the way")
    models[2].fill("nobody")
    page.get_by_role("button", name="Start").click()
    expect(models[2]).to_be_focused()
    expect(models[2]).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("nobody", exact=False).first).to_be_visible()
    assert accessibility_faults(page) == []
    models[2].fill(job["late"])
    page.get_by_role("button", name="Start").click()
    expect(page.locator("h1 .badge")).to_have_text("queued")


def read_answers(page: Page) -> None:
    answers = card(page, "Answers by prompt")
    prompts = answers.get_by_role("article")
    expect(prompts).to_have_count(10)
    expect(prompts.first).to_contain_text("Tuned, DPO step 10, sample 2")
    expect(prompts.first.locator(".text")).to_have_count(1 + 4 * 2)
    answers.get_by_role("button", name="Show more prompts").click()
    expect(prompts).to_have_count(15)
    answers.get_by_label("Tuned, DPO step 5").uncheck()
    expect(prompts.first.locator(".text")).to_have_count(1 + 3 * 2)
    answers.get_by_role("searchbox").fill("ON 7, TRY 1")
    expect(prompts).to_have_count(1)
    expect(prompts.first).to_have_attribute("aria-label", "Prompt 8")
    answers.get_by_role("searchbox").fill("nothing like it")
    expect(answers.get_by_text("No prompt and no answer has this text.")).to_be_visible()
    answers.get_by_role("searchbox").fill("")
    expect(prompts).to_have_count(10)
    assert accessibility_faults(page) == []


def ask_for_verdicts(page: Page) -> None:
    """Three models against the one that they began with; a rule that cannot be is told at its field."""
    expect(page.get_by_label("Against")).to_have_value(BASE_MODEL)
    expect(page.get_by_label("Tuned, DPO step 5")).to_be_checked()
    expect(page.get_by_text("3 judgements, one for each model.")).to_be_visible()
    page.get_by_label("Who judges").select_option("regex")
    pattern = page.get_by_label("Regular expression", exact=True)
    pattern.fill("(")
    page.get_by_role("button", name="Start").click()
    expect(pattern).to_be_focused()
    expect(page.get_by_text("unclosed group")).to_be_visible()
    pattern.fill(r"^[^.!?]+[.!?]$")
    page.get_by_label("Name", exact=True).fill("Short")
    assert accessibility_faults(page) == []
    page.get_by_role("button", name="Start").click()
    expect(page.locator("tbody tr").get_by_text("queued")).to_have_count(3)


def read_verdicts(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_contain_text("Short: Tuned, DPO step 5")
    expect(page.locator(".notice").first).to_contain_text("Tuned, DPO step 5")
    rates = card(page, "Win rate of Tuned, DPO step 5")
    expect(rates.get_by_role("row", name="Raw")).to_contain_text("15 prompts, 20 ties")
    expect(rates.get_by_role("row", name="At equal length")).to_be_visible()
    found = card(page, "Pairs")
    rows = found.get_by_role("article")
    expect(rows).to_have_count(10)
    found.get_by_role("combobox", name="Verdict").select_option("first")
    expect(rows.first.locator(".badge")).to_have_text("Tuned, DPO step 5 is better")
    expect(rows.first).to_contain_text("Scores: Tuned, DPO step 5 1, tiny 0")
    found.get_by_role("combobox", name="Verdict").select_option("failed")
    expect(found.get_by_text("No such pair so far.")).to_be_visible()
    found.get_by_role("combobox", name="Verdict").select_option("")
    found.get_by_role("searchbox").fill("model 1 on 3, TRY 1")
    expect(rows).to_have_count(1)
    assert accessibility_faults(page) == []


def test_what_a_language_model_says_and_what_goes_wrong_is_told(browser: Browser, api: RunningApi) -> None:
    rows = [{"prompt": f"{HOSTILE} {n}?", "chosen": f"Good {HOSTILE} {n}.", "rejected": f"Bad {n}."} for n in range(12)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    dataset_id = api.http.post("/datasets", content=content, params={"name": "Hostile"}).json()["id"]
    body = {"dataset_id": dataset_id, "judge": {"kind": "model", "criteria": "Short."}, "name": HOSTILE}
    made = api.http.post("/judgements", json=body).json()
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto(f"/ui/#/judgements/{made['id']}")
        expect(page.get_by_text("Waits for a worker.")).to_be_visible()
        claimed = judging.claim(api.backend, 60)
        assert claimed is not None
        judging.record(api.backend, claimed, said_by_a_model())
        expect(page.get_by_text("3 of 12 pairs")).to_be_visible()
        expect(card(page, "Faults").get_by_role("row", name="Timed out")).to_contain_text("3")
        order = page.locator("section", has=page.get_by_role("heading", name="Order of the answers"))
        expect(order).to_contain_text("1 (50 %); the others count as ties")
        expect(order).to_contain_text("75.0 %; 50 % is no bias")
        rest = judging.open_pairs(api.backend, claimed, 100)
        found = [Outcome(position=pair.position, verdict=PairVerdict.FIRST, confidence=0.8) for pair in rest]
        judging.record(api.backend, claimed, Batch(outcomes=found))
        judging.finish(api.backend, claimed)
        expect(page.get_by_text("The judge says what the file says in 9")).to_be_visible()
        expect(card(page, "Faults")).to_contain_text("1 of 12 pairs have no verdict")
        pair = page.get_by_role("article", name="Pair 2")
        expect(pair).to_contain_text("Reason with the answers swapped: B is shorter.")
        expect(pair).to_contain_text("so it counts as a tie")
        expect(page.get_by_role("article", name="Pair 3")).to_contain_text("did not answer in time")
        page.get_by_role("link", name="New judgement like this").click()
        expect(page.get_by_label("What makes an answer better")).to_have_value("Short.")
        page.get_by_label("Who judges").select_option("length")
        page.get_by_label("Better", exact=True).select_option("longer")
        page.get_by_role("button", name="Start").click()
        expect(page.locator("h1 .badge")).to_have_text("queued")
        judge_next(api.backend)
        expect(card(page, "Agreement with other judges").get_by_role("row", name=HOSTILE)).to_contain_text("11")
        page.get_by_role("link", name="New job on the verdicts").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("New job")
        watched.check()


def said_by_a_model() -> Batch:
    """Verdicts on three pairs: alike in both orders, not alike, and none."""
    both = {"verdicts": ["first", "first"], "reason": "A is shorter.", "reason_swapped": "B is shorter."}
    outcomes = [
        Outcome(position=1, verdict=PairVerdict.FIRST, confidence=0.9, detail=both),
        Outcome(position=2, verdict=PairVerdict.TIE, confidence=0.5, detail=both | {"verdicts": ["first", "second"]}),
        Outcome(position=3, verdict=None, detail={"fault": "timed_out"}),
    ]
    return Batch(outcomes=outcomes, tally=Tally(faults={"timed_out": 3}, num_both=2, num_consistent=1, first_shown=3.0))


def test_one_is_cancelled_and_deleted_and_lists_say_what_they_lack(browser: Browser, api: RunningApi) -> None:
    asked = {"models": [BASE_MODEL], "prompts": ["Why?", "How?"], "num_samples": 40, "name": "To be dropped"}
    made = api.http.post("/generations", json=asked).json()
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/judgements?job_id=job_none")
        expect(page.get_by_role("heading", name="No such judgements")).to_be_visible()
        page.get_by_role("link", name="Show all").click()
        page.get_by_role("link", name="Generations", exact=True).click()
        answer_next(api.backend, lambda _model, _prompt, sample: None if sample == 1 else "So.", num_parts=1)
        row = page.get_by_role("row", name="To be dropped")
        expect(row).to_contain_text("64/80")
        expect(row).to_contain_text("2 without an answer")
        row.get_by_role("link", name="To be dropped").click()
        expect(page.get_by_text("2 answers could not be given")).to_be_visible()
        expect(page.get_by_text("prompt 2: The prompt is too long.")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel the generation").click()
        expect(page.locator("h1 .badge")).to_have_text("cancelled")
        page.get_by_role("link", name="New generation like this").click()
        expect(page.get_by_label("Answers of each model to each prompt")).to_have_value("40")
        page.go_back()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete the generation").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Generations")
        expect(page.get_by_role("row", name="To be dropped")).to_have_count(0)
        watched.check()
    assert api.http.get(f"/generations/{made['id']}").status_code == 404


@pytest.fixture(scope="module")
def pages(api: RunningApi, job: dict[str, str]) -> list[str]:
    """Every page of judging, with names that are long."""
    asked = {"models": [BASE_MODEL, job["id"], job["early"]], "held_out_of": job["id"], "num_samples": 5, "name": LONG}
    generation = api.http.post("/generations", json=asked).json()["id"]
    answer_next(
        api.backend, lambda *place: "Averylongwordwithoutanyblank" * 20 + f"{place} " + better_with_training(*place)
    )
    dataset_id = api.http.get(f"/generations/{generation}").json()["dataset_id"]
    judged = {"dataset_id": dataset_id, "models": [job["id"], BASE_MODEL], "judge": {"kind": "length"}, "name": LONG}
    judgements = [api.http.post("/judgements", json=judged).json()["id"] for _ in range(2)]
    for _ in judgements:
        judge_next(api.backend)
    lists = ["generations", "judgements", f"generations/new?job={job['id']}", f"judgements/new?dataset_id={dataset_id}"]
    return [
        *lists,
        f"generations/{generation}",
        f"judgements/{judgements[0]}",
        f"datasets/{dataset_id}",
        f"jobs/{job['id']}",
    ]


@pytest.mark.parametrize(("theme", "width"), [("light", PHONE_WIDTH), ("dark", 1280)])
def test_pages_fit_the_screen_and_are_accessible(
    browser: Browser, api: RunningApi, pages: list[str], theme: Theme, width: int
) -> None:
    with open_page(browser, api.url, theme=theme, width=width) as watched:
        for where in pages:
            watched.page.goto(f"/ui/#/{where}")
            expect(watched.page.locator(f"main[data-page='/{where.partition('?')[0]}'] h1")).to_be_visible()
            expect(watched.page.locator(".spinner")).to_have_count(0)
            assert watched.page.evaluate("document.documentElement.scrollWidth") <= width, where
            assert accessibility_faults(watched.page) == [], where
        watched.check()
