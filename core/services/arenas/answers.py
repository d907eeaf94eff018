"""Answers of an arena's models: made when the first voter gets a pair, stored once, the same for everybody."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from anyio import create_task_group, to_thread
from sqlalchemy.orm import Session

from core.database.repositories import arenas as rows
from core.database.tables.arenas import ArenaPair
from core.domain.arenas.arenas import ArenaSampling, PairState
from core.domain.errors import DomainError, InvalidRequest
from core.services.arenas import arenas, voting
from core.services.arenas.voting import HeldPair
from core.services.backend import Backend
from core.services.chat import answering
from core.services.chat.answering import Question
from core.services.chat.runner import ModelNotServed, ModelTooLarge, Runner, Sampling
from core.services.chat.served_models import ModelNotFound
from core.services.transactions import reads, writes

MAX_SKIPPED = 8
"""Pairs without two different answers that one request passes over."""
_OF_MODELS = (ModelNotFound, ModelNotServed, ModelTooLarge)
"""Errors that say nothing of a pair: all would fail, also once the operator has put the model right."""


@dataclass(frozen=True, kw_only=True)
class Voter:
    """Who asks for pairs of which arena."""

    project_id: str
    arena_id: str
    name: str


async def next_pairs(backend: Backend, runner: Runner, voter: Voter, count: int) -> list[HeldPair]:
    """Give a voter pairs with both answers; pairs that have none, or the same twice, are passed over.

    Raises ArenaNotFound, ArenaClosed, ModelNotFound, InvalidRequest where answers became too long for the service, and
    what the runner raises: the pairs are then free again.
    """
    lease = partial(voting.lease, backend, voter.project_id, voter.arena_id, voter.name, count)
    for _ in range(MAX_SKIPPED):
        held = await to_thread.run_sync(lease)
        waiting = [pair for pair in held if pair.state is PairState.WAITING]
        if not waiting:
            return held
        try:
            async with create_task_group() as tasks:
                for pair in waiting:
                    tasks.start_soon(_fill, backend, runner, voter, pair.id)
        except BaseExceptionGroup as group:
            await to_thread.run_sync(_release, backend, voter, waiting)
            raise _first(group) from group
    return [pair for pair in await to_thread.run_sync(lease) if pair.state is PairState.READY]


async def _fill(backend: Backend, runner: Runner, voter: Voter, pair_id: str) -> None:
    asked = await to_thread.run_sync(_read, backend, voter, pair_id)
    if asked is None:
        return
    arenas.require_length(backend, asked.sampling)
    found: dict[str, Any] = {}
    try:
        for side, model in asked.models.items():
            found[side] = await _answer(backend, runner, voter.project_id, asked, model)
    except DomainError as error:
        if isinstance(error, _OF_MODELS) or error.kind != "invalid":
            raise
        found = {"error": error.detail}
    await to_thread.run_sync(_store, backend, voter, pair_id, found)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    prompt: Any
    models: dict[str, str]
    sampling: ArenaSampling
    position: int


@reads
def _read(session: Session, voter: Voter, pair_id: str) -> _Asked | None:
    arena = arenas.find(session, voter.project_id, voter.arena_id)
    pair = rows.find_pair(session, arena.id, pair_id)
    if pair is None or pair.state is not PairState.WAITING:
        return None
    return _Asked(
        prompt=pair.content["prompt"],
        models={"first": arena.first_model, "second": arena.second_model},
        sampling=ArenaSampling.model_validate(arena.requested["sampling"]),
        position=pair.position,
    )


async def _answer(backend: Backend, runner: Runner, project_id: str, asked: _Asked, model: str) -> Any:
    """Return the answer as the prompt is: a text, or a message of the assistant."""
    sampling = Sampling(
        max_tokens=asked.sampling.max_tokens,
        temperature=asked.sampling.temperature,
        top_p=asked.sampling.top_p,
        seed=asked.sampling.seed + asked.position,
    )
    question = Question(model=model, prompt=asked.prompt, sampling=sampling)
    prepared = await to_thread.run_sync(answering.prepare, backend, project_id, question)
    answers = await answering.answer(runner, prepared)
    text = answers[0].text
    if "\x00" in text:
        raise InvalidRequest(f"{model} answers with a NUL character, which no row of a dataset may hold.")
    return text if isinstance(asked.prompt, str) else [{"role": "assistant", "content": text}]


@writes
def _store(session: Session, voter: Voter, pair_id: str, found: dict[str, Any]) -> None:
    """Keep the answers, unless another request was faster."""
    arena = arenas.lock(session, voter.project_id, voter.arena_id)
    pair = rows.find_pair(session, arena.id, pair_id)
    if pair is None or pair.state is not PairState.WAITING:
        return
    pair.content = {**pair.content, **found}
    pair.state = _state(pair)
    arena.num_bytes += len(orjson.dumps(found))
    if pair.state is not PairState.READY:
        rows.release_pair(session, pair_id, voter.name)


def _state(pair: ArenaPair) -> PairState:
    if "error" in pair.content:
        return PairState.FAILED
    first, second = pair.content["first"], pair.content["second"]
    if not _text(first).strip() or not _text(second).strip():
        return PairState.FAILED  # an empty answer teaches nothing
    return PairState.EQUAL if first == second else PairState.READY


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else "".join(str(message["content"]) for message in answer)


def _release(backend: Backend, voter: Voter, pairs: list[HeldPair]) -> None:
    voting.release(backend, voter.project_id, voter.arena_id, voter.name, [pair.id for pair in pairs])


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
