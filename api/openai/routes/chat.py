"""`/v1/chat/completions` and `/v1/completions`: answers of base models and policies."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.access.callers import Caller
from api.access.shares import holder_of, shares_of
from api.deps import NEEDS_KEY, BackendDep, CallerDep, RunnerDep
from api.http.strict_route import StrictRoute
from api.openai import chat_objects as objects
from api.openai.answer_feed import AnswerFeed, now_seconds
from api.openai.answer_keeper import AnswerKeeper
from api.openai.answer_stream import AnswerStream, wait_for_first, while_connected
from api.openai.chat_objects import ChatCompletion, TextCompletion, Usage
from api.openai.chat_requests import ChatRequest, CompletionRequest
from api.threads import Lane, run_in
from core.domain.errors import FieldError, InvalidRequest
from core.services.backend import Backend
from core.services.chat import answering
from core.services.chat.answering import Answer, Piece, PreparedQuestion, Question
from core.services.chat.runner import Runner
from core.services.ids import new_id

router = APIRouter(route_class=StrictRoute, dependencies=NEEDS_KEY)

ChoiceOf = Callable[[Piece], dict[str, Any] | None]


@router.post("/v1/chat/completions", response_model=ChatCompletion)
async def create_chat_completion(
    body: ChatRequest, request: Request, backend: BackendDep, caller: CallerDep, runner: RunnerDep
) -> Response:
    """Answer a conversation, whole or as a stream."""
    head = {"id": new_id("chatcmpl"), "created": now_seconds(), "model": body.model}
    keeper = AnswerKeeper(backend, caller, str(head["id"])) if body.store else None
    feed = await _ask(request, backend, caller, runner, body.questions(), keeper)
    if not body.stream:
        answers = await while_connected(request.receive, feed)
        if answers is None:
            return Response(status_code=499)
        choices = [objects.chat_choice(answer, has_logprobs=body.logprobs) for answer in answers]
        return _json(ChatCompletion(**head, choices=choices, usage=_usage(feed, answers)))
    known: set[int] = set()

    def choice_of(piece: Piece) -> dict[str, Any] | None:
        is_first = piece.index not in known
        known.add(piece.index)
        return objects.chat_delta(piece, is_first=is_first, has_logprobs=body.logprobs)

    chunk = head | {"object": "chat.completion.chunk", "system_fingerprint": None}
    return await _stream(request, feed, chunk, choice_of, counts_usage=body.counts_usage)


@router.post("/v1/completions", response_model=TextCompletion)
async def create_completion(
    body: CompletionRequest, request: Request, backend: BackendDep, caller: CallerDep, runner: RunnerDep
) -> Response:
    """Continue a text, whole or as a stream."""
    head = {"id": new_id("cmpl"), "created": now_seconds(), "model": body.model}
    keeper = AnswerKeeper(backend, caller, str(head["id"])) if body.store else None
    feed = await _ask(request, backend, caller, runner, body.questions(), keeper)
    if not body.stream:
        answers = await while_connected(request.receive, feed)
        if answers is None:
            return Response(status_code=499)
        choices = [objects.text_choice(answer, num_top=body.logprobs) for answer in answers]
        return _json(TextCompletion(**head, choices=choices, usage=_usage(feed, answers)))
    offsets: dict[int, int] = {}

    def choice_of(piece: Piece) -> dict[str, Any] | None:
        offset = offsets.get(piece.index, 0)
        offsets[piece.index] = offset + sum(len(token.text) for token in piece.tokens if token.data is not None)
        return objects.text_delta(piece, num_top=body.logprobs, offset=offset)

    chunk = head | {"object": "text_completion", "system_fingerprint": None}
    return await _stream(request, feed, chunk, choice_of, counts_usage=body.counts_usage)


async def _ask(
    request: Request,
    backend: Backend,
    caller: Caller,
    runner: Runner,
    questions: list[Question],
    keeper: AnswerKeeper | None,
) -> AnswerFeed:
    """Begin to answer. Raises HttpError over the caller's share, and what `admit` and `answering.prepare` raise."""
    number = sum(question.num_answers for question in questions)
    most = backend.settings.effective_chat_max_per_key
    if number > most:  # else it would be told to try again for ever
        fault = f"{number} answers are asked for at once, and a key may have {most} under way; ask for fewer"
        raise InvalidRequest(f"/n: {fault}.", errors=[FieldError("/n", fault)])
    with ExitStack() as held:
        held.enter_context(shares_of(request.scope).answers.hold(holder_of(request.scope), number))
        keep = None if keeper is None else await keeper.admit(questions)
        prepared: list[PreparedQuestion] = []
        for question in questions:
            work = partial(answering.prepare, backend, caller.project_id, question)
            prepared.append(await run_in(Lane.ANSWERS, work))
        return AnswerFeed(runner, prepared, held.pop_all(), keep)


async def _stream(
    request: Request, feed: AnswerFeed, chunk: dict[str, Any], choice_of: ChoiceOf, *, counts_usage: bool
) -> Response:
    """Return the stream. Raises what the runner refuses before the first token, which then has its own status."""
    usage: dict[str, Any] = {"usage": None} if counts_usage else {}

    def last_chunk(num_tokens: int) -> dict[str, Any] | None:
        counted = Usage.of(feed.num_prompt_tokens, num_tokens).model_dump()
        return {**chunk, "choices": [], "usage": counted} if counts_usage else None

    first = await wait_for_first(request.receive, feed)

    def chunk_of(piece: Piece) -> dict[str, Any] | None:
        choice = choice_of(piece)
        return None if choice is None else {**chunk, "choices": [choice], **usage}

    return AnswerStream(feed, first, chunk_of, last_chunk)


def _usage(feed: AnswerFeed, answers: list[Answer]) -> Usage:
    return Usage.of(feed.num_prompt_tokens, sum(len(answer.tokens) for answer in answers))


def _json(answer: ChatCompletion | TextCompletion) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
