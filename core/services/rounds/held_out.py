"""Held-out prompts of rounds: that there are some, and that nothing of the request trains on them."""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice

import orjson

from core.domain.errors import FieldError, InvalidRequest
from core.domain.judging.rounds import RoundsRequest
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.drawing import MAX_ROWS_READ
from core.services.datasets.versions.recipes import Row, part_of, stored_rows
from core.storage import keys

MIN_PROMPTS = 2
"""Fewer give a win rate without an interval."""


def check(backend: Backend, project_id: str, request: RoundsRequest) -> None:
    """Check a request whose datasets are there, with their versions. Raises InvalidRequest naming the fault.

    Reads all rows only where another dataset than the job's is trained on, or has the held-out prompts.
    """
    job, evaluation = request.job, request.evaluation
    trained = _first_policy_trains_on(request)
    if evaluation.dataset_id is None:
        if trained.get("/initial/dataset_id") == job.dataset_id:
            del trained["/initial/dataset_id"]  # it takes what is not held out
        held_out = _drawn_out(backend, project_id, request, is_whole=bool(trained))
    else:
        trained = {"/evaluation/dataset_id": job.dataset_id, **trained}
        asked = rows_with_prompts(backend, project_id, evaluation.dataset_id, MAX_ROWS_READ)
        held_out = {prompt_digest(row) for row in asked}
        if len(held_out) < MIN_PROMPTS:
            raise _fault("/evaluation/dataset_id", f"holds {len(held_out)} prompts; at least {MIN_PROMPTS} are needed")
    for pointer, name in trained.items():
        _require_apart(backend, project_id, request, pointer, name, held_out)


def _first_policy_trains_on(request: RoundsRequest) -> dict[str, str]:
    """Return the datasets that the first policy is trained on, by their places."""
    initial = request.initial
    if initial is None:
        return {}
    found = {"/initial/dataset_id": initial.dataset_id}
    if initial.sft != "skip" and initial.sft.dataset_id is not None:
        found["/initial/sft/dataset_id"] = initial.sft.dataset_id
    return found


def _drawn_out(backend: Backend, project_id: str, request: RoundsRequest, *, is_whole: bool) -> set[bytes]:
    """Return the prompts that are held out of the job's dataset; unless `is_whole`, as many as there must be."""
    share, held_out, has_others = request.evaluation.held_out_fraction, set[bytes](), False
    for row in rows_with_prompts(backend, project_id, request.job.dataset_id):
        if part_of(row["prompt"], (share, 1 - share), request.seed) == 0:
            held_out.add(prompt_digest(row))
        else:
            has_others = True
        if not is_whole and has_others and len(held_out) >= MIN_PROMPTS:
            break
    if not has_others or len(held_out) < MIN_PROMPTS:
        found = "every prompt" if not has_others else f"{len(held_out)} of its prompts"
        raise _fault(
            "/evaluation/held_out_fraction",
            f"{share:g} holds {found} out of {request.job.dataset_id}, and at least {MIN_PROMPTS} must be held out and "
            "one left: take another share or seed, or give evaluation.dataset_id",
        )
    return held_out


def _require_apart(
    backend: Backend, project_id: str, request: RoundsRequest, pointer: str, name: str, held_out: set[bytes]
) -> None:
    shared = [row["line"] for row in rows_with_prompts(backend, project_id, name) if prompt_digest(row) in held_out]
    if not shared:
        return
    evaluation, many = request.evaluation, f"{len(shared):,} rows of {name} (the first on line {shared[0]})"
    if evaluation.dataset_id == name:
        fault = f"{name} is trained on; leave it out, and a part of the job's dataset is held out"
    elif evaluation.dataset_id is not None:
        fault = f"{many} have prompts of {evaluation.dataset_id}, which nothing may train on; leave them out of one"
    else:
        share = evaluation.held_out_fraction
        fault = (
            f"{many} have prompts that are held out of {request.job.dataset_id}; split it by POST /datasets/{{id}}/"
            f"split with fractions [{share:g}, {1 - share:g}] and seed {request.seed}, and name the second part"
        )
    raise _fault(pointer, fault)


def rows_with_prompts(backend: Backend, project_id: str, name: str, most: int | None = None) -> Iterator[Row]:
    """Yield the rows that have a prompt, of the first `most`; None: of all."""
    dataset = datasets.find_ready(backend, project_id, name)
    rows = stored_rows(backend.store, keys.dataset_rows(project_id, dataset.id))
    return (row for row in islice(rows, most) if row["prompt"])


def prompt_digest(row: Row) -> bytes:
    """Return what tells a prompt from others, of a size that does not grow with it."""
    return blake2b(orjson.dumps(row["prompt"], option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def _fault(pointer: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {fault}", errors=[FieldError(pointer, fault)])
