"""Policies between stages and on the disk: base model, SFT policy, artifact."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn
from transformers import PreTrainedModel

from core.disk_space import room_for
from core.domain.jobs.methods import get_method
from core.training.checkpoints.tensor_files import complete_directory
from core.training.failures import BadStageOutput
from core.training.model.adapters import adapter_files, adapters
from core.training.model.adapters.merging import RoundingLoss, trained_weights, weight_digests
from core.training.model.loading import examine, load_causal_lm, open_causal_lm, read_in_place, save_policy, settle
from core.training.model.reward_model import (
    OpenedRewardModel,
    load_reward_model,
    open_reward_model,
    refuse_other_reading,
)
from core.training.model.sharding import compute_dtype, passing_weights, reshard, shard
from core.training.plan import LoraPlan, Precision, TrainingPlan
from core.training.ranks import ALONE, Ranks
from core.training.seeding import derive_seed

STAGE_FILE = "stage.json"
ADAPTER_DIR = "adapter"

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
_PUBLISHED = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class PolicySource:
    """Source of a stage's initial policy; always the disk, so that a reused output starts it with equal bits."""

    sft_dir: Path | None = None
    """The SFT policy: a whole model, or with LoRA its adapter; None: the base model."""


def load_policy(plan: TrainingPlan, source: PolicySource, ranks: Ranks = ALONE) -> PreTrainedModel:
    """Load the model to train on its device, in eval mode; what is trainable requires gradients.

    On several ranks, which enter together, it is sharded over them as the plan says; none of them then holds the whole.
    """
    dtype, device = DTYPES[plan.precision], plan.device
    if ranks.size > 1 and plan.layout != "replicated":
        return _load_shards(plan, source, ranks)
    if plan.lora is None:
        return load_start(plan, source.sft_dir or plan.base_model_dir, dtype, device)
    model = load_start(plan, plan.base_model_dir, dtype, device)
    if source.sft_dir is None:
        adapters.inject(model, lora_config(plan.lora), derive_seed(plan.seed, "adapter"))
    else:
        adapter_files.load_adapter(model, source.sft_dir)
    return model


def _load_shards(plan: TrainingPlan, source: PolicySource, ranks: Ranks) -> PreTrainedModel:
    """Load as `load_policy` does: from mapped files, in the same steps, but what computes with weights comes last.

    Where an adapter's targets are found by a run of the model, it is the mapped one that runs, on the host.
    """
    dtype, device = DTYPES[plan.precision], torch.device(plan.device)
    directory = plan.base_model_dir if source.sft_dir is None or plan.lora is not None else source.sft_dir
    opened: OpenedRewardModel | None = None
    if get_method(plan.method).publishes_policy:
        model = open_causal_lm(directory, dtype=dtype, read=read_in_place)
    else:
        opened = open_reward_model(directory, dtype=dtype, read=read_in_place, **_reward_options(plan))
        model = opened.model
    head_name = None if opened is None else opened.head_name
    settle(model, head_name, dtype, device)
    if plan.lora is not None and source.sft_dir is None:
        adapters.inject(model, lora_config(plan.lora), derive_seed(plan.seed, "adapter"), dtype)
    if opened is not None:
        opened.draw_head(dtype)
    if plan.lora is not None and source.sft_dir is not None:
        adapter_files.load_adapter(model, source.sft_dir, dtype)
    shard(model, ranks, dtype, device, within_nodes=plan.layout == "hybrid")
    examine(model, head_name)
    if opened is not None:
        refuse_other_reading(model)
    reshard(model)
    return model


def load_start(plan: TrainingPlan, directory: Path | str, dtype: torch.dtype, device: str = "cpu") -> PreTrainedModel:
    """Load what training begins from as the class of the plan's method; a reward model gets its new head."""
    if get_method(plan.method).publishes_policy:
        return load_causal_lm(directory, dtype=dtype, device=device)
    return load_reward_model(directory, dtype=dtype, device=device, **_reward_options(plan))


class _RewardOptions(TypedDict):
    pad_token_id: int | None
    head_seed: int


def _reward_options(plan: TrainingPlan) -> _RewardOptions:
    return {"pad_token_id": plan.pad_token_id, "head_seed": derive_seed(plan.seed, "reward head")}


def enable_adapter_dropout(model: PreTrainedModel) -> None:
    """Enable the adapter's dropout, for SFT only: DPO compares policy and reference without noise."""
    for _, layer in adapters.adapters(model):
        layer.train()


@contextmanager
def adapter_dropout_off(model: PreTrainedModel) -> Iterator[None]:
    """Disable the adapter's dropout inside, for what is measured while it trains; nothing random is drawn."""
    noisy = [layer for _, layer in adapters.adapters(model) if layer.training]
    for layer in noisy:
        layer.eval()
    try:
        yield
    finally:
        for layer in noisy:
            layer.train()


def trainable_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return trainable parameters by name, tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_sft_policy(
    model: PreTrainedModel, plan: TrainingPlan, digest: str, directory: Path, ranks: Ranks = ALONE
) -> None:
    """Save the output of the SFT stage: the model in its compute precision, or its adapter.

    All ranks enter together, the first of each node writes.
    """
    adapter = adapters.adapter_state(model)
    with ranks.together(), ExitStack() as stack:
        passing = stack.enter_context(passing_weights(model)) if plan.lora is None else None
        if not ranks.is_node_leader:
            return
        with room_for("the SFT policy"), complete_directory(directory) as hidden:
            if plan.lora is None:
                save_policy(model, hidden, end_ids=plan.eos_token_ids, passing=passing)
            else:
                adapter_files.save_adapter(model, lora_config(plan.lora), hidden, state=adapter)
            (hidden / STAGE_FILE).write_text(json.dumps({"stage": "sft", "digest": digest}) + "\n", encoding="utf-8")


def saved_digest(directory: Path) -> str | None:
    """Return the digest of the stage that made a policy's folder; None where the folder does not say."""
    try:
        return str(json.loads((directory / STAGE_FILE).read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_sft_policy(directory: Path, digest: str) -> None:
    """Check for the output of the SFT stage with this digest. Raises BadStageOutput."""
    try:
        stage = json.loads((directory / STAGE_FILE).read_text(encoding="utf-8"))
        is_right = stage == {"stage": "sft", "digest": digest}
    except (OSError, ValueError) as error:
        raise BadStageOutput("The earlier SFT policy is damaged.") from error
    if not is_right:
        raise BadStageOutput("The earlier SFT policy was trained with other settings, data or versions.")


def published_dtype(plan: TrainingPlan) -> torch.dtype:
    """Return the type of published weights: as requested, else float32 with an adapter, else the trained one's."""
    if plan.artifact_dtype != "auto":
        return _PUBLISHED[plan.artifact_dtype]
    return torch.float32 if plan.lora is not None else DTYPES[plan.precision]


def save_artifact(
    model: PreTrainedModel, plan: TrainingPlan, directory: Path, ranks: Ranks = ALONE
) -> RoundingLoss | None:
    """Save a folder for `AutoModelForCausalLM.from_pretrained`; with LoRA merged, and the adapter beside it.

    A reward model is saved for `AutoModelForSequenceClassification`. All ranks enter together, the leader writes.

    Returns what the published type cost the adapter's update; None without LoRA and on the other ranks.
    """
    adapter = adapters.adapter_state(model)
    with ranks.together(), passing_weights(model) as passing:
        if not ranks.is_leader:
            return None
        with room_for("the tuned policy"), complete_directory(directory) as hidden:
            loss = save_policy(
                model, hidden, end_ids=plan.eos_token_ids, dtype=_rounds_to(model, plan), passing=passing
            )
            if plan.lora is not None:
                adapter_files.save_adapter(model, lora_config(plan.lora), hidden / ADAPTER_DIR, state=adapter)
        return loss


def trained_digests(model: PreTrainedModel, plan: TrainingPlan, ranks: Ranks = ALONE) -> dict[str, str]:
    """Return digests of what was trained: the adapter's tensors, or without LoRA all weights as published.

    All ranks enter together; none but the leader get any.
    """
    if plan.lora is not None:
        adapter = adapters.adapter_state(model)
        return weight_digests(adapter.items()) if ranks.is_leader else {}
    with passing_weights(model) as passing:
        if not ranks.is_leader:
            return {}
        dtype = _rounds_to(model, plan)
        return weight_digests((weight.name, weight.rounded(dtype)) for weight in trained_weights(model, passing))


def _rounds_to(model: PreTrainedModel, plan: TrainingPlan) -> torch.dtype | None:
    """Return the published type where it is not the model's own."""
    dtype = published_dtype(plan)
    return None if dtype == compute_dtype(model) else dtype


def load_untrained(plan: TrainingPlan, device: str) -> PreTrainedModel:
    """Load the base model with the weights that training began from, computing in float32.

    Weights are those that training rounded; tables that a model computes for itself are float32's own.
    """
    model = load_start(plan, plan.base_model_dir, torch.float32, device)
    if plan.precision != "fp32":
        model.load_state_dict(load_start(plan, plan.base_model_dir, DTYPES[plan.precision]).state_dict())
    return model


def policy_saver(model: PreTrainedModel, plan: TrainingPlan, ranks: Ranks) -> Callable[[Path], None]:
    """Return a function that saves the current model as `save_artifact` does."""

    def save(directory: Path) -> None:
        save_artifact(model, plan, directory, ranks)

    return save


def lora_config(plan: LoraPlan) -> adapters.LoraConfig:
    return adapters.LoraConfig(
        rank=plan.rank,
        alpha=plan.alpha,
        dropout=plan.dropout,
        target_modules=plan.target_modules,
        target_parameters=plan.target_parameters,
    )
