"""The process that answers for one model, alone: what one order may not do to others, and how it ends."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_models import CONTEXT_LENGTH, VOCAB_SIZE, make_tiny_model

from core.domain.generation_protocol import TASK_FILE, End, GenerationTask, Ready, Refused, Score, Start, decode, encode
from worker.runner.engine import COMMAND

END_SECONDS = 60
START = Start(number=1, prompt_ids=[5, 6], max_tokens=3, end_ids=[], temperature=1, top_p=1, seed=0)


@pytest.fixture
def process(tmp_path: Path) -> "Iterator[subprocess.Popen[bytes]]":
    task = GenerationTask(
        model_dir=str(make_tiny_model(tmp_path / "model")),
        adapter_dir=None,
        precision="fp32",
        device="cpu",
        num_threads=1,
        niceness=0,
        max_sequences=2,
        max_context=CONTEXT_LENGTH,
    )
    (tmp_path / TASK_FILE).write_text(json.dumps(asdict(task)))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*COMMAND, str(tmp_path)], **pipes) as started:
        yield started
        started.kill()


def test_a_wrong_order_ends_no_other_answer_and_a_broken_pipe_ends_the_process(
    process: "subprocess.Popen[bytes]",
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert isinstance(decode(process.stdout.readline()), Ready)
    faint = Start(**(asdict(START) | {"number": 2, "temperature": 5e-324, "top_p": 5e-324}))
    unknown = Start(**(asdict(START) | {"number": 3, "prompt_ids": [5, VOCAB_SIZE]}))
    for order in (START, faint, unknown, Score(number=4, prompt_ids=[5], response_ids=[VOCAB_SIZE])):
        process.stdin.write(encode(order))
    process.stdin.flush()
    over = {}
    while len(over) < 4:
        report = decode(process.stdout.readline())
        if isinstance(report, End | Refused):
            over[report.number] = type(report)
    assert over == {1: End, 2: End, 3: Refused, 4: Refused}
    assert process.stderr is not None
    process.stdout.close()  # the runner is gone, but the orders have no end yet
    process.stderr.close()
    process.stdin.write(encode(Score(number=5, prompt_ids=[5], response_ids=[6])))
    process.stdin.flush()
    assert process.wait(END_SECONDS) == 1
