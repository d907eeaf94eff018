"""What a job's precision costs is said when it is settled: time, or a part of the base model's weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.domain.jobs.job_spec import JobRequest, JobSpec, resolve_request
from worker.processes.trainer.__main__ import precision_events


def spec_in(precision: str) -> JobSpec:
    request = JobRequest.model_validate({"base_model": "job_1", "dataset_id": "ds_1", "precision": precision})
    return resolve_request(request, num_parameters=10, num_pairs=10, default_beta=0.1)


def base(directory: Path, dtype: torch.dtype, *, is_lora: bool) -> Path:
    save_file({"weight": torch.ones(2, dtype=dtype)}, directory / "model.safetensors")
    if is_lora:
        (directory / "adapter").mkdir()
    return directory


@pytest.mark.parametrize(
    ("precision", "dtype", "is_lora", "is_exact", "expected"),
    [
        ("bf16", torch.bfloat16, False, False, []),
        ("bf16", torch.float32, False, False, [("info", "base_rounded")]),
        ("bf16", torch.float32, True, False, [("warning", "base_rounded")]),
        ("fp32", torch.float32, True, True, [("info", "computes_in_fp32")]),
        ("fp32", torch.float32, True, False, []),
    ],
)
def test_on_a_device_that_is_fast_in_bf16(
    precision: str, dtype: torch.dtype, is_lora: bool, is_exact: bool, expected: list[Any], tmp_path: Path
) -> None:
    folder = base(tmp_path, dtype, is_lora=is_lora)
    events = precision_events(spec_in(precision), folder, "bf16", is_exact=is_exact)
    assert [(event.level, event.kind) for event in events] == expected


def test_bf16_where_it_is_slow(tmp_path: Path) -> None:
    folder = base(tmp_path, torch.bfloat16, is_lora=False)
    events = precision_events(spec_in("bf16"), folder, "fp32", is_exact=False)
    assert [(event.level, event.kind) for event in events] == [("warning", "slow_precision")]
