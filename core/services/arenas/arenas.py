"""Arenas as users handle them: create, get, list, close, delete; their pairs are drawn when they are made."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import orjson
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import arenas as rows
from core.database.repositories import owned
from core.database.tables.arenas import Arena, ArenaPair
from core.domain.arenas.arenas import ROW_SIDES, ArenaRequest, ArenaSampling, Interval, PairState, Verdict, win_rate
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import Conflict, FieldError, InvalidRequest, NotFound, present
from core.services.access import audit, quotas
from core.services.backend import Backend
from core.services.chat import served_models
from core.services.datasets import datasets
from core.services.datasets.contents import row_lines
from core.services.datasets.drawing import MAX_ROWS_READ, distinct, draw_rows, prompt_of
from core.services.ids import derived_id, new_id
from core.services.pages import page_of, read_cursor
from core.services.transactions import deletes, reads, writes
from core.services.views import Page, from_row
from core.storage import keys

MAX_OPEN = 50
"""Arenas of a project in which people can vote."""
MAX_BYTES = 64 * 1024**2
"""Prompts, and answers of rows, of one arena: they are in the database."""


class ArenaNotFound(NotFound):
    code = "arena-not-found"
    title = "There is no such arena"


class TooManyArenas(Conflict):
    code = "too-many-arenas"
    title = "The project has as many open arenas as it may"


@dataclass(frozen=True, kw_only=True)
class ModelStanding:
    """How often a model won. A tie, and both bad, count half."""

    model: str
    wins: int
    losses: int
    win_rate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ArenaView:
    id: str
    name: str | None
    is_open: bool
    source: str | None
    num_pairs: int
    num_decided: int
    num_equal: int
    num_failed: int
    num_votes: int
    num_voters: int
    num_ties: int
    num_both_bad: int
    votes_per_pair: int
    standing: list[ModelStanding]
    dataset_id: str | None
    requested: dict[str, Any]
    metadata: dict[str, str]
    created_at: datetime


def create(backend: Backend, project_id: str, request: ArenaRequest, *, arena_id: str | None = None) -> ArenaView:
    """Make an arena with its pairs; models answer when pairs are asked for.

    Raises InvalidRequest naming the fault, TooManyArenas, StorageQuotaExceeded. With an `arena_id` chosen before (see
    `idempotency`), a repeated call answers the arena that is there.
    """
    chosen = arena_id or new_id("arena")
    if arena_id is not None and backend.database.read(lambda session: owned.find(session, Arena, project_id, chosen)):
        return get(backend, project_id, chosen)
    if request.models is not None:
        require_length(backend, request.sampling)
    served_models.require_all(backend, project_id, request.models or ())
    source, contents = _draw(backend, project_id, request)
    if not contents:
        fault = "holds no pair that two answers could be compared on"
        raise InvalidRequest(f"/dataset_id: {fault}.", errors=[FieldError("/dataset_id", fault)])
    num_bytes = sum(len(orjson.dumps(content)) for content in contents)
    if num_bytes > MAX_BYTES:
        fault = f"{len(contents)} pairs have {num_bytes:,} bytes, and an arena holds {MAX_BYTES:,}; draw fewer"
        raise InvalidRequest(f"/num_pairs: {fault}.", errors=[FieldError("/num_pairs", fault)])

    def work(session: Session) -> None:
        if owned.find(session, Arena, project_id, chosen) is not None:
            return
        if rows.count_open(session, project_id) >= MAX_OPEN:
            raise TooManyArenas(f"{MAX_OPEN} arenas are open; close or delete one.")
        quotas.require_room(session, project_id, num_bytes)
        arena = _new_arena(project_id, chosen, request, source)
        arena.num_pairs, arena.num_bytes = len(contents), num_bytes
        session.add(arena)
        session.flush()
        session.add_all(_new_pair(arena, position, content) for position, content in enumerate(contents, 1))
        session.flush()
        audit.note(session, project_id, "arena.create", chosen, num_pairs=len(contents))

    backend.database.write(work)
    return get(backend, project_id, chosen)


@reads
def get(session: Session, project_id: str, arena_id: str) -> ArenaView:
    return view(session, find(session, project_id, arena_id))


@reads
def list_page(session: Session, project_id: str, *, limit: int = 20, cursor: str | None = None) -> Page[ArenaView]:
    """Return a page of arenas, newest first."""
    found = owned.newest(session, Arena, project_id, before=read_cursor(cursor), limit=limit + 1)
    return page_of(found, limit, [view(session, arena) for arena in found[:limit]])


@writes
def set_open(session: Session, project_id: str, arena_id: str, *, is_open: bool) -> ArenaView:
    """Open or close an arena. Raises ArenaNotFound, TooManyArenas."""
    arena = lock(session, project_id, arena_id)
    if arena.is_open is not is_open:
        if is_open and rows.count_open(session, project_id) >= MAX_OPEN:
            raise TooManyArenas(f"{MAX_OPEN} arenas are open; close or delete one.")
        arena.is_open = is_open
        session.flush()
        audit.note(session, project_id, "arena.patch", arena_id, is_open=is_open)
    return view(session, arena)


@deletes
def delete(session: Session, project_id: str, arena_id: str) -> None:
    """Delete an arena with its pairs and votes; a dataset that was cut from them stays."""
    lock(session, project_id, arena_id)
    rows.delete_arena(session, arena_id)
    audit.note(session, project_id, "arena.delete", arena_id)


def find(session: Session, project_id: str, arena_id: str) -> Arena:
    """Return the arena's row; raises ArenaNotFound."""
    return present(owned.find(session, Arena, project_id, arena_id), ArenaNotFound, f"There is no arena {arena_id}.")


def lock(session: Session, project_id: str, arena_id: str) -> Arena:
    """Return the arena's row, locked until the transaction ends; raises ArenaNotFound."""
    return present(owned.lock(session, Arena, arena_id, project_id), ArenaNotFound, f"There is no arena {arena_id}.")


def view(session: Session, arena: Arena) -> ArenaView:
    states, verdicts = rows.count_states(session, arena.id), rows.count_verdicts(session, arena.id)
    grown = rows.find_grown(session, arena.project_id, arena.id)
    return from_row(
        ArenaView,
        arena,
        source=arena.source_name,
        num_decided=rows.count_decided(session, arena.id, arena.votes_per_pair),
        num_equal=states.get(PairState.EQUAL, 0),
        num_failed=states.get(PairState.FAILED, 0),
        num_votes=sum(verdicts.values()),
        num_voters=rows.count_voters(session, arena.id),
        num_ties=verdicts.get(Verdict.TIE, 0),
        num_both_bad=verdicts.get(Verdict.BOTH_BAD, 0),
        standing=_standing(arena, verdicts),
        dataset_id=grown.dataset_id if grown else None,
        metadata=arena.user_metadata,
    )


def _standing(arena: Arena, verdicts: dict[Verdict, int]) -> list[ModelStanding]:
    """Return both models, the one that won more often first."""
    number, wins = sum(verdicts.values()), [verdicts.get(side, 0) for side in (Verdict.FIRST, Verdict.SECOND)]
    draws = number - sum(wins)

    def standing(model: str, won: int, lost: int) -> ModelStanding:
        rate: Interval = win_rate(won, draws, number)
        return ModelStanding(model=model, wins=won, losses=lost, win_rate=rate.value, low=rate.low, high=rate.high)

    found = [standing(arena.first_model, *wins), standing(arena.second_model, *reversed(wins))]
    return sorted(found, key=lambda item: -item.win_rate)


def require_length(backend: Backend, sampling: ArenaSampling) -> None:
    """Check that models may give answers as long as these. Raises InvalidRequest."""
    most = backend.settings.chat_max_tokens
    if sampling.max_tokens > most:
        fault = f"must be at most {most:,} (PREFTUNE_CHAT_MAX_TOKENS), not {sampling.max_tokens:,}"
        raise InvalidRequest(f"/sampling/max_tokens: {fault}.", errors=[FieldError("/sampling/max_tokens", fault)])


def _draw(backend: Backend, project_id: str, request: ArenaRequest) -> tuple[str | None, list[dict[str, Any]]]:
    """Return the name of the version and the contents of the pairs. Raises InvalidRequest."""
    if request.dataset_id is None:
        prompts = [_plain(prompt) for prompt in request.prompts or ()]
        return None, [{"prompt": prompt} for prompt in distinct(prompts)]
    try:
        dataset = datasets.find_ready(backend, project_id, request.dataset_id)
    except (datasets.DatasetNotFound, datasets.DatasetNotReady) as error:
        raise InvalidRequest(
            f"/dataset_id: {error.detail}", errors=[FieldError("/dataset_id", error.detail)]
        ) from error
    if request.models is None and dataset.kind is not DatasetKind.PREFERENCE:
        fault = f"{request.dataset_id} is of kind {dataset.kind.value}; pairs are rows of kind preference"
        raise InvalidRequest(f"/dataset_id: {fault}.", errors=[FieldError("/dataset_id", fault)])
    lines = row_lines(backend.store, keys.dataset_rows(project_id, dataset.id))
    found = (orjson.loads(line) for line in islice(lines, MAX_ROWS_READ))
    drawn = draw_rows(found, request.num_pairs, request.seed, needs_prompt=request.models is not None)
    return dataset.version_name, [_content(row, is_pair=request.models is None) for row in drawn]


def _content(row: dict[str, Any], *, is_pair: bool) -> dict[str, Any]:
    content = prompt_of(row)
    if is_pair:
        content |= {"first": row["chosen"], "second": row["rejected"]}
    return content


def _plain(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]


def _new_arena(project_id: str, arena_id: str, request: ArenaRequest, source: str | None) -> Arena:
    first, second = request.models or ROW_SIDES
    return Arena(
        id=arena_id,
        project_id=project_id,
        name=request.name,
        user_metadata=request.metadata,
        requested=request.model_dump(mode="json", exclude={"prompts", "metadata"}),
        first_model=first,
        second_model=second,
        source_name=source,
        votes_per_pair=request.votes_per_pair,
        is_open=True,
        created_at=database_now(),
    )


def _new_pair(arena: Arena, position: int, content: dict[str, Any]) -> ArenaPair:
    return ArenaPair(
        id=derived_id(f"pair_{arena.id.rpartition('_')[2]}", position),
        arena_id=arena.id,
        position=position,
        state=PairState.READY if "first" in content else PairState.WAITING,
        content=content,
        num_votes=0,
    )
