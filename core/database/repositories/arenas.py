"""Rows of arenas: pairs, leases, votes, and the datasets that grow from them."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.arenas import Arena, ArenaLease, ArenaPair, ArenaVote, GrownDataset
from core.domain.arenas.arenas import PairState, Verdict

_SHOWN = (PairState.WAITING, PairState.READY)


def count_open(session: Session, project_id: str) -> int:
    statement = select(func.count()).select_from(Arena).where(Arena.project_id == project_id, Arena.is_open)
    return int(session.scalar(statement) or 0)


def count_states(session: Session, arena_id: str) -> dict[PairState, int]:
    statement = select(ArenaPair.state, func.count()).where(ArenaPair.arena_id == arena_id).group_by(ArenaPair.state)
    return {row[0]: int(row[1]) for row in session.execute(statement)}


def count_decided(session: Session, arena_id: str, votes_per_pair: int) -> int:
    is_decided = (ArenaPair.arena_id == arena_id, ArenaPair.num_votes >= votes_per_pair)
    return int(session.scalar(select(func.count()).select_from(ArenaPair).where(*is_decided)) or 0)


def count_verdicts(session: Session, arena_id: str) -> dict[Verdict, int]:
    statement = select(ArenaVote.verdict, func.count()).where(ArenaVote.arena_id == arena_id)
    return {row[0]: int(row[1]) for row in session.execute(statement.group_by(ArenaVote.verdict))}


def count_voters(session: Session, arena_id: str) -> int:
    statement = select(func.count(ArenaVote.voter.distinct())).where(ArenaVote.arena_id == arena_id)
    return int(session.scalar(statement) or 0)


def find_pair(session: Session, arena_id: str, pair_id: str) -> ArenaPair | None:
    return session.scalar(select(ArenaPair).where(ArenaPair.id == pair_id, ArenaPair.arena_id == arena_id))


def list_held_pairs(session: Session, arena_id: str, voter: str, limit: int) -> list[ArenaPair]:
    """Return the pairs that a voter looks at, in their order."""
    is_held = (ArenaLease.arena_id == arena_id, ArenaLease.voter == voter)
    statement = select(ArenaPair).join(ArenaLease, ArenaLease.pair_id == ArenaPair.id).where(*is_held)
    return list(session.scalars(statement.where(ArenaPair.state.in_(_SHOWN)).order_by(ArenaPair.position).limit(limit)))


def list_free_pairs(session: Session, arena: Arena, voter: str, limit: int) -> list[ArenaPair]:
    """Return pairs that lack votes beside those that others look at, and that the voter has not judged or got."""
    num_leases = select(func.count()).where(ArenaLease.pair_id == ArenaPair.id).scalar_subquery()
    statement = select(ArenaPair).where(
        ArenaPair.arena_id == arena.id,
        ArenaPair.state.in_(_SHOWN),
        ArenaPair.num_votes + num_leases < arena.votes_per_pair,
        ~select(ArenaVote.id).where(ArenaVote.pair_id == ArenaPair.id, ArenaVote.voter == voter).exists(),
        ~select(ArenaLease.pair_id).where(ArenaLease.pair_id == ArenaPair.id, ArenaLease.voter == voter).exists(),
    )
    return list(session.scalars(statement.order_by(ArenaPair.position).limit(limit)))


def delete_expired_leases(session: Session, arena_id: str) -> None:
    is_over = (ArenaLease.arena_id == arena_id, ArenaLease.expires_at < database_now())
    session.execute(delete(ArenaLease).where(*is_over).execution_options(synchronize_session=False))


def hold_pair(session: Session, pair: ArenaPair, voter: str, seconds: float) -> None:
    """Give a pair to a voter, or prolong the lease."""
    lease = session.get(ArenaLease, (pair.id, voter))
    if lease is None:
        lease = ArenaLease(pair_id=pair.id, voter=voter, arena_id=pair.arena_id, expires_at=database_after(seconds))
        session.add(lease)
    lease.expires_at = database_after(seconds)


def release_pair(session: Session, pair_id: str, voter: str) -> bool:
    """Take a pair back from a voter; returns False where the voter had it not."""
    statement = delete(ArenaLease).where(ArenaLease.pair_id == pair_id, ArenaLease.voter == voter)
    found = session.execute(statement.returning(ArenaLease.pair_id).execution_options(synchronize_session=False))
    return found.first() is not None


def count_leases(session: Session, pair_id: str) -> int:
    return int(session.scalar(select(func.count()).where(ArenaLease.pair_id == pair_id)) or 0)


def find_vote_of(session: Session, pair_id: str, voter: str) -> ArenaVote | None:
    return session.scalar(select(ArenaVote).where(ArenaVote.pair_id == pair_id, ArenaVote.voter == voter))


def find_vote(session: Session, arena_id: str, vote_id: str) -> ArenaVote | None:
    return session.scalar(select(ArenaVote).where(ArenaVote.id == vote_id, ArenaVote.arena_id == arena_id))


def list_votes(session: Session, arena_id: str, *, before: str | None, limit: int) -> list[tuple[ArenaVote, ArenaPair]]:
    """Return votes older than the id `before` with their pairs, newest first."""
    statement = select(ArenaVote, ArenaPair).join(ArenaPair, ArenaPair.id == ArenaVote.pair_id)
    statement = statement.where(ArenaVote.arena_id == arena_id)
    if before is not None:
        statement = statement.where(ArenaVote.id < before)
    return [(vote, pair) for vote, pair in session.execute(statement.order_by(ArenaVote.id.desc()).limit(limit))]


def list_voted_pairs(session: Session, arena_id: str, *, after: int, limit: int) -> list[ArenaPair]:
    """Return pairs with votes, in their order, behind the position `after`."""
    has_votes = (ArenaPair.arena_id == arena_id, ArenaPair.num_votes > 0, ArenaPair.position > after)
    return list(session.scalars(select(ArenaPair).where(*has_votes).order_by(ArenaPair.position).limit(limit)))


def votes_of(session: Session, pair_ids: Sequence[str]) -> list[ArenaVote]:
    return list(session.scalars(select(ArenaVote).where(ArenaVote.pair_id.in_(pair_ids)).order_by(ArenaVote.id)))


def delete_arena(session: Session, arena_id: str) -> None:
    for table in (ArenaVote, ArenaLease, ArenaPair):
        statement = delete(table).where(table.arena_id == arena_id)
        session.execute(statement.execution_options(synchronize_session=False))
    grown = delete(GrownDataset).where(GrownDataset.source == arena_id)
    session.execute(grown.execution_options(synchronize_session=False))
    session.execute(delete(Arena).where(Arena.id == arena_id).execution_options(synchronize_session=False))
    session.expunge_all()


def find_grown(session: Session, project_id: str, source: str) -> GrownDataset | None:
    return session.get(GrownDataset, (project_id, source))
