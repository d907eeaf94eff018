"""Judgements in a lane of their own: by rules, by rewards, by the operator's language model, or by people."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from core.domain.judging.judgements import JudgeFault, PairVerdict, pair_key
from core.domain.judging.pairing import is_empty
from core.domain.judging.pairwise import Said
from core.failpoints import reach
from core.services.ids import derived_id, make_id
from core.services.judgements import judging, people
from core.services.judgements.judging import Batch, JudgementClaim, OpenPair, Outcome, Tally
from core.services.judgements.language_model import MAX_TRIES, Asked, Budget, LanguageModel, Question
from core.services.judgements.rules import RULES, rule_of
from core.services.requests import scores
from core.services.requests.requests import is_ended
from worker.light.lane import LaneStopping, RequestContext, RequestKind, RequestRefused, refusals

RULE_PAIRS, REWARD_PAIRS, MODEL_PAIRS = 200, 1000, 8
"""Pairs that are judged together: what is lost where the process dies."""
REWARD_CHARS = 2_000_000
"""Characters of pairs that one process scores, or one pair: a slow machine does them within its time limit."""
NUM_ASKING = 4
"""Questions to a language model at a time."""
SCORE_SECONDS = 3600.0
"""Time within which other lanes must have scored a batch of pairs."""
_TICK_SECONDS = 0.2


class PairJudge(Protocol):
    @property
    def num_pairs(self) -> int:
        """Pairs that it judges together."""

    @property
    def gives_scores(self) -> bool:
        """Whether each answer gets a score; if not, two answers that are the same need no judge."""

    def judge(self, pairs: Sequence[OpenPair]) -> Batch:
        """Judge pairs. Raises RequestRefused, LaneStopping, Unavailable."""


def judge_all(claim: JudgementClaim, context: RequestContext) -> None:
    with refusals():
        judge = _judge_of(claim, context)
        while pairs := judging.open_pairs(context.backend, claim, judge.num_pairs):
            context.check()
            equal = [] if judge.gives_scores else [pair for pair in pairs if pair.is_equal]
            asked = [pair for pair in pairs if pair not in equal]
            batch = judge.judge(asked) if asked else Batch(outcomes=[])
            batch.outcomes.extend(map(_tie_of_equals, equal))
            if not judging.record(context.backend, claim, batch):
                raise LaneStopping
            reach("judgement.recorded")
        judging.finish(context.backend, claim)


JUDGEMENTS = RequestKind(judging.claim, judge_all)


def _judge_of(claim: JudgementClaim, context: RequestContext) -> PairJudge:
    kind = claim.judge.kind
    if kind in RULES:
        return RuleJudge(claim)
    if kind == "arena":
        return PeopleJudge(claim, context)
    return RewardJudge(claim, context) if kind == "reward" else ModelJudge(claim, context)


def _tie_of_equals(pair: OpenPair, score: float | None = None) -> Outcome:
    scores = {} if score is None else {"scores": [score, score]}
    return Outcome(
        position=pair.position,
        verdict=PairVerdict.TIE,
        confidence=1.0,
        detail={"reason": "Both answers are the same.", **scores},
    )


class RuleJudge:
    """A rule scores each answer; the higher score is better."""

    num_pairs = RULE_PAIRS
    gives_scores = True

    def __init__(self, claim: JudgementClaim) -> None:
        self._rule = rule_of(claim.judge)
        self._is_length = claim.judge.kind == "length"

    def judge(self, pairs: Sequence[OpenPair]) -> Batch:
        return Batch(outcomes=[self._outcome(pair) for pair in pairs])

    def _outcome(self, pair: OpenPair) -> Outcome:
        first, second = self._rule(_text(pair.first)), self._rule(_text(pair.second))
        if pair.is_equal:
            return _tie_of_equals(pair, first)
        detail: dict[str, Any] = {"scores": [first, second]}
        verdict = _better(first, second)
        if self._is_length and (is_empty(pair.first) or is_empty(pair.second)):
            verdict = _better(not is_empty(pair.first), not is_empty(pair.second))
            detail["reason"] = "An answer that says nothing never wins by its length."
        return Outcome(position=pair.position, verdict=verdict, confidence=1.0, detail=detail)


class PeopleJudge:
    """The votes of an arena on the same pairs."""

    num_pairs = RULE_PAIRS
    gives_scores = False

    def __init__(self, claim: JudgementClaim, context: RequestContext) -> None:
        self._said = people.find_verdicts(context.backend, claim.project_id, str(claim.judge.arena_id))

    def judge(self, pairs: Sequence[OpenPair]) -> Batch:
        outcomes = [self._outcome(pair) for pair in pairs]
        num_faults = sum(outcome.verdict is None for outcome in outcomes)
        return Batch(
            outcomes=outcomes, tally=Tally(faults={JudgeFault.NOT_VOTED.value: num_faults} if num_faults else {})
        )

    def _outcome(self, pair: OpenPair) -> Outcome:
        said = self._said.get(pair_key(pair.prompt, pair.first, pair.second))
        if said is None:
            return Outcome(position=pair.position, verdict=None, detail={"fault": JudgeFault.NOT_VOTED.value})
        detail = {"num_votes": said.num_votes}
        return Outcome(position=pair.position, verdict=said.verdict, confidence=said.agreement, detail=detail)


class RewardJudge:
    """Rewards of a job's policy, as `POST /jobs/{id}/scores` gives them; the scoring lane computes them."""

    num_pairs = REWARD_PAIRS
    gives_scores = True

    def __init__(self, claim: JudgementClaim, context: RequestContext) -> None:
        self._claim = claim
        self._context = context
        self._job_id = str(claim.judge.job_id)

    def judge(self, pairs: Sequence[OpenPair]) -> Batch:
        backend, project_id = self._context.backend, self._claim.project_id
        pairs = _first_of(pairs)
        asked = [
            {"prompt": pair.prompt, "chosen": pair.first, "rejected": pair.second, **pair.context} for pair in pairs
        ]
        suffix = derived_id(self._claim.lease.id, pairs[0].position).partition("_")[2]
        score_id = make_id("score", suffix)  # the same for the same pairs: a successor finds them scored
        scores.create(backend, project_id, self._job_id, {"pairs": asked}, score_id=score_id)
        view = scores.get(backend, project_id, self._job_id, score_id)
        deadline = time.monotonic() + SCORE_SECONDS
        while not is_ended(view):
            self._context.check()
            if time.monotonic() > deadline:
                raise RequestRefused("No worker has scored the pairs within an hour.")
            time.sleep(_TICK_SECONDS)
            view = scores.get(backend, project_id, self._job_id, score_id)
        if view.results is None:
            raise RequestRefused(f"The pairs cannot be scored. {view.error}")
        # A request of an earlier version is about fewer pairs, the first of these; the others stay open.
        outcomes = [_outcome_of_reward(*both) for both in zip(pairs, view.results, strict=False)]
        num_faults = sum(outcome.verdict is None for outcome in outcomes)
        return Batch(
            outcomes=outcomes, tally=Tally(faults={JudgeFault.NOT_SCORED.value: num_faults} if num_faults else {})
        )


def _first_of(pairs: Sequence[OpenPair]) -> Sequence[OpenPair]:
    """Return the first pairs, as many as one process scores."""
    num_chars = 0
    for number, pair in enumerate(pairs):
        num_chars += sum(map(len, map(_text, (pair.prompt, pair.first, pair.second))))
        if number and num_chars > REWARD_CHARS:
            return pairs[:number]
    return pairs


def _outcome_of_reward(pair: OpenPair, result: dict[str, Any]) -> Outcome:
    rewards, share = [result.get("chosen_reward"), result.get("rejected_reward")], result.get("preference_probability")
    first, second = rewards
    if pair.is_equal:
        return _tie_of_equals(pair, first)
    if first is None or second is None:
        detail = {"fault": JudgeFault.NOT_SCORED.value, "reason": str(result.get("error", "A reward is not finite."))}
        return Outcome(position=pair.position, verdict=None, detail=detail)
    return Outcome(
        position=pair.position,
        verdict=_better(first, second),
        confidence=None if share is None else max(share, 1 - share),
        detail={"scores": rewards},
    )


class ModelJudge:
    """The operator's language model, which sees each pair in both orders."""

    num_pairs = MODEL_PAIRS
    gives_scores = False

    def __init__(self, claim: JudgementClaim, context: RequestContext) -> None:
        settings = context.backend.settings
        self._claim = claim
        self._context = context
        self._stop = threading.Event()
        self._model = LanguageModel.of(settings, claim.judge, self._stop.is_set)
        self._most = min(claim.judge.max_requests or settings.judge_max_requests, settings.judge_max_requests)

    def judge(self, pairs: Sequence[OpenPair]) -> Batch:
        backend, model = self._context.backend, self._model
        questions = [model.question(pair, is_swapped=is_swapped) for pair in pairs for is_swapped in (False, True)]
        keys = [model.key_of(question) for question in questions]
        known = judging.find_answers(backend, self._claim, keys)
        new = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
        granted = judging.reserve(backend, self._claim, MAX_TRIES * len(new), self._most) if new else 0
        if granted is None:
            raise LaneStopping
        reach("judgement.reserved")
        budget = Budget(left=granted)
        asked = self._ask(new, budget)
        found = {key: _said(answer) for key, answer in known.items()} | {key: one.said for key, one in asked.items()}
        tally = Tally(num_cached=sum(key in known for key in keys))
        for one in asked.values():
            for fault, number in one.faults.items():
                tally.faults[fault.value] = tally.faults.get(fault.value, 0) + number
        outcomes = []
        for pair, (one_key, other_key) in zip(pairs, zip(keys[::2], keys[1::2], strict=True), strict=True):
            faults = [fault for key in (one_key, other_key) if key in asked for fault in asked[key].faults]
            outcomes.append(_outcome_of_both(pair, found[one_key], found[other_key], faults, tally))
        answers = {key: _kept(one.said) for key, one in asked.items() if one.said is not None}
        return Batch(outcomes=outcomes, tally=tally, num_unused=granted - budget.num_taken, answers=answers)

    def _ask(self, questions: dict[str, Question], budget: Budget) -> dict[str, Asked]:
        """Ask some questions at a time, while the lease is renewed."""
        pool = ThreadPoolExecutor(NUM_ASKING, thread_name_prefix="judge")
        try:
            futures: dict[str, Future[Asked]] = {
                key: pool.submit(self._model.ask, question, budget) for key, question in questions.items()
            }
            while not all(future.done() for future in futures.values()):
                self._context.check()
                wait(futures.values(), timeout=_TICK_SECONDS)
            return {key: future.result() for key, future in futures.items()}
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _outcome_of_both(
    pair: OpenPair, said: Said | None, swapped: Said | None, faults: Sequence[JudgeFault], tally: Tally
) -> Outcome:
    """Return the verdict that both orders give; where they differ, a tie."""
    if said is None or swapped is None:
        fault = faults[-1] if faults else JudgeFault.NONSENSE
        return Outcome(position=pair.position, verdict=None, detail={"fault": fault.value})
    one = {"a": PairVerdict.FIRST, "b": PairVerdict.SECOND, "tie": PairVerdict.TIE}[said.side]
    other = {"a": PairVerdict.SECOND, "b": PairVerdict.FIRST, "tie": PairVerdict.TIE}[swapped.side]
    tally.num_both += 1
    tally.num_consistent += one is other
    tally.first_shown += sum({"a": 1.0, "b": 0.0, "tie": 0.5}[each.side] for each in (said, swapped))
    given = [each.confidence for each in (said, swapped) if each.confidence is not None]
    confidence = (sum(given) / len(given) if given else 1.0) if one is other else 0.5
    detail = {"verdicts": [one.value, other.value], "reason": said.reason, "reason_swapped": swapped.reason}
    return Outcome(
        position=pair.position,
        verdict=one if one is other else PairVerdict.TIE,
        confidence=confidence,
        detail=detail,
    )


def _kept(said: Said) -> dict[str, Any]:
    return {"side": said.side, "reason": said.reason, "confidence": said.confidence}


def _said(answer: dict[str, Any]) -> Said:
    return Said(side=answer["side"], reason=answer["reason"], confidence=answer["confidence"])


def _better(first: float, second: float) -> PairVerdict:
    if first == second:
        return PairVerdict.TIE
    return PairVerdict.FIRST if first > second else PairVerdict.SECOND


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else "".join(str(message["content"]) for message in answer)
