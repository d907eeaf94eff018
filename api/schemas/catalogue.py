"""Schemas of what jobs can name: preference losses and models."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.base import Answer, Page

OptionType = Literal["number", "string"]
TrainedKind = Literal["preference", "unpaired"]
ModelKind = Literal["base", "tuned"]


class VariantOption(Answer):
    description: str = Field(description="What it does.")
    type: OptionType = Field(description="Of its values.")
    default: float | str = Field(description="Used when it is left out.")
    min: float | None = Field(description="Least value; null: none.")
    max: float | None = Field(description="Greatest value; null: none.")
    is_min_exclusive: bool = Field(description="Must it be above `min`?")
    is_max_exclusive: bool = Field(description="Must it be below `max`?")
    choices: list[str] = Field(description="Of a `string` option: what it can be.")
    only_with: dict[str, str] = Field(description="It has an effect only where these options have these values.")


class Variant(Answer):
    """A preference loss."""

    name: str = Field(description="Send it as `variant`.")
    title: str = Field(description="The name in words.")
    formula: str = Field(description="Of one pair; read it with `legend`.")
    needs_reference: bool = Field(description="Is the policy compared with the frozen reference?")
    options: dict[str, VariantOption] = Field(description="What `variant_options` may hold.")
    default_beta: float = Field(description="Used when `beta` is left out.")
    beta_means: str = Field(description="What beta does in this loss.")
    learning_rates: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="`auto` of full fine-tuning and LoRA; null: DPO's, by model size."
    )
    has_own_sft: bool = Field(default=False, description="Is SFT skipped unless the job has `sft`?")
    paper: str = Field(description="arXiv id, or an address where there is none.")
    year: int = Field(description="Of the paper.")
    choose_when: str = Field(description="When to choose it.")
    reward: str = Field(description="The implicit reward that metrics show.")
    data: TrainedKind = Field(description="Kind of dataset it trains on.")
    other_names: list[str] = Field(description="What other trainers call it.")


class Variants(Answer):
    data: list[Variant] = Field(description="All of them.")
    legend: str = Field(description="What the letters of the formulas mean.")


class Model(Answer):
    """Model that a job can start from."""

    name: str = Field(description="Send it as `base_model`.")
    kind: ModelKind = Field(description="`base`: put there by the operator; `tuned`: made by a job.")
    architecture: str = Field(description="Class of transformers.")
    num_parameters: int = Field(description="Weights of the model.")
    context_length: int | None = Field(description="Tokens; null where the model names no limit.")
    source: str | None = Field(description="Where it was pulled from.")
    revision: str | None = Field(description="Commit or version of the source.")
    job_id: str | None = Field(description="Of a tuned policy: the job that made it.")
    job_name: str | None = Field(default=None, description="Of a tuned policy: the name of the job that made it.")


class Models(Page[Model]):
    """Base models by name, then tuned policies, the newest first."""
