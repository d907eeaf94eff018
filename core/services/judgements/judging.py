"""Judgements as a worker does them: claimed, judged some pairs at a time, and made a preference dataset at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import judgements as rows
from core.database.repositories import owned
from core.database.repositories import requests as request_rows
from core.database.tables.judgements import JudgedPair, Judgement
from core.domain.arenas.arenas import ROW_SIDES
from core.domain.dataset_rows import CONTEXT_FIELDS, DatasetKind, DatasetOrigin
from core.domain.judging import win_rates
from core.domain.judging.judgements import Judge, PairVerdict
from core.domain.judging.win_rates import JudgedPair as Judged
from core.domain.request_status import RequestStatus
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.datasets.intake import Lineage
from core.services.datasets.scratch import scratch_folder
from core.services.datasets.versions.versions import FILENAME
from core.services.requests import requests
from core.services.requests.requests import RequestLease
from core.services.transactions import writes

COLUMN = "judgement"
"""Column of the file that says who judged a row, and how; jobs do not read it."""
PAGE = 500
"""Pairs read at a time."""


@dataclass(frozen=True, kw_only=True)
class OpenPair:
    """A pair that is to be judged."""

    position: int
    prompt: Any
    first: Any
    second: Any
    context: dict[str, Any] = field(default_factory=dict)
    """`tools` and `documents` of the row, where it has them."""

    @property
    def is_equal(self) -> bool:
        return bool(self.first == self.second)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a judge says of a pair; without a verdict, the detail tells why."""

    position: int
    verdict: PairVerdict | None
    confidence: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JudgementClaim:
    lease: RequestLease
    project_id: str
    judge: Judge


@dataclass(kw_only=True)
class Tally:
    """What is counted beside the verdicts."""

    faults: dict[str, int] = field(default_factory=dict)
    num_cached: int = 0
    num_both: int = 0
    """Pairs that were judged in both orders."""
    num_consistent: int = 0
    """Those of them that got the same verdict in both."""
    first_shown: float = 0.0
    """Questions in which the answer shown first was found better, a tie counting half."""

    def added_to(self, known: dict[str, Any]) -> dict[str, Any]:
        faults = dict(known["faults"])
        for name, number in self.faults.items():
            faults[name] = faults.get(name, 0) + number
        counts = {
            name: known[name] + getattr(self, name)
            for name in ("num_cached", "num_both", "num_consistent", "first_shown")
        }
        return {"faults": faults, **counts}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a judge says of some pairs."""

    outcomes: list[Outcome]
    tally: Tally = field(default_factory=Tally)
    num_unused: int = 0
    """Requests that were set aside and not made."""
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Answers of a language model, by what it was asked."""


def claim(backend: Backend, lease_seconds: float) -> JudgementClaim | None:
    """Claim the next judgement; None without one."""
    return requests.claim_next(backend, Judgement, lease_seconds, _read)


def _read(row: Judgement, lease: RequestLease) -> JudgementClaim:
    return JudgementClaim(lease=lease, project_id=row.project_id, judge=Judge.model_validate(row.requested["judge"]))


def open_pairs(backend: Backend, claim: JudgementClaim, limit: int) -> list[OpenPair]:
    """Return the first pairs that are not judged."""
    found = backend.database.read(lambda session: rows.list_open_pairs(session, claim.lease.id, limit))
    contents = [(row.position, orjson.loads(row.content)) for row in found]
    return [
        OpenPair(
            position=position,
            prompt=content["prompt"],
            first=content["first"],
            second=content["second"],
            context=_context(content),
        )
        for position, content in contents
    ]


@writes
def reserve(session: Session, claim: JudgementClaim, wanted: int, most: int) -> int | None:
    """Set requests aside before they are made, and return how many; None where the lease is lost.

    A process that dies with some set aside has used them up: so all together are never more than `most`.
    """
    row = request_rows.find_held(session, Judgement, claim.lease.id, claim.lease.token)
    if row is None:
        return None
    granted = max(0, min(wanted, most - row.num_requests))
    row.num_requests += granted
    return granted


@writes
def record(session: Session, claim: JudgementClaim, batch: "Batch") -> bool:
    """Keep verdicts, each once, and give back requests that were not made.

    False where the lane is to stop: the lease is lost, or the judgement is held.
    """
    row = request_rows.find_held(session, Judgement, claim.lease.id, claim.lease.token)
    if row is None:
        return False
    for outcome in batch.outcomes:
        pair = session.get(JudgedPair, (row.id, outcome.position))
        if pair is None or pair.is_done:
            continue
        pair.is_done, pair.verdict, pair.confidence = True, outcome.verdict, outcome.confidence
        pair.detail = outcome.detail
        row.num_judged += 1
        row.num_failed += outcome.verdict is None
    row.num_tries = 1  # it moves
    row.num_requests -= batch.num_unused
    row.tally = batch.tally.added_to(row.tally)
    for key, answer in batch.answers.items():
        rows.keep_answer(session, claim.project_id, key, answer)
    return not row.is_held


def find_answers(backend: Backend, claim: JudgementClaim, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return answers that a language model gave before, by what it was asked."""
    return backend.database.read(
        lambda session: {
            key: dict(row.answer) for key, row in rows.find_answers(session, claim.project_id, keys).items()
        }
    )


def finish(backend: Backend, claim: JudgementClaim) -> None:
    """Measure the win rate, make the dataset of all pairs with a better answer, and end the judgement."""
    row = backend.database.read(lambda session: owned.find(session, Judgement, claim.project_id, claim.lease.id))
    if row is None:
        return
    results = measure(backend, row)
    with scratch_folder(backend.settings, "judged") as folder:
        path = folder / FILENAME
        num_rows = _write(backend, row, path)
        if num_rows:
            upload = intake.Upload(
                path=path,
                filename=FILENAME,
                name=(row.name or f"Judged: {row.first_model} and {row.second_model}")[:255],
                kind=DatasetKind.PREFERENCE,
                ignore=(COLUMN,),
                on_error="skip",
                lineage=Lineage(
                    how=DatasetOrigin.JUDGEMENT,
                    sources={row.source_name: num_rows},
                    detail={"judgement_id": row.id, "models": [row.first_model, row.second_model]},
                ),
            )
            intake.create(backend, claim.project_id, upload, dataset_id=row.dataset_id)
    ended = partial(_end, claim=claim, results=results, has_dataset=bool(num_rows))
    if not backend.database.write(ended) and num_rows:
        _take_back(backend, claim, row.dataset_id)


def _end(session: Session, *, claim: JudgementClaim, results: dict[str, Any], has_dataset: bool) -> bool:
    row = request_rows.find_held(session, Judgement, claim.lease.id, claim.lease.token)
    if row is None:
        return False
    row.status, row.lease_token, row.lease_expires_at = RequestStatus.SUCCEEDED, None, None
    row.finished_at = database_now()
    row.results, row.has_dataset = results, has_dataset
    rows.delete_old_answers(session)
    return True


def _take_back(backend: Backend, claim: JudgementClaim, dataset_id: str) -> None:
    """Delete the dataset of a judgement that was cancelled in its last moment."""
    row = backend.database.read(lambda session: owned.find(session, Judgement, claim.project_id, claim.lease.id))
    if row is not None and row.is_cancelled:
        datasets.delete(backend, claim.project_id, dataset_id)


def measure(backend: Backend, row: Judgement) -> dict[str, Any]:
    """Return win rate, ties and agreement with the file's labels of the verdicts that are there."""
    judged = [
        Judged(
            prompt=pair.prompt,
            score=pair.verdict.score,
            length_difference=len(_text(content["first"])) - len(_text(content["second"])),
        )
        for pair, content in _pairs(backend, row)
        if pair.verdict is not None
    ]
    results: dict[str, Any] = {
        "num_ties": sum(pair.score == 0.5 for pair in judged),
        "num_prompts": len({pair.prompt for pair in judged}),
        "win_rate": None,
        "length_controlled": None,
        "label_agreement": None,
    }
    if judged:
        results["win_rate"] = win_rates.win_rate(judged)._asdict()
        results["length_controlled"] = win_rates.length_controlled(judged)._asdict()
    if (row.first_model, row.second_model) == ROW_SIDES:
        results["label_agreement"] = win_rates.agreement((pair.score, 1.0) for pair in judged)._asdict()
    return results


def _write(backend: Backend, row: Judgement, path: Path) -> int:
    """Write a row for each pair with a better answer; return how many."""
    num_rows = 0
    with path.open("wb") as file:
        for pair, content in _pairs(backend, row):
            made = _row(row, pair, content)
            if made is not None:
                file.write(orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE))
                num_rows += 1
    return num_rows


def _row(row: Judgement, pair: JudgedPair, content: dict[str, Any]) -> dict[str, Any] | None:
    if pair.verdict not in (PairVerdict.FIRST, PairVerdict.SECOND):
        return None
    sides = ("first", "second") if pair.verdict is PairVerdict.FIRST else ("second", "first")
    if not all(_text(content[side]).strip() for side in sides):
        return None  # an empty answer teaches nothing
    models = {"first": row.first_model, "second": row.second_model}
    told = {
        "judgement_id": row.id,
        "judge": {name: value for name, value in row.requested["judge"].items() if value is not None},
        "verdict": models[sides[0]],
        "chosen_model": models[sides[0]],
        "rejected_model": models[sides[1]],
        "confidence": pair.confidence,
        "line": content.get("line"),
        **pair.detail,
    }
    chosen, rejected = content[sides[0]], content[sides[1]]
    return {"prompt": content["prompt"], "chosen": chosen, "rejected": rejected, **_context(content), COLUMN: told}


def _context(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a chat template writes into the prompt."""
    return {name: content[name] for name in CONTEXT_FIELDS if name in content}


def _pairs(backend: Backend, row: Judgement) -> Iterator[tuple[JudgedPair, dict[str, Any]]]:
    """Yield all pairs in order."""
    after = 0
    while True:
        read = partial(rows.list_pairs, judgement_id=row.id, after=after, limit=PAGE)
        found = backend.database.read(read)
        for pair in found:
            yield pair, orjson.loads(pair.content)
        if len(found) < PAGE:
            return
        after = found[-1].position


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else "".join(str(message["content"]) for message in answer)
