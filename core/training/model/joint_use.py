"""Whether several threads may compute with a model at once."""

from collections.abc import Callable

from transformers import PreTrainedModel

from core.training.data.packing import PackedBatch
from core.training.kernels.lora_linear import draws_dropout
from core.training.model.capabilities import capabilities_of


def runs_apart(model: PreTrainedModel) -> Callable[[PackedBatch], bool]:
    """Return what tells the micro-batches that no other may run beside, under the model as it is now.

    Text by text the model's attention is switched, for all threads; drawn dropout depends on the order of the draws.
    """
    capabilities = capabilities_of(model)
    all_apart = not capabilities.is_packable or draws_dropout(model)
    limit = capabilities.longest_packable
    return lambda batch: all_apart or (limit is not None and batch.longest > limit)
