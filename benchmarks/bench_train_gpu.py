"""One call, one GPU, at most ten minutes: this engine on a random 1B-class Llama, beside TRL's work.

    python benchmarks/bench_train_gpu.py --out result.json        # on CUDA
    python benchmarks/bench_train_gpu.py --tiny --device cpu      # every line of it, no figure worth keeping

Needs torch and transformers only. TRL is not installed on bare GPU machines, so the baseline here is our own loop that
spends TRL 1.16's FLOPs: every pair's prompt twice, all rows padded to the longest, bf16 autocast over float32 weights,
and as defaults gradient checkpointing and a float32 reference beside the policy ("best": neither, reference cached).
It is kinder than TRL: no metrics, no host syncs, no entropy, LM head on response rows only, as TRL does on CUDA.

Also checked, because no other machine can: packed log-probabilities equal those of each sequence alone; two runs of
three steps end with the same bits; three steps equal one step, a copy of all state, and two more.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from core.domain.training import encoded_format
from core.training.data.columns import to_host
from core.training.data.encoded import EncodedData
from core.training.data.packing import pack_pairs
from core.training.losses.objective import build_objective
from core.training.model.adapters import adapters
from core.training.model.loading import prepare_model
from core.training.model.logps import pair_logps
from core.training.model.policies import trainable_parameters
from core.training.plan import DpoPlan
from core.training.stages.memory_costs import measure_costs
from core.training.stages.micro_batch import checkpoint_activations
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.pairs import DpoTask, PairForward
from core.training.steps.reference_logps import SplitLogps

BETA = 0.1
LEARNING_RATE = 1e-6
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "intermediate_size"),
)
SHAPES: dict[str, dict[str, Any]] = {
    name: dict(zip(_SIZES, sizes, strict=True)) | {"tie_word_embeddings": True, "max_position_embeddings": 4096}
    for name, sizes in {"1b": (128_256, 2048, 16, 32, 8, 8192), "tiny": (512, 64, 2, 4, 2, 128)}.items()
}


@dataclass(frozen=True)
class Settings:
    device: torch.device
    shape: str
    batch_size: int
    steps: int
    micro_batch_tokens: int
    max_length: int

    @property
    def is_tiny(self) -> bool:
        return self.shape == "tiny"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=540, help="parts that would begin later are left out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    started = perf_counter()
    if given.device.startswith("cuda"):  # as the trainer does
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    settings = make_settings(torch.device(given.device), is_tiny=given.tiny)
    report: dict[str, Any] = {"machine": describe(settings), "settings": settings.__dict__ | {"device": given.device}}
    with tempfile.TemporaryDirectory() as scratch:
        data = hh_like_pairs(settings, Path(scratch))
        report["data"] = describe_data(data)
        for name, part in parts().items():
            if perf_counter() - started > given.seconds:
                report[name] = "left out: time is up"
                continue
            report[name] = part(settings, data)
            print(name, json.dumps(report[name]), flush=True)
            if given.out:
                given.out.write_text(json.dumps(report, indent=1) + "\n")
            gc.collect()  # an optimizer and its gradient hooks hold each other
            if settings.device.type == "cuda":
                torch.cuda.empty_cache()
    report["ratios"] = ratios(report)
    print("ratios", json.dumps(report["ratios"]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def make_settings(device: torch.device, *, is_tiny: bool) -> Settings:
    if is_tiny:
        return Settings(device, "tiny", batch_size=4, steps=1, micro_batch_tokens=256, max_length=96)
    return Settings(device, "1b", batch_size=64, steps=4, micro_batch_tokens=16384, max_length=1024)


def parts() -> dict[str, Callable[[Settings, EncodedData], dict[str, Any]]]:
    return {
        "gemm": lambda settings, _: {"flops": gemm_flops(settings)},
        "parity": check_parity,
        "resume": check_resume,
        "preftune full": lambda settings, data: time_engine(settings, data),
        "trl-like default": lambda settings, data: time_baseline(settings, data, is_default=True),
        "trl-like best": lambda settings, data: time_baseline(settings, data, is_default=False),
        "preftune lora": lambda settings, data: time_engine(settings, data, with_adapter=True),
        "preftune full, layers twice": lambda settings, data: time_engine(settings, data, twice=True),
    }


def hh_like_pairs(settings: Settings, directory: Path) -> EncodedData:
    """Random tokens with the lengths of HH: log-normal, a median prompt of 110 and responses of 50 tokens."""
    draw = np.random.default_rng(0)
    scale = 0.2 if settings.is_tiny else 1.0
    tokens: list[int] = []
    scored: list[int] = []
    table = []
    for line in range(1, (settings.steps + 1) * settings.batch_size + 1):
        lengths = [draw.lognormal(np.log(110 * scale), 0.8), *draw.lognormal(np.log(50 * scale), 0.8, 2)]
        sizes = [int(np.clip(length, 4, settings.max_length // 2)) for length in lengths]
        starts = []
        for part, size in enumerate(sizes):
            starts.append(len(tokens))
            tokens += draw.integers(3, SHAPES[settings.shape]["vocab_size"], size).tolist()
            scored += [int(part > 0)] * size
        table.append([line, *starts, len(tokens), 0])
    meta = {"version": encoded_format.VERSION, "kind": "preference", "num_rows": len(table), "num_tokens": len(tokens)}
    (directory / encoded_format.META_FILE).write_text(json.dumps(meta | {"digest": ""}))
    np.asarray(tokens, "<i4").tofile(directory / encoded_format.TOKENS_FILE)
    np.asarray(scored, "u1").tofile(directory / encoded_format.SCORED_FILE)
    np.asarray(table, "<i8").tofile(directory / encoded_format.ROWS_FILE)
    return EncodedData.open(directory)


def make_model(settings: Settings, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[settings.shape], attention_dropout=0.0, use_cache=False)
    config._attn_implementation = "sdpa"
    with torch.device(settings.device):
        return LlamaForCausalLM(config).to(dtype)


def gemm_flops(settings: Settings) -> float:
    """The best of a few square products: what this device really multiplies, not what its data sheet says."""
    size = 256 if settings.is_tiny else 8192
    left, right = (torch.randn(size, size, device=settings.device, dtype=settings.dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        settings.synchronize()
        started = perf_counter()
        torch.mm(left, right)
        settings.synchronize()
        best = min(best, perf_counter() - started)
    return 2 * size**3 / best


def make_trainer(
    settings: Settings, data: EncodedData, *, with_adapter: bool = False, twice: bool = False
) -> tuple[PreTrainedModel, DpoTask, MasterOptimizer]:
    model = prepare_model(make_model(settings, settings.dtype))
    if with_adapter:
        adapters.inject(model, adapters.LoraConfig(rank=16, alpha=32), seed=0)
    if twice:
        checkpoint_activations(model)
    reference = SplitLogps.unknown(len(data))
    for table in (reference.sums, reference.prefix_sums):
        table[:] = -100.0
    task = DpoTask(PairForward(model, data, build_objective("dpo", BETA, {}), reference))
    plan = DpoPlan(epochs=1, learning_rate=LEARNING_RATE, batch_size=settings.batch_size)
    return model, task, MasterOptimizer(trainable_parameters(model), plan)


def step(settings: Settings, task: DpoTask, optimizer: MasterOptimizer, number: int) -> None:
    rows = range(number * settings.batch_size, (number + 1) * settings.batch_size)
    columns = task.backward(task.pack(rows, settings.micro_batch_tokens))
    host = to_host(columns, list(rows), optimizer.grad_norm())
    optimizer.update(LEARNING_RATE, float(host.extra[0]))


def time_engine(
    settings: Settings, data: EncodedData, *, with_adapter: bool = False, twice: bool = False
) -> dict[str, Any]:
    model, task, optimizer = make_trainer(settings, data, with_adapter=with_adapter, twice=twice)
    costs = measure_costs(model, optimizer)
    held = memory_held(settings)
    seconds = []
    for number in range(settings.steps + 1):
        settings.synchronize()
        started = perf_counter()
        step(settings, task, optimizer, number)
        settings.synchronize()
        seconds.append(perf_counter() - started)
    rows = range(settings.batch_size, len(data))
    tokens = settings.micro_batch_tokens
    share = float(np.sum(data.first_lengths + data.second_lengths)) / data.num_tokens
    predicted = (
        costs.step_bytes(tokens, int(share * tokens), settings.max_length, checkpoints_activations=twice)
        if costs
        else 0
    )
    return figures(settings, seconds, needed_flops(model, data, rows)) | {"predicted_peak_bytes": held + predicted}


def needed_flops(model: PreTrainedModel, data: EncodedData, rows: range) -> float:
    """What a step cannot do without: 2 operations per weight and token forward, 4 backward (2 with frozen weights)."""
    chosen = np.asarray(rows)
    head = model.get_output_embeddings().weight
    body = sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name) - head.numel()
    prompts, firsts, seconds = data.prompt_lengths[chosen], data.first_lengths[chosen], data.second_lengths[chosen]
    responses = int((firsts + seconds).sum())
    passes = 6 if head.requires_grad else 4
    return float(passes * (body * (int(prompts.sum()) + responses) + head.numel() * responses))


def time_baseline(settings: Settings, data: EncodedData, *, is_default: bool) -> dict[str, Any]:
    """A loop that spends TRL 1.16's FLOPs."""
    memory_held(settings)
    model = make_model(settings, torch.float32)
    reference = make_model(settings, torch.float32).requires_grad_(False) if is_default else None
    if is_default:
        model.train()
        checkpoint_activations(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    seconds = []
    for number in range(settings.steps + 1):
        settings.synchronize()
        started = perf_counter()
        for start in range(number * settings.batch_size, (number + 1) * settings.batch_size, 8):
            rows = range(start, min(start + 8, (number + 1) * settings.batch_size))
            loss = baseline_loss(settings, model, reference, data, rows) * len(rows) / settings.batch_size
            loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        settings.synchronize()
        seconds.append(perf_counter() - started)
    return figures(settings, seconds, needed_flops(model, data, range(settings.batch_size, len(data))))


def baseline_loss(
    settings: Settings, model: PreTrainedModel, reference: PreTrainedModel | None, data: EncodedData, rows: range
) -> Tensor:
    """Eight pairs, chosen and rejected side by side, padded to the longest."""
    sequences, starts = [], []
    for side in ("first", "second"):
        for row in (data.row(index) for index in rows):
            sequences.append(torch.from_numpy(np.concatenate((row.prompt, getattr(row, side))).astype(np.int64)))
            starts.append(len(row.prompt))
    ids = nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(settings.device)
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=settings.device)
    places = torch.arange(ids.shape[1], device=settings.device)
    mask = places < lengths[:, None]
    scored = mask & (places >= torch.tensor(starts, device=settings.device)[:, None])
    sums = summed_logps(model, ids, mask, scored)
    if reference is None:
        reference_sums = torch.full_like(sums, -100.0)
    else:
        with torch.no_grad():
            reference_sums = summed_logps(reference, ids, mask, scored)
    chosen, rejected = (sums - reference_sums).chunk(2)
    return -functional.logsigmoid(BETA * (chosen - rejected)).mean()


def summed_logps(model: PreTrainedModel, ids: Tensor, mask: Tensor, scored: Tensor) -> Tensor:
    """LM head on response rows only, in tiles, as TRL does on CUDA."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=ids.is_cuda):
        hidden = model.base_model(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
        rows, columns = scored[:, 1:].nonzero(as_tuple=True)
        weight = model.get_output_embeddings().weight
        targets = ids[rows, columns + 1]
        parts = [
            checkpoint(tile_logps, weight, part, target, use_reentrant=False)
            for part, target in zip(hidden[rows, columns].split(4096), targets.split(4096), strict=True)
        ]
    return torch.zeros(len(ids), device=ids.device).index_add(0, rows, torch.cat(parts))


def tile_logps(weight: Tensor, hidden: Tensor, targets: Tensor) -> Tensor:
    return -functional.cross_entropy(functional.linear(hidden, weight).float(), targets, reduction="none")


def check_parity(settings: Settings, data: EncodedData) -> dict[str, Any]:
    """Largest relative difference of a log-probability, packed against alone, in float32 and the training dtype."""
    found = {}
    for name, dtype in {"float32": torch.float32, "training": settings.dtype}.items():
        model = prepare_model(make_model(settings, dtype))
        batch = pack_pairs(data, range(4), settings.device)
        with torch.no_grad():
            packed = pair_logps(model, batch)
            alone = [pair_logps(model, pack_pairs(data, [row], settings.device)) for row in range(4)]
        for side in ("chosen", "rejected"):
            together = getattr(packed, side).sums
            single = torch.cat([getattr(logps, side).sums for logps in alone])
            relative = ((together - single).abs() / single.abs()).max()
            found[f"{name} {side} relative"] = float(relative)
    return found


def check_resume(settings: Settings, data: EncodedData) -> dict[str, Any]:
    """Bits after three steps: twice the same way, and once through a copy of all state after the first step."""
    order = (0, 1, 0)
    ends = []
    for resumes in (False, False, True):
        _, task, optimizer = make_trainer(settings, data)
        for done, number in enumerate(order):
            if resumes and done == 1:
                state = {
                    name: tensor.cpu().clone() for name, tensor in {**optimizer.masters, **optimizer.state()}.items()
                }
                _, task, optimizer = make_trainer(settings, data)
                for name, tensor in {**optimizer.masters, **optimizer.state()}.items():
                    with torch.no_grad():
                        tensor.copy_(state[name])
                optimizer.num_updates = done
                optimizer.refresh()
            step(settings, task, optimizer, number)
        ends.append({name: tensor.cpu() for name, tensor in optimizer.masters.items()})
    return {
        "repeats_to_the_bit": all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0]),
        "resumes_to_the_bit": all(torch.equal(ends[0][name], ends[2][name]) for name in ends[0]),
    }


def figures(settings: Settings, seconds: list[float], flops: float) -> dict[str, Any]:
    """Of the steps after the first."""
    pairs = settings.batch_size * settings.steps
    total = sum(seconds[1:])
    return {
        "pairs_per_second": pairs / total,
        "median_step_seconds": statistics.median(seconds[1:]),
        "needed_flops_per_second": flops / total,
        "peak_bytes": memory_peak(settings),
    }


def memory_held(settings: Settings) -> int:
    """From here on, the peak counts anew."""
    if settings.device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def memory_peak(settings: Settings) -> int | None:
    return torch.cuda.max_memory_allocated() if settings.device.type == "cuda" else None


def describe(settings: Settings) -> dict[str, Any]:
    name = torch.cuda.get_device_name(settings.device) if settings.device.type == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__}


def describe_data(data: EncodedData) -> dict[str, Any]:
    return {
        "pairs": len(data),
        "mean_prompt_tokens": float(data.prompt_lengths.mean()),
        "mean_response_tokens": float(np.mean(data.first_lengths + data.second_lengths) / 2),
    }


def ratios(report: dict[str, Any]) -> dict[str, float]:
    ours = report.get("preftune full")
    if not isinstance(ours, dict):
        return {}
    found: dict[str, float] = {"share_of_gemm": ours["needed_flops_per_second"] / report["gemm"]["flops"]}
    for name in ("trl-like default", "trl-like best", "preftune lora"):
        if isinstance(report.get(name), dict):
            found[f"times {name}"] = ours["pairs_per_second"] / report[name]["pairs_per_second"]
    return found


if __name__ == "__main__":
    main()
