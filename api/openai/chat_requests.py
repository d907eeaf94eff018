"""Bodies of `/v1/chat/completions` and `/v1/completions`, and the questions that they mean.

What is not honoured is refused; a value that changes nothing (a penalty of 0, a `user`) is taken.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from core.domain.dataset_rows import Message
from core.domain.errors import FieldError, InvalidRequest
from core.domain.jobs.job_spec import Metadata, Name, Payload
from core.domain.json_numbers import REAL, WHOLE
from core.services.chat.answering import Prompt, Question
from core.services.chat.runner import MAX_ANSWERS, MAX_TOP_LOGPROBS, Sampling

MAX_MESSAGES = 1000
MAX_PROMPTS = 16
MAX_PROMPT_TOKENS = 100_000
DEFAULT_COMPLETION_TOKENS = 16
"""Default that OpenAI has for `/v1/completions`."""
Content = Annotated[str, StringConstraints(max_length=1_000_000, pattern=r"^[^\x00]*$")]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
TokenId = Annotated[int, Field(ge=0, lt=2**31), WHOLE]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_PROMPT_TOKENS)]


class TextPart(Payload):
    type: Literal["text"]
    text: Content


class ChatMessage(Payload):
    role: Literal["system", "developer", "user", "assistant", "tool"] = Field(
        description="Who speaks; `developer` is rendered as `system`."
    )
    content: Content | Annotated[list[TextPart], Field(max_length=100)] = Field(
        description="The text, or parts of type `text`, which are joined."
    )
    name: Name | None = Field(None, description="Name of the speaker, where the model's template writes one.")

    def as_message(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        message: Message = {"role": "system" if self.role == "developer" else self.role, "content": text}
        return message if self.name is None else {**message, "name": self.name}


class StreamOptions(Payload):
    include_usage: bool = Field(False, description="Whether a last chunk counts the tokens.")


class AnswerRequest(Payload):
    """Fields of both requests."""

    model: Name = Field(description="A base model, `job_…`, `job_…@<checkpoint id>`, `job_…@sft` or `ft:…`.")
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS), WHOLE] = Field(1, description="Answers to each prompt.")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False), REAL] = Field(
        1.0, description="0 always takes the most likely token."
    )
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), REAL] = Field(
        1.0, description="Tokens are drawn from the fewest that together have this probability."
    )
    seed: Annotated[int, Field(ge=-(2**53 - 1), le=2**53 - 1), WHOLE] | None = Field(
        None, description="The same request and seed give the same answer; null: another one each time."
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = Field(
        None, description="Texts at which an answer ends, without them."
    )
    stream: bool = Field(False, description="Whether the answer comes as server-sent events while it is written.")
    stream_options: StreamOptions | None = Field(None, description="For `stream` only.")
    presence_penalty: Literal[0] = Field(0, description="Only 0: tokens are drawn as the model has them.")
    frequency_penalty: Literal[0] = Field(0, description="Only 0: tokens are drawn as the model has them.")
    user: Annotated[str, StringConstraints(max_length=512)] | None = Field(None, description="Changes nothing.")
    metadata: Metadata | None = Field(None, description="Changes nothing.")
    store: bool = Field(
        False,
        description="Whether the answers are kept, so that feedback can be given on them; the key must allow it.",
    )
    reference: bool = Field(
        False,
        description="Of this service: each answer of a policy is also scored by its reference, the SFT policy or what "
        "the job started from, and has its implicit reward.",
    )

    @field_validator("presence_penalty", "frequency_penalty", mode="before")
    @classmethod
    def _take_any_zero(cls, value: Any, _info: ValidationInfo) -> Any:
        return 0 if isinstance(value, float) and value == 0 else value

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def counts_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def require_stream(self) -> None:
        """Raise InvalidRequest for stream options without a stream."""
        if self.stream_options is not None and not self.stream:
            raise _refusal("/stream_options", "belongs to `stream: true`")

    def question(self, prompt: Prompt, *, max_tokens: int | None, top_logprobs: int) -> Question:
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            top_logprobs=top_logprobs,
        )
        return Question(
            model=self.model,
            prompt=prompt,
            num_answers=self.n,
            sampling=sampling,
            stops=tuple(self.stops),
            has_reference=self.reference,
        )


class ChatRequest(AnswerRequest):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] = Field(
        description="The conversation so far, rendered by the model's chat template as in training."
    )
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = Field(
        None, description="Most tokens of an answer; null: as many as fit."
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = Field(
        None, description="OpenAI's newer name of `max_tokens`."
    )
    logprobs: bool = Field(False, description="Whether each token comes with its log-probability.")
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), WHOLE] = Field(
        0, description="Most likely tokens that are told at each place; needs `logprobs`."
    )

    def questions(self) -> list[Question]:
        """Return the one question. Raises InvalidRequest for fields that do not go together."""
        self.require_stream()
        if self.top_logprobs and not self.logprobs:
            raise _refusal("/top_logprobs", "needs `logprobs: true`")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise _refusal("/max_tokens", "and `max_completion_tokens` say the same thing; keep one of the two")
        most = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        messages = [message.as_message() for message in self.messages]
        return [self.question(messages, max_tokens=most, top_logprobs=self.top_logprobs)]


class CompletionRequest(AnswerRequest):
    """The body of `POST /v1/completions`: texts are continued as they stand, without a chat template."""

    prompt: (
        Content
        | Annotated[list[Content], Field(min_length=1, max_length=MAX_PROMPTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    ) = Field(description="A text, several texts, token ids, or several lists of token ids.")
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] = Field(
        DEFAULT_COMPLETION_TOKENS, description="Most tokens of an answer."
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), WHOLE] | None = Field(
        None, description="Most likely tokens that are told at each place; null: no log-probabilities."
    )

    def questions(self) -> list[Question]:
        """Return a question for each prompt. Raises InvalidRequest for fields that do not go together."""
        self.require_stream()
        found = self.prompt
        prompts: list[Any] = [found] if isinstance(found, str) or isinstance(found[0], int) else list(found)
        return [
            self.question(prompt, max_tokens=self.max_tokens, top_logprobs=self.logprobs or 0) for prompt in prompts
        ]


def _refusal(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {detail}", errors=[FieldError(pointer, detail)])
