"""What a policy can be exported as, and which ones."""

from enum import StrEnum


class ExportFormat(StrEnum):
    """For llama.cpp and what is built on it."""

    GGUF_F16 = "gguf-f16"
    GGUF_Q8_0 = "gguf-q8_0"


GGUF_ARCHITECTURES = frozenset(
    {
        "GPT2LMHeadModel",
        "GemmaForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
    }
)
"""Those whose export llama.cpp has been shown to read as it was written (tests/numerics/test_gguf.py)."""
EXPORT_FOLDER = "exports"
"""Of an artifact: what was made of it on request lies below, and is no part of the folder that was published."""


def export_path(job_id: str, export_format: ExportFormat) -> str:
    """Among the files of the artifact: `exports/job_….q8_0.gguf`."""
    return f"{EXPORT_FOLDER}/{job_id}.{export_format.value.removeprefix('gguf-')}.gguf"
