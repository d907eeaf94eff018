"""Micro-batches that run side by side: the same bits as one after another, whichever thread is faster."""

import dataclasses
import threading
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rows import NOT_PACKABLE, PROMISED, VOCABULARY, Row, make_model, write_rows
from tiny_runs import RecordingObserver, World, run_with_stops, tree_bytes, untimed
from torch import Tensor

from core.domain.variants.catalogue import VARIANTS
from core.training import side_by_side
from core.training.data import micro_batches
from core.training.data.columns import to_host
from core.training.data.encoded import EncodedData
from core.training.data.micro_batches import LANES, split_micro_batches
from core.training.data.packing import pack_step
from core.training.losses.objective import build_objective, build_unpaired_objective
from core.training.model.adapters import adapters
from core.training.model.adapters.adapters import LoraConfig
from core.training.model.joint_use import runs_apart
from core.training.pipeline import run
from core.training.plan import LoraPlan, SftPlan
from core.training.ranks import ALONE
from core.training.steps.forward import preference_task, split_forward
from core.training.steps.gradient_sum import GradientSum
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.reference_logps import SplitLogps
from core.training.steps.sft import SftTask

BUDGET = 120


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "LEAST_TOKENS", 1)


def rows_of_prompts(number: int) -> list[Row]:
    """Prompts of 3 to 8 tokens with two pairs each, and one pair that takes most of the budget."""
    rng = np.random.default_rng(3)

    def text(least: int, most: int) -> list[int]:
        return rng.integers(2, VOCABULARY, rng.integers(least, most)).tolist()

    rows: list[Row] = []
    for _ in range(number):
        prompt = text(3, 9)
        rows += [(prompt, text(2, 12), text(2, 12)) for _ in range(2)]
    return [*rows, (text(35, 36), text(40, 41), text(40, 41))]


class Threads:
    """Counts the threads that computed with the model, and how many of them at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: set[str] = set()
        original = side_by_side._at

        def noted(number: int, work: object) -> object:
            self.names.add(threading.current_thread().name)
            return original(number, work)  # type: ignore[arg-type]

        monkeypatch.setattr(side_by_side, "_at", noted)


def step(data: EncodedData, variant: str | None, threads: int, *, lora: bool, dtype: torch.dtype) -> list[Tensor]:
    """Return the values of all rows of a step, the gradients' norm, and the weights after the update."""
    model = make_model("llama").to(dtype)
    if lora:
        adapters.inject(model, LoraConfig(rank=3, alpha=6.0), seed=1)
    rows = list(range(len(data)))
    parameters = {name: part for name, part in model.named_parameters() if part.requires_grad}
    optimizer = MasterOptimizer(parameters, SftPlan(epochs=1, learning_rate=1e-2, batch_size=len(rows)))
    task: object
    if variant is None:
        task = SftTask(model, data)
    else:
        paired = VARIANTS[variant].data == "preference"
        objective = (build_objective if paired else build_unpaired_objective)(variant, 0.1, {})
        sums = -20 * torch.rand(2, len(data), 2, generator=torch.Generator().manual_seed(5)).numpy()
        task = preference_task(split_forward(model, data, objective, SplitLogps(*sums), ALONE))
    torch.set_num_threads(threads)
    batches = task.pack(rows, BUDGET)  # type: ignore[attr-defined]
    assert sum(batch.is_small for batch in batches) > 2 * LANES
    assert not all(batch.is_small for batch in batches)
    host = to_host(task.backward(batches), rows, optimizer.grad_norm())  # type: ignore[attr-defined]
    assert torch.get_num_threads() == threads
    optimizer.update(1e-2, float(host.extra[0]))
    return [torch.from_numpy(host.values), torch.from_numpy(host.extra), *optimizer.masters.values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("variant", [None, "dpo", "wpo", "aot", "kto"])
def test_a_step_has_the_bits_of_one_micro_batch_after_another(
    variant: str | None, lora: bool, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of_prompts(20)
    if variant == "kto":
        data = write_rows(tmp_path, [row[:2] for row in rows], kind="unpaired", good=range(0, len(rows), 2))
        data = data.with_partners(np.roll(np.arange(len(rows)), 1))
    else:
        data = write_rows(tmp_path, rows)
    threads = Threads(monkeypatch)
    alone = step(data, variant, 1, lora=lora, dtype=dtype)
    assert len(threads.names) == 1
    together = step(data, variant, 2, lora=lora, dtype=dtype)
    assert len(threads.names) == LANES
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5))


@pytest.mark.parametrize("lora", [None, LoraPlan(rank=3, alpha=6.0, dropout=0.2)], ids=["full", "lora"])
def test_a_run_of_two_threads_resumes_to_the_same_bytes(
    lora: LoraPlan | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, threads = World.make(tmp_path), Threads(monkeypatch)
    plan = world.plan("one", micro_batch_tokens=80, lora=lora, num_threads=2)
    observer = RecordingObserver()
    one = run(plan, observer)
    assert len(threads.names) == LANES
    pieces, seen = run_with_stops(dataclasses.replace(plan, work_dir=str(tmp_path / "two")), 7)
    assert untimed(seen.points) == untimed(observer.points)
    assert tree_bytes(pieces.policy_dir) == tree_bytes(one.policy_dir)


@pytest.mark.parametrize("architecture", [*PROMISED, *NOT_PACKABLE])
def test_models_that_run_text_by_text_use_one_thread(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their attention is switched for the while, for all threads."""
    rows = rows_of_prompts(4)
    data, model, threads = write_rows(tmp_path, rows), make_model(architecture), Threads(monkeypatch)
    torch.set_num_threads(2)
    batches = pack_step(data, range(len(rows)), BUDGET, "cpu")
    side_by_side.compute_each(batches, lambda number: number, runs_apart(model))
    assert len(threads.names) == (1 if architecture in NOT_PACKABLE else LANES)


def test_the_first_failure_is_raised_and_nothing_goes_on(tmp_path: Path) -> None:
    rows = rows_of_prompts(12)
    model = make_model("llama")
    torch.set_num_threads(2)
    batches = pack_step(write_rows(tmp_path, rows), range(len(rows)), BUDGET, "cpu")
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        if number >= 2:
            raise ValueError(str(number))

    with pytest.raises(ValueError, match="2"):
        side_by_side.compute_each(batches, work, runs_apart(model))
    assert max(begun) <= 2 + LANES
    assert torch.get_num_threads() == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]


def test_gradients_are_added_in_the_order_of_the_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order they come that two threads can bring about, of a parameter that one of them does not move."""
    gradients = [torch.tensor([value], dtype=torch.bfloat16) for value in (3.0, 1e-3, -3.0, 7e-4)]
    expected = gradients[0].float() + gradients[1] + gradients[2] + gradients[3]
    num_tried = 0
    for order in permutations(range(5)):
        if any(place > 0 and order.index(place - LANES) > order.index(place) for place in range(LANES, 5)):
            continue  # a micro-batch begins when the one LANES before it is done
        total = GradientSum()
        for number in (place for place in order if place != 2):
            parameter = torch.zeros(1, dtype=torch.bfloat16)
            parameter.grad = gradients[number if number < 2 else number - 1].clone()
            total.expect(parameter.grad)
            side_by_side._at(number, lambda _, parameter=parameter, total=total: total.collect(parameter))
            assert parameter.grad is None
            assert len(total._waiting) < LANES
        assert torch.equal(total.value(), expected)  # type: ignore[arg-type]
        num_tried += 1
    assert num_tried > 4


def test_micro_batches_that_run_together_are_even_and_within_the_budget(tmp_path: Path) -> None:
    rows = rows_of_prompts(20)
    data = write_rows(tmp_path, rows)
    found = split_micro_batches(data, range(len(rows)), BUDGET, lanes=LANES)
    assert sorted(row for members in found for row in members) == list(range(len(rows)))
    sizes = [batch.num_tokens for batch in pack_step(data, range(len(rows)), BUDGET, "cpu")]
    large = [size for size in sizes if size > BUDGET // LANES]
    small = [size for size in sizes if size <= BUDGET // LANES]
    assert len(large) == 1
    assert sizes[0] == large[0]
    assert len(small) % LANES == 0
    assert max(small) - min(small) <= BUDGET // LANES // 3
    assert sum(small) > 0.8 * len(small) * BUDGET // LANES


def test_a_beginning_common_to_all_is_not_computed_in_many_micro_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    system = rng.integers(2, VOCABULARY, 40).tolist()
    rows: list[Row] = [([*system, n, n], [n, 3], [n, 4]) for n in range(5, 25)]
    data = write_rows(tmp_path, rows)
    assert split_micro_batches(data, range(20), BUDGET, lanes=LANES) == split_micro_batches(data, range(20), BUDGET)
