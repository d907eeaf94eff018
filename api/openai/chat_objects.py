"""Answers of `/v1/chat/completions` and `/v1/completions`, with the names and shapes of OpenAI's API."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from api.openai.objects import Answer
from core.services.chat import answering
from core.services.chat.answering import Piece, TokenView

FinishReason = Literal["stop", "length"]


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    content: list[TokenLogprob] = Field(
        description="All tokens that were generated, with the one that ends the turn: their sum is the answer's "
        "log-probability, as `POST /jobs/{job_id}/scores` gives it."
    )
    refusal: str | None = None


class ChatAnswerMessage(Answer):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class ReferenceScore(Answer):
    """What the reference of a policy thinks of an answer."""

    model: str = Field(description="The reference; empty for the policy of an earlier job.")
    logprobs: list[float] = Field(description="Log-probability of each generated token under the reference.")
    log_ratio: float = Field(description="The answer's log-probability under the policy minus that here.")
    reward: float | None = Field(description="Implicit reward: beta times `log_ratio`.")


class ChatChoice(Answer):
    index: int
    message: ChatAnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    reference: ReferenceScore | None = Field(None, description="With `reference: true`, for policies.")


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int = Field(description="Generated tokens of all answers, with those that end a turn.")
    total_tokens: int

    @classmethod
    def of(cls, num_prompt: int, num_generated: int) -> "Usage":
        return cls(prompt_tokens=num_prompt, completion_tokens=num_generated, total_tokens=num_prompt + num_generated)


class ChatCompletion(Answer):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None


class TextLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(Answer):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason
    reference: ReferenceScore | None = Field(None, description="With `reference: true`, for policies.")


class TextCompletion(Answer):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    system_fingerprint: str | None = None


def chat_choice(answer: answering.Answer, *, has_logprobs: bool) -> ChatChoice:
    logprobs = ChatLogprobs(content=token_logprobs(answer.tokens)) if has_logprobs else None
    message = ChatAnswerMessage(content=answer.text)
    return ChatChoice(
        index=answer.index,
        message=message,
        logprobs=logprobs,
        finish_reason=answer.finish_reason,
        reference=reference_score(answer.reference),
    )


def text_choice(answer: answering.Answer, *, num_top: int | None) -> TextChoice:
    return TextChoice(
        index=answer.index,
        text=answer.text,
        logprobs=None if num_top is None else text_logprobs(answer.tokens, num_top, 0),
        finish_reason=answer.finish_reason,
        reference=reference_score(answer.reference),
    )


def reference_score(view: answering.ReferenceView | None) -> ReferenceScore | None:
    return None if view is None else ReferenceScore(**vars(view))


def token_logprobs(tokens: Sequence[TokenView]) -> list[TokenLogprob]:
    return [
        TokenLogprob(**_fields(token), top_logprobs=[TopLogprob(**_fields(other)) for other in token.top])
        for token in tokens
    ]


def text_logprobs(tokens: Sequence[TokenView], num_top: int, offset: int) -> TextLogprobs:
    """Return the older form; `offset` counts the characters of earlier chunks."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text) if token.data is not None else 0
    return TextLogprobs(
        tokens=[token.text for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[{other.text: other.logprob for other in token.top} for token in tokens] if num_top else None,
        text_offset=offsets,
    )


def chat_delta(piece: Piece, *, is_first: bool, has_logprobs: bool) -> dict[str, Any] | None:
    """Return the choice of one chunk of a stream; None for a piece that adds nothing."""
    if piece.reference is not None:
        return _reference_delta(piece, piece.reference) | {"delta": {}}
    if not (is_first or piece.text or piece.finish_reason or has_logprobs):
        return None
    delta: dict[str, Any] = {"role": "assistant"} if is_first else {}
    if piece.text or is_first:
        delta["content"] = piece.text
    logprobs = None
    if has_logprobs and piece.tokens:
        logprobs = ChatLogprobs(content=token_logprobs(piece.tokens)).model_dump()
    return {"index": piece.index, "delta": delta, "logprobs": logprobs, "finish_reason": piece.finish_reason}


def text_delta(piece: Piece, *, num_top: int | None, offset: int) -> dict[str, Any] | None:
    """Return the choice of one chunk of a stream; None for a piece that adds nothing."""
    if piece.reference is not None:
        return _reference_delta(piece, piece.reference) | {"text": ""}
    if not (piece.text or piece.finish_reason or num_top is not None):
        return None
    has_logprobs = num_top is not None and piece.tokens
    logprobs = text_logprobs(piece.tokens, num_top or 0, offset).model_dump() if has_logprobs else None
    return {"index": piece.index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish_reason}


def _reference_delta(piece: Piece, view: answering.ReferenceView) -> dict[str, Any]:
    return {"index": piece.index, "logprobs": None, "finish_reason": None, "reference": vars(view)}


def _fields(token: TokenView) -> dict[str, Any]:
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": None if token.data is None else list(token.data),
    }
