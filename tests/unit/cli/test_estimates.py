"""What the command line says of estimates, and how it reads a sweep's grid."""

from typing import Any

import pytest
import typer

from preftune.cli.commands.sweeps import _values
from preftune.cli.estimates import comparison_text, estimate_texts

ESTIMATE: dict[str, Any] = {
    "num_train_rows": 95,
    "num_validation_rows": 5,
    "num_set_aside": 2,
    "is_exact": True,
    "tokens": {"sft": 12_000, "dpo": 20_000},
    "steps": {"sft": 12, "dpo": 12},
    "reused_stages": {"sft": "job_1"},
    "seconds": {"low": 80.0, "high": 150.0},
    "peak_memory_bytes": 3 * 2**30,
    "disk": {"checkpoint_bytes": 2**30, "artifact_bytes": 2**29},
    "workers": [
        {
            "device_class": "CPU, 2 threads",
            "num_workers": 1,
            "seconds": {"low": 80.0, "high": 150.0},
            "peak_memory_bytes": 3 * 2**30,
            "memory_bytes": 2 * 2**30,
            "fits": False,
            "num_measured_jobs": 4,
            "reason": None,
        }
    ],
    "queue": {"position": 2, "starts_in_seconds": {"low": 10.0, "high": 20.0}, "reason": None},
    "reason": None,
}


def told(estimate: dict[str, Any]) -> str:
    return "\n".join(line.plain for line in estimate_texts(estimate))


def test_an_estimate_says_rows_time_memory_disk_and_start() -> None:
    text = told(ESTIMATE)
    assert "95 to train on, 5 held out, 2 set aside" in text
    assert "1 x CPU, 2 threads: 1 min 20 s to 2 min 30 s, from 4 earlier jobs" in text
    assert "3,072 MiB of 2,048 MiB, more than it has" in text
    assert "sft from job_1" in text
    assert "1,024 MiB of checkpoints, 512 MiB published" in text
    assert "2nd; starts in 10 s to 20 s" in text


def test_without_a_time_there_is_the_reason() -> None:
    worker = ESTIMATE["workers"][0] | {"seconds": None, "reason": "Not measured yet."}
    text = told(ESTIMATE | {"workers": [worker], "disk": None, "reason": "Not measured yet."})
    assert "1 x CPU, 2 threads: Not measured yet." in text
    assert "MiB" not in text


def test_a_finished_job_has_its_estimate_beside_what_it_took() -> None:
    actual = {"seconds": 100.0, "peak_memory_bytes": 2**31}
    line = comparison_text({"estimate": ESTIMATE, "actual": actual})
    assert line is not None
    assert "took 1 min 40 s estimated 1 min 20 s to 2 min 30 s" in line.plain
    assert "memory 2,048 MiB estimated 3,072 MiB" in line.plain
    assert comparison_text({"estimate": None, "actual": actual}) is None
    assert comparison_text({"estimate": ESTIMATE, "actual": None}) is None


def test_a_grid_is_read_as_json_values_or_else_texts() -> None:
    assert _values("beta=0.05,0.1") == ("beta", [0.05, 0.1])
    assert _values("variant=dpo,ipo") == ("variant", ["dpo", "ipo"])
    for wrong in ("beta", "=1", "beta="):
        with pytest.raises(typer.Exit):
            _values(wrong)
