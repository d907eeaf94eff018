"""Judgements as users handle them: create, get, list, their pairs, cancel, delete; a lane of a worker does them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.orm import Session

from core.database.repositories import judgements as rows
from core.database.repositories import owned
from core.database.repositories.requests import WAITING
from core.database.tables.judgements import JudgedPair, Judgement
from core.domain.errors import Conflict, FieldError, InvalidRequest, NotFound, present
from core.domain.judging.generations import WorkStatus
from core.domain.judging.judgements import Judge, JudgementRequest, PairState, pair_key
from core.domain.judging.win_rates import Agreement, agreement
from core.domain.request_status import RequestStatus
from core.services.access import audit, quotas
from core.services.arenas import arenas
from core.services.backend import Backend
from core.services.cursors import decode_offset, encode_cursor
from core.services.datasets.row_pages import texts_of
from core.services.ids import derived_id, make_id, new_id
from core.services.jobs import jobs
from core.services.judgements.language_model import LanguageModel
from core.services.judgements.pairs import DrawnPairs, draw_pairs
from core.services.judgements.rules import RULES, rule_of
from core.services.pages import page_of, read_cursor
from core.services.requests import requests, scores
from core.services.transactions import deletes, reads, writes
from core.services.views import Page, from_row

MAX_WAITING = 20
"""Judgements of a project that have not ended."""
MAX_BYTES = 64 * 1024**2
"""Pairs of one judgement: they are in the database."""
MAX_SEARCHED = 1000
"""Pairs that one page looks through for a text."""
_EMPTY_TALLY: dict[str, Any] = {"faults": {}, "num_cached": 0, "num_consistent": 0, "num_both": 0, "first_shown": 0.0}


class JudgementNotFound(NotFound):
    code = "judgement-not-found"
    title = "There is no such judgement"


class TooManyJudgements(Conflict):
    code = "too-many-judgements"
    title = "The project has as many judgements under way as it may"


class JudgementNotCancellable(Conflict):
    code = "judgement-not-cancellable"
    title = "The judgement has ended"


class JudgementNotDeletable(Conflict):
    code = "judgement-not-deletable"
    title = "The judgement cannot be deleted"


@dataclass(frozen=True, kw_only=True)
class JudgementView:
    id: str
    name: str | None
    status: WorkStatus
    source: str
    models: list[str]
    num_pairs: int
    num_judged: int
    num_failed: int
    num_requests: int
    num_cached: int
    faults: dict[str, int]
    position: dict[str, Any] | None
    win_rate: dict[str, Any] | None
    length_controlled: dict[str, Any] | None
    label_agreement: dict[str, Any] | None
    num_ties: int | None
    num_prompts: int | None
    error: str | None
    dataset_id: str | None
    is_held: bool
    requested: dict[str, Any]
    metadata: dict[str, str]
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class PairView:
    position: int
    prompt: Any
    first: Any
    second: Any
    verdict: str | None
    confidence: float | None
    detail: dict[str, Any]


def create(
    backend: Backend,
    project_id: str,
    request: JudgementRequest,
    *,
    judgement_id: str | None = None,
    first: Callable[[Session], None] | None = None,
) -> JudgementView:
    """Queue a judgement with its pairs.

    Raises InvalidRequest naming the fault, JudgeNotConfigured, TooManyJudgements, StorageQuotaExceeded. With a
    `judgement_id` chosen before (see `idempotency`), a repeated call answers the judgement that is there. `first` runs
    at the start of the transaction; if it raises, nothing is queued.
    """
    chosen = judgement_id or new_id("judge")
    if judgement_id is not None and backend.database.read(
        lambda session: owned.find(session, Judgement, project_id, chosen)
    ):
        return get(backend, project_id, chosen)
    require_judge(backend, project_id, request.judge)
    drawn = draw_pairs(backend, project_id, request)
    contents = [orjson.dumps(content).decode() for _, content in drawn.pairs]
    num_bytes = sum(len(content.encode()) for content in contents)
    if num_bytes > MAX_BYTES:
        fault = f"{len(contents):,} pairs have {num_bytes:,} bytes, and a judgement holds {MAX_BYTES:,}; draw fewer"
        raise InvalidRequest(f"/num_pairs: {fault}", errors=[FieldError("/num_pairs", fault)])

    def work(session: Session) -> JudgementView:
        if first is not None:
            first(session)
        known = owned.find(session, Judgement, project_id, chosen)
        if known is not None:
            return view(known)
        quotas.require_room(session, project_id, num_bytes)
        row = _new_row(project_id, chosen, request, drawn)
        row.num_bytes = num_bytes
        requests.submit(session, row, max_waiting=MAX_WAITING, what="judgements", too_many=TooManyJudgements)
        session.add_all(
            _new_pair(chosen, position, pair, text)
            for position, (pair, text) in enumerate(zip(drawn.pairs, contents, strict=True), 1)
        )
        session.flush()
        audit.note(session, project_id, "judgement.create", chosen, num_pairs=len(contents))
        return view(row)

    return backend.database.write(work)


def require_judge(backend: Backend, project_id: str, judge: Judge) -> None:
    """Check that the judge can judge. Raises InvalidRequest, JudgeNotConfigured."""
    if judge.kind in RULES:
        rule_of(judge)
    elif judge.kind == "model":
        LanguageModel.of(backend.settings, judge)
    elif judge.kind == "arena":
        _require(backend, "/judge/arena_id", lambda session: arenas.find(session, project_id, str(judge.arena_id)))
    else:
        _require(
            backend,
            "/judge/job_id",
            lambda session: scores.require_rewards(session, jobs.find(session, project_id, str(judge.job_id))),
        )


def _require(backend: Backend, pointer: str, look: Callable[[Session], object]) -> None:
    """Check that what a judge names is there and can judge. Raises InvalidRequest."""
    try:
        backend.database.read(look)
    except (NotFound, scores.NothingToScoreWith) as error:
        raise InvalidRequest(f"{pointer}: {error.detail}", errors=[FieldError(pointer, error.detail)]) from error


def _new_row(project_id: str, judgement_id: str, request: JudgementRequest, drawn: DrawnPairs) -> Judgement:
    return Judgement(
        id=judgement_id,
        project_id=project_id,
        name=request.name,
        user_metadata=request.metadata,
        requested=request.with_template().model_dump(mode="json", exclude={"metadata", "name"}),
        first_model=drawn.models[0],
        second_model=drawn.models[1],
        source_name=drawn.source_name,
        num_pairs=len(drawn.pairs),
        num_judged=0,
        num_failed=0,
        num_requests=0,
        tally=_EMPTY_TALLY,
        results={},
        dataset_id=make_id("ds", derived_id(judgement_id, 1).partition("_")[2]),
        has_dataset=False,
        is_cancelled=False,
        is_held=False,
    )


def _new_pair(judgement_id: str, position: int, pair: tuple[int, dict[str, Any]], text: str) -> JudgedPair:
    place, content = pair
    return JudgedPair(
        judgement_id=judgement_id,
        position=position,
        prompt=place,
        content=text,
        key=pair_key(content["prompt"], content["first"], content["second"]),
        is_done=False,
        detail={},
    )


@reads
def get(session: Session, project_id: str, judgement_id: str) -> JudgementView:
    return view(find(session, project_id, judgement_id))


@reads
def list_page(
    session: Session,
    project_id: str,
    *,
    limit: int = 20,
    cursor: str | None = None,
    dataset_id: str | None = None,
    job_id: str | None = None,
) -> Page[JudgementView]:
    """Return a page of judgements, newest first: of a dataset, of the policies of a job."""
    before = read_cursor(cursor)
    found = rows.list_judgements(
        session, project_id, before=before, limit=limit + 1, dataset_id=dataset_id, job_id=job_id
    )
    return page_of(found, limit, [view(row) for row in found[:limit]])


@reads
def list_pairs(
    session: Session,
    project_id: str,
    judgement_id: str,
    *,
    limit: int = 20,
    cursor: str | None = None,
    state: PairState | None = None,
    search: str | None = None,
) -> Page[PairView]:
    """Return a page of pairs with their verdicts, in order: those of a verdict, and those that hold a text.

    A page looks through `MAX_SEARCHED` pairs for a text; the next one goes on behind them. Raises JudgementNotFound.
    """
    after = decode_offset(cursor)
    find(session, project_id, judgement_id)
    if search is None:
        found = rows.list_pairs(session, judgement_id, after=after, limit=limit + 1, state=state)
        shown, last = [_view_pair(row) for row in found[:limit]], found[:limit][-1:]
    else:
        found = rows.list_pairs(session, judgement_id, after=after, limit=MAX_SEARCHED + 1, state=state)
        shown, last = _search(found[:MAX_SEARCHED], search.casefold(), limit)
    is_more = bool(last) and last[0] is not found[-1]
    return Page(data=shown, next_cursor=encode_cursor(str(last[0].position)) if is_more else None)


def _search(found: list[JudgedPair], wanted: str, limit: int) -> tuple[list[PairView], list[JudgedPair]]:
    """Return the first pairs with a text, and the last pair that was looked at."""
    shown: list[PairView] = []
    for row in found:
        pair = _view_pair(row)
        if any(wanted in text.casefold() for text in texts_of([pair.prompt, pair.first, pair.second, pair.detail])):
            shown.append(pair)
            if len(shown) == limit:
                return shown, [row]
    return shown, found[-1:]


@reads
def compare(session: Session, project_id: str, judgement_id: str, other_id: str) -> Agreement:
    """Return how often two judgements say the same of the pairs that both have. Raises JudgementNotFound."""
    for each in (judgement_id, other_id):
        find(session, project_id, each)
    own, other = (rows.verdicts_by_key(session, each) for each in (judgement_id, other_id))
    return agreement((own[key].score, other[key].score) for key in own.keys() & other.keys())


@writes
def cancel(session: Session, project_id: str, judgement_id: str) -> tuple[JudgementView, bool]:
    """Cancel a judgement, and tell whether that changes it; verdicts that are there stay.

    Raises JudgementNotFound, JudgementNotCancellable.
    """
    row = lock(session, project_id, judgement_id)
    if row.is_cancelled:
        return view(row), False
    if row.status not in WAITING:
        raise JudgementNotCancellable(f"The judgement has {row.status.value} already.")
    requests.settle(row, RequestStatus.FAILED)
    row.is_cancelled, row.is_held = True, False
    session.flush()
    audit.note(session, project_id, "judgement.cancel", judgement_id)
    return view(row), True


@writes
def hold(session: Session, project_id: str, judgement_id: str, *, is_held: bool) -> None:
    """Hold a judgement that has not ended, after the pairs under way, or let it go on. Raises JudgementNotFound."""
    row = lock(session, project_id, judgement_id)
    row.is_held = is_held and row.status in WAITING


@deletes
def delete(session: Session, project_id: str, judgement_id: str) -> None:
    """Delete a judgement that has ended, with its pairs; its dataset stays.

    Raises JudgementNotFound, JudgementNotDeletable.
    """
    row = lock(session, project_id, judgement_id)
    if row.status in WAITING:
        raise JudgementNotDeletable(f"The judgement is {row.status.value}; cancel it first.")
    rows.delete_judgement(session, judgement_id)
    audit.note(session, project_id, "judgement.delete", judgement_id)


def find(session: Session, project_id: str, judgement_id: str) -> Judgement:
    """Return the row; raises JudgementNotFound."""
    row = owned.find(session, Judgement, project_id, judgement_id)
    return present(row, JudgementNotFound, f"There is no judgement {judgement_id}.")


def lock(session: Session, project_id: str, judgement_id: str) -> Judgement:
    """Return the row, locked until the transaction ends; raises JudgementNotFound."""
    row = owned.lock(session, Judgement, judgement_id, project_id)
    return present(row, JudgementNotFound, f"There is no judgement {judgement_id}.")


def view(row: Judgement) -> JudgementView:
    results = row.results
    return from_row(
        JudgementView,
        row,
        status=WorkStatus.CANCELLED if row.is_cancelled else WorkStatus(row.status.value),
        source=row.source_name,
        models=[row.first_model, row.second_model],
        num_cached=row.tally["num_cached"],
        faults=row.tally["faults"],
        position=_position(row.tally) if row.requested["judge"]["kind"] == "model" else None,
        win_rate=results.get("win_rate"),
        length_controlled=results.get("length_controlled"),
        label_agreement=results.get("label_agreement"),
        num_ties=results.get("num_ties"),
        num_prompts=results.get("num_prompts"),
        error=row.error_detail,
        dataset_id=row.dataset_id if row.has_dataset else None,
        is_held=row.is_held and row.status in WAITING,
        metadata=row.user_metadata,
    )


def _position(tally: dict[str, Any]) -> dict[str, Any]:
    both = tally["num_both"]
    return {
        "num_pairs": both,
        "num_consistent": tally["num_consistent"],
        "first_shown_share": tally["first_shown"] / (2 * both) if both else None,
    }


def _view_pair(row: JudgedPair) -> PairView:
    content = orjson.loads(row.content)
    verdict = None if row.verdict is None else row.verdict.value
    first, second = content["first"], content["second"]
    return from_row(PairView, row, prompt=content["prompt"], first=first, second=second, verdict=verdict)
