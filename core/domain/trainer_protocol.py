"""Messages between supervisor and trainer process: one JSON object per line over pipes.

The supervisor writes `assignment.json` (`Assignment`) into a work directory and starts
`python -m worker.processes.start trainer <work directory>`, or `device_group` for a trainer on each of several devices,
the first of which speaks. The trainer writes messages to its standard output; the supervisor answers on the trainer's
standard input with `Stop`. End of file on that input ends the trainer: it must not outlive its supervisor.
Standard library only: the engine's host process decodes these without pydantic.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

PROTOCOL_VERSION = 1
ASSIGNMENT_FILE = "assignment.json"
MAX_LINE_BYTES = 4 * 1024 * 1024
"""A longer line is a protocol error."""

StopMode = Literal["checkpoint", "save", "abandon"]
"""checkpoint: finish the step, write a checkpoint, stop. save: publish the policy as it is. abandon: just stop."""


PointStage = Literal["sft", "dpo", "reward"]
"""A stage with curves: one that takes optimizer steps."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Input of a trainer: plain values and local paths."""

    job_id: str
    attempt: int
    spec: dict[str, Any]
    """The job's spec (`core.domain.jobs.job_spec.JobSpec` as JSON)."""
    base_model_dir: str
    rows: str
    """Normalised training rows (`rows.jsonl`)."""
    validation_rows: str | None = None
    """Rows of a separate validation dataset; without it `validation_fraction` of `rows` is held out."""
    sft_rows: str | None = None
    """Rows of a separate SFT dataset; without it SFT runs on the chosen responses."""
    resume_from: str | None = None
    """A verified checkpoint directory."""
    reuse: dict[str, str] = field(default_factory=dict)
    """Finished stage outputs to take over: digest -> verified directory."""
    device: str = "cpu"
    num_devices: int = 1
    """Number of devices of this node from `device` on, one trainer process each."""
    num_nodes: int = 1
    node: int = 0
    """Number of this node; node 0 leads."""
    run_token: str = ""
    """Random, the same on all nodes of the attempt and on no others."""
    meeting_address: str = ""
    """Address of node 0, at which the others meet it."""
    meeting_port: int = 0
    """Port there; on node 0 itself 0 takes a free one, which it tells (`Listening`)."""
    own_address: str = ""
    """Address of this node."""
    interface: str = ""
    """Network interface that has it, to which connections between ranks are bound."""
    silence_seconds: float = 60.0
    """A node of which the others hear nothing for so long is lost."""
    num_threads: int = 1
    fast_precision: Literal["bf16", "fp32"] | None = None
    """What an earlier trainer of this worker found to be the device's faster precision; None: none has looked."""
    pause_at_share: float | None = None
    """Share of the last stage's steps at whose next evaluation it pauses of itself; None: it does not."""
    submitted_at: str | None = None
    """RFC 3339: the time that chat templates see, the same in every attempt."""

    @property
    def num_ranks(self) -> int:
        """Trainer processes on all nodes, which have equally many."""
        return self.num_devices * self.num_nodes

    def dump(self) -> str:
        return json.dumps({"version": PROTOCOL_VERSION} | asdict(self), ensure_ascii=False)

    @classmethod
    def load(cls, text: str) -> "Assignment":
        values = json.loads(text)
        version = values.pop("version")
        if version != PROTOCOL_VERSION:
            raise ValueError(f"assignment of protocol {version}, this trainer speaks {PROTOCOL_VERSION}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Hello:
    """First message, sent when the trainer is up."""

    type: ClassVar[str] = "hello"
    pid: int
    versions: dict[str, str]
    """torch, transformers, preftune, python"""
    device: str
    fast_precision: str | None = None
    """What the device multiplies faster, measured or as the assignment says: the worker gives it to later trainers."""


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Announcement of node 0 that the other nodes can meet it, before any trainer starts."""

    type: ClassVar[str] = "listening"
    port: int


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The spec with every `auto` made a number; the supervisor stores it before training starts."""

    type: ClassVar[str] = "resolved"
    spec: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StageOutputQuery:
    """Question before a stage, with the digest of its inputs. Answered by `StageOutputAnswer`."""

    type: ClassVar[str] = "query"
    stage: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class StageChanged:
    type: ClassVar[str] = "stage"
    stage: str
    status: Literal["started", "finished", "reused", "skipped"]
    step: int = 0
    total_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class MetricPoint:
    type: ClassVar[str] = "metric"
    stage: PointStage
    split: Literal["train", "validation"]
    step: int
    epoch: float
    values: dict[str, float | None]
    """Finite or null."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a stage without metric points (reference pass, tokenisation, evaluation)."""

    type: ClassVar[str] = "progress"
    stage: str
    step: int
    total_steps: int
    tokens_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointWritten:
    """Announcement of a complete checkpoint directory, which the supervisor uploads and then deletes."""

    type: ClassVar[str] = "checkpoint"
    directory: str
    stage: str
    step: int
    policy_directory: str | None = None
    """The policy at that step, complete as the artifact's weights and tokenizer are; the supervisor's as well."""


@dataclass(frozen=True, kw_only=True)
class StageOutputWritten:
    """Announcement of a finished stage's directory, kept for later stages; the supervisor uploads it."""

    type: ClassVar[str] = "output"
    stage: str
    digest: str
    directory: str


@dataclass(frozen=True, kw_only=True)
class TrainerEvent:
    type: ClassVar[str] = "event"
    level: Literal["info", "warning", "error"]
    kind: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SamplesWritten:
    type: ClassVar[str] = "samples"
    step: int
    samples: list[dict[str, str]]
    """`prompt`, `reference`, `policy`"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Times and memory of the whole run, sent before `Done`."""

    type: ClassVar[str] = "measured"
    values: dict[str, Any]
    """`num_parameters`, `times`, `memory`, `tokens`, `steps` (`worker.processes.trainer.measuring`)"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """The artifact directory is complete, except for what the supervisor adds: `job.json`, `metrics.jsonl`, sums."""

    type: ClassVar[str] = "done"
    directory: str
    evaluation: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """The trainer stopped on request, or where it was to pause; the checkpoint was announced before."""

    type: ClassVar[str] = "stopped"
    is_planned: bool = False
    """It stopped at `pause_at_share`."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    type: ClassVar[str] = "failed"
    code: str
    """One of the closed list in `core.domain.jobs.failure_codes`."""
    detail: str
    """For the user: what happened and what to do. No path, no traceback."""
    recurs: bool = False
    """Any attempt would meet it again, whatever the code: the job ends."""


TrainerMessage = (
    Hello
    | Listening
    | Resolved
    | StageOutputQuery
    | StageChanged
    | MetricPoint
    | Progress
    | CheckpointWritten
    | StageOutputWritten
    | TrainerEvent
    | SamplesWritten
    | Measured
    | Done
    | Stopped
    | Failed
)


@dataclass(frozen=True, kw_only=True)
class Stop:
    type: ClassVar[str] = "stop"
    mode: StopMode


@dataclass(frozen=True, kw_only=True)
class StageOutputAnswer:
    """Answer to a query: `directory` holds an earlier job's verified output; null asks to compute it."""

    type: ClassVar[str] = "answer"
    digest: str
    directory: str | None
    job_id: str | None = None


SupervisorMessage = Stop | StageOutputAnswer

TRAINER_MESSAGES: dict[str, type[TrainerMessage]] = {
    cls.type: cls
    for cls in (
        Hello,
        Listening,
        Resolved,
        StageOutputQuery,
        StageChanged,
        MetricPoint,
        Progress,
        CheckpointWritten,
        StageOutputWritten,
        TrainerEvent,
        SamplesWritten,
        Measured,
        Done,
        Stopped,
        Failed,
    )
}
SUPERVISOR_MESSAGES: dict[str, type[SupervisorMessage]] = {cls.type: cls for cls in (Stop, StageOutputAnswer)}

_Message = TypeVar("_Message")


def encode_message(message: TrainerMessage | SupervisorMessage) -> bytes:
    """Encode one line, newline included. Raises ValueError for a NaN or infinity: senders make those null."""
    text = json.dumps({"type": message.type} | asdict(message), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def decode_trainer_message(line: bytes) -> TrainerMessage:
    """Decode a line; raises ValueError for anything that is not one known message."""
    values = _decode(line)
    cls = TRAINER_MESSAGES.get(values.pop("type"))
    if cls is None:
        raise ValueError("unknown trainer message")
    return _build(cls, values)


def decode_supervisor_message(line: bytes) -> SupervisorMessage:
    """Decode a line; raises ValueError for anything that is not one known message."""
    values = _decode(line)
    cls = SUPERVISOR_MESSAGES.get(values.pop("type"))
    if cls is None:
        raise ValueError("unknown supervisor message")
    return _build(cls, values)


def _decode(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError("message too long")
    values = json.loads(line)
    if not isinstance(values, dict) or not isinstance(values.get("type"), str):
        raise ValueError("a message is an object with a type")
    return values


def _build(cls: type[_Message], values: dict[str, Any]) -> _Message:
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"malformed {cls.__name__} message") from error
