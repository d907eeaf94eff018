"""Pairs out of judged answers: best against worst, all above a margin, against the file's answer, or the best alone.

Judges that score give each answer a number; of others there are verdicts on two answers, and nothing is inferred from
them about answers that were not compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any

import orjson

from core.domain.judging.judgements import PairVerdict

MAX_PAIRS_PER_PROMPT = 64


class PairingKind(StrEnum):
    BEST_WORST = "best_worst"
    """The best answer of a prompt against the worst."""
    ALL = "all"
    """Every two answers of a prompt that differ by more than the margin, the clearest first."""
    FILE = "file"
    """Each answer against the file's own, whichever the judge finds better."""
    BEST = "best"
    """The best answer alone, to be imitated (rejection sampling)."""


@dataclass(frozen=True, kw_only=True)
class PairingRule:
    kind: PairingKind
    margin: float = 0.0
    """Scores must differ by more; of verdicts without scores it is 0."""
    max_per_prompt: int = 1
    min_score: float | None = None
    """`best`: the least score of an answer; None: it must be better than another one by more than the margin."""


@dataclass(frozen=True, kw_only=True)
class JudgedAnswers:
    """Two answers to one prompt, as a judge has found them."""

    first: Any
    second: Any
    verdict: PairVerdict | None
    """None: the judge could not tell."""
    confidence: float | None = None
    scores: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class MadePair:
    """What is learnt of a prompt: a better answer, and the worse one that it is held against."""

    chosen: Any
    rejected: Any
    """None of `best`."""
    scores: tuple[float, float | None] | None
    """Those of chosen and rejected; None where the judge gives none."""


def make_pairs(answers: Sequence[JudgedAnswers], rule: PairingRule) -> list[MadePair]:
    """Return the pairs of one prompt, the clearest first; equal ones in the order of the answers.

    Empty answers are left out, for nothing can be learnt from them.
    """
    if rule.kind is not PairingKind.FILE and any(pair.scores for pair in answers):
        return _of_scores(_scored(answers), rule)
    return _of_verdicts([pair for pair in answers if not (is_empty(pair.first) or is_empty(pair.second))], rule)


def _of_verdicts(answers: Sequence[JudgedAnswers], rule: PairingRule) -> list[MadePair]:
    found: list[tuple[float, int, MadePair]] = []
    for place, pair in enumerate(answers):
        if pair.verdict not in (PairVerdict.FIRST, PairVerdict.SECOND):
            continue
        sides = (pair.first, pair.second) if pair.verdict is PairVerdict.FIRST else (pair.second, pair.first)
        scores = pair.scores
        if scores is not None and pair.verdict is PairVerdict.SECOND:
            scores = scores[::-1]
        if scores is not None and not scores[0] - scores[1] > rule.margin:
            continue
        clearness = scores[0] - scores[1] if scores is not None else (pair.confidence or 0.0)
        is_best = rule.kind is PairingKind.BEST
        made = MadePair(chosen=sides[0], rejected=None if is_best else sides[1], scores=scores)
        found.append((-clearness, place, made))
    found.sort(key=lambda item: item[:2])
    number = 1 if rule.kind in (PairingKind.BEST_WORST, PairingKind.BEST) else rule.max_per_prompt
    return [made for _, _, made in found[:number]]


def _of_scores(answers: Sequence[tuple[Any, float]], rule: PairingRule) -> list[MadePair]:
    """Pair different answers with their scores."""
    if not answers:
        return []
    best = max(range(len(answers)), key=lambda place: (answers[place][1], -place))
    worst = min(range(len(answers)), key=lambda place: (answers[place][1], place))
    gap = answers[best][1] - answers[worst][1]
    if rule.kind is PairingKind.BEST:
        is_good = gap > rule.margin if rule.min_score is None else answers[best][1] >= rule.min_score
        return [MadePair(chosen=answers[best][0], rejected=None, scores=(answers[best][1], None))] if is_good else []
    if rule.kind is PairingKind.BEST_WORST:
        return [_pair(answers, best, worst)] if gap > rule.margin else []
    found = []
    for one, other in combinations(range(len(answers)), 2):
        difference = answers[one][1] - answers[other][1]
        if abs(difference) > rule.margin:
            better, worse = (one, other) if difference > 0 else (other, one)
            found.append((-abs(difference), better, worse))
    return [_pair(answers, better, worse) for _, better, worse in sorted(found)[: rule.max_per_prompt]]


def _pair(answers: Sequence[tuple[Any, float]], better: int, worse: int) -> MadePair:
    (chosen, high), (rejected, low) = answers[better], answers[worse]
    return MadePair(chosen=chosen, rejected=rejected, scores=(high, low))


def _scored(answers: Sequence[JudgedAnswers]) -> list[tuple[Any, float]]:
    """Return the different answers that are not empty and have a score, each once, in their order."""
    known: dict[bytes, tuple[Any, float]] = {}
    for pair in answers:
        for answer, score in zip((pair.first, pair.second), pair.scores or (), strict=False):
            if not is_empty(answer):
                known.setdefault(orjson.dumps(answer), (answer, score))
    return list(known.values())


def is_empty(answer: Any) -> bool:
    """Tell whether an answer says nothing."""
    text = answer if isinstance(answer, str) else "".join(str(message["content"]) for message in answer)
    return not text.strip()
