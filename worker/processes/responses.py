"""Process that answers the parts of a generation with one model: `python -m worker.processes.responses <work dir>`.

Loads torch. Reads `responses.json` (`ResponsesTask`) and writes `part-<number>.json` for each part that is done: a list
with an object for each answer, or `{"error": …}` where there is none.
"""

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import torch

from core.domain.dataset_rows import RowContext
from core.domain.errors import DomainError
from core.domain.generation_protocol import REFUSAL_PREFIX, GenerationTask
from core.domain.judging.generations import GenerationSampling, Part, answer_seed
from core.domain.judging.responses_task import PROMPTS_FILE, TASK_FILE, ResponsesTask, part_file
from core.durable_files import replace_text
from core.tokenization.errors import UnencodableRow, UnusableChatTemplate
from core.tokenization.pair_tokenizer import PairTokenizer, context_of
from worker.processes.generation.__main__ import load
from worker.processes.generation.fixed_batches import BatchAnswer, BatchSampling, FixedBatches, Wanted

_NUL = "It answers with a NUL character, which no row of a dataset may hold."


def main(work_dir: Path) -> int:
    task = ResponsesTask(**json.loads((work_dir / TASK_FILE).read_text(encoding="utf-8")))
    prompts: list[dict[str, Any]] = json.loads((work_dir / PROMPTS_FILE).read_text(encoding="utf-8"))
    settings = GenerationTask(**task.model)
    os.nice(settings.niceness)
    torch.set_num_threads(settings.num_threads)
    try:
        answerer = _Answerer(task, settings, prompts)
    except DomainError as error:
        print(REFUSAL_PREFIX + error.detail, file=sys.stderr)  # noqa: T201 - read by the lane
        return 1
    for values in task.parts:
        part = Part(**values)
        answers = answerer.answer(part)
        replace_text(work_dir / part_file(part.number), json.dumps(answers, allow_nan=False))
    return 0


class _Answerer:
    def __init__(self, task: ResponsesTask, settings: GenerationTask, prompts: list[dict[str, Any]]) -> None:
        """Load the model and its tokenizer. Raises DomainError."""
        now = datetime.fromisoformat(task.rendered_at).replace(tzinfo=None)
        self._tokenizer = PairTokenizer.open(Path(task.tokenizer_dir), now=now, template_kwargs=task.template_kwargs)
        self._sampling = GenerationSampling.model_validate(task.sampling)
        self._num_samples = task.num_samples
        self._max_context = settings.max_context
        self._prompts = prompts
        model = load(settings)
        self._num_embeddings = int(model.get_input_embeddings().num_embeddings)
        end_ids = frozenset(self._tokenizer.eos_ids)
        sampling = BatchSampling(
            max_tokens=self._sampling.max_tokens,
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            end_ids=end_ids,
        )
        self._batches = FixedBatches(model, sampling)
        self._end_ids = end_ids

    def answer(self, part: Part) -> list[dict[str, Any]]:
        places = list(part.places(self._num_samples))
        encoded = {prompt: self._encode(self._prompts[prompt]) for prompt, _ in places}
        wanted = [
            Wanted(prompt_ids=ids, seed=answer_seed(self._sampling.seed, prompt, sample))
            for prompt, sample in places
            if isinstance(ids := encoded[prompt], tuple)
        ]
        answers = iter(self._batches.answer(wanted)) if wanted else iter(())
        return [
            self._shown(next(answers)) if isinstance(encoded[prompt], tuple) else {"error": encoded[prompt]}
            for prompt, _ in places
        ]

    def _encode(self, row: dict[str, Any]) -> tuple[int, ...] | str:
        """Return the ids of the prompt, as training would render it, or why it cannot be answered."""
        try:
            ids = self._tokenizer.encode_prompt(row["prompt"], context_of(cast(RowContext, row)))
        except (UnencodableRow, UnusableChatTemplate) as error:
            return error.detail
        if max(ids) >= self._num_embeddings:
            return "The prompt has a token that the model does not know: its tokenizer has more tokens than it."
        if len(ids) + self._sampling.max_tokens > self._max_context:
            return (
                f"The model's context holds {self._max_context:,} tokens; the prompt has {len(ids):,} and the answer "
                f"may have {self._sampling.max_tokens:,}."
            )
        return tuple(ids)

    def _shown(self, answer: BatchAnswer) -> dict[str, Any]:
        ids: Sequence[int] = answer.token_ids
        text = self._tokenizer.decode(ids[:-1] if answer.is_ended else ids)
        if "\0" in text:
            return {"error": _NUL}
        return {
            "text": text,
            "finish_reason": "stop" if answer.is_ended else "length",
            "num_tokens": len(ids),
            "logprob": sum(answer.logprobs),
        }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
