"""Pairs of judged answers: best against worst, all above a margin, against the file's, the best alone."""

from typing import Any

import pytest

from core.domain.judging.judgements import PairVerdict
from core.domain.judging.pairing import JudgedAnswers, MadePair, PairingKind, PairingRule, make_pairs

FIRST, SECOND, TIE = PairVerdict.FIRST, PairVerdict.SECOND, PairVerdict.TIE


def scored(first: Any, second: Any, high: float, low: float) -> JudgedAnswers:
    verdict = TIE if high == low else FIRST if high > low else SECOND
    return JudgedAnswers(first=first, second=second, verdict=verdict, confidence=1.0, scores=(high, low))


def told(first: Any, second: Any, verdict: PairVerdict | None, confidence: float | None = None) -> JudgedAnswers:
    return JudgedAnswers(first=first, second=second, verdict=verdict, confidence=confidence)


def made(found: list[MadePair]) -> list[tuple[Any, Any]]:
    return [(pair.chosen, pair.rejected) for pair in found]


FOUR = [scored("a", "b", 1.0, 3.0), scored("c", "d", 2.0, 2.5)]


def test_the_best_of_a_prompt_is_held_against_the_worst() -> None:
    found = make_pairs(FOUR, PairingRule(kind=PairingKind.BEST_WORST))
    assert made(found) == [("b", "a")]
    assert found[0].scores == (3.0, 1.0)


@pytest.mark.parametrize(("margin", "number"), [(0.0, 1), (1.99, 1), (2.0, 0)])
def test_a_difference_must_be_above_the_margin(margin: float, number: int) -> None:
    assert len(make_pairs(FOUR, PairingRule(kind=PairingKind.BEST_WORST, margin=margin))) == number


def test_of_equal_scores_the_first_answer_is_taken() -> None:
    pairs = [scored("a", "b", 1.0, 1.0), scored("c", "d", 0.0, 0.0)]
    assert made(make_pairs(pairs, PairingRule(kind=PairingKind.BEST_WORST))) == [("a", "c")]


def test_all_pairs_above_the_margin_come_the_clearest_first() -> None:
    rule = PairingRule(kind=PairingKind.ALL, margin=0.5, max_per_prompt=10)
    assert made(make_pairs(FOUR, rule)) == [("b", "a"), ("d", "a"), ("b", "c"), ("c", "a")]
    assert made(make_pairs(FOUR, PairingRule(kind=PairingKind.ALL, margin=0.5, max_per_prompt=2))) == [
        ("b", "a"),
        ("d", "a"),
    ]


def test_an_answer_that_stands_in_two_pairs_is_one_answer() -> None:
    pairs = [scored("a", "b", 1.0, 0.0), scored("a", "b", 1.0, 0.0)]
    assert made(make_pairs(pairs, PairingRule(kind=PairingKind.ALL, max_per_prompt=10))) == [("a", "b")]


def test_empty_answers_teach_nothing() -> None:
    pairs = [scored("", "b", 9.0, 1.0), scored("c", [{"role": "assistant", "content": " "}], 0.5, 8.0)]
    assert made(make_pairs(pairs, PairingRule(kind=PairingKind.BEST_WORST))) == [("b", "c")]


def test_the_best_answer_is_imitated_where_it_is_better_or_good_enough() -> None:
    equal = [scored("a", "b", 1.0, 1.0)]
    assert make_pairs(equal, PairingRule(kind=PairingKind.BEST)) == []
    good = make_pairs(equal, PairingRule(kind=PairingKind.BEST, min_score=1.0))
    assert made(good) == [("a", None)]
    assert make_pairs(equal, PairingRule(kind=PairingKind.BEST, min_score=1.5)) == []
    assert made(make_pairs(FOUR, PairingRule(kind=PairingKind.BEST, margin=1.0))) == [("b", None)]


def test_against_the_file_the_judge_says_which_side_is_better() -> None:
    pairs = [scored("file", "a", 1.0, 0.0), scored("file", "b", 0.0, 2.0), scored("file", "c", 1.0, 1.0)]
    rule = PairingRule(kind=PairingKind.FILE, max_per_prompt=8)
    found = make_pairs(pairs, rule)
    assert made(found) == [("b", "file"), ("file", "a")]
    assert [pair.scores for pair in found] == [(2.0, 0.0), (1.0, 0.0)]
    assert made(make_pairs(pairs, PairingRule(kind=PairingKind.FILE, margin=1.0, max_per_prompt=8))) == [("b", "file")]


def test_verdicts_without_scores_say_nothing_about_other_pairs() -> None:
    pairs = [
        told("a", "b", FIRST, 0.6),
        told("c", "d", SECOND, 0.9),
        told("e", "f", TIE, 0.5),
        told("g", "h", None),
    ]
    assert made(make_pairs(pairs, PairingRule(kind=PairingKind.BEST_WORST))) == [("d", "c")]
    assert made(make_pairs(pairs, PairingRule(kind=PairingKind.ALL, max_per_prompt=8))) == [("d", "c"), ("a", "b")]
    assert made(make_pairs(pairs, PairingRule(kind=PairingKind.BEST))) == [("d", None)]


def test_without_an_answer_there_is_no_pair() -> None:
    for kind in PairingKind:
        assert make_pairs([], PairingRule(kind=kind, max_per_prompt=8)) == []
