"""Layout of a run on several devices that goes on from a checkpoint: the one that made it."""

import json
from pathlib import Path

import pytest

from core.training.checkpoints.files import STATE_FILE
from core.training.plan import Layout
from worker.processes.trainer.sharing import layout_of


@pytest.mark.parametrize(
    ("device", "nodes", "local", "expected"),
    [
        ("cpu x4, replicated", 2, 2, "replicated"),
        ("cuda x4", 1, 4, "sharded"),
        ("cuda x4, hybrid", 2, 2, "hybrid"),
        ("cuda x4, hybrid", 1, 4, None),  # one node has nothing to be a hybrid of
        ("cuda x4, hybrid", 4, 1, None),
        ("cuda x2, hybrid", 2, 2, None),
        ("cuda x14", 2, 2, None),
    ],
)
def test_what_goes_on_keeps_its_layout(
    tmp_path: Path, device: str, nodes: int, local: int, expected: Layout | None
) -> None:
    (tmp_path / STATE_FILE).write_text(json.dumps({"versions": {"device": device}}))
    assert layout_of(tmp_path, nodes, local) == expected


def test_a_checkpoint_without_its_state_tells_no_layout(tmp_path: Path) -> None:
    assert layout_of(tmp_path, 2, 2) is None
