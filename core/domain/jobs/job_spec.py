"""A job as requested (`JobRequest`) and as it will be run (`JobSpec`): every setting, with its unit and bounds.

`resolve_request` fills what depends on the data and the base model when the job is accepted; `resolve_staged` fills
what depends on the device and on how many pairs fit, when a worker stages it. After that no `auto` is left, and a
resume on another machine takes the same steps.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)

from core.domain.jobs import presets
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import DEFAULT as DEFAULT_METHOD
from core.domain.jobs.methods import MethodName, get_method
from core.domain.jobs.whole_numbers import Lines, Nodes, Seed
from core.domain.json_numbers import REAL, WHOLE
from core.domain.variants.catalogue import VARIANTS
from core.domain.variants.checks import get_variant

Auto = Literal["auto"]
MIN_MAX_LENGTH, DEFAULT_MAX_LENGTH = 8, 1024
"""Tokens."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
PositiveInt = Annotated[int, Field(ge=1, le=10_000_000), WHOLE]
Priority = Annotated[int, Field(ge=-100, le=100), WHOLE]
LearningRate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), REAL]
Schedule = Literal["constant", "linear", "cosine"]
Optimizer = Literal["adamw", "rmsprop"]
Precision = Literal["bf16", "fp32"]
ArtifactDtype = Literal["auto", "float32", "bfloat16"]
ValidationMetric = Literal["loss", "rewards/accuracies", "rewards/margins", "mean_token_accuracy"]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=32)]
TemplateValue = StrictBool | StrictInt | StrictFloat | MetadataValue
TemplateKwargs = Annotated[dict[MetadataKey, TemplateValue], Field(max_length=16)]
"""Variables of a chat template."""
SamplePrompt = Annotated[str, StringConstraints(min_length=1, max_length=8192, pattern=r"^[^\x00]*$")]


class Payload(BaseModel):
    """Base of request bodies. Unknown fields are refused; a null for a field with a default means the default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in cls.model_fields or cls.model_fields[name].is_required()
        }


class StageSettings(Payload):
    """Settings that SFT and DPO share."""

    epochs: PositiveInt | Auto = Field("auto", description="Passes over the training rows.")
    learning_rate: LearningRate | Auto = Field("auto", description="Peak learning rate.")
    batch_size: Annotated[int, Field(ge=1, le=65536), WHOLE] | Auto = Field(
        "auto", description="Rows (pairs for DPO and reward models) per optimizer step."
    )
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] | Auto = Field(
        "auto", description="Optimizer steps of linear warm-up; auto = min(150, ceil(0.1 x total steps))."
    )
    schedule: Schedule | Auto = Field("auto", description="Learning rate after warm-up.")
    optimizer: Optimizer | Auto = Field("auto", description="Update rule.")
    weight_decay: Annotated[float, Field(ge=0, le=1), REAL] | Auto = Field(
        "auto", description="Decoupled weight decay."
    )
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6), REAL] | Auto = Field(
        "auto", description="Gradients are scaled down to this global norm."
    )


class SftSettings(StageSettings):
    """Supervised fine-tuning: a whole supervised job, or before DPO on the chosen responses or on demonstrations."""

    dataset_id: Name | None = Field(
        None, description="A demonstration dataset; null: the chosen responses, or those marked good."
    )


class DpoSettings(StageSettings):
    """Preference optimisation against the frozen reference."""


class RewardSettings(StageSettings):
    """Training of a reward model: -log sigmoid(r(chosen) - r(rejected)) (arXiv:2305.18290, eq. 2)."""

    center_rewards_coefficient: Annotated[float, Field(ge=0, le=1), REAL] = Field(
        0.0,
        description="Weight of (r(chosen) + r(rejected))² in the loss, which keeps rewards around 0 "
        "(arXiv:2312.09244); 0.01 is usual, 0 leaves it out.",
    )


class LoraSettings(Payload):
    """One low-rank adapter, through all stages that train."""

    rank: Annotated[int, Field(ge=1, le=1024), WHOLE] = Field(16, description="Rank r of the update.")
    alpha: Annotated[float, Field(gt=0, le=4096), REAL] = Field(32, description="The update is scaled by alpha / rank.")
    dropout: Annotated[float, Field(ge=0, lt=1), REAL] = Field(0.0, description="Dropout on the adapter's input.")
    target_modules: Literal["all-linear"] | list[Name] = Field(
        "all-linear",
        description="Which linear layers; all-linear leaves out the LM head and, in a mixture of experts, the router "
        "and experts that are parameters of three dimensions.",
    )
    target_parameters: Literal["all-experts"] | list[Name] = Field(
        default_factory=list,
        description='Which of those experts, as peft names them: "all-experts", or names such as "gate_up_proj" and '
        '"mlp.experts.down_proj". They take no dropout.',
    )

    @model_validator(mode="after")
    def _no_dropout_in_experts(self) -> "LoraSettings":
        if self.target_parameters and self.dropout:
            raise ValueError("adapters on experts take no dropout: leave out lora.dropout or lora.target_parameters")
        return self


class EarlyStopping(Payload):
    """End training when a validation metric stops improving."""

    metric: ValidationMetric = Field(
        "loss", description="Validation metric: of rewards; in a supervised job of tokens."
    )
    patience: PositiveInt = Field(3, description="Evaluations without improvement before training ends.")
    min_delta: Annotated[float, Field(ge=0), REAL] = Field(0.0, description="Smaller changes do not count.")
    restore_best: StrictBool | Auto = Field(
        "auto",
        description="Publish the policy of the best evaluation, of step 0 or the last one too; false: the last policy. "
        "auto: true, but for jobs that an earlier version has staged.",
    )


class TrackingSettings(Payload):
    """The job's run at the tracking server that the operator has set; its curves go there in any case."""

    project: Name | None = Field(
        None, description="The W&B project that the operator has set; any other is refused. null: not checked."
    )
    run_name: Name | None = Field(None, description="Name of the run; null: the job's id.")
    tags: Annotated[list[MetadataKey], Field(max_length=16)] = Field(
        default_factory=list, description="Tags of the run."
    )


class JobRequest(Payload):
    """The body of `POST /jobs`; `base_model` and `dataset_id` are enough."""

    base_model: Name = Field(description="A name from GET /models, or a policy: job_…, job_…@<checkpoint id> or ft:…")
    dataset_id: Name = Field(
        description="A ready dataset of the kind that the variant trains on: preference, for `kto` unpaired. A "
        "supervised job takes every kind: of pairs the chosen responses, of marked responses the good ones. "
        "`ds_…@<version>` names one version."
    )
    dataset_version: PositiveInt | None = Field(
        None, description="Version of the dataset; null: the newest that is ready when the job is accepted."
    )
    method: MethodName = Field(
        DEFAULT_METHOD,
        description="preference: SFT, then a preference loss. supervised: SFT alone; settings of the preference stage "
        "(`variant`, `beta`, `variant_options`, `dpo`, `score_training_pairs`) are refused. reward: a reward model on "
        "the same pairs, with settings in `reward`; it answers nothing and is no `base_model`.",
    )
    variant: Name = Field("dpo", description="A name from GET /variants.")
    beta: Annotated[float, Field(gt=0, le=1000), REAL] | None = Field(
        None, description="How strongly training stays close to the reference model; null: the variant's default."
    )
    variant_options: dict[Name, float | bool | str] = Field(
        default_factory=dict, description="Only what the variant takes; anything else is refused."
    )
    sft: SftSettings | Literal["skip"] = Field(
        default_factory=SftSettings,
        description='Settings, or "skip". Not given: on the chosen responses; skipped for orpo and cpo, whose loss '
        "has a likelihood term of its own. A supervised job has no other stage.",
    )
    dpo: DpoSettings = Field(default_factory=DpoSettings, description="Settings of the preference stage.")
    reward: RewardSettings = Field(default_factory=RewardSettings, description="Settings of a reward model's training.")
    lora: LoraSettings | None = Field(None, description="null: full fine-tuning.")
    max_length: Annotated[int, Field(ge=MIN_MAX_LENGTH, le=1_048_576), WHOLE] = Field(
        DEFAULT_MAX_LENGTH,
        description="Tokens of prompt and response together; longer pairs are set aside and reported. Not given: the "
        "base model's context length where that is smaller. Given and larger: refused for a model with learned "
        "positions; for one with rotary positions the job trains, and warns with the number of rows beyond.",
    )
    precision: Precision | Auto = Field("auto", description="Type of the compute weights.")
    artifact_dtype: ArtifactDtype = Field(
        "auto",
        description="Type of the published weights. auto: the type that was trained in, and float32 with LoRA, whose "
        "small updates bfloat16 rounds away; bfloat16 is half as large and costs a part of the update, which a job "
        "with LoRA tells.",
    )
    seed: Seed = Field(0, description="Seed of every random choice.")
    group_by_prompt: StrictBool | Auto = Field(
        "auto",
        description="Take the pairs of a prompt in one step, where what they have in common is computed once; prompts "
        "are shuffled instead of pairs. auto: true where responses stand in several pairs, as in ranked lists.",
    )
    validation_fraction: Annotated[float, Field(ge=0, le=0.5), REAL] = Field(
        0.05, description="Share of pairs held out, grouped by prompt."
    )
    validation_dataset_id: Name | None = Field(None, description="Held-out pairs of their own dataset instead.")
    evaluate_every_steps: PositiveInt | Auto = Field(
        "auto", description="Validation interval of the last training stage, in steps."
    )
    checkpoint_every_steps: PositiveInt | Auto = Field("auto", description="Checkpoint interval, in steps.")
    keep_checkpoints: Annotated[int, Field(ge=2, le=100), WHOLE] = Field(
        2, description="Of how many of the newest checkpoints the policy is kept, beside the best one's."
    )
    keep_best: ValidationMetric | None = Field(
        None, description="What the best checkpoint is best at; null: what early stopping watches, else the loss."
    )
    early_stopping: EarlyStopping | None = Field(None, description="null: train all epochs.")
    score_training_pairs: bool = Field(
        True,
        strict=True,
        description="Score the training pairs once more under the tuned policy, for GET /jobs/{id}/pairs: a forward "
        "pass over them. false: their rewards stay those of the step that last trained on them.",
    )
    sample_prompts: Annotated[list[SamplePrompt], Field(max_length=16)] = Field(
        default_factory=list, description="Answered before and after, greedily."
    )
    chat_template_kwargs: TemplateKwargs = Field(
        default_factory=dict,
        description='Variables of the base model\'s chat template, such as `{"enable_thinking": false}`.',
    )
    exclude_lines: Lines = Field(default_factory=list, description="Lines of the dataset that are left out.")
    swap_lines: Lines = Field(default_factory=list, description="Lines whose pair (or label) is swapped.")
    reuse: bool = Field(
        True, strict=True, description="Take over finished stages of earlier jobs with the same inputs."
    )
    name: Name | None = Field(None, description="A name to recognise it by.")
    metadata: Metadata = Field(default_factory=dict, description="Strings of yours, searchable.")
    tracking: TrackingSettings | None = Field(
        None, description="Name and tags of the job's run at the operator's tracking server; refused where none is set."
    )
    priority: Priority = Field(0, description="Higher runs first.")
    max_runtime_seconds: PositiveInt | None = Field(None, description="Over all attempts; null: no limit.")
    nodes: Nodes = 1

    @model_validator(mode="after")
    def _settings_that_go_together(self) -> "JobRequest":
        if self.validation_dataset_id and "validation_fraction" in self.model_fields_set and self.validation_fraction:
            raise ValueError("give validation_dataset_id or validation_fraction, not both")
        entry = VARIANTS.get(self.variant)
        if self.group_by_prompt is False and entry is not None and entry.compares_lists:
            raise ValueError(f"{self.variant} compares all pairs of a prompt: leave group_by_prompt out")
        if both := sorted({*self.exclude_lines} & {*self.swap_lines}):
            raise ValueError(f"line {both[0]} is in exclude_lines and in swap_lines")
        return self


class JobSpec(JobRequest):
    """A request with numbers in place of `auto`, and the facts it was resolved from."""

    seed: Annotated[int, Field(ge=0), WHOLE] = Field(0, description="Seed of every random choice.")
    dataset_version: PositiveInt = Field(1, description="Version of the dataset that the job reads.")
    num_parameters: int = Field(description="Of the base model.")
    num_pairs: int = Field(description="Accepted pairs (for `kto` single responses) of the dataset.")
    micro_batch_tokens: PositiveInt | Auto = Field("auto", description="Tokens of one forward pass at most.")

    @property
    def last_stage(self) -> StageSettings:
        """Settings of the stage whose weights are published."""
        settings = getattr(self, get_method(self.method).last.value)
        assert isinstance(settings, StageSettings)
        return settings

    @property
    def dataset_name(self) -> str:
        """Name of the version that the job reads."""
        return f"{self.dataset_id.partition('@')[0]}@{self.dataset_version}"

    @model_validator(mode="after")
    def _staged_by_earlier_version(self) -> "JobSpec":
        """Keep the order that a job was staged with before it could be chosen."""
        if self.micro_batch_tokens != "auto" and self.group_by_prompt == "auto":
            self.group_by_prompt = False
        return self

    @model_validator(mode="after")
    def _without_sft(self) -> "JobSpec":
        """Skip SFT in a method without that stage, whose stored spec leaves the setting out."""
        if not get_method(self.method).has(Stage.SFT):
            self.sft = "skip"
        return self


def resolve_request(
    request: JobRequest, *, num_parameters: int, num_pairs: int, default_beta: float, context_length: int | None = None
) -> JobSpec:
    """Resolve what is known without a device: learning rates, batch sizes, epochs, optimizer, length.

    Args:
        context_length: of the base model, in tokens; None where it names none.
    """
    values = request.model_dump() | {"num_parameters": num_parameters, "num_pairs": num_pairs}
    values["dataset_version"] = request.dataset_version or 1
    method = get_method(request.method)
    if method.can_skip_sft and "sft" not in request.model_fields_set and get_variant(request.variant).has_own_sft:
        values["sft"] = "skip"
    _fill_stages(values)
    if values["early_stopping"] and values["early_stopping"]["restore_best"] == "auto":
        values["early_stopping"]["restore_best"] = True
    if "beta" not in method.unused and request.beta is None:
        values["beta"] = default_beta
    if context_length is not None and "max_length" not in request.model_fields_set:
        values["max_length"] = max(MIN_MAX_LENGTH, min(DEFAULT_MAX_LENGTH, context_length))
    if request.validation_dataset_id:
        values["validation_fraction"] = 0.0
    return JobSpec.model_validate(values)


def resolve_staged(
    spec: JobSpec,
    *,
    num_sft_rows: int,
    num_train_pairs: int,
    device: str,
    fast_precision: Precision,
    is_ranked: bool = False,
) -> JobSpec:
    """Resolve the rest, once the pairs that fit are counted and the device is known; no `auto` is left.

    Args:
        fast_precision: what this device multiplies fastest; a CPU without bf16 instructions is ten times slower in it.
        is_ranked: whether responses stand in several of the training pairs.
    """
    values = spec.model_dump()
    _fill_stages(values)  # a setting that was added after the job was accepted
    if values["early_stopping"] and values["early_stopping"]["restore_best"] == "auto":
        values["early_stopping"]["restore_best"] = spec.micro_batch_tokens == "auto"
    num_rows = dict.fromkeys(("dpo", "reward"), num_train_pairs) | {"sft": num_sft_rows}
    trained = _trained_stages(values)
    for name in trained:
        values[name]["warmup_steps"] = _warmup(values[name], num_rows[name])
    steps = total_steps(values[trained[-1]], num_rows[trained[-1]])
    if spec.precision == "auto":
        values["precision"] = fast_precision
    if spec.group_by_prompt == "auto":
        values["group_by_prompt"] = is_ranked or get_variant(spec.variant).compares_lists
    if spec.evaluate_every_steps == "auto":
        values["evaluate_every_steps"] = max(1, math.ceil(steps / 10))
    if spec.checkpoint_every_steps == "auto":
        # A multiple: a checkpoint has the validation values of its own step.
        between = int(values["evaluate_every_steps"])
        values["checkpoint_every_steps"] = between * math.ceil(10 / between)
    if spec.micro_batch_tokens == "auto":
        values["micro_batch_tokens"] = max(spec.max_length * 2, presets.micro_batch_tokens(device))
    return JobSpec.model_validate(values)


def _trained_stages(values: dict[str, Any]) -> list[str]:
    """Return the names of the stages that this spec trains, in order."""
    return [stage.value for stage in get_method(values["method"]).trained if values[stage.value] != "skip"]


def _fill_stages(values: dict[str, Any]) -> None:
    """Fill every `auto` of the stages that has a preset."""
    for name, preset in presets_of(values).items():
        values[name] |= presets.fill(values[name], preset)


def presets_of(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the presets for each stage that the spec has."""
    size, is_lora = (values["num_parameters"], values["num_pairs"]), values["lora"] is not None
    own_rates = get_variant(values["variant"]).learning_rates
    stages = {
        "sft": presets.sft(*size, is_lora=is_lora),
        "dpo": presets.dpo(*size, is_lora=is_lora, own_rates=own_rates),
        "reward": presets.reward(*size, is_lora=is_lora),
    }
    return {name: stages[name] for name in _trained_stages(values)}


def total_steps(stage: dict[str, Any], num_rows: int) -> int:
    """Return the optimizer steps of a resolved stage; the last, smaller step of an epoch counts."""
    return int(stage["epochs"]) * math.ceil(num_rows / int(stage["batch_size"]))


def _warmup(stage: dict[str, Any], num_rows: int) -> int:
    if stage["warmup_steps"] != "auto":
        return int(stage["warmup_steps"])
    return min(150, math.ceil(0.1 * total_steps(stage, num_rows)))
