"""What the lint counts, against a count of our own."""

import random
from collections import Counter
from typing import Any

import pytest

from core.datasets.lint.near_duplicates import similarity
from core.datasets.options import Limits

from .conftest import Check

WORDS = [f"word{number}" for number in range(400)]


def texts(rng: random.Random, num_words: int = 40) -> str:
    return " ".join(rng.choices(WORDS, k=num_words))


def random_pairs(count: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {"prompt": texts(rng, 12), "chosen": texts(rng, rng.randint(5, 60)), "rejected": texts(rng, rng.randint(5, 60))}
        for _ in range(count)
    ]


def test_clean_rows_have_no_findings(check: Check) -> None:
    checked = check(random_pairs(2_000))
    assert checked.codes == {}
    duplicates = checked.result.report["statistics"]["duplicates"]
    assert duplicates["distinct_prompts"] == duplicates["near_duplicates_checked_rows"] == 2_000


def test_duplicates_and_reversals_are_found_exactly(check: Check) -> None:
    rows = random_pairs(3_000)
    rng = random.Random(2)
    for index in rng.sample(range(3_000), 150):
        rows.append(rows[index])
    for index in rng.sample(range(3_000), 60):
        row = rows[index]
        rows.append({**row, "chosen": row["rejected"], "rejected": row["chosen"]})
    rng.shuffle(rows)
    seen: set[tuple[str, str, str]] = set()
    repeated, reversed_lines = [], []
    for line, row in enumerate(rows, 1):
        key = (row["prompt"], row["chosen"], row["rejected"])
        opposite = (row["prompt"], row["rejected"], row["chosen"])
        if key in seen:
            repeated.append(line)
        elif opposite in seen:
            reversed_lines.append(line)
        seen.add(key)
    checked = check(rows)
    assert checked.lines("duplicate-row") == repeated
    assert checked.lines("reversed-pair") == reversed_lines
    assert len(repeated) == 150
    assert len(reversed_lines) == 60


def test_near_duplicates_are_found_and_others_are_not(check: Check) -> None:
    """Each text of the copies has two words of sixty replaced."""
    rng = random.Random(4)
    rows = [{name: texts(rng, 60) for name in ("prompt", "chosen", "rejected")} for _ in range(500)]
    originals = rng.sample(range(500), 50)
    for index in originals:
        copy = {}
        for name, text in rows[index].items():
            words = text.split()
            for place in rng.sample(range(60), 2):
                words[place] = "other"
            copy[name] = " ".join(words)
        rows.append(copy)
    found = check(rows).lines("near-duplicate-row")
    assert set(found) <= set(range(501, 551))
    assert len(found) >= 48  # two in a hundred may escape the sketches


def test_near_duplicates_stop_at_their_limit_and_say_so(check: Check) -> None:
    rows = random_pairs(300)
    checked = check([*rows, rows[0]], limits=Limits(max_near_duplicate_rows=100))
    statistics = checked.result.report["statistics"]["duplicates"]
    assert statistics["near_duplicates_checked_rows"] <= 100
    assert checked.lines("duplicate-row") == [301]
    assert checked.codes["near-duplicates-skipped"] == 1


@pytest.mark.parametrize(("longer_wins", "is_biased"), [(0.95, True), (0.05, True), (0.6, False)])
def test_length_bias(check: Check, longer_wins: float, is_biased: bool) -> None:
    rng = random.Random(6)
    rows = []
    for number in range(400):
        short, long = texts(rng, 20), texts(rng, 50)
        chosen, rejected = (long, short) if number < 400 * longer_wins else (short, long)
        rows.append({"prompt": texts(rng, 10), "chosen": chosen, "rejected": rejected})
    checked = check(rows)
    pairs = checked.result.report["statistics"]["pairs"]
    assert pairs["longer_wins_share"] == pytest.approx(longer_wins)
    assert pairs["length_rule_accuracy"] == pytest.approx(max(longer_wins, 1 - longer_wins))
    assert ("length-bias" in checked.codes) == is_biased


def test_lengths_are_exact(check: Check) -> None:
    rows = random_pairs(1_000)
    statistics = check(rows).result.report["statistics"]
    for name in ("prompt", "chosen", "rejected"):
        lengths = sorted(len(row[name]) for row in rows)
        found = statistics["chars"][name]
        assert (found["min"], found["max"]) == (lengths[0], lengths[-1])
        assert (found["p50"], found["p90"], found["p99"]) == (lengths[499], lengths[899], lengths[989])
        assert found["mean"] == pytest.approx(sum(lengths) / 1_000, abs=0.01)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "This is what you have to do with it, and how it was done for the people that are here."),
        ("de", "Das ist nicht mit den Leuten, die auf der Straße sind und wie ich es auch von dem habe."),
        ("ru", "Это очень хороший ответ на вопрос о погоде сегодня."),
        ("zh", "这是一个关于天气的很好的回答。"),
        ("ja", "これは天気についてのとても良い答えです。"),
        ("uk", "Це дуже гарна відповідь на питання про погоду."),
    ],
)
def test_languages_at_a_glance(check: Check, language: str, text: str) -> None:
    rows = [{"prompt": "?", "chosen": f"{text} {number}", "rejected": f"{number}"} for number in range(20)]
    shares = check(rows).result.report["statistics"]["languages"]
    assert max(shares, key=lambda name: shares[name]) == language


def test_refusals_and_repeated_responses(check: Check) -> None:
    rows = random_pairs(100)
    for row in rows[:30]:
        row["rejected"] = "I'm sorry, but I cannot help with that."
    checked = check(rows)
    statistics = checked.result.report["statistics"]
    assert statistics["refusal_shares"] == {"chosen": 0.0, "rejected": 0.3}
    assert statistics["repeated_responses"] == [{"field": "rejected", "num_rows": 30, "first_line": 1}]


def test_similarity_is_the_share_of_word_pairs_in_common() -> None:
    first, second = "a b c d e f g h i j", "a b c d e f g h i x"
    pairs = Counter(zip(first.split(), first.split()[1:], strict=False))
    others = Counter(zip(second.split(), second.split()[1:], strict=False))
    assert similarity(first, second) == len(pairs.keys() & others.keys()) / len(pairs.keys() | others.keys())
    assert similarity(first, first) == 1.0
    assert similarity("", "a") == 0.0
