"""Reward models: a language model's layers with a head that gives a text one number, as transformers' sequence classes.

The number is read at the last token that is no padding token: what `AutoModelForSequenceClassification` of the saved
folder does with padded batches, whatever token pads them.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from core.training.model.capabilities import architecture_of, reward_head_of, run_whole, stock_attention
from core.training.model.loading import ReadFunction, UnsupportedModel, prepare_model, read_model, refuse_gaps
from core.training.model.probe import FOREIGN_FAILURES, agree, last_hidden_states

_DEFAULT_SPREAD = 0.02
"""Standard deviation of a new head where the configuration names none for new weights, as in transformers."""
_PROBE_TOKENS = 12


@dataclass(frozen=True)
class OpenedRewardModel:
    """A reward model as read from its files; a new head is not drawn yet."""

    model: PreTrainedModel
    head_name: str
    head: nn.Linear
    new_head_seed: int | None
    """None: the files have a head."""

    def draw_head(self, dtype: torch.dtype | None = None) -> None:
        """Draw a new head, if it is to have one.

        Args:
            dtype: of the head; None: as it is.
        """
        if self.new_head_seed is not None:
            self.head.to(dtype)
            _draw_head(self.head, self.model.config.get_text_config(), self.new_head_seed)


def load_reward_model(
    directory: Path | str,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    pad_token_id: int | None = None,
    head_seed: int | None = None,
) -> PreTrainedModel:
    """Load a reward model ready for `core.training.model.rewards`, as `load_causal_lm` does a language model.

    Args:
        pad_token_id: the padding token; None: as config.json says.
        head_seed: a new head is drawn from it, of mean 0 and the configuration's spread of new weights, where the files
            have none; None: they must have one.

    Raises:
        UnsupportedModel: what `load_causal_lm` refuses, an architecture without a class for sequences in transformers,
            or one whose class does not read a linear head at the last token.
    """
    opened = open_reward_model(directory, dtype=dtype, pad_token_id=pad_token_id, head_seed=head_seed)
    opened.draw_head()
    model = prepare_model(opened.model.to(device), opened.head_name)
    refuse_other_reading(model)
    return model


def open_reward_model(
    directory: Path | str,
    *,
    dtype: torch.dtype,
    pad_token_id: int | None = None,
    head_seed: int | None = None,
    read: ReadFunction = read_model,
) -> OpenedRewardModel:
    """Read what `load_reward_model` loads, by `read`, and prepare nothing.

    Raises:
        UnsupportedModel: as `load_reward_model`, but for what shows only where it computes.
    """
    directory = Path(directory)

    def adjust(config: PretrainedConfig) -> None:
        config.num_labels = 1
        if pad_token_id is not None:
            config.pad_token_id = config.get_text_config().pad_token_id = pad_token_id

    _refuse_unknown_class(directory)
    found = read(AutoModelForSequenceClassification, directory, dtype, adjust)
    name, head = _find_head(found.model)
    new = [gap for gap in found.gaps if gap.startswith(f"{name}.")] if head_seed is not None else []
    refuse_gaps([gap for gap in found.gaps if gap not in new])
    return OpenedRewardModel(found.model, name, head, head_seed if new else None)


def _refuse_unknown_class(directory: Path) -> None:
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return  # told by `read_model`
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UnsupportedModel(
            f"transformers has no class for sequence classification of the base model's type ({config.model_type}), "
            "which a reward model is published as. Use one that has: Llama, Mistral, Qwen 2 and 3, Gemma, Phi, OLMo, "
            "SmolLM or GPT-NeoX, for instance."
        )


def _find_head(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """Return the one linear layer outside of the base model."""
    inside = {id(module) for module in model.base_model.modules()}
    outside = [(name, module) for name, module in model.named_modules() if id(module) not in inside and name]
    if len(outside) == 1 and isinstance(outside[0][1], nn.Linear) and outside[0][1].out_features == 1:
        return outside[0][0], outside[0][1]
    raise UnsupportedModel(
        f"The base model's class for sequences ({type(model).__name__}) has more than a linear layer for a head. Use a "
        "decoder-only language model."
    )


@torch.no_grad()
def _draw_head(head: nn.Linear, config: PretrainedConfig, seed: int) -> None:
    """Draw a new head on the host, the same on every machine."""
    spread = getattr(config, "initializer_range", None) or _DEFAULT_SPREAD
    values = torch.empty(head.weight.shape).normal_(0.0, spread, generator=torch.Generator().manual_seed(seed))
    head.weight.copy_(values)
    if head.bias is not None:
        head.bias.zero_()


@torch.no_grad()
def refuse_other_reading(model: PreTrainedModel) -> None:
    """Refuse a class whose own forward pass gives another number than the head at the last token."""
    known = reward_head_of(model)
    assert known is not None
    head = known[1]
    ids = torch.arange(_PROBE_TOKENS, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    padding = model.config.get_text_config().pad_token_id
    if padding is not None:
        ids[ids == padding] = (padding + 1) % model.get_input_embeddings().num_embeddings
    try:
        with stock_attention(model):
            expected = model(input_ids=ids, use_cache=False).logits
            found = run_whole(model, lambda: head(last_hidden_states(model, ids)[-1:]))
        agrees = expected.shape == (1, 1) and agree(found, expected)
    except FOREIGN_FAILURES:
        agrees = False
    if not agrees:
        raise UnsupportedModel(
            f"The base model's class for sequences ({architecture_of(model)}) does not read its head at the last "
            "token. Use another base model."
        )
