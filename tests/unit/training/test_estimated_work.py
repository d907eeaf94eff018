"""The work that an estimate counts for ranked answers, beside the steps and micro-batches of the trainer."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from packed_rows import Row, write_rows

from core.domain.estimates.work import JobSizes, SplitSizes, plan_work
from core.domain.jobs.job_spec import JobRequest, JobSpec, resolve_request, resolve_staged
from core.domain.training.sharing import is_ranked
from core.training.data import prompt_groups as trainer
from core.training.data.encoded import EncodedData
from core.training.data.micro_batches import split_micro_batches
from core.training.data.order import Cursor, DataOrder
from core.training.data.prefix_sharing import PrefixOrder
from core.training.data.texts import texts_of
from core.training.observer import Stage

BATCH = 16


def ranked_rows(num_prompts: int, num_answers: int) -> list[Row]:
    """All pairs of the ranked answers of each prompt, which begin with different tokens."""
    found: list[Row] = []
    for prompt in range(num_prompts):
        answers = [[10 + answer] * (5 + answer) for answer in range(num_answers)]
        found += [([40 + prompt] * 8, *pair) for pair in combinations(answers, 2)]
    return found


def staged(num_rows: int, micro: int) -> JobSpec:
    settings = {"dpo": {"batch_size": BATCH}, "sft": {"batch_size": BATCH}}
    request = JobRequest.model_validate({"base_model": "tiny", "dataset_id": "ds_1", "max_length": 32} | settings)
    spec = resolve_request(request, num_parameters=1000, num_pairs=num_rows, default_beta=0.1)
    found = resolve_staged(spec, num_sft_rows=num_rows, num_train_pairs=num_rows, device="cpu", fast_precision="fp32")
    return found.model_copy(update={"micro_batch_tokens": micro})


def measured(rows: list[Row]) -> SplitSizes:
    lengths = [(len(prompt), len(first), len(second)) for prompt, first, second in rows]
    return SplitSizes.measure_prompts(lengths, hashes(rows), BATCH)


def hashes(rows: list[Row]) -> list[tuple[int, int, int]]:
    return [(hash(tuple(prompt)), hash(tuple(first)), hash(tuple(second))) for prompt, first, second in rows]


def run(data: EncodedData, micro: int) -> tuple[int, int, int]:
    """Return the steps, micro-batches and tokens of one epoch as the trainer takes them."""
    order = DataOrder(len(data), BATCH, 1, seed=0, stage=Stage.DPO, groups=trainer.prompt_groups(data))
    cursor, micro_batches, tokens = Cursor(), 0, 0
    while cursor.epoch == 0:
        for rows in split_micro_batches(data, order.rows_at(cursor), micro):
            texts = [text.tokens for row in rows for text in texts_of(data, row, None)]
            tokens += PrefixOrder(texts).added(range(len(texts))).tokens
            micro_batches += 1
        cursor = order.after(cursor)
    return order.total_steps, micro_batches, tokens


@pytest.mark.parametrize("num_answers", [4, 9])  # six pairs, two prompts a step; and thirty-six, cut over three steps
def test_ranked_answers_are_counted_as_the_trainer_runs_them(num_answers: int, tmp_path: Path) -> None:
    rows, micro = ranked_rows(6, num_answers), 256
    data = write_rows(tmp_path / "rows", rows)
    found = plan_work(staged(len(rows), micro), JobSizes(train=measured(rows)))
    dpo = next(item for item in found.passes if item.lap == "dpo:step")
    assert (found.steps["dpo"], dpo.micro_batches, dpo.sizes.tokens) == run(data, micro)
    assert dpo.sizes.rows == len(data)


def test_steps_of_prompts_of_many_sizes_are_nearly_those_of_the_trainer(tmp_path: Path) -> None:
    sizes = np.random.default_rng(0).integers(2, 7, 60).tolist()
    rows = [
        ([40 + n // 40] * 4 + [n % 40] * 4, *row[1:]) for n, size in enumerate(sizes) for row in ranked_rows(1, size)
    ]
    data = write_rows(tmp_path / "rows", rows)
    found = plan_work(staged(len(rows), 4096), JobSizes(train=measured(rows)))
    assert found.steps["dpo"] == pytest.approx(run(data, 4096)[0], rel=0.1)


def test_ranked_data_are_told_from_pairs_as_the_trainer_tells_them(tmp_path: Path) -> None:
    for num_answers in (2, 3):
        rows = ranked_rows(6, num_answers)
        data = write_rows(tmp_path / str(num_answers), rows)
        assert is_ranked(hashes(rows)) == trainer.is_ranked(data) == (num_answers > 2)


def test_a_prompt_that_is_never_cut_is_one_step() -> None:
    """36 pairs of nine answers, then one of two, in steps of 16: cut, three steps hold them; whole, two."""
    rows = [(10, 5, 5)] * 37
    texts = [(0, one, two) for one, two in combinations(range(9), 2)] + [(1, 20, 21)]
    cut, whole = (SplitSizes.measure_prompts(rows, texts, most_rows) for most_rows in (16, None))
    assert 37 / cut.rows_per_step(16) == 3
    assert 37 / whole.rows_per_step(16) == 2
    assert whole.whole.tokens == (10 + 9 * 5) + (10 + 2 * 5)
