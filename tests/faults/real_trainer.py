"""The real trainer on a tiny model: the policy must be that of an undisturbed run, byte by byte."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from faults.checker import curve_of, weights_sha256_of
from faults.grounds import Grounds
from faults.trainers import Expected
from faults.world import Options, World
from tiny_models import make_tiny_model
from toy_jobs import messages
from toy_trainer import Script

NUM_ROWS = 24
NUM_EPOCHS = 30
SHORT_STEPS = 2
"""A script of so many steps asks for a job that is over soon."""


class RealTrainer:
    name: ClassVar[str] = "real"
    command: ClassVar[Sequence[str] | None] = None
    times: ClassVar[Mapping[str, Any]] = {
        "lease_seconds": 4.0,
        "heartbeat_seconds": 0.5,
        "sweep_seconds": 0.5,
        "poll_seconds": 0.5,
    }
    pace: ClassVar[float] = 4.0
    is_costly: ClassVar[bool] = True
    points: ClassVar[Sequence[str]] = ("directory.renamed", "directory.written")
    scratch_size: ClassVar[str] = "400k"
    database_size: ClassVar[str] = "16m"
    rows: ClassVar[bytes] = b"".join(
        json.dumps({"line": n, "prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}!"}).encode()
        + b"\n"
        for n in range(NUM_ROWS)
    )

    def make_base_model(self, grounds: Grounds, folder: Path) -> None:
        with grounds.training:
            template = grounds.folder / "tiny-model"
            if not template.exists():
                make_tiny_model(template)
        shutil.copytree(template, folder)

    def fields(self, script: Script) -> dict[str, Any]:
        return {
            "sft": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
            "dpo": {"epochs": _num_epochs(script), "batch_size": 4, "learning_rate": 1e-3},
            "max_length": 64,
            "validation_fraction": 0.25,
            "precision": "fp32",
            "evaluate_every_steps": 5,
            "checkpoint_every_steps": script.checkpoint_every,
        }

    def crashes(self, script: Script, folder: Path) -> str:
        """The first inside of DPO, the second with a checkpoint that is complete and not announced."""
        strikes = (
            f"trainer.message_sent=kill:{folder / 'crash-1'}@60",
            f"directory.renamed=kill:{folder / 'crash-2'}@9",
        )
        return ";".join(strikes[: len(script.kill_at)])

    def expected(self, grounds: Grounds, script: Script) -> Expected:
        key = _num_epochs(script)
        with grounds.training:
            if key not in grounds.results:
                grounds.results[key] = _undisturbed(grounds, script)
            return grounds.results[key]


def _num_epochs(script: Script) -> int:
    return NUM_EPOCHS if script.steps > SHORT_STEPS else 1


def _undisturbed(grounds: Grounds, script: Script) -> Expected:
    world = World(grounds, Options(trainer=REAL))
    job_id = world.submit(script)
    world.start()
    assert world.wait_for_all("succeeded", seconds=240), messages(world.backend, job_id)
    found = Expected(weights_sha256_of(world.backend, job_id), curve_of(world.backend, job_id))
    world.ledger.expected = lambda _script: found
    violations = world.finish()
    assert not violations, violations
    return found


REAL = RealTrainer()
