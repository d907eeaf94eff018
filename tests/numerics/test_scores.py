"""The scoring process in this one: rewards as training logged them last, of pairs and of single responses."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_tiny_model
from tiny_runs import RecordingObserver, World
from trained_jobs import make_rows
from transformers import PreTrainedModel

from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.job_spec import JobRequest, resolve_request
from core.tokenization.encode_file import encode_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.packing import PackedBatch
from core.training.model import logps
from core.training.observer import Stage
from core.training.pipeline import TrainingResult, run
from worker.processes import scoring
from worker.processes.scoring import ScoringTask

MAX_LENGTH = 64


def encode(rows: list[dict[str, Any]], base: Path, target: Path) -> str:
    path = target.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = PairTokenizer.open(base)
    encode_file(path, tokenizer, target, kind=DatasetKind.PREFERENCE, max_length=MAX_LENGTH, num_processes=1)
    return str(target)


def train(directory: Path, rows: list[dict[str, Any]]) -> tuple[TrainingResult, Path]:
    """The result and the policy before DPO."""
    base = make_tiny_model(directory / "base")
    data = (encode(rows[:8], base, directory / "train"), encode(rows[8:], base, directory / "validation"))
    plan = dataclasses.replace(World(directory, str(base), *data).plan("run"), micro_batch_tokens=256)
    observer = RecordingObserver()
    return run(plan, observer), observer.outputs[Stage.SFT].directory


def test_pairs_and_items_get_the_rewards_that_training_logged_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(12)
    result, sft_dir = train(tmp_path, rows)
    logged = [json.loads(line) for line in result.pairs_file.open()]  # type: ignore[union-attr]
    request = JobRequest(base_model="tiny", dataset_id="ds_1", max_length=MAX_LENGTH, precision="fp32")
    spec = resolve_request(request, num_parameters=10_000, num_pairs=12, default_beta=0.1)
    by_line = {row["line"]: row for row in rows}
    task = ScoringTask(
        spec=spec.model_dump(mode="json"),
        base_model_dir=str(tmp_path / "base"),
        policy_dir=str(result.policy_dir),
        sft_dir=str(sft_dir),
        is_pairs=True,
        rows=[by_line[pair["line"]] for pair in logged],
        num_threads=1,
        submitted_at="2026-01-01T00:00:00+00:00",
    )
    (tmp_path / "pairs").mkdir()
    found = scoring.score(task, tmp_path / "pairs")
    for pair, scores in zip(logged, found, strict=True):
        assert scores["chosen_reward"] == pytest.approx(pair["chosen_reward"], abs=1e-4)
        assert scores["rejected_reward"] == pytest.approx(pair["rejected_reward"], abs=1e-4)
        assert scores["margin"] == pytest.approx(pair["margin_last"], abs=1e-4)
    assert max(abs(pair["margin_last"]) for pair in logged) > 0.01
    items = [{"prompt": row["prompt"], "response": row["chosen"]} for row in task.rows]
    items.append({"prompt": "long " * 100, "response": "a"})
    (tmp_path / "items").mkdir()
    *answers, too_long = scoring.score(dataclasses.replace(task, is_pairs=False, rows=items), tmp_path / "items")
    assert "max_length" in too_long["error"]
    for pair, answer in zip(logged, answers, strict=True):
        assert answer["reward"] == pytest.approx(pair["chosen_reward"], abs=1e-4)
        assert answer["reward"] == pytest.approx(0.1 * (answer["policy_logp"] - answer["reference_logp"]), abs=1e-4)
        assert answer["num_tokens"] > 1
    (tmp_path / "tokens").mkdir()
    runs: list[int] = []
    original = logps.score_tokens

    def noted(model: PreTrainedModel, batch: PackedBatch, needs_weights: bool) -> tuple[Any, ...]:
        runs.append(batch.num_tokens)
        return original(model, batch, needs_weights)

    monkeypatch.setattr(logps, "score_tokens", noted)
    by_token = dataclasses.replace(task, is_pairs=False, rows=items[:3], by_token=True)
    for answer, shown in zip(answers, scoring.score(by_token, tmp_path / "tokens"), strict=False):
        assert len(shown["tokens"]) == answer["num_tokens"]
        ratio = sum(token["log_ratio"] for token in shown["tokens"])
        assert ratio == pytest.approx(answer["policy_logp"] - answer["reference_logp"], abs=1e-4)
        assert shown["reward"] == answer["reward"]
    assert len(runs) == 2, "policy and reference, once each"
    assert "".join(token["text"] for token in shown["tokens"]).startswith(items[2]["response"])
