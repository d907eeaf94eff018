"""Files between a worker's lane and the process that answers the parts of a generation."""

from dataclasses import dataclass
from typing import Any

TASK_FILE, PROMPTS_FILE = "responses.json", "prompts.json"


@dataclass(frozen=True, kw_only=True)
class ResponsesTask:
    """What one process answers: plain values and local paths."""

    model: dict[str, Any]
    """`generation_protocol.GenerationTask`."""
    tokenizer_dir: str
    template_kwargs: dict[str, Any]
    rendered_at: str
    """Time that the chat template sees, RFC 3339."""
    sampling: dict[str, Any]
    num_samples: int
    parts: list[dict[str, int]]
    """`generations.Part`s that are left, in order."""


def part_file(number: int) -> str:
    """Return the name of the file with the answers of a part: a JSON list."""
    return f"part-{number:06d}.json"
