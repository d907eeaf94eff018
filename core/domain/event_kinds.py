"""Kinds of events by which trainer and supervisor understand each other beyond the protocol's own messages."""

CHECKPOINT_UNUSABLE = "checkpoint_unusable"
"""Sent before `failed`: the checkpoint to resume from is intact but cannot be used; try an older one."""
SLOW_PRECISION = "slow_precision"
"""bf16 was asked for on a device that computes it slower than fp32."""
PAIRS_SET_ASIDE = "pairs_set_aside"
"""Rows that are too long, equal once rendered, or not for this base model: how many of each."""

SHARED_PROMPTS = "shared_prompts"
"""Prompts of the validation data set that are trained on."""
VALIDATION_SPLIT = "validation_split"
"""How many rows and prompts are held out, and which."""
