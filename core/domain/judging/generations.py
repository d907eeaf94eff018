"""Generations: what models are to answer to which prompts, in parts whose texts the request alone determines."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from core.domain.arenas.arenas import PromptMessage, PromptText
from core.domain.jobs.job_spec import Metadata, Name, Payload
from core.domain.json_numbers import MAX_WHOLE, REAL, WHOLE

MAX_MODELS = 8
MAX_LISTED_PROMPTS = 1000
"""Prompts in a body; a dataset may hold more."""
MAX_PROMPTS = 10_000
MAX_SAMPLES = 64
MAX_ANSWERS = 50_000
MAX_TOKENS = 20_000_000
"""Most tokens that all answers of one request may have together."""
PART_ANSWERS = 64
"""Answers of one part: what is generated in one piece, and again where a process ended in its midst."""


class WorkStatus(StrEnum):
    """State of a generation or a judgement."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class GenerationSampling(Payload):
    """How the models answer."""

    max_tokens: Annotated[int, Field(ge=1, le=8192), WHOLE] = Field(256, description="Most tokens of an answer.")
    temperature: Annotated[float, Field(ge=0, le=2), REAL] = Field(1.0, description="0: always the likeliest token.")
    top_p: Annotated[float, Field(gt=0, le=1), REAL] = Field(1.0, description="Share of probability drawn from.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] = Field(
        0, description="The same seed gives the same answers, on the same kind of machine."
    )


class GenerationRequest(Payload):
    """The body of `POST /generations`: models, prompts, and how many answers to each."""

    models: Annotated[list[Name], Field(min_length=1, max_length=MAX_MODELS)] = Field(
        description="Models that answer: base models, `job_…`, `job_…@<checkpoint id>`, `job_…@sft` or `ft:…`."
    )
    dataset_id: Name | None = Field(
        None, description="Where prompts are drawn from, of any kind: `ds_…` or `ds_…@<version>`."
    )
    held_out_of: Name | None = Field(
        None, description="A job: the prompts are those that it held out of training, for validation."
    )
    prompts: (
        Annotated[list[PromptText | list[PromptMessage]], Field(min_length=1, max_length=MAX_LISTED_PROMPTS)] | None
    ) = Field(None, description="The prompts themselves, as texts or messages.")
    num_prompts: Annotated[int, Field(ge=1, le=MAX_PROMPTS), WHOLE] | None = Field(
        None, description="How many are drawn at most, each once; null: all of them."
    )
    num_samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES), WHOLE] = Field(
        1, description="Answers of each model to each prompt."
    )
    sampling: GenerationSampling = Field(
        default_factory=GenerationSampling, description="Length, temperature and seed of the answers."
    )
    seed: Annotated[int, Field(ge=0, le=MAX_WHOLE), WHOLE] = Field(0, description="Seed of the draw of prompts.")
    name: Name | None = Field(None, description="A name to recognise it by; the dataset's too.")
    metadata: Metadata = Field(default_factory=dict, description="Strings of yours.")

    @model_validator(mode="after")
    def _one_source(self) -> "GenerationRequest":
        if sum(source is not None for source in (self.dataset_id, self.held_out_of, self.prompts)) != 1:
            raise ValueError("give exactly one of dataset_id, held_out_of and prompts")
        if len(set(self.models)) < len(self.models):
            raise ValueError("models must be different; num_samples asks one for several answers")
        return self


@dataclass(frozen=True, kw_only=True)
class Part:
    """Answers that are generated together: `count` of those of one model, which are ordered by prompt and sample."""

    number: int
    """Place among the parts of all models, from 0."""
    model: int
    first: int
    count: int

    def places(self, num_samples: int) -> Iterator[tuple[int, int]]:
        """Yield the place of the prompt and the number of the sample of each answer, both from 0."""
        for index in range(self.first, self.first + self.count):
            yield divmod(index, num_samples)


def plan_parts(num_models: int, per_model: int, part_answers: int) -> list[Part]:
    """Return all parts in order: those of the first model first. `per_model`: answers of each model."""
    num_parts = math.ceil(per_model / part_answers)
    return [
        Part(
            number=model * num_parts + index,
            model=model,
            first=index * part_answers,
            count=min(part_answers, per_model - index * part_answers),
        )
        for model in range(num_models)
        for index in range(num_parts)
    ]


def answer_seed(seed: int, prompt: int, sample: int) -> int:
    """Return the seed of one answer, the same for every model: whichever part it is in, and whoever ran it."""
    digest = hashlib.blake2b(f"{seed} {prompt} {sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
