"""Which base models bf16 would round, by their files: those of float32, above all policies with a merged adapter."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.training.model.policies import ADAPTER_DIR
from core.training.model.precision import holds_merged_adapter, is_rounded_by_bf16


def folder(directory: Path, *dtypes: torch.dtype) -> Path:
    for number, dtype in enumerate(dtypes):
        save_file({"weight": torch.ones(2, dtype=dtype)}, directory / f"model-{number}.safetensors")
    return directory


@pytest.mark.parametrize(
    ("dtypes", "is_rounded"),
    [
        ((torch.bfloat16,), False),
        ((torch.float32,), True),
        ((torch.float16,), True),
        ((torch.bfloat16, torch.float32), True),
        ((torch.int64,), False),
    ],
)
def test_finer_weights_in_any_file_are_rounded(
    dtypes: tuple[torch.dtype, ...], is_rounded: bool, tmp_path: Path
) -> None:
    assert is_rounded_by_bf16(folder(tmp_path, *dtypes)) is is_rounded
    assert not holds_merged_adapter(tmp_path)
    (tmp_path / ADAPTER_DIR).mkdir()
    assert holds_merged_adapter(tmp_path) is is_rounded
