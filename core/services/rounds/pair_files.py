"""Datasets that rounds make: answers beside the file's own, pairs of judged answers, and mixtures with other rows."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import orjson

from core.database.repositories import judgements as judgement_rows
from core.database.tables.judgements import JudgedPair
from core.domain.dataset_rows import CONTEXT_FIELDS, DatasetKind, DatasetOrigin
from core.domain.errors import InvalidRequest
from core.domain.judging.pairing import JudgedAnswers, PairingKind, is_empty, make_pairs
from core.domain.judging.rounds import RoundStage
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.datasets.intake import Lineage
from core.services.datasets.scratch import scratch_folder
from core.services.datasets.versions.recipes import Row, stored_rows
from core.services.datasets.versions.versions import FILENAME
from core.services.judgements import judgements
from core.services.rounds.run import Run
from core.storage import keys

COLUMN = "pair"
"""Column of the file that says what a judge gave both answers; jobs do not read it."""
PAGE = 500
"""Judged pairs read at a time."""


@dataclass(kw_only=True)
class NewRows:
    """A file of rows under way to a dataset."""

    backend: Backend
    run: Run
    number: int
    path: Path
    num_rows: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    """Rows taken of each dataset, by the name of its version."""

    def write(self, rows: Iterable[Row], source: str | None = None) -> int:
        """Append rows; return how many."""
        before = self.num_rows
        with self.path.open("ab") as file:
            for row in rows:
                kept = {name: value for name, value in row.items() if name != "line"}
                file.write(orjson.dumps(kept, option=orjson.OPT_APPEND_NEWLINE))
                self.num_rows += 1
        if source is not None:
            self.sources[source] = self.sources.get(source, 0) + self.num_rows - before
        return self.num_rows - before

    def store(self, dataset_id: str, what: str, kind: DatasetKind, how: DatasetOrigin) -> str:
        """Make the dataset and return its name. Raises what an upload raises."""
        upload = intake.Upload(
            path=self.path,
            filename=FILENAME,
            name=self.run.title(self.number, what),
            kind=kind,
            ignore=(COLUMN,) if how is DatasetOrigin.ROUND else (),
            on_error="skip",
            metadata=self.run.metadata(self.number),
            lineage=Lineage(how=how, sources=self.sources, detail={"rounds_id": self.run.row.id, "round": self.number}),
        )
        return intake.create(self.backend, self.run.row.project_id, upload, dataset_id=dataset_id).id


@contextmanager
def _new_rows(backend: Backend, run: Run, number: int) -> Iterator[NewRows]:
    with scratch_folder(backend.settings, "round") as folder:
        yield NewRows(backend=backend, run=run, number=number, path=folder / FILENAME)


def match(backend: Backend, run: Run, number: int, dataset_id: str) -> dict[str, Any]:
    """Set each answer beside the file's own to the same prompt: as `chosen`, until a judge has spoken.

    Left out are answers that are empty, or the file's own: no judge would find one of the two better.
    """
    generation = run.done(number, RoundStage.GENERATE)
    answers = list(_rows(backend, run, str(generation.result["dataset_id"])))
    wanted = {_key(row["prompt"]) for row in answers}
    own: dict[bytes, Any] = {}
    for row in _rows(backend, run, run.training_part):
        if (key := _key(row["prompt"])) in wanted:
            own.setdefault(key, row["chosen"] if "chosen" in row else row["response"])
    rows = [
        {"prompt": row["prompt"], "chosen": own[key], "rejected": row["response"], **_context(row)}
        for row in answers
        if (key := _key(row["prompt"])) in own and not is_empty(row["response"]) and row["response"] != own[key]
    ]
    if not rows:
        raise InvalidRequest(f"None of {len(answers):,} answers says something else than the file.")
    with _new_rows(backend, run, number) as made:
        made.write(rows, run.training_part)
        name = made.store(dataset_id, "answers beside the file's", DatasetKind.PREFERENCE, DatasetOrigin.ROUND)
    return {"dataset_id": name, "num_rows": len(rows), "num_left_out": len(answers) - len(rows)}


def pair(backend: Backend, run: Run, number: int, dataset_id: str) -> dict[str, Any]:
    """Make pairs of the judged answers of a round, or demonstrations of the best; no dataset where there is none.

    Raises JudgementNotFound.
    """
    judged = run.done(number, RoundStage.JUDGE)
    judgements.get(backend, run.row.project_id, judged.child_id)  # else no verdicts would be no pairs
    is_file = run.find(number, RoundStage.MATCH) is not None
    num_answers = None if is_file else run.done(number, RoundStage.GENERATE).result.get("num_answers")
    rule, is_best = run.request.chosen_pairing.rule(), run.request.chosen_pairing.kind is PairingKind.BEST
    counts = {"num_judged": 0, "num_without_verdict": 0, "num_prompts": 0, "num_rows": 0}

    def rows() -> Iterator[Row]:
        for _, group in groupby(_judged_pairs(backend, judged.child_id), key=lambda found: found.prompt):
            pairs = list(group)
            contents = [orjson.loads(found.content) for found in pairs]
            counts["num_prompts"] += 1
            counts["num_judged"] += len(pairs)
            counts["num_without_verdict"] += sum(found.verdict is None for found in pairs)
            answers = [_judged(found, content) for found, content in zip(pairs, contents, strict=True)]
            for made in make_pairs(answers, rule):
                told = {"round": number, "scores": made.scores}
                sides = {"response": made.chosen} if is_best else {"chosen": made.chosen, "rejected": made.rejected}
                yield {"prompt": contents[0]["prompt"], **sides, **_context(contents[0]), COLUMN: told}

    with _new_rows(backend, run, number) as made:
        counts["num_rows"] = made.write(rows(), str(judged.result["source"]))
        if num_answers is not None:
            counts["num_not_judged"] = num_answers - 2 * counts["num_judged"]
        if not made.num_rows:
            return {"dataset_id": None, **counts}
        kind = DatasetKind.DEMONSTRATION if is_best else DatasetKind.PREFERENCE
        name = made.store(dataset_id, "best answers" if is_best else "pairs", kind, DatasetOrigin.ROUND)
    return {"dataset_id": name, **counts}


def mix(backend: Backend, run: Run, number: int, dataset_id: str) -> dict[str, Any]:
    """Add the pairs of earlier rounds, where the reference is the first policy, and rows drawn of the file."""
    fresh = str(run.done(number, RoundStage.PAIR).result["dataset_id"])
    earlier = run.trained_before(number) if run.request.reference == "first" else []
    kind = DatasetKind.DEMONSTRATION if run.request.chosen_pairing.kind is PairingKind.BEST else DatasetKind.PREFERENCE
    with _new_rows(backend, run, number) as made:
        num_fresh = made.write(_rows(backend, run, fresh), _version(backend, run, fresh))
        num_earlier = 0
        for before in earlier:
            name = str(run.done(before, RoundStage.PAIR).result["dataset_id"])
            num_earlier += made.write(_rows(backend, run, name), _version(backend, run, name))
        drawn = _drawn(backend, run, number, round(run.request.file_ratio * num_fresh), kind)
        num_file = made.write(drawn, _version(backend, run, run.training_part)) if run.request.file_ratio else 0
        name = made.store(dataset_id, "training rows", kind, DatasetOrigin.MERGE)
    return {"dataset_id": name, "num_fresh": num_fresh, "num_earlier": num_earlier, "num_file": num_file}


def _drawn(backend: Backend, run: Run, number: int, count: int, kind: DatasetKind) -> Iterator[Row]:
    """Yield rows drawn of the file, in its order, without repetition: all of them where it has no more."""
    part = run.training_part
    num_rows = datasets.find_ready(backend, run.row.project_id, part).num_accepted
    rng = random.Random(f"{run.request.seed} {number}")
    chosen = frozenset(rng.sample(range(num_rows), min(count, num_rows)))
    for place, row in enumerate(_rows(backend, run, part)):
        if place in chosen:
            yield _as_demonstration(row) if kind is DatasetKind.DEMONSTRATION else row


def _as_demonstration(row: Row) -> Row:
    kept = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
    return {**kept, "response": row["chosen"]} if "chosen" in row else kept


def answers_of(backend: Backend, run: Run, dataset_id: str, policy: str, number: int) -> list[dict[str, Any]]:
    """Return the first answers of a policy that say something, as `POST /jobs/{id}/scores` takes them."""
    rows = (row for row in _rows(backend, run, dataset_id) if row.get("model") == policy and row["response"])
    shown = islice(rows, number)
    return [{"prompt": row["prompt"], "response": row["response"], **_context(row)} for row in shown]


def _judged_pairs(backend: Backend, judgement_id: str) -> Iterator[JudgedPair]:
    after = 0
    while True:
        found = backend.database.read(
            partial(judgement_rows.list_pairs, judgement_id=judgement_id, after=after, limit=PAGE)
        )
        yield from found
        if len(found) < PAGE:
            return
        after = found[-1].position


def _judged(found: JudgedPair, content: dict[str, Any]) -> JudgedAnswers:
    scores = found.detail.get("scores")
    return JudgedAnswers(
        first=content["first"],
        second=content["second"],
        verdict=found.verdict,
        confidence=found.confidence,
        scores=None if scores is None else (float(scores[0]), float(scores[1])),
    )


def _rows(backend: Backend, run: Run, name: str) -> Iterator[Row]:
    dataset = datasets.find_ready(backend, run.row.project_id, name)
    return stored_rows(backend.store, keys.dataset_rows(run.row.project_id, dataset.id))


def _version(backend: Backend, run: Run, name: str) -> str:
    return datasets.find_ready(backend, run.row.project_id, name).version_name


def _context(row: Row) -> Row:
    return {name: row[name] for name in CONTEXT_FIELDS if name in row}


def _key(prompt: Any) -> bytes:
    return orjson.dumps(prompt, option=orjson.OPT_SORT_KEYS)
