"""Generations as a worker does them: claimed, part by part, and made a dataset of responses at the end.

What a part holds is determined by the request, so whoever does it again gets the same: where a process dies, the parts
that are in the database stay, and the others are done by the next one.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import generations as rows
from core.database.repositories import owned
from core.database.repositories import requests as request_rows
from core.database.tables.generations import Generation, GenerationPart
from core.domain.dataset_rows import DatasetKind, DatasetOrigin
from core.domain.judging.generations import GenerationSampling, Part, answer_seed, plan_parts
from core.domain.request_status import RequestStatus
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.datasets.intake import Lineage
from core.services.datasets.scratch import scratch_folder
from core.services.datasets.versions.versions import FILENAME
from core.services.requests import requests
from core.services.requests.requests import RequestLease
from core.services.transactions import writes

COLUMN = "generation"
"""Column of the file that says how a response was made; jobs do not read it."""
MAX_FAILURES = 20
"""Failures that are told one by one; all are counted."""
_NO_ANSWER = "No model could answer any of the prompts."


@dataclass(frozen=True, kw_only=True)
class GenerationClaim:
    """A claimed generation, with what is left to do."""

    lease: RequestLease
    project_id: str
    models: list[str]
    num_samples: int
    part_answers: int
    sampling: GenerationSampling
    prompts: list[dict[str, Any]]
    created_at: datetime
    done: frozenset[int]

    @property
    def parts(self) -> list[Part]:
        return plan_parts(len(self.models), len(self.prompts) * self.num_samples, self.part_answers)


def claim(backend: Backend, lease_seconds: float) -> GenerationClaim | None:
    """Claim the next generation; None without one."""
    return requests.claim_next(backend, Generation, lease_seconds, partial(_read, backend))


@writes
def _read(session: Session, row: Generation, lease: RequestLease) -> GenerationClaim:
    found = owned.lock(session, Generation, row.id, row.project_id)
    assert found is not None
    prompts: list[dict[str, Any]] = orjson.loads(found.prompts)
    return GenerationClaim(
        lease=lease,
        project_id=found.project_id,
        models=found.requested["models"],
        num_samples=found.requested["num_samples"],
        part_answers=found.part_answers,
        sampling=GenerationSampling.model_validate(found.requested["sampling"]),
        prompts=prompts,
        created_at=found.created_at,
        done=frozenset(rows.list_done(session, found.id)),
    )


def record(backend: Backend, claim: GenerationClaim, part: Part, answers: Sequence[dict[str, Any]]) -> bool:
    """Keep the answers of a part, once; False where the lane is to stop.

    That is where another one has the generation, or nobody any more, or where it is held.
    """
    text = orjson.dumps(answers).decode()
    failed = [index for index, answer in enumerate(answers) if "error" in answer]
    places = list(part.places(claim.num_samples))

    def work(session: Session) -> bool:
        row = request_rows.find_held(session, Generation, claim.lease.id, claim.lease.token)
        if row is None:
            return False
        if rows.find_part(session, row.id, part.number) is not None:
            return not row.is_held
        kept = GenerationPart(
            generation_id=row.id,
            number=part.number,
            answers=text,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            created_at=database_now(),
        )
        session.add(kept)
        row.num_tries = 1  # it moves
        row.num_done += len(answers)
        row.num_failed += len(failed)
        row.num_tokens += sum(answer.get("num_tokens", 0) for answer in answers)
        row.num_bytes += len(text)
        told = [
            {"model": claim.models[part.model], "prompt": places[index][0], "detail": answers[index]["error"]}
            for index in failed
        ]
        row.failures = {"first": [*row.failures["first"], *told][:MAX_FAILURES]}
        return not row.is_held

    return backend.database.write(work)


def finish(backend: Backend, claim: GenerationClaim) -> None:
    """Make the dataset of all answers and end the generation. Raises what an upload raises."""
    row = backend.database.read(lambda session: owned.find(session, Generation, claim.project_id, claim.lease.id))
    if row is None:
        return
    if row.num_failed == row.num_answers:
        first = row.failures["first"][0]
        requests.fail(backend, claim.lease, f"{_NO_ANSWER} {first['model']}: {first['detail']}")
        return
    with scratch_folder(backend.settings, "responses") as folder:
        path = folder / FILENAME
        _write(backend, claim, path)
        upload = intake.Upload(
            path=path,
            filename=FILENAME,
            name=(row.name or f"Responses of {', '.join(claim.models)}")[:255],
            kind=DatasetKind.RESPONSES,
            ignore=(COLUMN,),
            lineage=Lineage(
                how=DatasetOrigin.GENERATION,
                sources={} if row.source_name is None else {row.source_name: row.num_prompts},
                detail={"generation_id": row.id, "models": claim.models},
            ),
        )
        made = intake.create(backend, claim.project_id, upload, dataset_id=row.dataset_id)
    if not backend.database.write(lambda session: _end(session, claim)):
        _take_back(backend, claim, made.id)


def _end(session: Session, claim: GenerationClaim) -> bool:
    row = request_rows.find_held(session, Generation, claim.lease.id, claim.lease.token)
    if row is None:
        return False
    row.status, row.lease_token, row.lease_expires_at = RequestStatus.SUCCEEDED, None, None
    row.finished_at = database_now()
    row.num_bytes = len(row.prompts.encode())
    rows.delete_parts(session, row.id)
    return True


def _take_back(backend: Backend, claim: GenerationClaim, dataset_id: str) -> None:
    """Delete the dataset of a generation that was cancelled in its last moment."""
    row = backend.database.read(lambda session: owned.find(session, Generation, claim.project_id, claim.lease.id))
    if row is not None and row.is_cancelled:
        datasets.delete(backend, claim.project_id, dataset_id)


def _write(backend: Backend, claim: GenerationClaim, path: Path) -> None:
    with path.open("wb") as file:
        for row in _rows(backend, claim):
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _rows(backend: Backend, claim: GenerationClaim) -> Iterator[dict[str, Any]]:
    """Yield a row for each answer, in the order of the parts."""
    for part in claim.parts:
        kept = backend.database.read(partial(rows.find_part, generation_id=claim.lease.id, number=part.number))
        if kept is None:
            raise AssertionError("a generation is finished once all its parts are there")
        answers: list[dict[str, Any]] = orjson.loads(kept.answers)
        for (prompt, sample), answer in zip(part.places(claim.num_samples), answers, strict=True):
            if "error" in answer:
                continue
            asked = claim.prompts[prompt]
            text = answer["text"]
            told = {
                "generation_id": claim.lease.id,
                "prompt": prompt,
                "line": asked.get("line"),
                "sample": sample,
                "seed": answer_seed(claim.sampling.seed, prompt, sample),
                "finish_reason": answer["finish_reason"],
                "num_tokens": answer["num_tokens"],
                "logprob": answer["logprob"],
            }
            yield {
                **{name: value for name, value in asked.items() if name != "line"},
                "response": text if isinstance(asked["prompt"], str) else [{"role": "assistant", "content": text}],
                "model": claim.models[part.model],
                COLUMN: told,
            }
