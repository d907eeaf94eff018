"""Which base models may become reward models, as the service knows it, beside the installed transformers."""

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from core.domain.training.reward_architectures import REWARD_ARCHITECTURES


def test_the_list_is_that_of_transformers() -> None:
    causal, whole = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    kinds = causal.keys() & MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.keys()
    named = {causal[kind] for kind in kinds} | {whole[kind] for kind in kinds if kind in whole}
    assert named == REWARD_ARCHITECTURES
