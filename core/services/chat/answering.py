"""Answers of a model to a conversation: `prepare` renders and encodes it, `stream` and `answer` let a runner go on.

What an application, the playground or the arena asks goes through here. The prompt is rendered as in training, so that
the sum of an answer's log-probabilities is what `POST /jobs/{id}/scores` gives for it.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from core.base_models.directory import get_base_model
from core.domain.dataset_rows import Message
from core.domain.errors import DomainError, FieldError, InvalidRequest
from core.services.backend import Backend
from core.services.chat import served_models
from core.services.chat.runner import (
    AnswerEnd,
    ContextTooLong,
    EndReason,
    GenerationRequest,
    Runner,
    RunnerEvent,
    Sampling,
    ScoreRequest,
)
from core.services.chat.served_models import Reference, ServedModel
from core.services.chat.texts import AnswerText
from core.services.datasets.tokenizers import SharedTokenizer, load_shared
from core.tokenization.pair_tokenizer import PairTokenizer

Prompt = str | list[int] | list[Message]
"""Messages are rendered by the chat template; a text is continued as it stands; token ids are taken as they are."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a model is asked, and how it is to answer."""

    model: str
    prompt: Prompt
    num_answers: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    stops: Sequence[str] = ()
    """Texts at which an answer ends; they are not part of it."""
    has_reference: bool = False
    """Whether each answer is also scored by the reference of the policy, which a base model has not."""


@dataclass(frozen=True, kw_only=True)
class PreparedQuestion:
    """A question whose model was found and whose prompt is encoded."""

    question: Question
    model: ServedModel
    prompt_ids: list[int]
    max_tokens: int
    """Most tokens of an answer: the context's rest bounds it."""
    shared: SharedTokenizer
    reference: Reference | None = None


@dataclass(frozen=True, kw_only=True)
class ReferenceView:
    """What the reference of a policy thinks of an answer."""

    model: str
    logprobs: list[float]
    """Log-probability of each token."""
    log_ratio: float
    """Log-probability of the answer under the policy minus that under the reference."""
    reward: float | None
    """Implicit reward: beta times the log-ratio."""


@dataclass(frozen=True, kw_only=True)
class TokenView:
    """A token as people read it, with its log-probability under the model."""

    token_id: int
    text: str
    data: bytes | None
    """Its bytes; None for a control token."""
    logprob: float
    top: tuple["TokenView", ...] = ()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one step of a stream adds to an answer."""

    index: int
    text: str = ""
    tokens: tuple[TokenView, ...] = ()
    finish_reason: EndReason | None = None
    reference: ReferenceView | None = None
    """Comes last, in a piece of its own."""


@dataclass(kw_only=True)
class Answer:
    """A whole answer."""

    index: int
    text: str = ""
    tokens: list[TokenView] = field(default_factory=list)
    """All that were generated, with the one that ends the turn."""
    finish_reason: EndReason = "length"
    reference: ReferenceView | None = None

    def add(self, piece: Piece) -> None:
        """Take what a stream adds to this answer."""
        self.text += piece.text
        self.tokens += piece.tokens
        if piece.finish_reason is not None:
            self.finish_reason = piece.finish_reason
        self.reference = piece.reference or self.reference

    @property
    def logprob(self) -> float:
        """Sum over all tokens: the answer's log-probability."""
        return sum(token.logprob for token in self.tokens)


def prepare(backend: Backend, project_id: str, question: Question) -> PreparedQuestion:
    """Find the model, render the prompt and encode it; takes a thread for a second where the tokenizer is new.

    Raises ModelNotFound, ContextTooLong, InvalidRequest (with pointers to `/model`, `/messages` or `/prompt`),
    Unavailable.
    """
    model = served_models.find(backend, project_id, question.model)
    try:
        root = get_base_model(backend.settings.models_dir, model.root_name)
        shared = load_shared(root.directory, dict(model.template_kwargs), model.rendered_at)
    except DomainError as error:
        if error.kind not in ("invalid", "not_found"):
            raise
        raise served_models.ModelNotFound(error.detail, errors=[FieldError("/model", error.detail)]) from error
    with shared.lock:
        prompt_ids = _encode(shared.tokenizer, question.prompt)
    settings = backend.settings
    context = min(root.context_length or settings.chat_max_context_tokens, settings.chat_max_context_tokens)
    room = _room(context, len(prompt_ids), question, settings.chat_max_tokens)
    reference = served_models.reference_of(backend, project_id, model) if question.has_reference else None
    return PreparedQuestion(
        reference=reference, question=question, model=model, prompt_ids=prompt_ids, max_tokens=room, shared=shared
    )


async def stream(runner: Runner, prepared: PreparedQuestion) -> AsyncGenerator[Piece, None]:
    """Yield pieces of the answers as they come. Closing the iterator stops the runner's work.

    Raises what `Runner.generate` raises, also after some pieces.
    """
    question = prepared.question
    request = GenerationRequest(
        model=prepared.model,
        prompt_ids=prepared.prompt_ids,
        end_ids=prepared.shared.tokenizer.eos_ids,
        num_answers=question.num_answers,
        sampling=_bounded(question.sampling, prepared.max_tokens),
    )
    tokenizer = (
        prepared.shared.tokenizer
    )  # decoding keeps no state: it needs no lock, which a preview may hold for long
    texts = [AnswerText(tokenizer, question.stops) for _ in range(question.num_answers)]
    open_answers = set(range(question.num_answers))
    tokens: list[list[TokenView]] = [[] for _ in range(question.num_answers)]
    async with aclosing(runner.generate(request)) as events:
        async for event in events:
            if event.index not in open_answers:
                continue
            piece = _piece_of(tokenizer, event, texts[event.index])
            tokens[event.index] += piece.tokens
            yield piece
            if piece.finish_reason is not None:
                open_answers.discard(event.index)
                if prepared.reference is not None:
                    yield await _compare(runner, prepared, prepared.reference, event.index, tokens[event.index])
            if not open_answers:
                return


async def answer(runner: Runner, prepared: PreparedQuestion) -> list[Answer]:
    """Return the whole answers, in order. Raises what `stream` raises."""
    answers = [Answer(index=index) for index in range(prepared.question.num_answers)]
    async with aclosing(stream(runner, prepared)) as pieces:
        async for piece in pieces:
            answers[piece.index].add(piece)
    return answers


async def _compare(
    runner: Runner, prepared: PreparedQuestion, reference: Reference, index: int, tokens: list[TokenView]
) -> Piece:
    """Score an answer under the reference."""
    ids = [token.token_id for token in tokens]
    asked = ScoreRequest(model=reference.model, prompt_ids=prepared.prompt_ids, response_ids=ids)
    logprobs = await runner.score(asked)
    log_ratio = sum(token.logprob for token in tokens) - sum(logprobs)
    view = ReferenceView(
        model=reference.model.name,
        logprobs=logprobs,
        log_ratio=log_ratio,
        reward=None if reference.beta is None else reference.beta * log_ratio,
    )
    return Piece(index=index, reference=view)


def _piece_of(tokenizer: PairTokenizer, event: RunnerEvent, text: AnswerText) -> Piece:
    if isinstance(event, AnswerEnd):
        return Piece(index=event.index, text=text.finish(), finish_reason="stop" if text.is_stopped else event.reason)
    new = text.add(event.token_id)
    shown = _view(tokenizer, event.token_id, event.logprob, event.top)
    return Piece(index=event.index, text=new, tokens=(shown,), finish_reason="stop" if text.is_stopped else None)


def _encode(tokenizer: PairTokenizer, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode_text(prompt)
    if prompt and isinstance(prompt[0], int):
        ids = [token for token in prompt if isinstance(token, int)]
        if max(ids) >= tokenizer.vocab_size or min(ids) < 0:
            raise _invalid("/prompt", f"holds a token id that is not among the model's {tokenizer.vocab_size}")
        return ids
    messages = [message for message in prompt if isinstance(message, dict)]
    if not messages:
        raise _invalid("/messages", "must hold at least one message")
    try:
        return tokenizer.encode_prompt(messages)
    except DomainError as error:
        raise _invalid("/messages", error.detail) from error


def _room(context_length: int, num_prompt: int, question: Question, most: int) -> int:
    """Return the most tokens of an answer. Raises ContextTooLong, InvalidRequest."""
    wanted = question.sampling.max_tokens
    if wanted is not None and wanted > most:
        raise _invalid("/max_tokens", f"must be at most {most:,} (PREFTUNE_CHAT_MAX_TOKENS), not {wanted:,}")
    room = context_length - num_prompt
    if room < 1 or (wanted is not None and wanted > room):
        detail = (
            f"The model's context holds {context_length:,} tokens; the prompt has {num_prompt:,}"
            + (f" and the answer may have {wanted:,}" if wanted else "")
            + ". Shorten the conversation, or ask for fewer tokens."
        )
        pointer = "/max_tokens" if room >= 1 else ("/prompt" if isinstance(question.prompt, str) else "/messages")
        raise ContextTooLong(detail, errors=[FieldError(pointer, detail)])
    return wanted or min(room, most)


def _bounded(sampling: Sampling, max_tokens: int) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        top_logprobs=sampling.top_logprobs,
    )


def _view(tokenizer: PairTokenizer, token_id: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> TokenView:
    return TokenView(
        token_id=token_id,
        text=tokenizer.show_tokens([token_id])[0],
        data=tokenizer.token_bytes(token_id),
        logprob=logprob,
        top=tuple(_view(tokenizer, other, value) for other, value in top),
    )


def _invalid(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {detail}", errors=[FieldError(pointer, detail)])
