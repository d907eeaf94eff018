"""Formats that a policy can be exported to, and which policies can be."""

from enum import StrEnum


class ExportFormat(StrEnum):
    """Formats for llama.cpp and programs built on it."""

    GGUF_F32 = "gguf-f32"
    """All that was trained; the others round small updates of LoRA away or bury them in noise."""
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
"""Folder of an artifact for what was made on request, which is no part of the published folder."""


def export_path(job_id: str, export_format: ExportFormat) -> str:
    """Return the path among the artifact's files: `exports/job_….q8_0.gguf`."""
    return f"{EXPORT_FOLDER}/{job_id}.{export_format.value.removeprefix('gguf-')}.gguf"
