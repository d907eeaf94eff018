"""Memory of a training step: measured on a few tokens, predicted for many.

What a forward pass keeps for the backward pass grows with the packed tokens; it is counted while a short row runs, so
that no architecture needs a formula. Head, gradients and optimizer states follow from the parameters.

Legend: T packed tokens, S scored tokens, V vocabulary, H hidden size.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from core.control_groups import free_memory_bytes
from core.training.data.micro_batches import LANES
from core.training.kernels.attention_plan import MOST_KEPT_KEYS, Segment
from core.training.kernels.lm_head import CPU_TILE_BYTES, CUDA_TILE_BYTES, KEPT_BYTES
from core.training.kernels.packed_attention import AttentionLayout
from core.training.kernels.varlen_attention import KERNEL_DTYPES
from core.training.model.capabilities import capabilities_of, stock_attention
from core.training.model.probe import FOREIGN_FAILURES
from core.training.steps.optimizer import MasterOptimizer

_WEIGHTS = "model.safetensors"
_PROBE_TOKENS = (32, 96)
_ALONE_TOKENS = (32, 96, 160)
"""Lengths of sequences that run alone: three, since transformers' attention may keep scores of every pair of tokens."""
_FLOAT_BYTES = 4
_UNLIMITED = 2**31
_CUDA_TILE_COPIES = 3
"""Logits, probabilities and one temporary of a tile. A CPU has the logits only, of each lane, and the rest of a few
rows."""


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """Bytes of one step, beyond what the process holds before its first one."""

    optimizer_bytes: int
    """Gradients, and optimizer states that are not written to yet."""
    token_bytes: float
    """Kept for every packed token."""
    layer_token_bytes: float
    """The same of one layer: a backward pass has as much again for the layer it is in."""
    boundary_token_bytes: float
    """Kept for every packed token under activation checkpointing, besides one layer's."""
    score_bytes: int
    """Bytes of one query's attention to one key, in all layers: `block_attention` keeps those of short blocks."""
    scored_token_bytes: int
    """Kept for every scored token, up to `KEPT_BYTES` in all."""
    logits_bytes: int
    """Bytes of one scored token's float32 logits."""
    tile_bytes: int
    """Logits are formed in tiles of at most this size."""
    tile_copies: int
    """Number of buffers of a tile's size."""
    working_bytes: int
    """Whatever the tokens: gradients of embedding and head."""
    most_keys: int = MOST_KEPT_KEYS
    """Longer sequences keep the scores of so many keys for each query."""

    def step_bytes(self, tokens: int, scored: int, longest: int, *, checkpoints_activations: bool) -> int:
        """Predict the bytes of a micro-batch of so many packed and scored tokens in sequences of at most `longest`."""
        if checkpoints_activations:
            per_token = self.boundary_token_bytes + 2 * self.layer_token_bytes
        else:
            per_token = self.token_bytes + self.layer_token_bytes + self.score_bytes * min(longest, self.most_keys)
        head = min(self.scored_token_bytes * scored, KEPT_BYTES)
        tile = self.tile_copies * min(self.tile_bytes, self.logits_bytes * scored)
        return int(self.optimizer_bytes + per_token * tokens + head + tile + self.working_bytes)


def measure_costs(model: PreTrainedModel, optimizer: MasterOptimizer) -> StepCosts | None:
    """Measure a step; None for a model that fails on the sequences that are measured."""
    capabilities = capabilities_of(model)
    if not capabilities.is_packable or not capabilities.hides_logits:
        return _measure_alone(model, optimizer)
    short, long = (_kept_bytes(model, num_tokens) for num_tokens in _PROBE_TOKENS)
    token_bytes = (long - short) / (_PROBE_TOKENS[1] - _PROBE_TOKENS[0])
    config = model.config.get_text_config()
    is_policy = capabilities.reward_head is None
    weight = (model.get_output_embeddings() if is_policy else model.get_input_embeddings()).weight
    num_layers = config.num_hidden_layers
    uses_kernel = weight.is_cuda and weight.dtype in KERNEL_DTYPES
    head_bytes = weight.numel() * weight.element_size()
    buffers = (2 if is_policy else 1) * (1 if weight.is_cuda else LANES)
    return StepCosts(
        optimizer_bytes=optimizer.bytes_to_come(),
        token_bytes=token_bytes,
        layer_token_bytes=token_bytes / num_layers,
        boundary_token_bytes=num_layers * weight.shape[1] * weight.element_size(),
        score_bytes=0 if uses_kernel else num_layers * config.num_attention_heads * weight.element_size(),
        scored_token_bytes=weight.shape[0] * weight.element_size() if is_policy and weight.requires_grad else 0,
        logits_bytes=_FLOAT_BYTES * weight.shape[0] if is_policy else 0,
        tile_bytes=CUDA_TILE_BYTES if weight.is_cuda else CPU_TILE_BYTES,
        tile_copies=_CUDA_TILE_COPIES if weight.is_cuda else LANES,
        working_bytes=buffers * head_bytes if weight.requires_grad else 0,
    )


def _measure_alone(model: PreTrainedModel, optimizer: MasterOptimizer) -> StepCosts | None:
    """Measure sequences that run one by one, whose logits may be the model's own."""
    config = model.config.get_text_config()
    capabilities = capabilities_of(model)
    has_head, is_policy = capabilities.hides_logits, capabilities.reward_head is None
    limit = getattr(config, "max_position_embeddings", None)
    most_keys = limit if isinstance(limit, int) and limit > 0 else _UNLIMITED
    if most_keys < max(_ALONE_TOKENS):
        return None
    run = partial(model.base_model if has_head else model, use_cache=False)
    try:
        with stock_attention(model):
            kept = [_kept_alone(model, run, length) for length in _ALONE_TOKENS]
    except FOREIGN_FAILURES:
        return None
    per_token, per_score = _quadratic(_ALONE_TOKENS, kept)
    weight, num_layers = model.get_input_embeddings().weight, getattr(config, "num_hidden_layers", 1)
    logits_bytes = _FLOAT_BYTES * weight.shape[0] if is_policy else 0
    token_bytes = per_token if has_head else per_token + logits_bytes  # log-probabilities of the model's own logits
    return StepCosts(
        optimizer_bytes=optimizer.bytes_to_come(),
        token_bytes=token_bytes,
        layer_token_bytes=token_bytes / num_layers,
        boundary_token_bytes=num_layers * weight.shape[1] * weight.element_size(),
        score_bytes=math.ceil(per_score),
        scored_token_bytes=weight.shape[0] * weight.element_size()
        if has_head and is_policy and weight.requires_grad
        else 0,
        logits_bytes=logits_bytes,
        tile_bytes=CUDA_TILE_BYTES if weight.is_cuda else CPU_TILE_BYTES,
        tile_copies=_CUDA_TILE_COPIES if weight.is_cuda else 1,
        working_bytes=2 * weight.numel() * weight.element_size() if weight.requires_grad else 0,
        most_keys=most_keys,
    )


def _quadratic(lengths: Sequence[int], kept: Sequence[int]) -> tuple[float, float]:
    """Return bytes of every token and of every pair of tokens (never below 0) of sequences that keep so much."""
    short, middle, long = lengths
    first, second = (kept[1] - kept[0]) / (middle - short), (kept[2] - kept[1]) / (long - middle)
    per_score = max(0.0, (second - first) / (long - short))
    return (kept[2] - kept[0]) / (long - short) - per_score * (long + short), per_score


def _kept_alone(model: PreTrainedModel, run: Callable[..., object], num_tokens: int) -> int:
    ids = torch.zeros((1, num_tokens), dtype=torch.int64, device=model.device)
    return _count_kept(model, partial(run, input_ids=ids))


def _kept_bytes(model: PreTrainedModel, num_tokens: int) -> int:
    zeros = torch.zeros((1, num_tokens), dtype=torch.int64, device=model.device)
    segments = tuple(Segment(start=token, end=token + 1) for token in range(num_tokens))  # of one score each
    layout = AttentionLayout(segments=segments)
    run = partial(model.base_model, input_ids=zeros, position_ids=zeros, packed_layout=layout, use_cache=False)
    return _count_kept(model, run)


def _count_kept(model: PreTrainedModel, run: Callable[[], object]) -> int:
    """Count the bytes that autograd keeps of a forward pass, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = run()
    del output  # held until here: a storage that was freed would be counted twice under one address, or not at all
    return sum(kept.values())


def stored_elements(directory: Path) -> int:
    """Count the weights in the files that are loaded of a folder; 0 where they cannot be read, which loading tells."""
    found = 0
    try:
        for path in _loaded_files(directory):
            with safe_open(path, framework="pt") as file:
                found += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError):
        return 0
    return found


def _loaded_files(directory: Path) -> list[Path]:
    """Return the files that the index names, else the one of the usual name, else all."""
    index, single = directory / f"{_WEIGHTS}.index.json", directory / _WEIGHTS
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [directory / name for name in sorted(names)]
    return [single] if single.exists() else sorted(directory.glob("*.safetensors"))


def available_bytes(device: torch.device) -> int | None:
    """Bytes that this process can still allocate; None where the operating system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [free for free in (_free_of_machine(), free_memory_bytes()) if free is not None]
    return min(found, default=None)


def _free_of_machine() -> int | None:
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def held_bytes(device: torch.device) -> int:
    """Bytes that this process holds now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
