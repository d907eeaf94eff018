"""What every check of a saved folder needs: its rows, its configuration, its weights beside those that were trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel

from core.training.data.encoded import EncodedData
from core.training.failures import PolicyNotSavedWell
from core.training.model import policies
from core.training.model.adapters import adapter_files, adapters
from core.training.model.adapters.merging import weight_digests
from core.training.model.policies import ADAPTER_DIR
from core.training.plan import TrainingPlan

MAX_ROWS = 8
MAX_TOKENS = 2048
_FREE_KEYS = frozenset(
    {
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "label2id",
        "pad_token_id",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Keys in which a policy's configuration may differ from its base model's; labels are a reward model's."""


@dataclass(frozen=True)
class SavedPolicy:
    """The folder to verify, and what training says about it."""

    plan: TrainingPlan
    directory: Path
    trained_digests: dict[str, str]
    """`policies.trained_digests` of the model in memory."""
    data: EncodedData
    device: str
    """That computes: with room for the weights in float32."""
    adjust: Callable[[PreTrainedModel], None] = lambda model: None
    """What training found out about packing, done to each model that is loaded here."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """Prompt to answer: the first sample prompt, else that of a row."""
        if self.plan.sample_prompts:
            return self.plan.sample_prompts[0]
        row = self.data.row(0)
        return tuple(int(token) for token in (row.prompt if len(row.prompt) else row.first[:1]))


def check_config(base_dir: Path, policy_dir: Path) -> None:
    """Check that no setting of the base model changed in the policy. Raises PolicyNotSavedWell."""
    base, policy = (_settings(directory) for directory in (base_dir, policy_dir))
    for key in sorted(base.keys() & policy.keys() - _FREE_KEYS):
        if base[key] != policy[key]:
            raise PolicyNotSavedWell(
                f"The saved policy's config.json sets {key} to {policy[key]!r} where the base model has {base[key]!r}. "
                "It is not published."
            )


def _settings(directory: Path) -> dict[str, object]:
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    found: dict[str, object] = config.get_text_config().to_dict()
    rope = found.get("rope_parameters")
    if isinstance(rope, dict):
        found["rope_parameters"] = _without_former_name(rope)
    return found


def _without_former_name(rope: dict[str, object]) -> dict[str, object]:
    """Drop the name that transformers 4 gave `rope_type`, which a saved policy says beside it."""
    kept = {key: _without_former_name(value) if isinstance(value, dict) else value for key, value in rope.items()}
    if "rope_type" in kept and kept.get("type") == kept["rope_type"]:
        del kept["type"]
    return kept


def load_trained_adapter(model: PreTrainedModel, saved: SavedPolicy) -> None:
    """Load the saved adapter into the base model and compare it with the trained one. Raises PolicyNotSavedWell."""
    config = adapter_files.load_adapter(model, saved.directory / ADAPTER_DIR)
    assert saved.plan.lora is not None
    if config.scaling != policies.lora_config(saved.plan.lora).scaling:
        raise PolicyNotSavedWell("The saved adapter scales its update otherwise than the trained one.")
    found = weight_digests(adapters.adapter_state(model).items())
    require_equal_weights(found, saved.trained_digests, "adapter's")


def require_equal_weights(found: dict[str, str], expected: dict[str, str], whose: str) -> None:
    """Compare digests of weights by name. Raises PolicyNotSavedWell."""
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if differing:
        raise PolicyNotSavedWell(
            f"{len(differing)} of the {whose} {len(expected)} tensors are not the trained ones, the first being "
            f"{differing[0]}. The policy is not published."
        )


def require_stored_weights(directory: Path, expected: Mapping[str, str], prefix: str = "") -> int | None:
    """Compare weights with digests one at a time, as they lie in a folder's files; return how many there are.

    None where the files have other names than the model: of experts, which transformers takes apart when it saves.

    Args:
        prefix: of the names in the files.

    Raises:
        PolicyNotSavedWell: they differ.
    """
    found: dict[str, str] = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                found |= weight_digests([(name.removeprefix(prefix), file.get_tensor(name))])
    if not found.keys() <= expected.keys():
        return None
    tied = {name: digest for name, digest in expected.items() if name not in found and digest in found.values()}
    require_equal_weights({**found, **tied}, dict(expected), "published")
    return len(found)


@torch.no_grad()
def round_merged(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Merge the adapter for good, and round all weights to the published type."""
    adapters.merge(model)
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))


def row_lengths(data: EncodedData) -> NDArray[np.int64]:
    """Return the tokens of each row's longest prompt with response, [N]."""
    return data.prompt_lengths + np.maximum(data.first_lengths, data.second_lengths)


def longest_rows(data: EncodedData) -> list[int]:
    """Choose the longest row in any case, and the next longest that fit into `MAX_TOKENS`."""
    order = np.argsort(-row_lengths(data), kind="stable")[:MAX_ROWS]
    totals = np.cumsum((data.prompt_lengths + data.first_lengths + data.second_lengths)[order])
    return [int(row) for row in order[(totals <= MAX_TOKENS) | (np.arange(len(order)) == 0)]]
