"""Layout of a run on several devices that goes on from a checkpoint: the one that made it."""

import json
from pathlib import Path

import pytest

from core.training.checkpoints.files import STATE_FILE
from core.training.plan import Layout
from worker.processes.trainer.sharing import layout_of


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu x4, replicated", "replicated"), ("cuda x4", "sharded"), ("cuda x2, hybrid", None), ("cuda x14", None)],
)
def test_what_goes_on_keeps_its_layout(tmp_path: Path, device: str, expected: Layout | None) -> None:
    (tmp_path / STATE_FILE).write_text(json.dumps({"versions": {"device": device}}))
    assert layout_of(tmp_path, 4) == expected


def test_a_checkpoint_without_its_state_tells_no_layout(tmp_path: Path) -> None:
    assert layout_of(tmp_path, 4) is None
