"""Thirty steps of the engine beside thirty of TRL's DPOTrainer: same model, pairs, order and settings, in float32.

Needs trl 1.16, which the service itself does not; skipped without it (`make test-parity` brings it).
TRL's own code is untouched: it only gets the pairs already tokenised and in the engine's order, and computes its
padded batches with prompts twice where the engine packs and shares them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_rows import VOCABULARY
from tiny_runs import RecordingObserver, write_data
from transformers import LlamaConfig, LlamaForCausalLM

from core.training.data.order import Cursor, DataOrder
from core.training.observer import Stage
from core.training.pipeline import run
from core.training.plan import DpoPlan, TrainingPlan

pytest.importorskip("trl", reason="trl is not installed: make test-parity")

from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

NUM_PAIRS, BATCH_SIZE, EPOCHS, SEED = 40, 4, 3, 0
LEARNING_RATE = 2e-3
FIGURES = (
    *("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"),
    *("logps/chosen", "logps/rejected", "grad_norm", "learning_rate"),
)

RTOL = {"grad_norm": 1e-4}

Pair = tuple[list[int], list[int], list[int]]
Curves = dict[str, list[float]]


@dataclass(frozen=True)
class Case:
    """One loss, as either side calls it."""

    variant: str
    beta: float
    options: Mapping[str, float | str]
    trl: Mapping[str, Any]
    is_steep: bool = False
    """The slope of the loss changes so fast that TRL's float32 gradient norms are 1e-4 off its own float64 ones (ours
    are 2e-5 off): the norms are compared with TRL's run in float64."""
    skipped: str = "none"
    """Prefix of figures defined differently: TRL's rewards are of the whole response even where its loss is per
    token, and its log-probabilities are those that LD-DPO has discounted."""


CASES = (
    Case("dpo", 0.1, {}, {"loss_type": "sigmoid"}),
    Case("robust", 0.1, {"label_smoothing": 0.1}, {"loss_type": "robust", "label_smoothing": 0.1}),
    Case("hinge", 0.3, {}, {"loss_type": "hinge"}),
    Case("ipo", 0.3, {"normalization": "mean"}, {"loss_type": "ipo"}, skipped="rewards"),
    Case("length_normalized", 5.0, {}, {"loss_type": "sigmoid_norm"}, skipped="rewards"),
    Case("ld_dpo", 0.1, {"alpha": 0.3}, {"loss_type": "sigmoid", "ld_alpha": 0.3}, skipped="logps"),
    Case("apo_zero", 0.1, {}, {"loss_type": "apo_zero"}),
    Case("apo_down", 0.1, {}, {"loss_type": "apo_down"}),
    Case("exo", 0.1, {"label_smoothing": 1e-3}, {"loss_type": "exo_pair", "label_smoothing": 1e-3}),
    Case("nca", 0.1, {}, {"loss_type": "nca_pair"}),
    Case("bco", 0.1, {}, {"loss_type": "bco_pair"}),
    Case("sppo", 0.1, {}, {"loss_type": "sppo_hard"}),
    Case("aot", 0.1, {"pairing": "paired"}, {"loss_type": "aot"}),
    Case("aot", 0.1, {"pairing": "unpaired"}, {"loss_type": "aot_unpaired"}),
    Case("discopop", 0.05, {"tau": 0.05}, {"loss_type": "discopop", "discopop_tau": 0.05}, is_steep=True),
    Case("wpo", 0.1, {}, {"loss_type": "sigmoid", "use_weighting": True}),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def make_pairs() -> list[Pair]:
    """Prompts of 2 to 12 tokens, responses of 1 to 12."""
    rng = np.random.default_rng(SEED)

    def tokens(fewest: int) -> list[int]:
        return [int(token) for token in rng.integers(2, VOCABULARY, rng.integers(fewest, 13))]

    return [(tokens(2), tokens(1), tokens(1)) for _ in range(NUM_PAIRS)]


def make_model() -> LlamaForCausalLM:
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
        eos_token_id=1,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def engine_order() -> list[int]:
    """Rows of all steps, one after another."""
    order = DataOrder(NUM_PAIRS, BATCH_SIZE, EPOCHS, seed=SEED, stage=Stage.DPO)
    cursor, rows = Cursor(), []
    for _ in range(order.total_steps):
        rows += order.rows_at(cursor)
        cursor = order.after(cursor)
    return rows


class OrderedTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer, given tokens instead of text, and taking them as they come."""

    def _prepare_dataset(self, dataset: Dataset, *_args: object, **_kwargs: object) -> Dataset:
        return dataset

    def _get_train_sampler(self, *_args: object) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)


@contextmanager
def computing_in(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def run_trl(case: Case, pairs: Sequence[Pair], directory: Path, dtype: torch.dtype = torch.float32) -> Curves:
    vocabulary = {f"t{token}": token for token in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")), pad_token="t0", eos_token="t1"
    )
    rows = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), pairs[row], strict=True)) for row in engine_order()]
    arguments = DPOConfig(
        output_dir=str(directory),
        beta=case.beta,
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
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **case.trl,
    )
    model, ref_model = (make_model().to(dtype) for _ in range(2))
    with computing_in(dtype):
        trainer = OrderedTrainer(
            model=model,
            ref_model=ref_model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
    points = [point for point in trainer.state.log_history if "loss" in point]
    return {name: [point[name] for point in points] for name in FIGURES}


def run_engine(case: Case, pairs: Sequence[Pair], directory: Path) -> Curves:
    base_model = directory / "base"
    make_model().save_pretrained(base_model)
    plan = TrainingPlan(
        base_model_dir=str(base_model),
        train_data=write_data(directory / "train", pairs),
        sft=None,
        dpo=DpoPlan(
            epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            schedule="linear",
            weight_decay=0.01,
            max_grad_norm=1.0,
        ),
        variant=case.variant,
        beta=case.beta,
        variant_options=case.options,
        precision="fp32",
        seed=SEED,
        # Steps in several micro-batches: one forward pass in TRL.
        micro_batch_tokens=64,
        work_dir=str(directory / "work"),
    )
    observer = RecordingObserver()
    run(plan, observer)
    curves = {name: observer.curve("dpo", "train", name) for name in FIGURES}
    return {name: [value for value in curve if value is not None] for name, curve in curves.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.variant}-{case.trl['loss_type']}")
def test_thirty_steps_agree(case: Case, tmp_path: Path) -> None:
    pairs = make_pairs()
    ours, theirs = run_engine(case, pairs, tmp_path), run_trl(case, pairs, tmp_path / "trl")
    if case.is_steep:
        theirs["grad_norm"] = run_trl(case, pairs, tmp_path / "float64", torch.float64)["grad_norm"]
    compared = [name for name in ours if not name.startswith(case.skipped)]
    for name in compared:
        assert len(ours[name]) == len(theirs[name]) == EPOCHS * NUM_PAIRS // BATCH_SIZE
        atol = 1e-6 if name == "grad_norm" else 1e-4
        np.testing.assert_allclose(ours[name], theirs[name], rtol=RTOL.get(name, 1e-5), atol=atol, err_msg=name)
    assert np.ptp(ours["loss"]) > 1e-2, "nothing was learnt, so nothing was compared"
