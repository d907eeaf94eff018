"""Choice of how the ranks of a run share its model: by its size, and the memory of their devices."""

from dataclasses import dataclass
from pathlib import Path

import torch

from core.control_groups import memory_limit_bytes
from core.training.plan import Layout, TrainingPlan

_STATES_SHARE = 0.6
"""Share of the memory that weights, gradients and the optimizer's states may take; the rest is for a step."""
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
    device: int | None
    """Memory of the device of one rank; None where it is not known."""


def choose_layout(sizes: Sizes, *, num_nodes: int, ranks_per_node: int, has_adapter: bool) -> Layout:
    """Return the layout that moves the least between devices, of those whose states fit."""
    if sizes.device is None or num_nodes * ranks_per_node == 1:
        return "sharded"
    usable = int(_STATES_SHARE * sizes.device)
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
    return Sizes(weights=weights, states=states, device=_device_bytes(torch.device(plan.device), ranks_per_node))


def describe(layout: Layout, *, num_nodes: int, ranks_per_node: int) -> str:
    """Return a sentence that says what the layout means."""
    return SENTENCES[layout].format(ranks=num_nodes * ranks_per_node, nodes=num_nodes, local=ranks_per_node)


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
