"""A run as plain values: all that the engine needs to know.

Frozen dataclasses with a strict JSON form: a plan that was written down is read back equal; an unknown key, or a
missing one without a default, is an error.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.domain.jobs.methods import DEFAULT as DEFAULT_METHOD
from core.domain.jobs.methods import METHODS, get_method
from core.domain.typed_json import Misfit, from_values
from core.training.failures import BadPlan

Schedule = Literal["constant", "linear", "cosine"]
OptimizerName = Literal["adamw", "rmsprop"]
Precision = Literal["bf16", "fp32"]
ArtifactDtype = Literal["auto", "float32", "bfloat16"]
OptionValue = float | str
Layout = Literal["sharded", "hybrid", "replicated"]


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingPlan:
    """Rule that ends training when a validation metric has not improved for `patience` evaluations."""

    metric: Literal["loss", "rewards/accuracies", "rewards/margins", "mean_token_accuracy"] = "loss"
    patience: int = 3
    min_delta: float = 0.0
    """Smaller changes do not count."""
    restore_best: bool = False
    """End with the policy of the best evaluation instead of the last one."""


@dataclass(frozen=True, kw_only=True)
class SftPlan:
    """Optimisation settings of one stage. The last, smaller step of an epoch is kept."""

    epochs: int
    learning_rate: float
    """The peak, after warm-up."""
    batch_size: int
    """Rows (pairs in DPO) per optimizer step, whatever the micro-batches."""
    warmup_steps: int = 0
    schedule: Schedule = "constant"
    """After warm-up: constant, or down to 0 at the last step."""
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.0
    """Decoupled: the weights shrink by learning_rate * weight_decay a step."""
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW only."""
    alpha: float = 0.99
    """RMSprop only: smoothing of the squared gradient."""
    epsilon: float = 1e-8
    early_stopping: EarlyStoppingPlan | None = None
    """In the last training stage only: the one that is evaluated on held-out rows."""


@dataclass(frozen=True, kw_only=True)
class DpoPlan(SftPlan):
    """Settings of the preference stage."""


@dataclass(frozen=True, kw_only=True)
class RewardPlan(SftPlan):
    """Settings of a reward model's training."""

    center_rewards_coefficient: float = 0.0
    """Weight of the squared sum of a pair's rewards in the loss."""


@dataclass(frozen=True, kw_only=True)
class LoraPlan:
    """One adapter, trained through SFT and DPO; the reference of DPO is the base with the SFT'd adapter.

    The head of a reward model is trained whole beside it.
    """

    rank: int = 16
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """In SFT only: DPO compares policy and reference without noise, as TRL and the DPO authors do."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    target_parameters: tuple[str, ...] | Literal["all-experts"] = ()
    """Names in peft of experts that are parameters of three dimensions; they take no dropout."""


@dataclass(frozen=True, kw_only=True)
class ReusePlan:
    """Outputs of finished stages to reuse, as an equal earlier run announced them."""

    sft_dir: str | None = None
    reference_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """One run: the stages of its method, such as sft ► reference ► dpo ► evaluation. Directories are local."""

    base_model_dir: str
    base_model_digest: str = ""
    """What the base model is, for the digests of stage outputs; without it nothing tells two base models apart."""
    train_data: str
    """Encoded preference pairs (unpaired responses, for a variant of such; demonstrations in a supervised run)."""
    validation_data: str | None = None
    """Encoded held-out rows of the same kind."""
    sft_data: str | None = None
    """Encoded demonstrations; None: the chosen responses of `train_data`."""
    sft: SftPlan | None
    """None: DPO starts from the base model."""
    dpo: DpoPlan | None
    """None in a run without a preference stage."""
    reward: RewardPlan | None = None
    """None but in a run that trains a reward model."""
    pad_token_id: int | None = None
    """Token of the padding of a reward model's texts, which decides where a reward is read; None for a policy."""
    method: str = DEFAULT_METHOD
    """One of `core.domain.jobs.methods`."""
    variant: str = "dpo"
    beta: float = 0.1
    variant_options: Mapping[str, OptionValue] = field(default_factory=dict)
    lora: LoraPlan | None = None
    precision: Precision = "bf16"
    """Precision of the compute weights; master weights and optimizer states are float32."""
    artifact_dtype: ArtifactDtype = "auto"
    """Type of published weights; auto: the one that rounds nothing of what was trained (`policies`)."""
    device: str = "cpu"
    num_devices: int = 1
    """Number of devices from `device` on, a process each; on a CPU so many processes, which only tests use."""
    layout: Layout = "sharded"
    """How several devices share the model (`core.training.layout`): all of them a part each, those of each node, or the
    whole of a frozen base model on every one."""
    num_threads: int = 1
    seed: int = 0
    group_by_prompt: bool = False
    """Take the rows of a prompt in one step, so that what they have in common is computed once."""
    evaluate_every_steps: int = 100
    checkpoint_every_steps: int = 100
    pause_at_share: float | None = None
    """Share of the last stage's steps at whose next evaluation the run stops with a checkpoint; None: it does not."""
    micro_batch_tokens: int = 2048
    """Packed tokens of one forward pass; a longer row runs alone."""
    score_train_rows: bool = True
    """Score the training pairs once more under the final policy, for the report on pairs: a forward pass over them."""
    sample_prompts: tuple[tuple[int, ...], ...] = ()
    """Token ids, answered greedily before and after DPO."""
    eos_token_ids: tuple[int, ...] = ()
    max_new_tokens: int = 128
    work_dir: str
    """Where outputs and checkpoints are written."""
    resume_from: str | None = None
    """A verified checkpoint directory of an equal plan."""
    reuse: ReusePlan = field(default_factory=ReusePlan)

    def __post_init__(self) -> None:
        for name, is_right, rule in _checks(self):
            if not is_right:
                raise BadPlan(f"{name} must be {rule}.")

    @property
    def last_stage(self) -> SftPlan:
        """Settings of the stage whose policy is published."""
        stage = getattr(self, get_method(self.method).last.value)
        assert isinstance(stage, SftPlan)  # checked when the plan was made
        return stage

    def to_json(self) -> str:
        """Serialise to one JSON object with keys in a fixed order."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "TrainingPlan":
        """Parse a plan; raises BadPlan unless it has exactly the fields of a plan, with values of their types."""
        try:
            return from_values(cls, json.loads(text), "plan")
        except Misfit as error:
            raise BadPlan(str(error)) from None


def _checks(plan: TrainingPlan) -> list[tuple[str, bool, str]]:
    if plan.method not in METHODS:
        return [("method", False, f"one of {', '.join(METHODS)}")]
    stages: dict[str, SftPlan | None] = {"sft": plan.sft, "dpo": plan.dpo, "reward": plan.reward}
    trained = [stage.value for stage in get_method(plan.method).trained]
    checks = [
        (trained[-1], stages[trained[-1]] is not None, f"given with the method {plan.method}"),
        *(
            (name, stages[name] is None, f"null with the method {plan.method}")
            for name in stages
            if name not in trained
        ),
        ("beta", plan.beta > 0, "above 0"),
        ("device", plan.device == "cpu" or plan.device.startswith("cuda"), '"cpu" or "cuda:<n>"'),
        ("num_devices", plan.num_devices >= 1, "at least 1"),
        ("layout", plan.layout != "replicated" or plan.lora is not None, "another one without LoRA"),
        ("num_threads", plan.num_threads >= 1, "at least 1"),
        ("seed", 0 <= plan.seed < 2**63, "in [0, 2^63)"),
        ("evaluate_every_steps", plan.evaluate_every_steps >= 1, "at least 1"),
        ("checkpoint_every_steps", plan.checkpoint_every_steps >= 1, "at least 1"),
        ("pause_at_share", plan.pause_at_share is None or 0 < plan.pause_at_share < 1, "in (0, 1)"),
        ("micro_batch_tokens", plan.micro_batch_tokens >= 1, "at least 1"),
        ("max_new_tokens", plan.max_new_tokens >= 1, "at least 1"),
        ("sample_prompts", all(plan.sample_prompts), "prompts of at least one token"),
    ]
    checks += _reward_checks(plan)
    for name, stage in stages.items():
        if stage is not None:
            checks += _stage_checks(name, stage)
            if name != trained[-1]:
                checks.append((f"{name}.early_stopping", stage.early_stopping is None, "null but in the last stage"))
    if plan.lora is not None:
        checks.append(("lora.rank", plan.lora.rank >= 1, "at least 1"))
        checks.append(("lora.dropout", 0 <= plan.lora.dropout < 1, "in [0, 1)"))
        both = bool(plan.lora.dropout and plan.lora.target_parameters)
        checks.append(("lora.dropout", not both, "0 with adapters on experts"))
    return checks


def _reward_checks(plan: TrainingPlan) -> list[tuple[str, bool, str]]:
    checks = []
    if not get_method(plan.method).publishes_policy:
        checks.append(("pad_token_id", plan.pad_token_id is not None, f"given with the method {plan.method}"))
        checks.append(("sample_prompts", not plan.sample_prompts, f"empty with the method {plan.method}"))
    if plan.reward is not None:
        is_share = 0 <= plan.reward.center_rewards_coefficient <= 1
        checks.append(("reward.center_rewards_coefficient", is_share, "in [0, 1]"))
    return checks


def _stage_checks(name: str, stage: SftPlan) -> list[tuple[str, bool, str]]:
    return [
        (f"{name}.epochs", stage.epochs >= 1, "at least 1"),
        (f"{name}.learning_rate", 0 < stage.learning_rate <= 1, "in (0, 1]"),
        (f"{name}.batch_size", stage.batch_size >= 1, "at least 1"),
        (f"{name}.warmup_steps", stage.warmup_steps >= 0, "at least 0"),
        (f"{name}.weight_decay", 0 <= stage.weight_decay <= 1, "in [0, 1]"),
        (f"{name}.max_grad_norm", stage.max_grad_norm > 0, "above 0"),
        (f"{name}.betas", all(0 <= value < 1 for value in stage.betas), "in [0, 1)"),
        (f"{name}.alpha", 0 <= stage.alpha < 1, "in [0, 1)"),
        (f"{name}.epsilon", stage.epsilon > 0, "above 0"),
    ]
