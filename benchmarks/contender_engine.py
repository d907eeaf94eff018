"""Preftune's engine in the side-by-side of `bench_train.py`: the calls its training loop makes for every step."""

import argparse
import json
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from core.domain.training import encoded_format
from core.training.data.columns import to_host
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch
from core.training.losses.objective import build_objective
from core.training.model.adapters import adapters
from core.training.model.loading import load_causal_lm
from core.training.model.policies import DTYPES, trainable_parameters
from core.training.model.precision import gemm_flops
from core.training.plan import DpoPlan
from core.training.steps.figures import peak_memory_bytes
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.pairs import DpoTask, PairForward
from core.training.steps.reference_logps import SplitLogps
from worker.processes.busy_machine import shorten_waiting_while_busy

MICRO_BATCH_TOKENS = 2048


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=Path)
    settings = json.loads(parser.parse_args().settings.read_text())
    shorten_waiting_while_busy()
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    data = encode(settings["rows"], settings["model"], Path(settings["scratch"]))
    model = load_causal_lm(settings["model"], dtype=DTYPES[settings["precision"]])
    if settings["lora"]:
        adapters.inject(model, adapters.LoraConfig(rank=16, alpha=32), seed=0)
    batch_size = settings["batch_size"]
    groups = [range(start, start + batch_size) for start in range(0, len(data), batch_size)]
    reference, reference_seconds = score_reference(model, data, groups)
    task = DpoTask(PairForward(model, data, build_objective("dpo", 0.1, {}), reference))
    optimizer = MasterOptimizer(
        trainable_parameters(model), DpoPlan(epochs=1, learning_rate=1e-6, batch_size=batch_size)
    )
    seconds, cpu_seconds, flops, losses = [], [], 0.0, []
    for rows in groups:
        started, cpu_started = perf_counter(), process_time()
        batches = task.pack(rows, MICRO_BATCH_TOKENS)
        host = to_host(task.backward(batches), list(rows), optimizer.grad_norm())
        optimizer.update(1e-6, float(host.extra[0]))
        seconds.append(perf_counter() - started)
        cpu_seconds.append(process_time() - cpu_started)
        flops += sum(step_flops(model, batch) for batch in batches) if rows.start else 0.0
        losses.append(float(host.values[0].mean()))
    result = {
        "step_seconds": seconds[1:],
        "cpu_seconds": sum(cpu_seconds[1:]),
        "reference_seconds": reference_seconds,
        "losses": losses[1:],
        "flops": flops,
        "gemm_flops": {name: gemm_flops(dtype, size=2048) for name, dtype in DTYPES.items()},
        "peak_rss_bytes": peak_memory_bytes(torch.device("cpu")),
        "tokens": int((2 * data.prompt_lengths + data.first_lengths + data.second_lengths)[batch_size:].sum()),
        "versions": {"torch": torch.__version__},
    }
    Path(settings["result"]).write_text(json.dumps(result))


@torch.no_grad()
def score_reference(model: torch.nn.Module, data: EncodedData, groups: list[range]) -> tuple[SplitLogps, float]:
    """Seconds without the first group, which warms up."""
    reference, seconds = SplitLogps.unknown(len(data)), []
    forward = PairForward(model, data, build_objective("dpo", 0.1, {}), None)  # type: ignore[arg-type]
    for rows in groups:
        started = perf_counter()
        batches = forward.pack(rows, MICRO_BATCH_TOKENS)
        logps = forward.all_policy_logps(batches)
        order = [row for batch in batches for row in batch.indices]
        reference.sums[order] = columns(logps.chosen.sums, logps.rejected.sums)
        reference.prefix_sums[order] = columns(logps.chosen.prefix_sums, logps.rejected.prefix_sums)
        seconds.append(perf_counter() - started)
    return reference, sum(seconds[1:])


def columns(chosen: Tensor, rejected: Tensor) -> np.ndarray:  # type: ignore[type-arg]
    return torch.stack((chosen, rejected), dim=1).numpy()


def step_flops(model: torch.nn.Module, batch: PackedBatch) -> float:
    """Multiplications and additions the step cannot do without: 2 per weight and token forward, 4 backward."""
    embeddings = model.get_input_embeddings().weight  # type: ignore[operator]
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    total = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name)
    body = total - embeddings.numel() - (0 if head is embeddings else head.numel())
    passes = 6 if head.requires_grad else 4  # a frozen weight needs no gradient
    return float(passes * (body * batch.num_tokens + head.numel() * len(batch.targets)))


def encode(rows: list[dict[str, str]], model_dir: str, directory: Path) -> EncodedData:
    """Tokenised piece by piece, one end token after each response."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokens: list[int] = []
    scored: list[int] = []
    table = []
    for line, row in enumerate(rows, 1):
        starts = []
        for part in ("prompt", "chosen", "rejected"):
            ids = tokenizer(row[part], add_special_tokens=False)["input_ids"]
            if part != "prompt":
                ids = [*ids, tokenizer.eos_token_id]
            starts.append(len(tokens))
            tokens += ids
            scored += [int(part != "prompt")] * len(ids)
        table.append([line, *starts, len(tokens), 0])
    directory.mkdir(parents=True, exist_ok=True)
    meta = {"version": encoded_format.VERSION, "kind": "preference", "num_rows": len(table), "num_tokens": len(tokens)}
    (directory / encoded_format.META_FILE).write_text(json.dumps(meta | {"digest": ""}))
    np.asarray(tokens, "<i4").tofile(directory / encoded_format.TOKENS_FILE)
    np.asarray(scored, "u1").tofile(directory / encoded_format.SCORED_FILE)
    np.asarray(table, "<i8").tofile(directory / encoded_format.ROWS_FILE)
    return EncodedData.open(directory)


if __name__ == "__main__":
    main()
