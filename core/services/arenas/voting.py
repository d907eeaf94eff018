"""Leases and votes: each voter gets pairs of their own for a while, and each vote counts once.

All of it happens under a lock of the arena's row, so that neither a pair is given out twice nor a vote counted twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import arenas as rows
from core.database.tables.arenas import Arena, ArenaPair, ArenaVote
from core.domain.arenas.arenas import Choice, PairState, Verdict, is_swapped, verdict_of
from core.domain.errors import Conflict, NotFound
from core.failpoints import reach
from core.services.access import audit
from core.services.arenas import arenas
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.pages import page_of, read_cursor
from core.services.transactions import deletes, reads, writes
from core.services.views import Page, from_row

LEASE_SECONDS = 600.0
"""How long a pair is a voter's alone."""


class ArenaClosed(Conflict):
    code = "arena-closed"
    title = "The arena is closed"


class PairNotFound(NotFound):
    code = "pair-not-found"
    title = "There is no such pair"


class PairTaken(Conflict):
    code = "pair-taken"
    title = "The pair has its votes, or another voter has it now"


class AlreadyVoted(Conflict):
    code = "already-voted"
    title = "This voter has judged the pair otherwise"


class VoteNotFound(NotFound):
    code = "vote-not-found"
    title = "There is no such vote"


@dataclass(frozen=True, kw_only=True)
class HeldPair:
    """A pair as a voter sees it, without the names of the models."""

    id: str
    position: int
    state: PairState
    prompt: Any
    left: Any
    right: Any


@dataclass(frozen=True, kw_only=True)
class Vote:
    pair_id: str
    voter: str
    choice: Choice
    comment: str | None = None


@dataclass(frozen=True, kw_only=True)
class VoteView:
    id: str
    pair_id: str
    voter: str
    verdict: Choice
    winner: str | None
    """Model, or `chosen` or `rejected` of a file's row; None for a tie and both bad."""
    left: str
    """Model whose answer stood there."""
    right: str
    comment: str | None
    created_at: datetime


@writes
def lease(session: Session, project_id: str, arena_id: str, voter: str, count: int) -> list[HeldPair]:
    """Give a voter pairs to judge, those that the voter has first; none where nothing is left.

    Raises ArenaNotFound, ArenaClosed.
    """
    arena = _lock_open(session, project_id, arena_id)
    rows.delete_expired_leases(session, arena_id)
    held = rows.list_held_pairs(session, arena_id, voter, count)
    if len(held) < count:
        held += rows.list_free_pairs(session, arena, voter, count - len(held))
    for pair in held:
        rows.hold_pair(session, pair, voter, LEASE_SECONDS)
    session.flush()
    reach("arena.leased")
    return [view_pair(arena, pair, voter) for pair in held]


@writes
def release(session: Session, project_id: str, arena_id: str, voter: str, pair_ids: Sequence[str]) -> None:
    """Take pairs back from a voter, so that others get them at once. Raises ArenaNotFound."""
    arenas.lock(session, project_id, arena_id)
    for pair_id in pair_ids:
        rows.release_pair(session, pair_id, voter)


def vote(backend: Backend, project_id: str, arena_id: str, given: Vote, *, vote_id: str | None = None) -> VoteView:
    """Count a vote once, however often it is sent.

    Raises ArenaNotFound, ArenaClosed, PairNotFound, PairTaken, AlreadyVoted.
    """
    chosen = vote_id or new_id("vote")

    def work(session: Session) -> VoteView:
        arena = arenas.lock(session, project_id, arena_id)
        pair = rows.find_pair(session, arena_id, given.pair_id)
        if pair is None or pair.state is not PairState.READY:
            raise PairNotFound(f"There is no pair {given.pair_id} in {arena_id} that can be judged.")
        swapped = is_swapped(int(arena.requested["seed"]), pair.id, given.voter)
        verdict = verdict_of(given.choice, swapped=swapped)
        known = rows.find_vote_of(session, pair.id, given.voter)
        if known is not None:
            if known.verdict is not verdict:
                raise AlreadyVoted(f"{given.voter} has judged {pair.id} otherwise; delete {known.id} to vote again.")
            return _view(arena, known)
        _take_from_lease(session, arena, pair, given.voter)
        row = ArenaVote(
            id=chosen,
            arena_id=arena_id,
            pair_id=pair.id,
            voter=given.voter,
            verdict=verdict,
            is_swapped=swapped,
            comment=given.comment,
            created_at=database_now(),
        )
        session.add(row)
        pair.num_votes += 1
        session.flush()
        session.refresh(row)
        audit.note(session, project_id, "arena.vote", chosen, arena_id=arena_id)
        reach("vote.in_transaction")
        return _view(arena, row)

    found = backend.database.write(work)
    reach("vote.committed")
    return found


def _take_from_lease(session: Session, arena: Arena, pair: ArenaPair, voter: str) -> None:
    """End the voter's lease on a pair that lacks a vote. Raises ArenaClosed, PairTaken."""
    _require_open(arena)
    rows.delete_expired_leases(session, arena.id)
    had_it = rows.release_pair(session, pair.id, voter)
    others = 0 if had_it else rows.count_leases(session, pair.id)
    if pair.num_votes + others >= arena.votes_per_pair:
        raise PairTaken(f"{pair.id} has its votes, or somebody else has it now; ask for another pair.")


@deletes
def retract(session: Session, project_id: str, arena_id: str, vote_id: str) -> None:
    """Delete a vote; its pair is open again. Raises ArenaNotFound, VoteNotFound."""
    arenas.lock(session, project_id, arena_id)
    row = rows.find_vote(session, arena_id, vote_id)
    if row is None:
        raise VoteNotFound(f"There is no vote {vote_id} in {arena_id}.")
    pair = rows.find_pair(session, arena_id, row.pair_id)
    assert pair is not None
    pair.num_votes -= 1
    session.delete(row)
    audit.note(session, project_id, "arena.retract", vote_id, arena_id=arena_id)


@reads
def list_votes(
    session: Session, project_id: str, arena_id: str, *, limit: int = 20, cursor: str | None = None
) -> Page[VoteView]:
    """Return votes, newest first. Raises ArenaNotFound."""
    arena = arenas.find(session, project_id, arena_id)
    found = [row for row, _ in rows.list_votes(session, arena_id, before=read_cursor(cursor), limit=limit + 1)]
    return page_of(found, limit, [_view(arena, row) for row in found[:limit]])


def view_pair(arena: Arena, pair: ArenaPair, voter: str) -> HeldPair:
    sides = (pair.content.get("first"), pair.content.get("second"))
    left, right = reversed(sides) if is_swapped(int(arena.requested["seed"]), pair.id, voter) else sides
    return from_row(HeldPair, pair, prompt=pair.content["prompt"], left=left, right=right)


def _lock_open(session: Session, project_id: str, arena_id: str) -> Arena:
    arena = arenas.lock(session, project_id, arena_id)
    _require_open(arena)
    return arena


def _require_open(arena: Arena) -> None:
    if not arena.is_open:
        raise ArenaClosed(f"{arena.id} is closed; nobody votes in it any more.")


def _view(arena: Arena, row: ArenaVote) -> VoteView:
    models = {Verdict.FIRST: arena.first_model, Verdict.SECOND: arena.second_model}
    sides = (arena.second_model, arena.first_model) if row.is_swapped else (arena.first_model, arena.second_model)
    choices: dict[Verdict, Choice] = {
        Verdict.TIE: "tie",
        Verdict.BOTH_BAD: "both_bad",
        Verdict.FIRST: "right" if row.is_swapped else "left",
        Verdict.SECOND: "left" if row.is_swapped else "right",
    }
    return from_row(
        VoteView, row, verdict=choices[row.verdict], winner=models.get(row.verdict), left=sides[0], right=sides[1]
    )
