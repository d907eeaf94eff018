"""What of a LoRA job in bf16 is in its published weights, at two learning rates, read without any code of the engine.

    python benchmarks/lora_publication.py MODELS_DIR/smollm2-135m-instruct --out benchmarks/results/DATE.json

Base model, trained policy (base model and adapter, by peft) and published folder score the same held-out rows by plain
transformers in float32, one sequence at a time. `share_kept` is (published - base) / (trained - base) of the mean
margin S_w - S_l. Beside it what rounding the same sum to bfloat16, and to the types of GGUF exports (f16, q8_0: all
weights of two dimensions, block by block as llama.cpp's converter does it), would have kept, and whether the base
model's weights in the policy's place are refused. Memory is the process's largest resident size, up to the end of
training and up to the end of the run, in a process of its own for each learning rate.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.domain.dataset_rows import DatasetKind
from core.tokenization.encode_file import encode_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.encoded import EncodedData
from core.training.failures import PolicyNotSavedWell
from core.training.measures.saved_folder import SavedPolicy
from core.training.measures.saved_policy_check import verify
from core.training.model.adapters import adapter_files
from core.training.model.loading import load_causal_lm
from core.training.model.policies import trained_digests
from core.training.observer import JsonValue, Level, MetricPoint, Stage, StageOutput
from core.training.pipeline import run
from core.training.plan import DpoPlan, LoraPlan, TrainingPlan

ROOT = Path(__file__).resolve().parents[1]
LEARNING_RATES = (5e-5, 5e-6)
WEIGHTS = "model.safetensors"
_MIB = 2**20


class Quiet:
    """Observes the largest memory at the end of training, and prints events."""

    def __init__(self) -> None:
        self.trained_mib = 0

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None:
        print(f"{stage}: {total_steps} steps", file=sys.stderr)

    def stage_finished(self, stage: Stage) -> None:
        self.trained_mib = peak_mib()

    def stage_skipped(self, stage: Stage, reason: str) -> None: ...

    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None: ...

    def point(self, point: MetricPoint) -> None: ...

    def event(self, level: Level, kind: str, message: str, data: Mapping[str, JsonValue]) -> None:
        print(f"{level} {kind}: {message}", file=sys.stderr)

    def checkpoint(self, ref: object) -> None: ...

    def stage_output(self, output: StageOutput) -> None: ...

    def samples(self, step: int, samples: object) -> None: ...

    def stop_requested(self) -> str:
        return "none"


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // _MIB


def main() -> None:
    arguments = _parse()
    if arguments.learning_rate is not None:
        print(json.dumps(measure(arguments, arguments.learning_rate)))
        return
    runs = [_in_own_process(rate) for rate in LEARNING_RATES]
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"torch": str(torch.__version__), "transformers": transformers.__version__},
        "model": arguments.model.name,
        "runs": runs,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def _in_own_process(rate: float) -> dict[str, Any]:
    command = [sys.executable, *sys.argv, "--learning-rate", str(rate)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--train", type=int, default=40)
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--learning-rate", type=float, help="of one run, in this process")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def measure(arguments: argparse.Namespace, learning_rate: float) -> dict[str, Any]:
    """One run and what came of it."""
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        plan = _plan(arguments, learning_rate, Path(folder))
        observer = Quiet()
        result = run(plan, observer)  # type: ignore[arg-type]
        peak = peak_mib()
        data = EncodedData.open(str(plan.validation_data))
        margins = _margins(plan, result.policy_dir, data)
        moved = margins["trained"] - margins["base"]
        shares = {name: (value - margins["base"]) / moved for name, value in margins.items()}
        return {
            "learning_rate": learning_rate,
            "num_steps": result.step,
            "num_held_out": len(data),
            "mean_margin": margins,
            "share_kept": shares,
            "update_kept_by_rounding": {name: _kept(plan, result.policy_dir, name) for name in ROUNDINGS},
            "base_in_its_place": _verify_base(plan, result.policy_dir, data, Path(folder)),
            "summary": {name: result.summary[name] for name in ("published", "verification")},
            "peak_mib": {"training": observer.trained_mib, "with_saving_and_verification": peak},
            "weights_mib": {
                "base": (arguments.model / WEIGHTS).stat().st_size // _MIB,
                "published": (result.policy_dir / WEIGHTS).stat().st_size // _MIB,
                "adapter": (result.policy_dir / "adapter" / adapter_files.WEIGHTS_FILE).stat().st_size // _MIB,
            },
        }


def _plan(arguments: argparse.Namespace, learning_rate: float, folder: Path) -> TrainingPlan:
    tokenizer = PairTokenizer.open(arguments.model)
    examples = ROOT / "examples"
    return TrainingPlan(
        base_model_dir=str(arguments.model),
        train_data=_encode(tokenizer, examples / "house-style.jsonl", arguments.train, folder / "train"),
        validation_data=_encode(tokenizer, examples / "house-style-heldout.jsonl", arguments.held_out, folder / "held"),
        sft=None,
        dpo=DpoPlan(epochs=1, learning_rate=learning_rate, batch_size=4, warmup_steps=1),
        lora=LoraPlan(rank=16, alpha=32),
        precision="bf16",
        num_threads=arguments.threads,
        evaluate_every_steps=1000,
        checkpoint_every_steps=1000,
        sample_prompts=(tuple(tokenizer.encode_prompt("How do I clean a lamp?")),),
        eos_token_ids=tokenizer.eos_ids,
        score_train_rows=False,
        max_new_tokens=16,
        work_dir=str(folder / "run"),
    )


def _encode(tokenizer: PairTokenizer, source: Path, num_rows: int, target: Path) -> str:
    lines = source.read_text(encoding="utf-8").splitlines()[:num_rows]
    rows = target.with_suffix(".jsonl")
    rows.write_text("".join(json.dumps({"line": n} | json.loads(line)) + "\n" for n, line in enumerate(lines, 1)))
    encode_file(rows, tokenizer, target, kind=DatasetKind.PREFERENCE, max_length=512, num_processes=1)
    return str(target)


def _margins(plan: TrainingPlan, policy_dir: Path, data: EncodedData) -> dict[str, float]:
    """Mean S_w - S_l by transformers and peft alone, in float32."""
    base = AutoModelForCausalLM.from_pretrained(plan.base_model_dir, dtype=torch.float32)
    found = {"base": _mean_margin(base, data)}
    found["trained"] = _mean_margin(PeftModel.from_pretrained(base, policy_dir / "adapter"), data)
    del base
    found["published"] = _mean_margin(AutoModelForCausalLM.from_pretrained(policy_dir, dtype=torch.float32), data)
    for name, rounded in ROUNDINGS.items():
        model = AutoModelForCausalLM.from_pretrained(policy_dir, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.copy_(rounded(parameter))
        found[f"rounded_to_{name}"] = _mean_margin(model, data)
    return found


def _in_blocks_of_8_bits(weight: torch.Tensor) -> torch.Tensor:
    values = quantize(weight.detach().float().numpy(), GGMLQuantizationType.Q8_0)
    return torch.from_numpy(dequantize(values, GGMLQuantizationType.Q8_0))


ROUNDINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bf16": torch.Tensor.bfloat16,
    "gguf_f16": torch.Tensor.half,
    "gguf_q8_0": _in_blocks_of_8_bits,
}


@torch.no_grad()
def _mean_margin(model: PreTrainedModel | PeftModel, data: EncodedData) -> float:
    model.eval()
    margins = []
    for index in range(len(data)):
        row = data.row(index)
        sums = []
        for response, scored in ((row.first, row.first_scored), (row.second, row.second_scored)):
            ids = torch.tensor([[*row.prompt.tolist(), *response.tolist()]])
            logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            sums.append(float(logps[len(row.prompt) - 1 :][torch.from_numpy(scored.astype(bool))].sum()))
        margins.append(sums[0] - sums[1])
    return sum(margins) / len(margins)


def _kept(plan: TrainingPlan, policy_dir: Path, name: str) -> float:
    """<round(W + D) - W, D> / <D, D> over all weights of two dimensions."""
    rounded = ROUNDINGS[name]
    base, published = load_file(Path(plan.base_model_dir) / WEIGHTS), load_file(policy_dir / WEIGHTS)
    kept = whole = 0.0
    for weight_name, weight in base.items():
        if weight.dim() != 2:
            continue
        update = published[weight_name].double() - weight.double()
        kept += float(((rounded(published[weight_name]).double() - weight.double()) * update).sum())
        whole += float(update.square().sum())
    return kept / whole


def _verify_base(plan: TrainingPlan, policy_dir: Path, data: EncodedData, folder: Path) -> str:
    """What verification says of the base model's weights in a copy of the published folder."""
    spoilt = Path(shutil.copytree(policy_dir, folder / "spoilt"))
    weights = {name: tensor.float() for name, tensor in load_file(Path(plan.base_model_dir) / WEIGHTS).items()}
    save_file(weights, spoilt / WEIGHTS, {"format": "pt"})
    model = load_causal_lm(plan.base_model_dir, dtype=torch.bfloat16)
    adapter_files.load_adapter(model, policy_dir / "adapter")
    saved = SavedPolicy(plan, spoilt, trained_digests(model, plan), data, "cpu")
    del model
    try:
        return f"PASSED: {asdict(verify(saved))}"
    except PolicyNotSavedWell as error:
        return f"refused: {error.detail}"


if __name__ == "__main__":
    main()
