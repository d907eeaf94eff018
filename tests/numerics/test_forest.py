"""Texts that begin alike run their beginning once: log-probabilities, losses and gradients are those of each alone."""

import dataclasses
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rows import (
    NOT_PACKABLE,
    PROMISED,
    VOCABULARY,
    WITH_OWN_HEAD_OR_SCORES,
    Row,
    make_model,
    make_stock_model,
    stock_sums,
    write_rows,
)
from tiny_runs import RecordingObserver, World, run_with_stops, tree_bytes, untimed
from torch import Tensor
from transformers import PreTrainedModel

from core.domain.training import metric_names as names
from core.domain.variants.catalogue import VARIANTS
from core.training.data import prefix_sharing
from core.training.data.columns import Columns, to_host
from core.training.data.encoded import EncodedData
from core.training.data.packing import pack_pairs
from core.training.data.prompt_groups import is_ranked
from core.training.losses.objective import build_objective
from core.training.model.adapters import adapters
from core.training.model.adapters.adapters import LoraConfig
from core.training.model.logps import pair_logps
from core.training.pipeline import run
from core.training.steps.pairs import DpoTask, PairForward
from core.training.steps.reference_logps import SplitLogps
from core.training.steps.sft import SftTask

PAIRED = [variant.name for variant in VARIANTS.values() if variant.data == "preference"]
TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def forest_rows() -> list[Row]:
    """A system prompt before a ranked list of four, and before a conversation that goes on from the best answer.

    Two answers begin alike, one is the beginning of another, one pair stands twice, one row shares nothing.
    """
    rng = np.random.default_rng(4)

    def text(length: int) -> list[int]:
        return rng.integers(2, VOCABULARY, length).tolist()

    system, opening = text(8), text(5)
    answers = [[*opening, *text(6)], [*opening, *text(3)], text(9), text(4)]
    prompt = [*system, *text(5)]
    later = [*prompt, *answers[0], *text(4)]
    replies = [text(7), text(5)]
    replies.append(replies[0][:6])
    rows: list[Row] = [(prompt, better, worse) for better, worse in combinations(answers, 2)]
    rows += [(later, better, worse) for better, worse in combinations(replies, 2)]
    return [*rows, rows[1], (text(6), text(4), text(5)), (text(2), text(4), text(5))]


@pytest.mark.parametrize("architecture", [*PROMISED, *WITH_OWN_HEAD_OR_SCORES, *NOT_PACKABLE])
def test_every_response_scores_as_transformers_scores_it_alone(architecture: str, tmp_path: Path) -> None:
    rows = forest_rows()
    batch = pack_pairs(write_rows(tmp_path, rows), range(len(rows)), "cpu")
    assert batch.num_tokens < sum(map(len, map(np.concatenate, rows))) / 2
    stock = make_stock_model(architecture).eval()
    with torch.no_grad():
        found = pair_logps(make_model(architecture), batch)
        torch.testing.assert_close(found.chosen.sums, stock_sums(stock, rows, 0), **TOLERANCE)
        torch.testing.assert_close(found.rejected.sums, stock_sums(stock, rows, 1), **TOLERANCE)


class Step:
    """One step over all rows, of all weights or of an adapter's."""

    def __init__(self, data: EncodedData, variant: str | None, *, lora: bool) -> None:
        self.model: PreTrainedModel = make_model("llama")
        if lora:
            adapters.inject(self.model, LoraConfig(rank=3, alpha=6.0), seed=1)
        self.rows = list(range(len(data)))
        self.task: SftTask | DpoTask = SftTask(self.model, data)
        if variant is not None:
            objective = build_objective(variant, 0.1, {})
            sums = -20 * torch.rand(2, len(data), 2, generator=torch.Generator().manual_seed(5)).numpy()
            reference = SplitLogps(*sums) if objective.needs_reference else None
            self.task = DpoTask(PairForward(self.model, data, objective, reference))

    def run(self, budget: int) -> tuple[list[Tensor], Tensor, int]:
        """Return gradients, values of all rows, and tokens computed."""
        self.model.zero_grad()
        batches = self.task.pack(self.rows, budget)
        columns: list[Columns] = self.task.backward(batches)
        values = torch.from_numpy(to_host(columns, self.rows).values)
        gradients = [p.grad.clone() for p in self.model.parameters() if p.grad is not None]
        return gradients, values, sum(batch.num_tokens for batch in batches)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("variant", [None, *PAIRED])
def test_losses_and_gradients_are_those_of_pairs_one_by_one(
    variant: str | None, lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for number, row in enumerate(forest_rows()) if number != 9]  # each row once: columns go by row
    step = Step(write_rows(tmp_path, rows), variant, lora=lora)
    runs = [step.run(budget) for budget in (10_000, 60, 30)]
    monkeypatch.setattr(prefix_sharing, "MIN_SHARED_TOKENS", 10**9)
    gradients, values, num_tokens = step.run(1)
    scale = max(float(gradient.abs().max()) for gradient in gradients)
    assert runs[0][2] < num_tokens / 2
    for found, found_values, _ in runs:
        for actual, expected in zip(found, gradients, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * scale)
        if variant == "aot":  # its losses are those of ranks, not of rows
            found_values[0], values[0] = found_values[0].sort()[0], values[0].sort()[0]
        torch.testing.assert_close(found_values, values, rtol=1e-5, atol=1e-4, equal_nan=True)


def test_ranked_data_train_prompt_by_prompt_and_resume_to_the_same_bytes(tmp_path: Path) -> None:
    """Ten prompts of three answers, six pairs a step: two whole prompts each, in fewer tokens than pair by pair."""
    world = World.make(tmp_path)
    rng = np.random.default_rng(6)
    rows: list[Row] = []
    for _ in range(10):
        prompt, *answers = (rng.integers(2, VOCABULARY, length).tolist() for length in (9, 6, 8, 5))
        rows += [(prompt, better, worse) for better, worse in combinations(answers, 2)]
    write_rows(tmp_path / "ranked", rows)
    assert is_ranked(EncodedData.open(tmp_path / "ranked"))
    assert not is_ranked(EncodedData.open(Path(world.train_data)))
    plan = world.plan("whole", train_data=str(tmp_path / "ranked"), group_by_prompt=True, micro_batch_tokens=70)
    six = {stage: dataclasses.replace(getattr(plan, stage), batch_size=6) for stage in ("sft", "dpo")}
    plan = dataclasses.replace(plan, **six)
    observer = RecordingObserver()
    whole = run(plan, observer)
    steps = [point.step for point in observer.points if (point.stage, point.split) == ("dpo", "train")]
    assert steps == list(range(1, 11))
    assert observer.curve("dpo", "train", names.LOSS)[0] == pytest.approx(math.log(2), abs=1e-6)
    pieces, seen = run_with_stops(dataclasses.replace(plan, work_dir=str(tmp_path / "pieces")), 9)
    assert untimed(seen.points) == untimed(observer.points)
    assert tree_bytes(pieces.policy_dir) == tree_bytes(whole.policy_dir)


def test_a_prompt_with_more_pairs_than_a_step_is_told(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    answers = [[number, number + 1, 7] for number in range(10, 15)]
    write_rows(tmp_path / "ranked", [([5, 6, 7, 8], *pair) for pair in combinations(answers, 2)])
    observer = RecordingObserver()
    run(world.plan("long", train_data=str(tmp_path / "ranked"), group_by_prompt=True, sft=None), observer)
    assert ("info", "prompts_spread") in observer.events
