"""Win rates of compared policies, out of judgements: of one judge against one opponent on the same answers."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import judgements as judgement_rows
from core.database.repositories import objects
from core.database.tables.judgements import Judgement
from core.domain.policy_names import SFT_SUFFIX, parse_model_name
from core.domain.training.comparisons import Estimated, Point, pareto_front
from core.services.comparisons.gathering import ComparedRun

MAX_JUDGEMENTS = 1000
"""Judgements of policies that are looked through, the newest ones of the project."""
MAX_TABLES = 20
OWN_SFT = SFT_SUFFIX
"""Opponent of policies that were each judged against the policy of the same job before DPO."""


@dataclass(frozen=True, kw_only=True)
class JudgedPoint:
    """A policy with its win rate."""

    job_id: str
    step: int | None
    """Step of the last training stage; None where it is not known any more."""
    kl: float | None
    """Estimated KL(reference || policy) at that step, nats per response; None where it was not measured there."""
    win_rate: Estimated
    num_prompts: int
    num_failed: int
    """Pairs without a verdict."""
    judgement_id: str
    is_published: bool
    is_on_front: bool = False


@dataclass(frozen=True, kw_only=True)
class WinRates:
    """What one judge says of policies against one opponent, on the same pairs of one dataset."""

    judge: dict[str, Any]
    opponent: str
    """A model, or `OWN_SFT`."""
    source: str
    """Version of the dataset of answers."""
    num_pairs: int | None
    """Pairs that were drawn of it at most, with `seed`; None: all."""
    seed: int
    points: list[JudgedPoint]
    title: str = ""
    """What the rates are, in one line."""


_DETAILS = {
    "reward": "job_id", "arena": "arena_id", "regex": "pattern", "length": "prefers", "exact_match": "text",
    "model": "criteria",
}  # fmt: skip
"""Setting of a judge that is shown beside its kind."""
_KINDS = {"model": "a language model", "length": "length", "arena": "people", "reward": "rewards"}
_MAX_DETAIL = 60
"""Characters of it."""
Place = tuple[str, int | None, bool]
"""Job and step of a policy, and whether it is the published one."""


def find_win_rates(session: Session, project_id: str, runs: Sequence[ComparedRun]) -> list[WinRates]:
    """Return the win rates of these jobs' policies, those of most jobs first, at most `MAX_TABLES`.

    Of a policy that was judged more than once in the same way the newest judgement counts.
    """
    found = judgement_rows.list_of_policies(session, project_id, MAX_JUDGEMENTS)
    place_of = _places(session, {run.job_id: run for run in runs}, found)
    tables: dict[str, WinRates] = {}
    for row in found:
        for table, point in _judged(row, place_of):
            key = json.dumps([table.judge, table.opponent, table.source, table.num_pairs, table.seed])
            known = tables.setdefault(key, table)
            if not any((item.job_id, item.step) == (point.job_id, point.step) for item in known.points):
                known.points.append(point)
    order = sorted(tables.values(), key=lambda table: -len({point.job_id for point in table.points}))
    return [_finished(table, runs) for table in order[:MAX_TABLES]]


def _places(
    session: Session, runs: Mapping[str, ComparedRun], found: Sequence[Judgement]
) -> Callable[[str], Place | None]:
    """Return what tells which policy a name means; None where it is none of these jobs' last stage."""
    names = {name: parse_model_name(name) for row in found for name in (row.first_model, row.second_model)}
    ids = {named.checkpoint_id for named in names.values() if named is not None and named.checkpoint_id}
    checkpoints = {row.id: row for row in objects.list_by_ids(session, ids)}

    def place(name: str) -> Place | None:
        named = names[name]
        if named is None or named.job_id not in runs or named.is_sft:
            return None
        job_id, run, step = named.job_id, runs[named.job_id], named.step
        if named.checkpoint_id is not None:
            checkpoint = checkpoints.get(named.checkpoint_id)
            if checkpoint is None or (checkpoint.job_id, checkpoint.stage) != (job_id, run.last_stage):
                return None
            step = checkpoint.step
        published = run.published_step
        return (job_id, published, True) if step is None else (job_id, step, step == published)

    return place


def _judged(row: Judgement, place_of: Callable[[str], Place | None]) -> Iterator[tuple[WinRates, JudgedPoint]]:
    """Yield a point for each side that is a compared policy; the second's rate is what the first does not win."""
    rate = row.results.get("win_rate")
    if rate is None or row.first_model == row.second_model:
        return
    mine = Estimated(value=rate["value"], low=rate["low"], high=rate["high"])
    other = Estimated(value=1 - rate["value"], low=1 - rate["high"], high=1 - rate["low"])
    sides = ((row.first_model, row.second_model, mine), (row.second_model, row.first_model, other))
    judge = {name: value for name, value in row.requested["judge"].items() if value is not None}
    for policy, opponent, figure in sides:
        place = place_of(policy)
        if place is None:
            continue
        job_id, step, is_published = place
        named = parse_model_name(opponent)
        is_own_sft = named is not None and named.is_sft and named.job_id == job_id
        point = JudgedPoint(
            job_id=job_id, step=step, kl=None, win_rate=figure, num_prompts=row.results["num_prompts"],
            num_failed=row.num_failed, judgement_id=row.id, is_published=is_published,
        )  # fmt: skip
        table = WinRates(
            judge=judge, opponent=OWN_SFT if is_own_sft else opponent, source=row.source_name,
            num_pairs=row.requested["num_pairs"], seed=row.requested["seed"], points=[],
        )  # fmt: skip
        yield table, point


def _finished(table: WinRates, runs: Sequence[ComparedRun]) -> WinRates:
    """Return the table with its points in the order of the jobs, with their divergence and the Pareto front."""
    order = {run.job_id: place for place, run in enumerate(runs)}
    points = sorted(table.points, key=lambda point: (order[point.job_id], point.step or 0))
    placed = [replace(point, kl=runs[order[point.job_id]].kl_at(point.step)) for point in points]
    front = pareto_front([
        Point(job_id=point.job_id, step=point.step, kl=point.kl, accuracy=point.win_rate.value)
        for point in placed
        if point.kl is not None and point.step is not None
    ])  # fmt: skip
    best = {(point.job_id, point.step) for point in front}
    return replace(
        table,
        points=[replace(point, is_on_front=(point.job_id, point.step) in best) for point in placed],
        title=_title(table, {run.job_id: run.label for run in runs}),
    )


def _title(table: WinRates, names: Mapping[str, str]) -> str:
    opponent = "their own SFT policies" if table.opponent == OWN_SFT else names.get(table.opponent, table.opponent)
    drawn = "" if table.num_pairs is None else f", {table.num_pairs} pairs of it (seed {table.seed})"
    return f"Win rate against {opponent}, judged by {_judge_label(table.judge)}, on {table.source}{drawn}"


def _judge_label(judge: Mapping[str, Any]) -> str:
    """Return who judges, in a few words."""
    kind = str(judge["kind"])
    words, detail = _KINDS.get(kind, kind), judge.get(_DETAILS.get(kind, ""))
    return words if detail is None else f"{words} ({str(detail)[:_MAX_DETAIL]})"
