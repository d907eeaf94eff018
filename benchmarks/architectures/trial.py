"""One architecture through the engine beside plain transformers: values, gradients, answers, adapters, folders."""

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from architectures.configs import VOCABULARY, tiny_config
from packed_rows import Row, stock_token_logps, write_rows
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.training.data.encoded import EncodedData
from core.training.data.packing import pack_pairs
from core.training.model.adapters import adapters
from core.training.model.adapters.targets import ALL_EXPERTS, UnsupportedAdapter, coverage, has_expert_targets
from core.training.model.capabilities import capabilities_of
from core.training.model.generation import generate
from core.training.model.loading import UnsupportedModel, load_causal_lm, save_policy
from core.training.model.logps import token_logps
from core.training.stages.model_checks import keep_cache_where_it_holds, keep_packing_where_it_holds

MOST_PARAMETERS = 40_000_000
VALUE_TOLERANCE = 2e-3
"""Nats a token, float32."""
GRADIENT_TOLERANCE = 5e-3
"""Of a parameter's gradient, relative to its largest element."""
MERGED_TOLERANCE = 5e-3
"""Nats a token, of weights that an adapter was added to."""
_LENGTHS = ((90, 40, 70), (9, 5, 7), (120, 66, 31), (2, 80, 4))
"""Prompt, chosen and rejected response; longer than the window of the tiny models."""
_FACTOR = 4.0
"""Of the random weights: the context of a token changes its probability a lot."""
_NEW_TOKENS = 8


@dataclass(kw_only=True)
class Outcome:
    """What became of one type; `verdict` is passed, wrong, refused, not tried or internal."""

    model_type: str
    verdict: str = "passed"
    reason: str = ""
    model: str = ""
    is_packed: bool | None = None
    has_cache: bool | None = None
    value_difference: float | None = None
    gradient_difference: float | None = None
    saved_difference: float | None = None
    merged_difference: float | None = None
    adapter_share: float | None = None
    faults: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def try_type(model_type: str) -> Outcome:
    """Everything but what the engine itself may raise, which is the caller's to call internal."""
    outcome = Outcome(model_type=model_type)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        try:
            stock = _make(model_type, base)
        except Exception as error:  # noqa: BLE001 - foreign code on a configuration that nobody publishes
            outcome.verdict, outcome.reason = "not tried", f"tiny model: {type(error).__name__}: {error}"[:160]
            return outcome
        outcome.model = type(stock).__name__
        try:
            model = load_causal_lm(base, dtype=torch.float32)
        except UnsupportedModel as error:
            outcome.verdict, outcome.reason = "refused", error.detail
            return outcome
        data = write_rows(Path(scratch) / "rows", _rows())
        keep_packing_where_it_holds(model, data)
        keep_cache_where_it_holds(model, data)
        capabilities = capabilities_of(model)
        outcome.is_packed, outcome.has_cache = capabilities.is_packable, capabilities.has_cache
        _compare_values(outcome, model, stock, data)
        _compare_answers(outcome, model, stock)
        _compare_saved(outcome, model, data, Path(scratch) / "saved")
        _compare_adapter(outcome, base, data, Path(scratch) / "merged")
    outcome.verdict = "wrong" if outcome.faults else "passed"
    return outcome


def _make(model_type: str, directory: Path) -> PreTrainedModel:
    """A random model, saved, and read again as plain transformers reads it."""
    config = tiny_config(model_type)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if count > MOST_PARAMETERS:
        raise ValueError(f"{count} parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(_FACTOR)
            else:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    stock: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = stock(input_ids=torch.tensor([_rows()[0][0]]), use_cache=False).logits
    if not torch.isfinite(logits).all() or logits.shape[1] != _LENGTHS[0][0]:
        raise ValueError("transformers itself gives no finite logits of a row of text")
    return stock


def _rows() -> list[Row]:
    rng = np.random.default_rng(3)
    return [tuple(rng.integers(2, VOCABULARY, length).tolist() for length in row) for row in _LENGTHS]


def _stock_values(stock: PreTrainedModel) -> Tensor:
    """[S] in the order of the packed batch."""
    return torch.cat([stock_token_logps(stock, row[0], row[1 + side]) for side in (0, 1) for row in _rows()])


def _values(model: PreTrainedModel, data: EncodedData) -> Tensor:
    """[S]"""
    return token_logps(model, pack_pairs(data, range(len(data)), "cpu")).values


def _compare_values(outcome: Outcome, model: PreTrainedModel, stock: PreTrainedModel, data: EncodedData) -> None:
    found, expected = _values(model, data), _stock_values(stock)
    outcome.value_difference = float((found - expected).detach().abs().max())
    weights = torch.linspace(-1, 1, len(found))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    by_name = dict(stock.named_parameters())
    differences = [_relative(parameter.grad, by_name[name].grad) for name, parameter in model.named_parameters()]
    outcome.gradient_difference = max(differences)
    if not outcome.value_difference <= VALUE_TOLERANCE:
        outcome.faults.append("log-probabilities")
    if not outcome.gradient_difference <= GRADIENT_TOLERANCE:
        outcome.faults.append("gradients")
    model.zero_grad()


def _relative(found: Tensor | None, expected: Tensor | None) -> float:
    if found is None and expected is None:
        return 0.0
    present = found if found is not None else expected
    assert present is not None
    found = torch.zeros_like(present) if found is None else found
    expected = torch.zeros_like(present) if expected is None else expected
    size = float(expected.abs().max())
    difference = float((found - expected).abs().max())
    return difference / size if size > 1e-4 else difference


@torch.no_grad()
def _compare_answers(outcome: Outcome, model: PreTrainedModel, stock: PreTrainedModel) -> None:
    prompt = list(_rows()[0][0])
    expected = list(prompt)
    for _ in range(_NEW_TOKENS):
        expected.append(int(stock(input_ids=torch.tensor([expected]), use_cache=False).logits[0, -1].argmax()))
    if generate(model, prompt, _NEW_TOKENS, []) != expected[len(prompt) :]:
        outcome.faults.append("generation")


@torch.no_grad()
def _compare_saved(outcome: Outcome, model: PreTrainedModel, data: EncodedData, directory: Path) -> None:
    """As after some training: every weight moved."""
    for parameter in model.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    outcome.saved_difference = _saved_difference(model, data, directory)
    if not outcome.saved_difference <= VALUE_TOLERANCE:
        outcome.faults.append("saved folder")


@torch.no_grad()
def _saved_difference(model: PreTrainedModel, data: EncodedData, directory: Path) -> float:
    """Nats a token between the model in memory and its folder under plain transformers."""
    found = _values(model, data)
    save_policy(model, directory)
    again = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    return float((found - _stock_values(again)).abs().max())


def _compare_adapter(outcome: Outcome, base: Path, data: EncodedData, directory: Path) -> None:
    model = load_causal_lm(base, dtype=torch.float32)
    keep_packing_where_it_holds(model, data)
    try:
        experts: Literal["all-experts"] | tuple[str, ...] = ALL_EXPERTS if has_expert_targets(model) else ()
        parameters = adapters.inject(model, adapters.LoraConfig(rank=2, alpha=4, target_parameters=experts), seed=0)
    except UnsupportedAdapter as error:
        outcome.reason = error.detail
        return
    outcome.adapter_share = coverage(model).share
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05 * torch.randn_like(parameter))
    _values(model, data).sum().backward()
    if any(parameter.grad is None or not torch.isfinite(parameter.grad).all() for parameter in parameters):
        outcome.faults.append("adapter without gradient")
    outcome.merged_difference = _saved_difference(model, data, directory)
    if not outcome.merged_difference <= MERGED_TOLERANCE:
        outcome.faults.append("merged adapter")
