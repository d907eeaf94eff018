"""Words between a runner and the process that generates: JSON lines over its standard input and output.

To the process: `start`, `score` and `stop`. Back: one `ready`, then `token`, `end`, `scored` and `refused`, each with
the request's number. The end of its standard input ends the process.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

TASK_FILE = "generation.json"
MAX_LINE_BYTES = 16 * 1024 * 1024
REFUSAL_PREFIX = "refused: "
"""Begins a line of standard error that says, for the user, why a model cannot be loaded."""


@dataclass(frozen=True, kw_only=True)
class GenerationTask:
    """What one process generates with: plain values and local paths."""

    model_dir: str
    """Base model, or the policy itself."""
    adapter_dir: str | None
    """LoRA adapter to be applied to it."""
    precision: str
    """`fp32`, `bf16`, or `auto`: fp32 on the CPU, bf16 on a GPU."""
    device: str
    num_threads: int
    niceness: int
    """What the process sets itself at its start; a runner lowers the one of a chat once the model is loaded."""
    max_sequences: int
    max_context: int
    """Most tokens of a prompt with its answer."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The model is loaded."""

    max_context: int
    is_batched: bool
    """Whether requests are answered together; else one after the other."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """One answer that is to be generated."""

    number: int
    prompt_ids: list[int]
    max_tokens: int
    end_ids: list[int]
    temperature: float
    top_p: float
    seed: int
    top_logprobs: int = 0


@dataclass(frozen=True, kw_only=True)
class Score:
    number: int
    prompt_ids: list[int]
    response_ids: list[int]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """The answer is wanted no longer; nothing more is said of it."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Token:
    number: int
    token_id: int
    logprob: float
    top: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class End:
    number: int
    reason: str
    """`stop` at an end token, `length` at the most tokens."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    number: int
    logprobs: list[float]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The request failed; `detail` is for the user."""

    number: int
    detail: str


Order = Start | Score | Stop
Report = Ready | Token | End | Scored | Refused
_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Ready, Start, Score, Stop, Token, End, Scored, Refused)
}


def encode(message: Order | Report) -> bytes:
    """Return the message as one line."""
    return json.dumps([type(message).__name__.lower(), asdict(message)], separators=(",", ":")).encode() + b"\n"


def decode(line: bytes | str) -> Order | Report:
    """Return the message of a line. Raises ValueError."""
    try:
        kind, values = json.loads(line)
        message: Order | Report = _KINDS[kind](**values)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError("not a message of the generation protocol") from error
    return message
