"""How the devices of a run share its model: by its size and their memory."""

from typing import Any

import pytest

from core.training.failures import BadPlan
from core.training.layout import Sizes, choose_layout, describe
from core.training.plan import DpoPlan, Layout, LoraPlan, TrainingPlan


@pytest.mark.parametrize(
    ("weights", "states", "step", "device", "nodes", "local", "lora", "expected"),
    [
        (16, 128, 8, 80, 2, 8, False, "hybrid"),  # 8B on two nodes of eight: a node's 384 take the states
        (140, 1120, 8, 80, 4, 8, False, "sharded"),  # 70B: no node takes them
        (16, 128, 8, 80, 2, 8, True, "replicated"),
        (140, 140, 8, 80, 2, 8, True, "hybrid"),  # a device does not take the weights, a node does
        (140, 140, 8, 80, 1, 8, True, "sharded"),
        (16, 128, 8, 80, 1, 8, False, "sharded"),
        (2, 16, 8, 80, 2, 1, False, "sharded"),  # nothing to share inside a node
        (2, 2, 8, 80, 1, 1, True, "sharded"),
        (2, 2, 8, None, 2, 8, True, "sharded"),
        (16, 16, 73, 80, 1, 4, True, "sharded"),  # whole, no step fits beside the weights
    ],
)
def test_choice(
    weights: int, states: int, step: int, device: int | None, nodes: int, local: int, lora: bool, expected: Layout
) -> None:
    sizes = Sizes(weights=weights, states=states, step=step, device=device)
    assert choose_layout(sizes, num_nodes=nodes, ranks_per_node=local, has_adapter=lora) == expected


def test_it_is_said() -> None:
    found = describe("hybrid", num_nodes=2, ranks_per_node=8)
    assert found.startswith("The 8 devices of each of the 2 nodes share the weights")


def test_weights_that_are_trained_are_not_whole_on_every_device() -> None:
    dpo = DpoPlan(epochs=1, learning_rate=1e-3, batch_size=4)
    values: dict[str, Any] = {
        "base_model_dir": "base",
        "train_data": "rows",
        "sft": None,
        "dpo": dpo,
        "work_dir": "run",
    }
    with pytest.raises(BadPlan, match="layout must be another one without LoRA"):
        TrainingPlan(**values, layout="replicated")
    assert TrainingPlan(**values, lora=LoraPlan(), layout="replicated").layout == "replicated"
