"""Scores of rules, of two answers that are the same too."""

from core.database.tables.judgements import Judgement
from core.domain.judging.judgements import Judge
from core.domain.judging.pairing import JudgedAnswers, PairingKind, PairingRule, make_pairs
from core.services.judgements.judging import JudgementClaim, OpenPair
from core.services.requests.requests import RequestLease
from worker.light.judging import RuleJudge


def test_the_best_answer_is_found_though_it_came_twice() -> None:
    lease = RequestLease(table=Judgement, id="judge_1", token="t")
    judge = Judge(kind="length")
    pairs = [
        OpenPair(position=1, prompt="Question?", first="Yes.", second="Yes."),
        OpenPair(position=2, prompt="Question?", first="Yes, yes.", second="Yes, yes, yes."),
    ]
    outcomes = RuleJudge(JudgementClaim(lease=lease, project_id="p", judge=judge)).judge(pairs).outcomes
    assert [(outcome.verdict, outcome.detail["scores"]) for outcome in outcomes] == [
        ("tie", [-4.0, -4.0]),
        ("first", [-9.0, -14.0]),
    ]
    answers = [
        JudgedAnswers(first=pair.first, second=pair.second, verdict=outcome.verdict, scores=outcome.detail["scores"])
        for pair, outcome in zip(pairs, outcomes, strict=True)
    ]
    (made,) = make_pairs(answers, PairingRule(kind=PairingKind.BEST_WORST))
    assert (made.chosen, made.rejected) == ("Yes.", "Yes, yes, yes.")
