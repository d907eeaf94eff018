"""Pairs that are judged: answers of two models to one prompt, or the rows of a preference dataset."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from core.domain.arenas.arenas import ROW_SIDES
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import FieldError, InvalidRequest
from core.domain.judging.judgements import MAX_PAIRS, JudgementRequest
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.contents import row_lines
from core.services.datasets.drawing import MAX_ROWS_READ, prompt_of
from core.storage import keys

Pair = tuple[int, dict[str, Any]]
"""Place of its prompt, and `prompt`, `first`, `second`, `line` and context."""


@dataclass(frozen=True, kw_only=True)
class DrawnPairs:
    source_name: str
    models: tuple[str, str]
    pairs: list[Pair]


def draw_pairs(backend: Backend, project_id: str, request: JudgementRequest) -> DrawnPairs:
    """Return the pairs in the order of the file. Raises InvalidRequest naming the fault."""
    try:
        dataset = datasets.find_ready(backend, project_id, request.dataset_id)
    except (datasets.DatasetNotFound, datasets.DatasetNotReady) as error:
        raise _fault("/dataset_id", error.detail) from error
    lines = row_lines(backend.store, keys.dataset_rows(project_id, dataset.id))
    rows = (orjson.loads(line) for line in islice(lines, MAX_ROWS_READ))
    if dataset.kind is DatasetKind.PREFERENCE:
        if request.models is not None:
            raise _fault("/models", "rows of kind preference are chosen against rejected; leave models out")
        models: Sequence[str] = ROW_SIDES
        found = _preferences(rows)
    elif dataset.kind is DatasetKind.RESPONSES:
        models, found = _of_models(list(rows), request.models)
    else:
        raise _fault("/dataset_id", f"is of kind {dataset.kind.value}; pairs are of kind responses or preference")
    if not found:
        raise _fault("/dataset_id", "holds no two answers to one prompt that could be compared")
    drawn = _draw(found, request.num_pairs or MAX_PAIRS, request.seed)
    return DrawnPairs(source_name=dataset.version_name, models=(models[0], models[1]), pairs=drawn)


def _preferences(rows: Iterable[dict[str, Any]]) -> list[Pair]:
    places: dict[bytes, int] = {}
    return [
        (
            places.setdefault(orjson.dumps(row["prompt"]), len(places)),
            prompt_of(row) | {"first": row["chosen"], "second": row["rejected"]},
        )
        for row in rows
    ]


def _of_models(rows: Sequence[dict[str, Any]], wanted: Sequence[str] | None) -> tuple[Sequence[str], list[Pair]]:
    """Return the two models and their pairs: the n-th answer of one with the n-th of the other."""
    there = list(dict.fromkeys(str(row.get("model", "")) for row in rows))
    models = list(wanted or (there if len(there) == 2 else there * 2))
    if missing := [name for name in models if name not in there]:
        raise _fault("/models", f"the dataset has no answer of {missing[0]}; it has those of {', '.join(there)}")
    if len(models) != 2:
        raise _fault("/models", f"the dataset has answers of {len(there)} models, name two: {', '.join(there)}")
    answers: dict[bytes, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        by_model = answers.setdefault(orjson.dumps(row["prompt"]), defaultdict(list))
        by_model[str(row.get("model", ""))].append(row)
    pairs: list[Pair] = []
    for place, by_model in enumerate(answers.values()):
        first, second = (by_model.get(name, []) for name in models)
        if models[0] == models[1]:
            first, second = first[::2], first[1::2]
        for one, other in zip(first, second, strict=False):
            pairs.append((place, prompt_of(one) | {"first": one["response"], "second": other["response"]}))
    return models, pairs


def _draw(pairs: list[Pair], number: int, seed: int) -> list[Pair]:
    """Draw at most so many, in their order."""
    if len(pairs) <= number:
        return pairs
    chosen = sorted(random.Random(seed).sample(range(len(pairs)), number))
    return [pairs[place] for place in chosen]


def _fault(pointer: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {fault}", errors=[FieldError(pointer, fault)])
