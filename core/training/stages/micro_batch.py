"""Choice of the micro-batch that fits the available memory, before the first step of a stage.

The planned micro-batch is kept if its predicted step fits. Else it is halved, down to where products lose speed; then
layers are computed twice (activation checkpointing), which costs a quarter of the speed. The batch of an optimizer
step stays the same in any case. A resumed run keeps its micro-batches, so that it takes the same steps.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from core.domain.training.sharing import LARGEST_WHOLE
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch
from core.training.failures import HostOutOfMemory
from core.training.model.capabilities import attention, attention_of, capabilities_of
from core.training.stages.context import RunContext
from core.training.stages.memory_costs import StepCosts, available_bytes, held_bytes, measure_costs
from core.training.stages.run import StageRun

FAST_TOKENS = 512
"""Smaller micro-batches are slower: products have too few rows."""
_SAMPLED_STEPS = 16
_MOST_SAMPLED_ROWS = 1000
_USABLE = 0.9
_HOPELESS = 1.2
"""A CPU step predicted at more than this share of the memory would be killed by the system, without a word."""
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class RowSizes:
    """Sizes of the rows to train on."""

    longest: int
    """Packed tokens of the longest row, which no budget can split."""
    scored_share: float
    """Scored tokens per packed token."""
    repeats: float = 1.0
    """Tokens that run for each one packed: one by one, both responses of a pair take their prompt with them."""
    longest_sequence: int | None = None
    """Prompt and response, where they run one by one; None: as long as the row."""
    largest_group: int = 0
    """Packed tokens of the largest group of rows that stays together beyond the budget (`LARGEST_WHOLE`)."""

    def alone(self, data: EncodedData) -> "RowSizes":
        """Return the sizes of the same rows where sequences run one by one."""
        sequences = data.prompt_lengths + np.maximum(data.first_lengths, data.second_lengths)
        longest = int(sequences.max())
        if data.kind != "preference":
            return replace(self, longest_sequence=longest)
        packed = data.prompt_lengths + data.first_lengths + data.second_lengths
        repeats = float(((packed + data.prompt_lengths) / packed).max())
        return replace(self, scored_share=self.scored_share / repeats, repeats=repeats, longest_sequence=longest)

    def beside(self, packed: Sequence[PackedBatch]) -> "RowSizes":
        """Return sizes that allow for what texts of these micro-batches have in common.

        Texts that share much of their prompts have more scored tokens a packed one; those of a ranked list stay
        together.
        """
        repeats = self.repeats
        if self.longest_sequence is not None:
            repeats = max([repeats, *(batch.num_alone / batch.num_tokens for batch in packed)])
        share = sum(len(batch.targets) for batch in packed) / sum(batch.num_tokens for batch in packed) / repeats
        largest = max(batch.num_tokens for batch in packed)
        return replace(self, scored_share=max(self.scored_share, share), largest_group=largest, repeats=repeats)

    @classmethod
    def of(cls, data: EncodedData) -> "RowSizes":
        responses = data.first_lengths + data.second_lengths
        totals = responses + data.prompt_lengths
        if data.kind != "unpaired":
            return cls(longest=int(totals.max()), scored_share=float(np.sum(responses) / np.sum(totals)))
        # A row's own response and its partner's run apart, each with the prompt.
        longest = data.prompt_lengths + np.maximum(data.first_lengths, data.second_lengths)
        share = float(np.sum(responses) / np.sum(totals + data.prompt_lengths))
        return cls(longest=int(longest.max()), scored_share=share)


@dataclass(frozen=True, kw_only=True)
class MicroBatchChoice:
    tokens: int
    checkpoints_activations: bool
    step_bytes: int
    """Predicted."""


def choose_micro_batch(
    costs: StepCosts, rows: RowSizes, wanted: int, available: int, *, may_halve: bool = True
) -> MicroBatchChoice:
    """Return the first that fits: as requested, halved, with activation checkpointing, halved further; or the least."""
    sizes = [wanted]
    while may_halve and sizes[-1] > 1 and sizes[-1] > rows.longest:
        sizes.append(sizes[-1] // 2)
    fast = [size for size in sizes if size >= FAST_TOKENS] or sizes[:1]
    tries = [(size, False) for size in fast] + [(size, True) for size in sizes]
    for size, recomputes in tries:
        group = min(rows.largest_group, int(LARGEST_WHOLE * size)) if rows.largest_group > size else 0
        tokens = int(max(size, rows.longest, group) * rows.repeats)
        needed = costs.step_bytes(
            tokens,
            int(tokens * rows.scored_share),
            rows.longest_sequence or rows.longest,
            checkpoints_activations=recomputes,
        )
        choice = MicroBatchChoice(tokens=size, checkpoints_activations=recomputes, step_bytes=needed)
        if needed <= _USABLE * available:
            break
    return choice


def _first_steps(run: StageRun) -> list[PackedBatch]:
    """Pack some steps of the first epoch and the prompt with the most rows, as a sample of what runs together."""
    order = run.order
    steps = [order.rows_at(order.cursor_of(step)) for step in range(min(_SAMPLED_STEPS, order.steps_in(0)))]
    largest = order.largest_group()[:_MOST_SAMPLED_ROWS]
    return [batch for rows in (*steps, largest) if rows for batch in run.task.pack(rows, run.budget.tokens)]


def fit_to_memory(context: RunContext, model: PreTrainedModel, run: StageRun, *, is_resumed: bool) -> None:
    """Set the budget, and activation checkpointing, to what fits; report a change of the plan in an event.

    On several devices the plan stays: what the spec says is what each of them takes at once.

    Raises:
        HostOutOfMemory: on a CPU, when nothing can fit.
    """
    if run.ranks.size > 1:
        return
    available, costs = available_bytes(context.device), measure_costs(model, run.optimizer)
    if available is None or costs is None:
        return
    before = context.budget.tokens
    rows = RowSizes.of(run.task.data)
    if not capabilities_of(model).is_packable:
        rows = rows.alone(run.task.data)
    rows = rows.beside(_first_steps(run))
    choice = choose_micro_batch(costs, rows, before, available, may_halve=not is_resumed)
    context.footprints[run.task.stage.value] = {"costs": asdict(costs), "rows": asdict(rows)}
    if context.device.type == "cpu" and choice.step_bytes > _HOPELESS * available:
        raise HostOutOfMemory(
            f"The machine has too little memory: a step needs {choice.step_bytes // _MIB} MiB more, and "
            f"{available // _MIB} MiB are available. Use LoRA, the rmsprop optimizer, a smaller base model or a "
            "shorter max_length.",
            needed_mib=choice.step_bytes // _MIB,
            available_mib=available // _MIB,
        )
    if choice.checkpoints_activations:
        checkpoint_activations(model)
    if choice.tokens == before and not choice.checkpoints_activations:
        return
    context.budget.tokens = choice.tokens
    recomputes = " Layers are computed twice to save memory." if choice.checkpoints_activations else ""
    context.observer.event(
        "info",
        "memory_fitted",
        f"{choice.tokens} tokens run at once instead of {before}, to fit into memory.{recomputes} "
        "The batch of an optimizer step stays the same.",
        {
            "stage": run.task.stage.value,
            "micro_batch_tokens": choice.tokens,
            "checkpoints_activations": choice.checkpoints_activations,
            "predicted_peak_mib": (held_bytes(context.device) + choice.step_bytes) // _MIB,
            "available_mib": available // _MIB,
        },
    )


def checkpoint_activations(model: PreTrainedModel) -> bool:
    """Enable activation checkpointing; return False when the model's layers do not support it.

    Layers keep only their input and are computed again in the backward pass, with the same bits, so that gradients do
    not change. transformers asks for training mode. Only the layers themselves are put into it, not what is in them:
    dropout is off in a model that the engine loaded, and adapters have their own switch.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing = True
        layer.training = True
        layer._gradient_checkpointing_func = partial(
            checkpoint, use_reentrant=False, context_fn=partial(_same_attention, model)
        )
    return bool(layers)


def _same_attention(model: PreTrainedModel) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts of the first computation and of the recomputation, which attends as the first did."""
    return nullcontext(), attention(model, attention_of(model))
