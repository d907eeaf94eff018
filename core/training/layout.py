"""Choice of how the ranks of a run share its model: by its size, and the memory of their devices."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig

from core.control_groups import memory_limit_bytes
from core.training.plan import Layout, TrainingPlan

_STATES_SHARE = 0.6
"""Share of the memory that weights, gradients and the optimizer's states may take; the rest is for a step."""
_FITTING_SHARE = 0.9
"""Share of the memory that a step, with what is kept from step to step, is to stay below."""
_KEPT_ELEMENTS = 17
"""Numbers that a layer keeps for the backward pass, for each token and hidden unit (arXiv:2205.05198, section 4)."""
_FLOAT32_BYTES = 4
_COMPUTE_BYTES = {"bf16": 2, "fp32": 4}
_MOMENTS = {"adamw": 2, "rmsprop": 1}

SENTENCES: dict[Layout, str] = {
    "sharded": "Each of the {ranks} devices keeps a part of the weights and of the optimizer's states; a layer's "
    "weights are put together while it computes.",
    "hybrid": "The {local} devices of each of the {nodes} nodes share the weights and the optimizer's states; between "
    "nodes only gradients are added up, once a step.",
    "replicated": "Each of the {ranks} devices has the whole base model; the adapter's gradients are added up once a "
    "step.",
}
"""What each layout means, for people."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes that decide, in bytes."""

    weights: int
    """Bytes of the base model in the type that it computes in."""
    states: int
    """Bytes of all that is kept of the whole model from step to step, gradients included."""
    step: int
    """Bytes that a micro-batch keeps for its backward pass, about."""
    device: int | None
    """Memory of the device of one rank; None where it, or what a step takes of it, is not known."""


def choose_layout(sizes: Sizes, *, num_nodes: int, ranks_per_node: int, has_adapter: bool) -> Layout:
    """Return the layout that moves the least between devices, of those whose states fit beside a step."""
    if sizes.device is None or num_nodes * ranks_per_node == 1:
        return "sharded"
    usable = min(int(_STATES_SHARE * sizes.device), int(_FITTING_SHARE * sizes.device) - sizes.step)
    if has_adapter and sizes.weights <= usable:
        return "replicated"
    if num_nodes > 1 and ranks_per_node > 1 and sizes.states <= usable * ranks_per_node:
        return "hybrid"
    return "sharded"


def sizes_of(plan: TrainingPlan, num_weights: int, ranks_per_node: int) -> Sizes:
    """Return the sizes of a run.

    Args:
        num_weights: of the base model.
    """
    weights = _COMPUTE_BYTES[plan.precision] * num_weights
    states = weights
    if plan.lora is None:
        states = _FLOAT32_BYTES * (2 + _MOMENTS[plan.last_stage.optimizer]) * num_weights
    step = _kept_bytes(plan)
    device = None if step is None else _device_bytes(torch.device(plan.device), ranks_per_node)
    return Sizes(weights=weights, states=states, step=step or 0, device=device)


def describe(layout: Layout, *, num_nodes: int, ranks_per_node: int) -> str:
    """Return a sentence that says what the layout means."""
    return SENTENCES[layout].format(ranks=num_nodes * ranks_per_node, nodes=num_nodes, local=ranks_per_node)


def _kept_bytes(plan: TrainingPlan) -> int | None:
    """Return what a micro-batch keeps; None where the configuration does not say, as of a few architectures."""
    try:
        config = AutoConfig.from_pretrained(plan.base_model_dir, local_files_only=True).get_text_config()
        units = int(config.hidden_size) * int(config.num_hidden_layers)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return _KEPT_ELEMENTS * _COMPUTE_BYTES[plan.precision] * units * plan.micro_batch_tokens


def _device_bytes(device: torch.device, ranks_per_node: int) -> int | None:
    """Return the memory of a rank's device, on a CPU its share of the machine's: the same at every start of a run."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found = [int(facts["MemTotal"].split()[0]) * 1024, memory_limit_bytes()]
    except (OSError, KeyError, ValueError):
        return None
    return min(number for number in found if number is not None) // ranks_per_node
