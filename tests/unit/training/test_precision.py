import pytest
import torch

from core.training.model import precision


@pytest.mark.parametrize(("bf16", "expected"), [(5.0, "bf16"), (1.2, "fp32"), (0.15, "fp32")])
def test_a_cpu_takes_what_it_multiplies_faster(monkeypatch: pytest.MonkeyPatch, bf16: float, expected: str) -> None:
    speeds = {torch.bfloat16: bf16, torch.float32: 1.0}
    monkeypatch.setattr(precision, "gemm_flops", lambda dtype: speeds[dtype])
    assert precision.faster_precision("cpu") == expected


def test_other_devices_take_float32() -> None:
    assert precision.faster_precision("mps") == "fp32"


def test_the_race_measures_a_product() -> None:
    assert 1e6 < precision.gemm_flops(torch.float32, size=64) < 1e15
