"""How the devices of a job share its model: chosen from the base model's size and the devices' memory, and said."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.domain.jobs.event_kinds import MODEL_SHARED
from core.domain.trainer_protocol import Assignment, TrainerEvent
from core.training.checkpoints.files import STATE_FILE
from core.training.layout import SENTENCES, choose_layout, describe, sizes_of
from core.training.plan import Layout, TrainingPlan
from core.training.stages.memory_costs import stored_elements

_MIB = 2**20


def share_model(plan: TrainingPlan, assignment: Assignment, tell: Callable[[TrainerEvent], None]) -> TrainingPlan:
    """Return the plan of several devices with their layout; at the start of a job an event says it."""
    if plan.num_devices == 1:
        return plan
    local, num_nodes = assignment.num_devices, assignment.num_nodes
    sizes = sizes_of(plan, stored_elements(Path(plan.base_model_dir)), local)
    layout = choose_layout(sizes, num_nodes=num_nodes, ranks_per_node=local, has_adapter=plan.lora is not None)
    if assignment.resume_from is not None:
        layout = layout_of(Path(assignment.resume_from), num_nodes, local) or layout
    else:
        tell(
            TrainerEvent(
                level="info",
                kind=MODEL_SHARED,
                message=describe(layout, num_nodes=num_nodes, ranks_per_node=local),
                data={
                    "layout": layout,
                    "num_nodes": num_nodes,
                    "devices_per_node": local,
                    "weights_mib": sizes.weights // _MIB,
                    "states_mib": sizes.states // _MIB,
                    "device_mib": None if sizes.device is None else sizes.device // _MIB,
                },
            )
        )
    return replace(plan, layout=layout)


def layout_of(checkpoint_dir: Path, num_nodes: int, devices_per_node: int) -> Layout | None:
    """Return the layout in which so many devices made a checkpoint, with which they keep its bits.

    None where others made it, where these nodes cannot take it, or where it cannot be read, which going on from it
    tells.
    """
    try:
        state = json.loads((checkpoint_dir / STATE_FILE).read_text(encoding="utf-8"))
        devices, _, named = str(state["versions"]["device"]).partition(", ")
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not devices.endswith(f" x{num_nodes * devices_per_node}"):
        return None
    is_mixed = num_nodes > 1 and devices_per_node > 1
    possible = (layout for layout in SENTENCES if is_mixed or layout != "hybrid")
    return next((layout for layout in possible if layout == (named or "sharded")), None)
