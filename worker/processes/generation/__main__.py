"""Process that answers with one model: `python -m worker.processes.start generation <work directory>`. Loads torch.

Reads `generation.json` (`GenerationTask`), then orders from its standard input, whose end ends it.
"""

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import BinaryIO, NoReturn

import torch
from transformers import PreTrainedModel

from core.domain import generation_protocol as protocol
from core.domain.errors import DomainError
from core.domain.generation_protocol import GenerationTask, Order, Ready, Refused, Report, Score, Scored, Start, Stop
from core.training.model.adapters import adapter_files
from core.training.model.loading import load_causal_lm
from core.training.model.policies import DTYPES
from worker.processes.generation.choice import Engine, open_engine

_NO_EMBEDDING = "The text has a token that the model does not know: its tokenizer has more tokens than it."


class Link:
    """The runner's end of the pipes."""

    def __init__(self, reads: BinaryIO, writes: BinaryIO) -> None:
        self._reads = reads
        self._writes = writes
        self._lock = threading.Lock()

    def tell(self, report: Report) -> None:
        line = protocol.encode(report)
        with self._lock:
            self._writes.write(line)
            self._writes.flush()

    def next_order(self) -> Order | None:
        """Return the next order, or None at the end. Raises ValueError."""
        line = self._reads.readline(protocol.MAX_LINE_BYTES)
        if not line:
            return None
        order = protocol.decode(line)
        if not isinstance(order, Start | Score | Stop):
            raise ValueError("not an order")
        return order


def main(work_dir: Path) -> NoReturn:
    """Answer until the orders end, and end the process whatever happened.

    Threads of the engine do not end by themselves, and may be in the middle of a step that nobody waits for.
    """
    code = 1
    try:
        code = _answer(work_dir)
    except BaseException:  # noqa: BLE001 - told, where anybody still reads, and then nothing is left to be done
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _answer(work_dir: Path) -> int:
    """Return the exit code."""
    task = GenerationTask(**json.loads((work_dir / protocol.TASK_FILE).read_text(encoding="utf-8")))
    os.nice(task.niceness)
    torch.set_num_threads(task.num_threads)
    link = _take_pipes()
    try:
        model = load(task)
    except DomainError as error:
        print(protocol.REFUSAL_PREFIX + error.detail, file=sys.stderr)  # noqa: T201 - read by the runner
        return 1
    engine, is_batched = open_engine(
        model, max_sequences=task.max_sequences, max_context=task.max_context, emit=link.tell
    )
    num_embeddings = int(model.get_input_embeddings().num_embeddings)
    link.tell(Ready(max_context=task.max_context, is_batched=is_batched))
    while (order := link.next_order()) is not None:
        if not engine.is_alive:
            return 1
        match order:
            case Start() if max(order.prompt_ids) >= num_embeddings:  # a step that fails would end all answers
                link.tell(Refused(number=order.number, detail=_NO_EMBEDDING))
            case Start():
                engine.start(order)
            case Stop():
                engine.stop(order.number)
            case Score():
                link.tell(_score(engine, order, num_embeddings))
    return 0


def load(task: GenerationTask) -> PreTrainedModel:
    """Load the model as scoring does: an adapter is applied as it was trained, not merged."""
    precision = task.precision if task.precision != "auto" else ("fp32" if task.device == "cpu" else "bf16")
    dtype = DTYPES["bf16" if precision == "bf16" else "fp32"]
    model = load_causal_lm(task.model_dir, dtype=dtype, device=task.device)
    if task.adapter_dir is not None:
        adapter_files.load_adapter(model, task.adapter_dir)
        model.eval()
    return model


def _score(engine: Engine, order: Score, num_embeddings: int) -> Scored | Refused:
    if max(*order.prompt_ids, *order.response_ids) >= num_embeddings:
        return Refused(number=order.number, detail=_NO_EMBEDDING)
    try:
        return Scored(number=order.number, logprobs=engine.score(order.prompt_ids, order.response_ids))
    except (RuntimeError, ValueError, IndexError) as error:
        return Refused(number=order.number, detail=f"The model fails on it ({type(error).__name__}).")


def _take_pipes() -> Link:
    """Take standard input and output for the protocol; what else prints goes to standard error."""
    reads, writes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Link(reads, writes)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
