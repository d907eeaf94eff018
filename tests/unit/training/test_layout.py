"""How the devices of a run share its model: by its size and their memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.training.failures import BadPlan
from core.training.layout import Sizes, choose_layout, describe, sizes_of
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


@pytest.mark.parametrize(
    ("config", "is_known"),
    [
        ({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}, True),
        ({"model_type": "gpt2", "n_embd": 8, "n_layer": 3}, True),
        ({"model_type": "blt"}, False),  # it has no size of its own
    ],
)
def test_what_a_step_takes_is_asked_of_the_configuration(
    tmp_path: Path, config: dict[str, Any], is_known: bool
) -> None:
    """Where that does not say, the layout is the one that takes least memory."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    dpo = DpoPlan(epochs=1, learning_rate=1e-3, batch_size=4)
    plan = TrainingPlan(
        base_model_dir=str(tmp_path),
        train_data="rows",
        work_dir="run",
        sft=None,
        dpo=dpo,
        precision="bf16",
        micro_batch_tokens=10,
    )
    sizes = sizes_of(plan, 1000, 2)
    assert sizes.step == (17 * 2 * 8 * 3 * 10 if is_known else 0)
    assert (sizes.device is not None) is is_known


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
