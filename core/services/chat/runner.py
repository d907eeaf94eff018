"""What a runner does: it continues token ids with a model, several requests at a time.

Runners know tokens, not texts: prompts are rendered and answers decoded here, by the code that training uses, so that
an answer has the same ids whichever engine makes it.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from core.domain.errors import InvalidRequest, Limited, Unavailable
from core.services.chat.served_models import ServedModel

EndReason = Literal["stop", "length"]
MAX_TOP_LOGPROBS = 20
MAX_ANSWERS = 8
"""Answers of one request."""


class RunnerUnavailable(Unavailable):
    code = "runner-unavailable"
    title = "No runner answers just now"


class RunnerFailed(Unavailable):
    code = "runner-failed"
    title = "The runner failed on this request"


class RunnerTimedOut(Unavailable):
    code = "runner-timed-out"
    title = "The answer took too long"


class DeviceBusy(Unavailable):
    code = "device-busy"
    title = "The device is training"


class RunnerBusy(Limited):
    code = "runner-busy"
    title = "Too many requests wait for an answer"


class ModelTooLarge(InvalidRequest):
    code = "model-too-large"
    title = "The model does not fit the runner"


class ModelNotServed(InvalidRequest):
    code = "model-not-served"
    title = "The runner cannot serve this model"


class ContextTooLong(InvalidRequest):
    code = "context-length-exceeded"
    title = "The prompt and the answer do not fit the model's context"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen. Temperature 0: always the most likely one."""

    max_tokens: int | None = None
    """Most tokens of one answer; None: as many as the runner and the model's context allow."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    """The same request and seed give the same answer; None: another one each time."""
    top_logprobs: int = 0
    """Most likely tokens that are told at each place."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    model: ServedModel
    prompt_ids: list[int]
    end_ids: tuple[int, ...]
    num_answers: int = 1
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Token ids whose log-probabilities are asked for."""

    model: ServedModel
    prompt_ids: list[int]
    response_ids: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedToken:
    index: int
    """Which answer it belongs to."""
    token_id: int
    logprob: float
    """Natural logarithm under the model itself, whatever the sampling."""
    top: tuple[tuple[int, float], ...] = ()
    """(token id, log-probability), the most likely first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerEnd:
    index: int
    reason: EndReason


RunnerEvent = GeneratedToken | AnswerEnd


class Runner(Protocol):
    def generate(self, request: GenerationRequest) -> AsyncGenerator[RunnerEvent, None]:
        """Yield tokens as they come, and an end for each answer. Closing the iterator frees what it takes.

        Raises RunnerUnavailable, RunnerBusy, RunnerFailed, ModelTooLarge, ModelNotServed, ContextTooLong, DeviceBusy.
        """

    async def score(self, request: ScoreRequest) -> list[float]:
        """Return the log-probability of each response token. Raises what `generate` raises."""

    async def close(self) -> None: ...
