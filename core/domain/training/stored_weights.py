"""Facts about a model from the names and types of stored tensors: hidden quantisation, a table of positions.

Read by the service from headers, and by the engine where a folder reaches it otherwise.
"""

import re
from collections.abc import Iterable, Mapping

FLOATING_TYPES = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of safetensors that can be trained."""
_PLAIN_BUFFERS = frozenset({"BOOL", "I64", "I32", "U8"})
"""Types of masks, position ids and token types that checkpoints store beside their weights."""
_QUANTISED = re.compile(
    r"(^|\.)(weight_packed|weight_scale|weight_scale_inv|weight_scale_2|weight_zero_point|input_scale|qweight|qzeros|g_idx"
    r"|absmax|quant_map|quant_state\..+|SCB|scales|zeros)$|_proj_(blocks|scales)$"
)
"""Names under which quantisation tools keep scales and packed weights."""
_POSITION_TABLE = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?|positions_embed)$")
_OTHER_INPUT = re.compile(r"(^|[._])(vision|visual|image|video|audio|speech)([._]|$)")
"""Parts of a model that see no text."""


def find_quantised(types: Mapping[str, str]) -> str | None:
    """Return the first tensor, by name, that shows quantised weights; None where none does.

    Args:
        types: of every stored tensor, as safetensors calls them.
    """
    for name in sorted(types):
        stored = types[name]
        is_weight = name.endswith((".weight", "_proj"))
        if stored not in FLOATING_TYPES and (stored not in _PLAIN_BUFFERS or is_weight):
            return name
        if _QUANTISED.search(name):
            return name
    return None


def has_position_table(names: Iterable[str]) -> bool:
    """Whether positions are learned: a model with such a table has none beyond it."""
    return any(is_position_table(name.removesuffix(".weight")) for name in names if name.endswith(".weight"))


def is_position_table(name: str) -> bool:
    """Return whether a module of that name is a table of text positions; those of image patches are none."""
    return bool(_POSITION_TABLE.search(name)) and not _OTHER_INPUT.search(name)
