"""People as judges: the votes of an arena on the same pairs."""

from collections import Counter
from dataclasses import dataclass

from core.domain.arenas.arenas import Verdict
from core.domain.judging.judgements import PairVerdict, pair_key
from core.services.arenas import arenas, cutting
from core.services.backend import Backend


@dataclass(frozen=True, kw_only=True)
class PeopleVerdict:
    """What most voters said of a pair; as many on both sides, or most for neither, is a tie."""

    verdict: PairVerdict
    agreement: float
    """Share of the voters who said so, at least a half."""
    num_votes: int


def find_verdicts(backend: Backend, project_id: str, arena_id: str) -> dict[str, PeopleVerdict]:
    """Return the verdicts by the digest of the pair, in either order. Raises ArenaNotFound."""
    arena = backend.database.read(lambda session: arenas.find(session, project_id, arena_id))
    found: dict[str, PeopleVerdict] = {}
    for pair, votes in cutting.judged_pairs(backend, arena):
        counts = Counter(vote.verdict for vote in votes)
        first, second = counts[Verdict.FIRST], counts[Verdict.SECOND]
        sides = [pair.content[side] for side in ("first", "second")]
        verdict = PairVerdict.TIE if first == second else PairVerdict.FIRST if first > second else PairVerdict.SECOND
        num_alike = len(votes) - first - second if verdict is PairVerdict.TIE else max(first, second)
        agreement, prompt = max(0.5, num_alike / len(votes)), pair.content["prompt"]
        swapped = {"first": PairVerdict.SECOND, "second": PairVerdict.FIRST, "tie": PairVerdict.TIE}[verdict.value]
        for said, (one, other) in ((verdict, sides), (swapped, sides[::-1])):
            key = pair_key(prompt, one, other)
            found[key] = PeopleVerdict(verdict=said, agreement=agreement, num_votes=len(votes))
    return found
