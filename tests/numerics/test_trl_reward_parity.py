"""Thirty steps of a reward model beside thirty of TRL's RewardTrainer: same weights, pairs, order and settings.

Needs trl 1.16, which the service itself does not; skipped without it (`make test-parity` brings it). TRL's own code is
untouched: it only gets the pairs already tokenised and in the engine's order, and computes padded batches with prompts
twice where the engine packs and shares them. The padding token is the end token, at which some responses end.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rows import VOCABULARY
from tiny_runs import RecordingObserver, write_data
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from core.training.data.order import Cursor, DataOrder
from core.training.model.loading import save_policy
from core.training.model.reward_model import load_reward_model
from core.training.observer import Stage
from core.training.pipeline import run
from core.training.plan import RewardPlan, TrainingPlan
from core.training.seeding import derive_seed

pytest.importorskip("trl", reason="trl is not installed: make test-parity")

from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

NUM_PAIRS, BATCH_SIZE, EPOCHS, SEED, END = 40, 4, 3, 0, 1
LEARNING_RATE = 2e-3
FIGURES = {
    "loss": "loss",
    "accuracy": "rewards/accuracies",
    "margin": "rewards/margins",
    "mean_reward": "rewards",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
"""TRL's names and ours."""

Pair = tuple[list[int], list[int], list[int]]
Curves = dict[str, list[float]]


def make_pairs() -> list[Pair]:
    """Prompts of 2 to 24 tokens, which are shared from 16 on; responses of 1 to 12, every other one with an end."""
    rng = np.random.default_rng(SEED)

    def tokens(fewest: int, most: int) -> list[int]:
        return [int(token) for token in rng.integers(2, VOCABULARY, rng.integers(fewest, most + 1))]

    ends = [[END] if number % 2 else [] for number in range(NUM_PAIRS)]
    return [(tokens(2, 24), tokens(1, 12) + end, tokens(1, 12) + end) for end in ends]


def make_base(directory: Path) -> Path:
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_dropout=0.0,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def engine_order() -> list[int]:
    """Rows of all steps, one after another."""
    order = DataOrder(NUM_PAIRS, BATCH_SIZE, EPOCHS, seed=SEED, stage=Stage.REWARD)
    cursor, rows = Cursor(), []
    for _ in range(order.total_steps):
        rows += order.rows_at(cursor)
        cursor = order.after(cursor)
    return rows


class OrderedTrainer(RewardTrainer):  # type: ignore[misc]
    """TRL's trainer, taking the pairs as they come."""

    def _get_train_sampler(self, *_args: object) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def run_trl(base: Path, pairs: Sequence[Pair], directory: Path, centring: float) -> Curves:
    start = load_reward_model(base, dtype=torch.float32, pad_token_id=END, head_seed=derive_seed(SEED, "reward head"))
    save_policy(start, directory / "start")
    vocabulary = {f"t{token}": token for token in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")),
        pad_token=f"t{END}",
        eos_token=f"t{END}",
    )
    rows = [
        {"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected}
        for prompt, chosen, rejected in (pairs[row] for row in engine_order())
    ]
    arguments = RewardConfig(
        output_dir=str(directory),
        per_device_train_batch_size=BATCH_SIZE,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="linear",
        warmup_steps=0,
        optim="adamw_torch",
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        center_rewards_coefficient=centring or None,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = OrderedTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(directory / "start", dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    points = [point for point in trainer.state.log_history if "loss" in point]
    return {name: [point[name] for point in points] for name in FIGURES}


def run_engine(base: Path, pairs: Sequence[Pair], directory: Path, centring: float) -> Curves:
    plan = TrainingPlan(
        base_model_dir=str(base),
        train_data=write_data(directory / "train", pairs),
        sft=None,
        dpo=None,
        method="reward",
        pad_token_id=END,
        reward=RewardPlan(
            epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            schedule="linear",
            weight_decay=0.01,
            max_grad_norm=1.0,
            center_rewards_coefficient=centring,
        ),
        precision="fp32",
        seed=SEED,
        micro_batch_tokens=96,  # steps in several micro-batches: one forward pass in TRL
        num_threads=1,
        work_dir=str(directory / "work"),
    )
    observer = RecordingObserver()
    run(plan, observer)
    curves = {theirs: observer.curve("reward", "train", ours) for theirs, ours in FIGURES.items()}
    return {name: [value for value in curve if value is not None] for name, curve in curves.items()}


@pytest.mark.parametrize("centring", [0.0, 0.01])
def test_thirty_steps_agree(centring: float, tmp_path: Path) -> None:
    base, pairs = make_base(tmp_path / "base"), make_pairs()
    ours = run_engine(base, pairs, tmp_path / "ours", centring)
    theirs = run_trl(base, pairs, tmp_path / "trl", centring)
    for name in FIGURES:
        assert len(ours[name]) == len(theirs[name]) == EPOCHS * NUM_PAIRS // BATCH_SIZE
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4, err_msg=name)
    assert np.ptp(ours["loss"]) > 1e-2, "nothing was learnt, so nothing was compared"
