"""How well `likely_mislabelled` finds wrong labels: flips planted in real pairs, or marked ones, in the engine's run.

    python benchmarks/bench_mislabelled.py --model <dir> --rows rows.jsonl --work <dir> [--flip 0.1] [--seconds 420]

`rows.jsonl`: `prompt, chosen, rejected` a line, and `"flipped": true` (or `metadata.noise.selected`) where a label is
known to be wrong; `--flip` plants wrong ones besides, with `--seed`. `--transcripts` reads HH's layout; the `--pairs`
shortest are taken. DPO runs from the base model without SFT. A run stops at a checkpoint after `--seconds` and goes on
when called again, until it prints its figures: AUROC and precision at k (k = number of wrong labels) of
`mislabelled_score`, beside judges that memorisation or length fools.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.domain.dataset_rows import DatasetKind
from core.tokenization.encode_file import encode_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.failures import TrainingStopped
from core.training.model.precision import faster_precision
from core.training.observer import CheckpointRef, MetricPoint, Sample, Stage, StageOutput, StopRequest
from core.training.pipeline import run
from core.training.plan import DpoPlan, LoraPlan, TrainingPlan

TURN = "\n\nAssistant:"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--transcripts", action="store_true")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--flip", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-length", type=int, default=1024, help="tokens; longer pairs are left out")
    parser.add_argument("--lora-rank", type=int, default=0, help="0: full fine-tuning")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=420.0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    flipped = prepare(arguments)
    observer = TimedObserver(arguments.work, arguments.seconds)
    try:
        result = run(make_plan(arguments), observer)
    except TrainingStopped:
        print(f"stopped in {observer.stage} at step {observer.step}; call again")
        return
    assert result.pairs_file is not None
    print(json.dumps(figures([json.loads(line) for line in result.pairs_file.open()], flipped), indent=1))


def prepare(arguments: argparse.Namespace) -> set[int]:
    """Encoded pairs in the work directory; the lines whose labels are wrong."""
    truth = arguments.work / "flipped.json"
    if truth.exists():
        return set(json.loads(truth.read_text()))
    rows = [json.loads(line) for line in arguments.rows.read_text(encoding="utf-8").splitlines()]
    if arguments.transcripts:
        rows = [split_transcript(row) for row in rows]
    size = [len(row["chosen"]) + len(row["rejected"]) + len(row["prompt"]) for row in rows]
    rows = [rows[index] for index in sorted(np.argsort(size, kind="stable")[: arguments.pairs])]
    rows = [row for row in rows if row["chosen"] != row["rejected"]]
    flipped = {line for line, row in enumerate(rows, 1) if is_marked(row)}
    planted = np.random.default_rng(arguments.seed).permutation(len(rows))[: round(arguments.flip * len(rows))]
    for index in planted:
        rows[index]["chosen"], rows[index]["rejected"] = rows[index]["rejected"], rows[index]["chosen"]
        flipped ^= {int(index) + 1}
    names = ("prompt", "chosen", "rejected")
    lines = [json.dumps({"line": n, **{name: row[name] for name in names}}) for n, row in enumerate(rows, 1)]
    source = arguments.work / "rows.jsonl"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = PairTokenizer.open(arguments.model)
    kind = DatasetKind.PREFERENCE
    encode_file(
        source, tokenizer, arguments.work / "encoded", kind=kind, max_length=arguments.max_length, num_processes=1
    )
    truth.write_text(json.dumps(sorted(flipped)))
    return flipped


def is_marked(row: Mapping[str, Any]) -> bool:
    noise = (row.get("metadata") or {}).get("noise") or {}
    return bool(row.get("flipped") or noise.get("selected"))


def split_transcript(row: Mapping[str, str]) -> dict[str, str]:
    prompt, _, chosen = row["chosen"].rpartition(TURN)
    return {"prompt": prompt + TURN, "chosen": chosen, "rejected": row["rejected"][len(prompt) + len(TURN) :]}


def make_plan(arguments: argparse.Namespace) -> TrainingPlan:
    newest = arguments.work / "newest"
    return TrainingPlan(
        base_model_dir=str(arguments.model),
        train_data=str(arguments.work / "encoded"),
        sft=None,
        dpo=DpoPlan(
            epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            batch_size=arguments.batch_size,
            warmup_steps=5,
        ),
        lora=LoraPlan(rank=arguments.lora_rank, alpha=2 * arguments.lora_rank) if arguments.lora_rank else None,
        precision=faster_precision("cpu"),
        num_threads=arguments.threads,
        seed=arguments.seed,
        checkpoint_every_steps=10_000,
        work_dir=str(arguments.work / f"run-{time.time_ns()}"),
        resume_from=newest.read_text() if newest.exists() else None,
    )


def figures(pairs: Sequence[Mapping[str, Any]], flipped: set[int]) -> dict[str, Any]:
    wrong = np.array([pair["line"] in flipped for pair in pairs])

    def column(name: str, sign: float) -> np.ndarray:
        return np.array([sign * (pair[name] if pair[name] is not None else 0.0) for pair in pairs])

    judges = {
        "mislabelled_score": column("mislabelled_score", 1.0),
        "margin_first (before training on it)": column("margin_first", -1.0),
        "margin_last (after training on it)": column("margin_last", -1.0),
        "likelihood under the base model": column("reference_margin", -1.0),
        "shorter chosen response": column("length_difference", -1.0),
    }
    flags = np.array(["likely_mislabelled" in pair["flags"] for pair in pairs])
    return {
        "pairs": len(pairs),
        "wrong": int(wrong.sum()),
        "flagged": int(flags.sum()),
        "precision_of_flag": float(wrong[flags].mean()) if flags.any() else None,
        "recall_of_flag": float(flags[wrong].mean()),
        "judges": {
            name: {"auroc": auroc(score, wrong), "precision_at_k": precision_at(score, wrong)}
            for name, score in judges.items()
        },
    }


def auroc(score: np.ndarray, wrong: np.ndarray) -> float:
    difference = score[wrong][:, None] - score[~wrong][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def precision_at(score: np.ndarray, wrong: np.ndarray) -> float:
    return float(wrong[np.argsort(-score, kind="stable")[: int(wrong.sum())]].mean())


class TimedObserver:
    """Asks for a checkpoint once the time is over, and remembers where it is."""

    def __init__(self, work: Path, seconds: float) -> None:
        self._newest = work / "newest"
        self._deadline = time.monotonic() + seconds
        self.stage, self.step = "", 0

    def stop_requested(self) -> StopRequest:
        return "checkpoint" if time.monotonic() > self._deadline else "none"

    def checkpoint(self, ref: CheckpointRef) -> None:
        self._newest.write_text(str(ref.directory))

    def point(self, point: MetricPoint) -> None:
        self.step = point.step
        print(
            point.step, {name: round(point.values[name] or 0, 4) for name in ("loss", "rewards/accuracies")}, flush=True
        )

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None:
        self.stage = stage.value

    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None:
        self.step = step

    def stage_finished(self, stage: Stage) -> None: ...
    def stage_skipped(self, stage: Stage, reason: str) -> None: ...
    def event(self, level: str, kind: str, message: str, data: Mapping[str, Any]) -> None: ...
    def stage_output(self, output: StageOutput) -> None: ...
    def samples(self, step: int, samples: Sequence[Sample]) -> None: ...


if __name__ == "__main__":
    main()
