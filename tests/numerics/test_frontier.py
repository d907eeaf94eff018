"""`make frontier`: what it measures, what it says of it, and one run of the smallest size."""

import csv
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from stand_in_judge import stand_in_judge
from stand_in_judge import verdict as judgement
from tiny_models import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from frontier import report  # noqa: E402 - its place is on the path now
from frontier.evaluation import win_rate  # noqa: E402
from frontier.pairs import Drawing, draw_pairs  # noqa: E402
from frontier.policies import Policy, Sample, sequence_kls  # noqa: E402
from frontier.reviews import read_reviews  # noqa: E402
from frontier.scorer import load_scorer, preference  # noqa: E402
from frontier.verdict import standings, verdict  # noqa: E402
from parts import Parts, TimeIsOver  # noqa: E402

from core.training.model.generation import generate  # noqa: E402
from core.training.model.loading import load_causal_lm  # noqa: E402

PROMPTS = ["The fox", "A tip: be", "How do I keep"]
VOWELS = "vowels:score"
RUN_SECONDS = 600


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Policy]:
    folders = [make_tiny_model(tmp_path_factory.mktemp("models") / str(seed), seed=seed) for seed in (0, 1)]
    return Policy(folders[0]), Policy(folders[1])


def test_continuations_in_a_batch_are_those_of_one_alone(policies: tuple[Policy, Policy]) -> None:
    policy, _ = policies
    model = load_causal_lm(policy.model.name_or_path, dtype=torch.float32)
    batch = policy.sample(PROMPTS, max_new_tokens=6, temperature=0)
    for prompt, sample in zip(PROMPTS, batch, strict=True):
        assert sample.prompt_ids == policy.tokenizer(prompt)["input_ids"]
        assert sample.token_ids == generate(model, sample.prompt_ids, 6, [2], keeps_end=True)
        assert sample.is_ended == (2 in sample.token_ids)
    drawn = [policy.sample(PROMPTS, max_new_tokens=6, seed=seed) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_divergence_is_the_sum_over_tokens_of_that_between_distributions(policies: tuple[Policy, Policy]) -> None:
    policy, other = policies
    samples = policy.sample(PROMPTS, max_new_tokens=5)
    expected = [sum(next_token_kl(policy, other, sample, place) for place in range(len(sample.token_ids)))
                for sample in samples]  # fmt: skip
    assert sequence_kls(policy, other, samples) == pytest.approx(expected, rel=1e-4)
    assert sequence_kls(policy, policy, samples) == pytest.approx([0.0] * 3, abs=1e-6)


@torch.no_grad()
def next_token_kl(policy: Policy, other: Policy, sample: Sample, place: int) -> float:
    ids = torch.tensor([[*sample.prompt_ids, *sample.token_ids[:place]]])
    mine, theirs = (item.model(input_ids=ids).logits[0, -1].double().log_softmax(-1) for item in (policy, other))
    return float((mine.exp() * (mine - theirs)).sum())


def write_reviews(path: Path, num: int) -> Path:
    rng = random.Random(0)
    words = ["a", "good", "bad", "film", "about", "the", "sea", "and", "nothing", "else"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "source"])
        for number in range(num):
            text = f"Review {number} says: " + " ".join(rng.choices(words, k=3)) + ".<br /><br />It ends here."
            writer.writerows([[text, 1, "imdb"], [text, 1, "imdb"], [f"Other {number} is short.", 0, "rt"]])
    return path


def test_openings_are_followed_by_whole_sentences_each_once(tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "reviews.csv", 40)
    found = read_reviews(path, 9, seed=0)
    assert 20 < len(found) <= 40
    assert len({review.opening for review in found}) == len(found)
    assert all(2 <= len(review.opening.split()) <= 8 for review in found)
    assert all(review.continuation.startswith(" ") and review.continuation.endswith((".", "here.")) for review in found)
    assert all("<" not in review.continuation for review in found)
    assert found == read_reviews(path, 9, seed=0) != read_reviews(path, 9, seed=1)


def test_preferences_follow_bradley_terry() -> None:
    assert preference(2.0, 2.0) == 0.5
    assert preference(1.0, 0.0) == pytest.approx(0.7310586)
    assert preference(-800.0, 800.0) == 0.0
    assert preference(800.0, -800.0) == 1.0
    assert load_scorer(VOWELS)("aeiou") == 1.0
    judged = win_rate([1.0, 0.0, 2.0], [0.0, 0.0, 3.0])
    assert judged.value == 0.5


def point(step: int, kl: float, rewards: list[float]) -> dict[str, Any]:
    mean = sum(rewards) / len(rewards)
    return {
        "step": step,
        "kl": {"value": kl, "low": kl, "high": kl},
        "reward": {"value": mean, "low": mean, "high": mean},
        "rewards": rewards,
        "ended": 1.0,
    }


def test_the_verdict_compares_with_the_best_that_is_no_further() -> None:
    dpo = {"dpo-0.1": [point(1, 2.0, [1.0, 1.2, 0.9]), point(2, 4.0, [2.0, 2.2, 1.9])]}
    below = {
        "ppo-true-3": [point(1, 1.0, [0.1, 0.2, 0.1]), point(2, 3.0, [0.2, 0.1, 0.2]), point(3, 4.0, [2.1, 2.1, 1.9])]
    }
    found = standings(dpo, below)
    assert [(item.kl, item.beside) for item in found] == [(1.0, None), (3.0, "dpo-0.1"), (4.0, "dpo-0.1")]
    told = verdict(found)
    assert told.startswith("Yes, as far as these points tell")
    assert "more reward beside 1, is not told apart beside 1, and has less beside 0; nearer than 1 of them" in told
    above = standings(dpo, {"ppo-true-6": [point(5, 6.0, [4.0, 4.1, 4.3])]})
    assert verdict(above).startswith("No: DPO does not lie on or above PPO")
    assert "ppo-true-6 step 5 at 6.0 nats" in verdict(above)
    level = standings(dpo, {"ppo-true-3": below["ppo-true-3"][2:]})
    assert verdict(level).startswith("Not decided: no point tells the two apart")
    assert "There is no verdict" in verdict([])
    assert "There is no verdict" in verdict(standings(dpo, {"ppo-true-3": below["ppo-true-3"][:1]}))


def test_the_page_and_the_plot_have_every_run() -> None:
    results = {
        "sft": {"points": [point(0, 0.0, [0.0, 0.1])], "seconds": 10},
        "try-dpo-1e-06": {"points": [point(1, 1.0, [9.0, 9.0])], "learning_rate": 1e-6, "seconds": 10},
        "dpo-0.1": {"points": [point(1, 1.0, [1.0, 1.1]), point(2, 2.0, [0.5, 0.6])], "learning_rate": 1e-6},
        "reference-free": {"points": [point(1, 5.0, [0.4, 0.5])], "learning_rate": 1e-6},
        "pairs": {"num_pairs": 7, "kept": 0.875, "labels_agree_with_reward": 0.8},
    }
    work = {"size": {"name": "tiny", "num_evaluated": 2}, "base_model": "tiny", "seed": 0, "scale": 5.0}
    page = report.page(results, work, {"torch": "2"}, "frontier.svg")
    assert "**PPO with the true reward.** Not run." in page
    assert "| dpo-0.1 | 2 | 1e-06 | 1 | 1.000 (1.000 to 1.000) |" in page
    assert "try-dpo" not in page
    assert "7 pairs (88 % of those drawn" in page
    figure = ElementTree.fromstring(report.figure(results))
    assert len(figure.findall(".//{http://www.w3.org/2000/svg}circle")) == 4


def test_parts_are_run_once_and_of_one_kind_only(tmp_path: Path) -> None:
    runs: list[str] = []

    def run() -> dict[str, Any]:
        runs.append("part")
        return {"value": 1}

    for _ in range(2):
        parts = Parts(tmp_path / "parts")
        parts.claim({"seed": 0})
        assert parts.take("one", run)["value"] == 1
    assert runs == ["part"]
    with pytest.raises(SystemExit, match="other data, settings or code"):
        Parts(tmp_path / "parts").claim({"seed": 1})
    late = Parts(tmp_path / "parts", max_minutes=-1)
    assert late.take("one", run)["value"] == 1
    with pytest.raises(TimeIsOver, match="before two"):
        late.take("two", run)


def test_a_part_that_was_killed_goes_on_behind_its_pieces(tmp_path: Path) -> None:
    runs: list[str] = []

    def measured(name: str) -> dict[str, Any]:
        runs.append(name)
        return {"value": len(runs)}

    def part(parts: Parts, *, is_killed: bool) -> dict[str, Any]:
        first = parts.piece("one", "a", lambda: measured("a"))
        if is_killed:
            raise KeyboardInterrupt
        return {"values": [first["value"], parts.piece("one", "b", lambda: measured("b"))["value"]]}

    parts = Parts(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        parts.take("one", lambda: part(parts, is_killed=True))
    again = Parts(tmp_path / "parts")
    assert again.take("one", lambda: part(again, is_killed=False))["values"] == [1, 2]
    assert runs == ["a", "b"]
    assert not (tmp_path / "parts" / "pieces" / "one").exists()


def test_pairs_are_labelled_once_and_those_that_say_nothing_are_left_out(policies: tuple[Policy, Policy]) -> None:
    policy, _ = policies
    how = Drawing(reward=load_scorer(VOWELS), max_new_tokens=6, needs_end=False, seeds=(1, 2))
    found = draw_pairs(policy, PROMPTS, how)
    assert found == draw_pairs(policy, PROMPTS, how)
    drawn = [policy.sample(PROMPTS, max_new_tokens=6, seed=seed) for seed in how.seeds]
    pairs = [pair for pair in found if pair is not None]
    assert pairs
    for pair in pairs:
        place = PROMPTS.index(pair.opening)
        assert {pair.chosen, pair.rejected} == {samples[place].text for samples in drawn}
        rewards = [how.reward(pair.opening + text) for text in (pair.chosen, pair.rejected)]
        assert pair.agrees == (rewards[0] >= rewards[1])
    assert draw_pairs(policy, PROMPTS, replace(how, seeds=(1, 1))) == [None] * len(PROMPTS)


def test_the_page_has_win_rates_at_each_temperature_and_says_what_is_missing() -> None:
    rate = {"value": 0.75, "low": 0.5, "high": 1.0, "num_openings": 4}
    rates = [{"temperature": heat, "against_reference": rate, "against_chosen": None} for heat in (0.0, 0.5)]
    results = {
        "sft": {"points": [point(0, 0.0, [0.0, 0.1])], "seconds": 10},
        "temperatures-dpo": {"run": "dpo-0.1", "rates": rates, "seconds": 10},
        "judged-dpo": {"run": "dpo-0.1", "rates": rates[:1], "judge": "stand-in"},
    }
    work = {"size": {"name": "tiny", "num_evaluated": 2}, "base_model": "tiny", "seed": 0, "scale": 5.0}
    page = report.page(results, work, {"torch": "2"}, "frontier.svg", ["reward", "ipo"])
    assert "**Not run:** reward, ipo." in page
    assert "| dpo-0.1 | 0.5 | 0.750 (0.500 to 1.000), n=4 | no pair |" in page
    assert page.count("| dpo-0.1 | 0 |") == 2
    assert "Judge: stand-in" in page


def command(folder: Path, *arguments: str) -> list[str]:
    model = make_tiny_model(folder / "models" / "tiny")
    reviews = write_reviews(folder / "reviews.csv", 60)
    program = ROOT / "benchmarks" / "frontier" / "run.py"
    words = [sys.executable, str(program), "--size", "tiny", "--base-model", str(model), "--reviews", str(reviews)]
    return [*words, "--folder", str(folder / "work"), "--scorer", VOWELS, *arguments]


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "support")} | environment
    return subprocess.Popen(
        command(folder, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
    )


def frontier(folder: Path, *arguments: str, **environment: str) -> str:
    process = start(folder, *arguments, **environment)
    try:
        printed, _ = process.communicate(timeout=RUN_SECONDS)
    finally:
        process.terminate()  # it ends its service, too
        process.wait()
    assert process.returncode == 0, printed
    return printed


def parts_of(printed: str) -> list[str]:
    """The names of the parts that a run has done."""
    return re.findall(r"^  (\S+): \d+ s$", printed, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(2 * RUN_SECONDS + 60)
def test_a_run_of_the_smallest_size_goes_on_behind_the_last_one(tmp_path: Path) -> None:
    first = frontier(tmp_path, "--only", "sft", "pairs")
    assert parts_of(first) == ["sft", "pairs"]
    second = frontier(tmp_path, "--only", "sft", "pairs", "try-dpo-0.001", "dpo-0.1")
    assert parts_of(second) == ["try-dpo-0.001", "dpo-0.1"]
    found = json.loads((tmp_path / "work" / "parts" / "dpo-0.1.json").read_text())
    assert len(found["points"]) == 2
    assert found["points"][0]["step"] < found["points"][1]["step"]
    assert all(item["kl"]["value"] > 0 for item in found["points"])
    page = (tmp_path / "work" / "report.md").read_text()
    assert "| dpo-0.1 | 2 | 0.001 |" in page
    assert "**Not run:** preferred-ft, unlikelihood, temperatures-dpo, cdpo, ipo, reference-free." in page
    assert (tmp_path / "work" / "frontier.svg").read_text().startswith("<svg")


ALL_PARTS = [
    "sft",
    "pairs",
    "try-dpo-0.001",
    "dpo-0.1",
    "preferred-ft",
    "unlikelihood",
    "try-ppo-0.001",
    "ppo-true-3",
    "reward",
    "ppo-learnt-3",
    "temperatures-dpo",
    "temperatures-ppo-true",
    "temperatures-ppo-learnt",
    "judged-dpo",
    "judged-ppo-true",
    "judged-ppo-learnt",
    "cdpo",
    "ipo",
    "reference-free",
]
PPO_PYTHON = ROOT / ".venv-ppo" / "bin" / "python"
JOB_STATUS = "SELECT status FROM jobs WHERE name = ?"


@pytest.mark.slow
@pytest.mark.timeout(12 * RUN_SECONDS)
@pytest.mark.skipif(not PPO_PYTHON.exists(), reason="`make test-frontier` installs the environment of PPO")
def test_a_run_of_all_parts_that_is_killed_between_and_within_them_ends_as_one_that_is_not(tmp_path: Path) -> None:
    arguments = ("--ppo-python", str(PPO_PYTHON))
    with stand_in_judge(lambda question: judgement("A" if len(question.a) > len(question.b) else "B")) as judge:
        judged = {"PREFTUNE_JUDGE_URL": judge.url, "PREFTUNE_JUDGE_MODEL": "stand-in"}
        judged |= {"PREFTUNE_JUDGE_ALLOWED_HOSTS": "127.0.0.1"}
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        for folder in (whole, broken):
            folder.mkdir()
        assert parts_of(frontier(whole, *arguments, **judged)) == ALL_PARTS
        work = broken / "work"
        for moment in moments_of(work):
            kill(start(broken, *arguments, **judged), moment)
        frontier(broken, *arguments, **judged)
    for name in ALL_PARTS:
        expected, found = (json.loads((folder / "work" / "parts" / f"{name}.json").read_text())
                           for folder in (whole, broken))  # fmt: skip
        for key in ("points", "rates", "chosen", "num_pairs", "kl_by_step", "reward_by_step", "held_out"):
            assert found.get(key) == expected.get(key), f"{name}: {key}"
    page = (work / "report.md").read_text()
    assert "Not run" not in page
    assert "trl of PPO 0.11.4" in page
    assert "Judge: stand-in" in page
    assert not any((work / "ppo").iterdir())


def moments_of(work: Path) -> list[Callable[[], bool]]:
    """When to kill: between parts; while a job trains, is evaluated; within PPO; within the win rates."""
    parts, scratch = work / "parts", work / "ppo" / "try-ppo-0.001"
    return [
        lambda: (parts / "pairs.json").exists(),
        lambda: any((parts / "pieces" / "try-dpo-0.001").glob("*.json")),
        lambda: status_of(work, "preferred-ft") == "running",
        lambda: (scratch / "state.pt").exists() and not (scratch / "told.json").exists(),
        lambda: status_of(work, "reward") == "running",
        lambda: any((parts / "pieces" / "temperatures-dpo").glob("*.json")),
    ]


def status_of(work: Path, name: str) -> str | None:
    """The status of a job of the run's service."""
    path = work / "service" / "data" / "preftune.db"
    if not path.exists():
        return None
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            found = connection.execute(JOB_STATUS, (name,)).fetchone()
        except sqlite3.OperationalError:  # it is being written, or has no tables yet
            return None
    return None if found is None else str(found[0])


def kill(process: subprocess.Popen[str], moment: Callable[[], bool]) -> None:
    """Kill the run at that moment, with nothing of what it has started."""
    try:
        deadline = time.monotonic() + RUN_SECONDS
        while not moment():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()
