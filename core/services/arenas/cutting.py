"""Votes as rows: a version of the arena's preference dataset, cut whenever somebody asks for it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy.orm import Session

from core.database.repositories import arenas as rows
from core.database.tables.arenas import Arena, ArenaPair, ArenaVote
from core.domain.arenas.arenas import Verdict
from core.domain.dataset_rows import DatasetKind, DatasetOrigin
from core.domain.errors import Conflict
from core.services.arenas import arenas
from core.services.backend import Backend
from core.services.datasets.scratch import scratch_folder
from core.services.datasets.versions import growing
from core.services.datasets.versions.growing import Growth
from core.services.datasets.versions.versions import FILENAME
from core.services.views import DatasetView

PAGE = 200
"""Pairs read at a time."""
COLUMN = "vote"
"""Column of the file that says who judged, when, and what was compared; jobs do not read it."""


class NothingDecided(Conflict):
    code = "nothing-decided"
    title = "No pair has a better answer yet"


def cut(backend: Backend, project_id: str, arena_id: str, *, dataset_id: str | None = None) -> tuple[DatasetView, bool]:
    """Return the dataset of all pairs with a better answer, and whether it is a new version.

    Raises ArenaNotFound, NothingDecided, and what an upload raises.
    """
    arena = backend.database.read(lambda session: arenas.find(session, project_id, arena_id))
    with scratch_folder(backend.settings, "votes") as folder:
        path = folder / FILENAME
        num_rows = _write(backend, arena, path)
        if not num_rows:
            raise NothingDecided(
                f"No pair of {arena_id} has been judged better on one side; ties and both bad make no row."
            )
        growth = Growth(
            source=arena_id,
            path=path,
            name=f"Votes of {arena.name or arena_id}"[:255],
            kind=DatasetKind.PREFERENCE,
            how=DatasetOrigin.VOTES,
            detail={"arena_id": arena_id, "models": [arena.first_model, arena.second_model]},
            ignore=(COLUMN,),
        )
        return growing.grow(backend, project_id, growth, dataset_id=dataset_id)


def _write(backend: Backend, arena: Arena, path: Path) -> int:
    num_rows = 0
    with path.open("wb") as file:
        for pair, votes in judged_pairs(backend, arena):
            row = _row(arena, pair, votes)
            if row is not None:
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                num_rows += 1
    return num_rows


def judged_pairs(backend: Backend, arena: Arena) -> Iterator[tuple[ArenaPair, list[ArenaVote]]]:
    """Yield pairs that have votes, in their order."""
    position = 0
    while True:

        def work(session: Session, after: int = position) -> tuple[list[ArenaPair], list[ArenaVote]]:
            pairs = rows.list_voted_pairs(session, arena.id, after=after, limit=PAGE)
            return pairs, rows.votes_of(session, [pair.id for pair in pairs])

        pairs, votes = backend.database.read(work)
        for pair in pairs:
            yield pair, [vote for vote in votes if vote.pair_id == pair.id]
        if len(pairs) < PAGE:
            return
        position = pairs[-1].position


def _row(arena: Arena, pair: ArenaPair, votes: list[ArenaVote]) -> dict[str, Any] | None:
    """Return the row of a pair that more voters found better on one side than on the other; None of a draw."""
    counts = Counter(vote.verdict for vote in votes)
    first, second = counts[Verdict.FIRST], counts[Verdict.SECOND]
    if first == second:
        return None
    sides = ("first", "second") if first > second else ("second", "first")
    models = {"first": arena.first_model, "second": arena.second_model}
    content = pair.content
    context: dict[str, Any] = {name: content[name] for name in ("tools", "documents") if name in content}
    told: dict[str, Any] = {
        "arena_id": arena.id,
        "pair_id": pair.id,
        "chosen_model": models[sides[0]],
        "rejected_model": models[sides[1]],
        "sampling": None if arena.requested["models"] is None else arena.requested["sampling"],
        "votes": [
            {
                "id": vote.id,
                "voter": vote.voter,
                "at": vote.created_at.isoformat(),
                "verdict": models.get(vote.verdict.value, vote.verdict.value),
                **({"comment": vote.comment} if vote.comment else {}),
            }
            for vote in votes
        ],
    }
    row = {"prompt": content["prompt"], "chosen": content[sides[0]], "rejected": content[sides[1]]}
    return {**row, **context, COLUMN: told}
