"""The pipe protocol: every message survives the line, and nothing malformed gets through."""

import json
import math

import pytest

from core.domain import trainer_protocol as protocol

MESSAGES = [
    protocol.Hello(pid=7, versions={"torch": "2.13.0"}, device="cpu"),
    protocol.Listening(port=40123),
    protocol.Resolved(spec={"beta": 0.1}),
    protocol.StageOutputQuery(stage="sft", digest="d" * 64),
    protocol.StageChanged(stage="dpo", status="started", step=3, total_steps=10),
    protocol.MetricPoint(stage="dpo", split="train", step=1, epoch=0.1, values={"loss": 0.693, "grad_norm": None}),
    protocol.Progress(stage="reference", step=4, total_steps=8, tokens_per_second=100.0),
    protocol.CheckpointWritten(directory="c", stage="dpo", step=4),
    protocol.StageOutputWritten(stage="sft", digest="d" * 64, directory="o"),
    protocol.TrainerEvent(level="warning", kind="set_aside", message="2 pairs\nare too long", data={"lines": [3, 9]}),
    protocol.SamplesWritten(step=0, samples=[{"prompt": "p", "reference": "r", "policy": "дані 💾"}]),
    protocol.Measured(values={"num_parameters": 12, "times": {"laps": {"sft:step": 1.5}}}),
    protocol.Done(directory="a", evaluation={"rewards/accuracies": 0.75}),
    protocol.Stopped(),
    protocol.Failed(code="bad_data", detail="no pair fits"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.type)
def test_a_trainer_message_is_one_line_and_comes_back_equal(message: protocol.TrainerMessage) -> None:
    line = protocol.encode_message(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert protocol.decode_trainer_message(line) == message


def test_every_message_type_is_covered() -> None:
    assert {message.type for message in MESSAGES} == set(protocol.TRAINER_MESSAGES)


@pytest.mark.parametrize(
    "message", [protocol.Stop(mode="checkpoint"), protocol.StageOutputAnswer(digest="d", directory=None)]
)
def test_a_supervisor_message_comes_back_equal(message: protocol.SupervisorMessage) -> None:
    assert protocol.decode_supervisor_message(protocol.encode_message(message)) == message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_a_number_never_enters_the_pipe(value: float) -> None:
    point = protocol.MetricPoint(stage="dpo", split="train", step=1, epoch=0.0, values={"loss": value})
    with pytest.raises(ValueError, match="JSON compliant"):
        protocol.encode_message(point)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"warning: something printed\n",
        b"[]\n",
        b'{"type": 3}\n',
        b'{"type": "unheard"}\n',
        b'{"type": "failed"}\n',
        b'{"type": "stopped", "extra": 1}\n',
        b'{"type": "stop", "mode": "checkpoint"}\n',
        b'{"type": "' + b"x" * protocol.MAX_LINE_BYTES + b'"}\n',
    ],
)
def test_malformed_lines_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        protocol.decode_trainer_message(line)


def test_an_assignment_comes_back_equal_and_names_its_version() -> None:
    assignment = protocol.Assignment(job_id="job_1", attempt=2, spec={"beta": 0.1}, base_model_dir="b", rows="r")
    assert protocol.Assignment.load(assignment.dump()) == assignment
    newer = json.dumps(json.loads(assignment.dump()) | {"version": protocol.PROTOCOL_VERSION + 1})
    with pytest.raises(ValueError, match="protocol"):
        protocol.Assignment.load(newer)
