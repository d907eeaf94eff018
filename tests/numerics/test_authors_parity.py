"""T22, T23: a training loop written after the DPO authors' trainer, beside the engine, step by step.

One padded batch of chosen and rejected sequences as their `concatenated_forward`, log-probabilities as their
`_get_batch_logps`, losses as their `preference_loss`, torch's RMSprop, their warm-up as a LambdaLR, their clipping; by
transformers' own forward pass. The engine packs, shares prompts, accumulates, and keeps its own optimizer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rows import Row, make_stock_model
from tiny_runs import RecordingObserver, World, random_pairs, run
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from core.training.data.order import Cursor, DataOrder
from core.training.observer import Stage
from core.training.plan import DpoPlan

PAD, NOT_SCORED = 0, -100
BETA, LEARNING_RATE, WARMUP_STEPS, MAX_GRAD_NORM = 0.1, 5e-4, 3, 10.0
NUM_PAIRS, BATCH_SIZE, EPOCHS = 11, 4, 3
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

Options = Mapping[str, float | str]


def batch_logps(logits: Tensor, labels: Tensor) -> Tensor:
    """[B] sums over the scored tokens of labels [B, T], each predicted by the position before it."""
    targets, logits = labels[:, 1:].clone(), logits[:, :-1]
    is_scored = targets != NOT_SCORED
    targets[~is_scored] = 0
    tokens = torch.gather(logits.log_softmax(-1), dim=2, index=targets.unsqueeze(2)).squeeze(2)
    return (tokens * is_scored).sum(-1)


def concatenated_logps(model: PreTrainedModel, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Chosen and rejected sums [B]: all sequences padded on the right to the longest."""
    sequences = [(row[0], row[side]) for side in (1, 2) for row in rows]
    longest = max(len(prompt) + len(response) for prompt, response in sequences)
    ids = torch.full((len(sequences), longest), PAD)
    labels, mask = torch.full_like(ids, NOT_SCORED), torch.zeros_like(ids)
    for index, (prompt, response) in enumerate(sequences):
        end = len(prompt) + len(response)
        ids[index, :end] = torch.tensor([*prompt, *response])
        labels[index, len(prompt) : end] = torch.tensor(response)
        mask[index, :end] = 1
    sums = batch_logps(model(input_ids=ids, attention_mask=mask, use_cache=False).logits, labels)
    return sums[: len(rows)], sums[len(rows) :]


def preference_loss(policy: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor], variant: str) -> Tensor:
    logits = policy[0] - policy[1]
    if variant != "reference_free":
        logits = logits - (reference[0] - reference[1])
    if variant == "ipo":
        return (logits - 1 / (2 * BETA)) ** 2
    smoothing = 0.1 if variant == "cdpo" else 0.0
    return -logsigmoid(BETA * logits) * (1 - smoothing) - logsigmoid(-BETA * logits) * smoothing


def authors_run(rows: Sequence[Row], steps: Sequence[Sequence[int]], variant: str) -> dict[str, list[float]]:
    model, frozen = make_stock_model("llama").eval(), make_stock_model("llama").eval()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (WARMUP_STEPS + 1)))
    curves: dict[str, list[float]] = {"loss": [], "grad_norm": [], "learning_rate": [], "logps/chosen": []}
    if variant != "reference_free":
        curves |= {"rewards/chosen": [], "rewards/rejected": []}
    for step in steps:
        batch = [rows[row] for row in step]
        with torch.no_grad():
            reference = concatenated_logps(frozen, batch)
        policy = concatenated_logps(model, batch)
        loss = preference_loss(policy, reference, variant).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        curves["learning_rate"].append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        curves["loss"].append(loss.item())
        curves["grad_norm"].append(norm.item())
        curves["logps/chosen"].append(policy[0].mean().item())
        if variant != "reference_free":
            for side, name in enumerate(("rewards/chosen", "rewards/rejected")):
                curves[name].append((BETA * (policy[side] - reference[side])).mean().item())
    return curves


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), num_train=NUM_PAIRS)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("dpo", {}),
        ("cdpo", {"label_smoothing": 0.1}),
        ("ipo", {"normalization": "sum"}),
        ("reference_free", {}),
    ],
)
def test_the_engine_goes_the_authors_way(variant: str, options: Options, world: World, tmp_path: Path) -> None:
    order = DataOrder(NUM_PAIRS, BATCH_SIZE, EPOCHS, seed=0, stage=Stage.DPO)
    cursor, steps = Cursor(), []
    while len(steps) < order.total_steps:
        steps.append(order.rows_at(cursor))
        cursor = order.after(cursor)
    plan = DpoPlan(
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        warmup_steps=WARMUP_STEPS,
        optimizer="rmsprop",
        max_grad_norm=MAX_GRAD_NORM,
    )
    observer = RecordingObserver()
    run(
        world.plan(
            str(tmp_path / "work"), variant=variant, beta=BETA, variant_options=options, sft=None, dpo=plan,
            validation_data=None, sample_prompts=(),
        ),
        observer,
    )  # fmt: skip
    theirs = authors_run(random_pairs(NUM_PAIRS, 1), steps, variant)
    for name, expected in theirs.items():
        ours = [value for value in observer.curve("dpo", "train", name) if value is not None]
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if name == "grad_norm" else TOLERANCE
        np.testing.assert_allclose(ours, expected, **tolerance, err_msg=name)
    assert np.ptp(theirs["loss"]) > 1e-2, "nothing was learnt, so nothing was compared"
