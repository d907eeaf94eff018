"""Are the engine's promises kept on this device? Parity, step 0, exact resume, reuse; in one call of a few minutes.

    python benchmarks/device_check.py [--device cuda:0]

Needs this repository, torch and transformers, nothing else, and no network: models are tiny and random. Every line
says what was compared and how far apart it was; the exit status is 0 when all of it held.
"""

import argparse
import dataclasses
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from packed_rows import PROMISED, make_model, make_stock_model, random_rows, stock_sums, write_rows  # noqa: E402
from tiny_runs import (  # noqa: E402
    RecordingObserver,
    World,
    random_pairs,
    run,
    run_with_stops,
    tree_bytes,
    untimed,
    write_data,
)

from core.domain.training import metric_names as names  # noqa: E402
from core.training.data.packing import pack_pairs  # noqa: E402
from core.training.model.logps import pair_logps  # noqa: E402
from core.training.observer import Stage  # noqa: E402
from core.training.plan import DpoPlan, LoraPlan, ReusePlan, TrainingPlan  # noqa: E402

TOLERANCE = 1e-4
"""Of sums of log-probabilities, relative; float32 without TF32 adds up in another order on every device."""
CURVE_TOLERANCE = 1e-3
"""Of loss and rewards over thirty steps, absolute: AdamW multiplies the rounding of every step before."""

Finding = tuple[str, bool, str]
"""What was looked at, whether it held, the figures."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    device = parser.parse_args().device
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor()
    print(f"{device} {name}; torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    transformers.utils.logging.disable_progress_bar()
    started, has_failed = perf_counter(), False
    with tempfile.TemporaryDirectory() as folder:
        world = World.make(Path(folder))
        for check in CHECKS:
            for what, is_right, figures in check(world, device):
                has_failed |= not is_right
                print(f"{'ok  ' if is_right else 'FAIL'} {what}: {figures}", flush=True)
    print(f"{'FAILED' if has_failed else 'all held'} after {perf_counter() - started:.0f} s", flush=True)
    return int(has_failed)


def packed_rows_score_as_transformers(world: World, device: str) -> Iterator[Finding]:
    """Packed, with shared prompts, on the device; one sequence after another by transformers on the CPU."""
    rows = random_rows()
    data = write_rows(world.directory / "rows", rows)
    for architecture in PROMISED:
        with torch.no_grad():
            logps = pair_logps(make_model(architecture).to(device), pack_pairs(data, range(len(rows)), device))
            stock = make_stock_model(architecture).eval()
            expected = torch.cat((stock_sums(stock, rows, 0), stock_sums(stock, rows, 1)))
        actual = torch.cat((logps.chosen.sums, logps.rejected.sums)).cpu()
        apart = float(((actual - expected) / expected).abs().max())
        yield f"log-probabilities of {architecture}, packed", apart < TOLERANCE, f"{apart:.1e} apart (relative)"


def dpo_starts_at_ln_2(world: World, device: str) -> Iterator[Finding]:
    for precision in ("fp32", "bf16"):
        for kind, lora in (("full", None), ("lora", LoraPlan(rank=2, dropout=0.5))):
            observer = RecordingObserver()
            run(world.plan(f"zero-{precision}-{kind}", precision=precision, lora=lora, device=device), observer)
            first = next(p for p in observer.points if (p.stage, p.split) == ("dpo", "train")).values
            is_right = first[names.LOSS] == float(torch.tensor(2.0).log()) and first[names.CHOSEN_REWARDS] == 0.0
            figures = f"loss {first[names.LOSS]}, rewards/chosen {first[names.CHOSEN_REWARDS]}"
            yield f"step 0, {precision}, {kind}", is_right, figures


def thirty_steps_as_on_the_cpu(world: World, device: str) -> Iterator[Finding]:
    """The same run, on the CPU with every row alone."""
    train = write_data(world.directory / "many", random_pairs(40, 3))
    plan = world.plan("curve", train_data=train, sft=None, validation_data=None)
    plan = dataclasses.replace(plan, dpo=DpoPlan(epochs=3, learning_rate=1e-4, batch_size=4, epsilon=1e-4))
    curves = []
    for number, changes in enumerate(({"device": device}, {"device": "cpu", "micro_batch_tokens": 1})):
        observer = RecordingObserver()
        run(dataclasses.replace(plan, work_dir=f"{plan.work_dir}-{number}", **changes), observer)
        curves.append(observer)
    for name in (names.LOSS, names.CHOSEN_REWARDS, names.REJECTED_REWARDS, names.REWARD_MARGINS):
        ours, theirs = (torch.tensor(observer.curve("dpo", "train", name)) for observer in curves)
        apart = float((ours - theirs).abs().max())
        yield f"{name} over {len(ours)} steps, beside the CPU", apart < CURVE_TOLERANCE, f"{apart:.1e} apart"


def stopped_and_resumed(world: World, device: str) -> Iterator[Finding]:
    good = range(0, 11, 2)
    singles = [row[:2] for row in random_pairs(11, 1)]
    unpaired = {
        "variant": "kto",
        "train_data": write_data(world.directory / "unpaired", singles, "unpaired", good),
        "validation_data": None,
    }
    cases: dict[str, dict[str, Any]] = {
        "full fp32": {},
        "LoRA bf16": {"precision": "bf16", "lora": LoraPlan(rank=2, dropout=0.2)},
        "KTO": unpaired,
    }
    for kind, changes in cases.items():
        plan = world.plan(kind.replace(" ", "-"), device=device, **changes)
        yield f"resume, {kind}", *_compare_with_stops(plan)


def _compare_with_stops(plan: TrainingPlan) -> tuple[bool, str]:
    observer = RecordingObserver()
    whole = run(plan, observer)
    pieces, seen = run_with_stops(dataclasses.replace(plan, work_dir=f"{plan.work_dir}-piece"), 5)
    has_same_bytes = tree_bytes(pieces.policy_dir) == tree_bytes(whole.policy_dir)
    has_same_points = untimed(seen.points) == untimed(observer.points)
    return has_same_bytes and has_same_points, f"same bytes {has_same_bytes}, same curve {has_same_points}"


def stages_taken_over(world: World, device: str) -> Iterator[Finding]:
    plan, first, second = world.plan("reuse", device=device), RecordingObserver(), RecordingObserver()
    run(plan, first)
    reuse = ReusePlan(
        sft_dir=str(first.outputs[Stage.SFT].directory), reference_dir=str(first.outputs[Stage.REFERENCE].directory)
    )
    other = dataclasses.replace(plan, beta=0.4)
    shared = run(dataclasses.replace(other, work_dir=f"{plan.work_dir}-shared", reuse=reuse), second)
    alone = run(dataclasses.replace(other, work_dir=f"{plan.work_dir}-alone"), RecordingObserver())
    is_reused = second.calls[:2] == [("reused", Stage.SFT), ("reused", Stage.REFERENCE)]
    has_same_bytes = tree_bytes(shared.policy_dir) == tree_bytes(alone.policy_dir)
    yield "another beta", is_reused and has_same_bytes, f"both reused {is_reused}, same bytes {has_same_bytes}"


CHECKS: tuple[Callable[[World, str], Iterator[Finding]], ...] = (
    packed_rows_score_as_transformers,
    dpo_starts_at_ln_2,
    thirty_steps_as_on_the_cpu,
    stopped_and_resumed,
    stages_taken_over,
)


if __name__ == "__main__":
    sys.exit(main())
