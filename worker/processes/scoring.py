"""Scoring process: `python -m worker.processes.scoring <work directory>`. Loads torch; ends after one request.

Reads `scoring.json` (`ScoringTask`), encodes the texts as training does, and writes `results.json`: one object for each
item or pair, or `{"error": …}` for one that cannot be scored.
"""

import json
import math
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from core.domain.dataset_rows import CONTEXT_FIELDS, DatasetKind
from core.domain.jobs.job_spec import JobSpec
from core.domain.jobs.methods import get_method
from core.tokenization.encode_file import encode_file
from core.tokenization.errors import NothingToEncode
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.encoded import EncodedData
from core.training.losses.objective import build_objective
from core.training.measures.implicit_rewards import PairRewards, score_by_reward_model, score_pairs
from core.training.model.adapters import adapter_files
from core.training.model.loading import load_causal_lm
from core.training.model.policies import ADAPTER_DIR, DTYPES
from core.training.model.reward_model import load_reward_model

TASK_FILE, RESULTS_FILE = "scoring.json", "results.json"
_NICENESS = 5
"""Training comes first where both want the processor."""


@dataclass(frozen=True, kw_only=True)
class ScoringTask:
    """Task of the scoring process: plain values and local paths."""

    spec: dict[str, Any]
    base_model_dir: str
    policy_dir: str
    sft_dir: str | None
    """Policy before DPO: a model, or with LoRA its adapter; None: the base model."""
    is_pairs: bool
    rows: list[dict[str, Any]]
    """`prompt`, `chosen`, `rejected`, or `prompt`, `response`; `tools` and `documents` where a row has them."""
    num_threads: int
    submitted_at: str
    by_token: bool = False
    """Also the tokens of each response with their log-ratios."""


def main(work_dir: Path) -> int:
    os.nice(_NICENESS)
    task = ScoringTask(**json.loads((work_dir / TASK_FILE).read_text(encoding="utf-8")))
    torch.set_num_threads(task.num_threads)
    results = score(task, work_dir)
    (work_dir / RESULTS_FILE).write_text(json.dumps(results, allow_nan=False), encoding="utf-8")
    return 0


def score(task: ScoringTask, work_dir: Path) -> list[dict[str, Any]]:
    """Score the items; raises DomainError where nothing can be scored at all."""
    spec = JobSpec.model_validate(task.spec)
    now = datetime.fromisoformat(task.submitted_at).replace(tzinfo=None)
    tokenizer = PairTokenizer.open(
        Path(task.base_model_dir),
        now=now,
        template_kwargs=spec.chat_template_kwargs,
        keeps_tail=not get_method(spec.method).publishes_policy,
    )
    rows = work_dir / "rows.jsonl"
    rows.write_text("".join(json.dumps(_pair(n, row)) + "\n" for n, row in enumerate(task.rows, 1)), encoding="utf-8")
    try:
        summary = encode_file(
            rows,
            tokenizer,
            work_dir / "encoded",
            kind=DatasetKind.PREFERENCE,
            max_length=spec.max_length,
            num_processes=1,
            keeps_equal=True,
        )
    except NothingToEncode as error:
        return [{"error": error.reasons.get(line, error.detail)} for line in range(1, len(task.rows) + 1)]
    data = EncodedData.open(work_dir / "encoded")
    scores = _scores(task, spec, data)
    results: list[dict[str, Any]] = [{} for _ in task.rows]
    for aside in summary.set_aside:
        results[aside.line - 1] = {"error": aside.detail}
    for index, line in enumerate(data.lines):
        shown = _pair_result if task.is_pairs else _item_result
        results[int(line) - 1] = shown(scores, index, data) | _tokens(scores, index, data, tokenizer)
    return results


def _scores(task: ScoringTask, spec: JobSpec, data: EncodedData) -> PairRewards:
    if not get_method(spec.method).publishes_policy:
        # In float32, so that scores are those of the folder wherever it is read.
        model = load_reward_model(task.policy_dir, dtype=torch.float32)
        return score_by_reward_model(data, model, _micro_batch(spec))
    return score_pairs(
        data,
        build_objective(spec.variant, float(spec.beta or 0), spec.variant_options),
        lambda: _load_policy(task, spec),
        lambda: _load_reference(task, spec),
        _micro_batch(spec),
        by_token=task.by_token,
    )


def _tokens(scores: PairRewards, index: int, data: EncodedData, tokenizer: PairTokenizer) -> dict[str, Any]:
    """Return the scored tokens of a response with their log-ratios, where asked for."""
    if scores.log_ratios is None:
        return {}
    row = data.row(index)
    texts = tokenizer.show_tokens(row.first[row.first_scored.astype(bool)].tolist())
    ratios = map(_finite, scores.log_ratios[index])
    return {"tokens": [{"text": text, "log_ratio": ratio} for text, ratio in zip(texts, ratios, strict=True)]}


def _pair(line: int, row: dict[str, Any]) -> dict[str, Any]:
    """Return a single response as both sides of a pair, so that every variant's reward is defined."""
    chosen = row.get("chosen", row.get("response"))
    context = {name: row[name] for name in CONTEXT_FIELDS if name in row}
    return {"line": line, "prompt": row["prompt"], "chosen": chosen, "rejected": row.get("rejected", chosen), **context}


def _pair_result(scores: PairRewards, index: int, _data: EncodedData) -> dict[str, Any]:
    chosen, rejected = float(scores.chosen_rewards[index]), float(scores.rejected_rewards[index])
    margin = chosen - rejected
    return {
        "chosen_reward": _finite(chosen),
        "rejected_reward": _finite(rejected),
        "margin": _finite(margin),
        "preference_probability": _finite(0.5 * (1.0 + math.tanh(0.5 * margin))),
    }


def _item_result(scores: PairRewards, index: int, data: EncodedData) -> dict[str, Any]:
    return {
        "reward": _finite(scores.chosen_rewards[index]),
        "policy_logp": _finite(scores.chosen_logps[index]),
        "reference_logp": _finite(scores.reference_chosen_logps[index]),
        "num_tokens": int(data.row(index).first_scored.sum()),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _micro_batch(spec: JobSpec) -> int:
    return int(spec.micro_batch_tokens) if spec.micro_batch_tokens != "auto" else 2048


def _load_policy(task: ScoringTask, spec: JobSpec) -> PreTrainedModel:
    """Load the trained policy; with LoRA from its adapter, since merged weights are rounded."""
    adapter_dir = Path(task.policy_dir) / ADAPTER_DIR
    if spec.lora is None or not adapter_dir.is_dir():
        return load_causal_lm(task.policy_dir, dtype=_dtype(spec))
    model = load_causal_lm(task.base_model_dir, dtype=_dtype(spec))
    adapter_files.load_adapter(model, adapter_dir)
    return model


def _load_reference(task: ScoringTask, spec: JobSpec) -> PreTrainedModel:
    if spec.lora is None or task.sft_dir is None:  # an adapter that was not trained changes nothing
        return load_causal_lm(task.sft_dir or task.base_model_dir, dtype=_dtype(spec))
    model = load_causal_lm(task.base_model_dir, dtype=_dtype(spec))
    adapter_files.load_adapter(model, task.sft_dir)
    return model


def _dtype(spec: JobSpec) -> torch.dtype:
    return DTYPES["fp32" if spec.precision == "auto" else spec.precision]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
