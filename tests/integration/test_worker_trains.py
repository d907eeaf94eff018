"""The real trainer under the real supervisor, on a base model of some ten thousand parameters."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from backends import PROJECT, submit
from toy_jobs import InProcessWorker, attempts_of, events, points, view, wait_for
from trained_jobs import FIELDS, NUM_ROWS, add_rows, fetch_artifact, make_rows, run_to_end
from transformers import AutoModelForCausalLM, AutoTokenizer

from core import failpoints
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import InvalidRequest
from core.services.backend import Backend
from core.services.jobs import checkpoint_policies, jobs
from worker.app import TRAINER_COMMAND


def test_a_job_ends_in_a_policy_that_loads(backend: Backend, tmp_path: Any) -> None:
    rows = make_rows()
    rows.append({"line": 99, "prompt": "long " * 100, "chosen": "a", "rejected": "b"})
    add_rows(backend, rows)
    with InProcessWorker(backend, TRAINER_COMMAND):
        job_id = submit(backend, **FIELDS).id
        job = run_to_end(backend, job_id)
    assert job.status.value == "succeeded", (job.error, [event.message for event in events(backend, job_id)])
    folder = fetch_artifact(backend, job_id, tmp_path / "policy")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.num_parameters() > 0
    assert tokenizer.decode(tokenizer("Good answer").input_ids) == "Good answer"
    record = json.loads((folder / "job.json").read_text())
    assert record["spec"]["micro_batch_tokens"] != "auto"
    assert record["versions"].keys() == {"preftune", "python", "torch", "transformers"}
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert sorted(pair["line"] for pair in pairs) == sorted(row["line"] for row in rows)
    assert [pair["line"] for pair in pairs if "truncated" in pair["flags"]] == [99]
    summary = json.loads((folder / "evaluation.json").read_text())
    results = job.results
    assert results is not None
    assert results == summary["results"]
    assert results["held_out"]["reward_accuracy"]["low"] < results["held_out"]["reward_accuracy"]["high"]
    assert f"held-out loss ({results['held_out']['num_rows']} rows)" in (folder / "README.md").read_text()
    assert summary["held_out"]["num_pairs"] == sum(
        pair["split"] == "validation" and "truncated" not in pair["flags"] for pair in pairs
    )
    assert summary["verification"]["max_difference"] <= 1e-5
    assert summary["drift"]["num_answers"] == 1
    assert "<svg" in (folder / "report.html").read_text()
    assert "Held-out pairs" in (folder / "README.md").read_text()
    assert "| variant | dpo, beta 0.1 |" in (folder / "README.md").read_text()
    (aside,) = [event for event in events(backend, job_id) if event.kind == "pairs_set_aside"]
    assert aside.data["count"] == 1
    assert "line 99" in aside.message
    splits = {(point.stage.value, point.split) for point in points(backend, job_id)}
    assert splits >= {("sft", "train"), ("dpo", "train"), ("dpo", "validation")}
    first = next(p for p in points(backend, job_id) if p.stage.value == "dpo" and p.split == "train")
    assert first.values["rewards/margins"] == 0.0
    assert [stage.name.value for stage in job.stages] == [
        "staging",
        "sft",
        "reference",
        "dpo",
        "evaluation",
        "publishing",
    ]


def test_a_job_interrupted_in_every_stage_ends_with_the_bytes_of_an_undisturbed_one(
    backend: Backend, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in SFT, in the reference pass and in DPO, each time resumed by another worker."""
    add_rows(backend, make_rows())
    with InProcessWorker(backend, TRAINER_COMMAND):
        undisturbed = submit(backend, **FIELDS, reuse=False).id
        run_to_end(backend, undisturbed)
    monkeypatch.setenv(failpoints.VARIABLE, "trainer.message_sent=sleep:0.3@1+")  # slow enough to be caught
    disturbed = submit(backend, **FIELDS, reuse=False).id
    for stage in ("sft", "reference", "dpo"):
        with InProcessWorker(backend, TRAINER_COMMAND):
            wait_for(lambda stage=stage: view(backend, disturbed).stage == stage, stage)  # type: ignore[misc]
        assert view(backend, disturbed).status.value == "queued", view(backend, disturbed)
    monkeypatch.delenv(failpoints.VARIABLE)
    with InProcessWorker(backend, TRAINER_COMMAND):
        run_to_end(backend, disturbed)
    assert [attempt.outcome for attempt in attempts_of(backend, disturbed)] == [*["drained"] * 3, "succeeded"]
    assert [attempt.resume_stage for attempt in attempts_of(backend, disturbed)] == [None, "sft", "reference", "dpo"]
    one = fetch_artifact(backend, undisturbed, tmp_path / "one")
    other = fetch_artifact(backend, disturbed, tmp_path / "other")
    for name in ("model.safetensors", "pairs.jsonl", "evaluation.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert not [event for event in events(backend, disturbed) if event.kind == "resume_divergence"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"max_length": 8}, "bad_data"),  # no pair is that short
        ({"dpo": {"learning_rate": 1.0, "epochs": 40, "max_grad_norm": 1e6}, "sft": "skip"}, None),
    ],
)
def test_a_failure_is_told_in_its_own_words(backend: Backend, changes: dict[str, Any], code: str | None) -> None:
    add_rows(backend, make_rows())
    with InProcessWorker(backend, TRAINER_COMMAND):
        job_id = submit(backend, **FIELDS | changes).id
        job = run_to_end(backend, job_id)
    if code is None:
        assert job.status.value == "succeeded" or job.error.code == "non_finite_loss"
    else:
        assert (job.status.value, job.error.code) == ("failed", code)
        assert job.attempt == 1


def test_kto_on_single_responses(backend: Backend, tmp_path: Any) -> None:
    rows = [
        {"line": n, "prompt": f"Question {n}?", "response": f"{'Good' if n % 3 else 'Bad'} {n}.", "label": n % 3 > 0}
        for n in range(1, NUM_ROWS + 1)
    ]
    add_rows(backend, rows, kind=DatasetKind.UNPAIRED)
    add_rows(backend, make_rows(), "ds_pairs")
    with pytest.raises(
        InvalidRequest, match="ds_pairs is a dataset of kind preference; this needs one of kind unpaired"
    ):
        submit(backend, **FIELDS, variant="kto", dataset_id="ds_pairs")
    with InProcessWorker(backend, TRAINER_COMMAND):
        job_id = submit(backend, **FIELDS, variant="kto", variant_options={"undesirable_weight": 2}).id
        job = run_to_end(backend, job_id)
    assert job.status.value == "succeeded", (job.error, [event.message for event in events(backend, job_id)])
    train = [p for p in points(backend, job_id) if (p.stage.value, p.split) == ("dpo", "train")]
    assert (train[0].values["rewards"], train[0].values["kl"]) == (0.0, 0.0)
    assert train[-1].values["rewards/chosen"] != 0.0
    folder = fetch_artifact(backend, job_id, tmp_path / "policy")
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    assert (folder / "pairs.jsonl").read_text().count("\n") == NUM_ROWS


def test_lora_on_a_tuned_policy_with_its_own_sft_and_validation_data(backend: Backend, tmp_path: Any) -> None:
    add_rows(backend, make_rows())
    add_rows(backend, make_rows(6), "ds_held_out")
    demonstrations = [{"line": n, "prompt": f"Say {n}", "response": f"{n}."} for n in range(8)]
    add_rows(backend, demonstrations, "ds_sft", kind=DatasetKind.DEMONSTRATION)
    with InProcessWorker(backend, TRAINER_COMMAND):
        first = submit(backend, **FIELDS | {"sft": "skip"}).id
        run_to_end(backend, first)
        fields = FIELDS | {
            "base_model": first,
            "lora": {"rank": 4},
            "sft": FIELDS["sft"] | {"dataset_id": "ds_sft"},
            "validation_dataset_id": "ds_held_out",
        }
        fields.pop("validation_fraction")
        second = submit(backend, **fields).id
        job = run_to_end(backend, second)
    assert job.status.value == "succeeded", (job.error, [event.message for event in events(backend, second)])
    folder = fetch_artifact(backend, second, tmp_path / "policy")
    check_adapter(fetch_artifact(backend, first, tmp_path / "first"), folder)
    assert "shared_prompts" in [event.kind for event in events(backend, second)]
    kept = checkpoint_policies.list_checkpoints(backend, PROJECT, second)
    assert [item.has_archive for item in kept] == [True] * len(kept)
    for item in kept:
        archive = checkpoint_policies.find_archive(backend, PROJECT, second, item.id)
        for file in archive.files:
            fetch_to = tmp_path / archive.name / file.path
            fetch_to.parent.mkdir(parents=True, exist_ok=True)
            backend.store.get_file(file.key, fetch_to)
        assert AutoModelForCausalLM.from_pretrained(tmp_path / archive.name).num_parameters() > 0
        assert AutoTokenizer.from_pretrained(tmp_path / archive.name)("Good").input_ids
    assert jobs.get(backend, PROJECT, second).artifact is not None


def check_adapter(base_dir: Path, folder: Path) -> None:
    """peft puts the published adapter on what the job started from, and gets the published policy."""
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = AutoTokenizer.from_pretrained(folder)("Question 1? Good answer 1.", return_tensors="pt")
    with torch.no_grad():
        theirs, ours = adapted(**inputs).logits, merged(**inputs).logits
        with adapted.disable_adapter():
            before = adapted(**inputs).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, ours, atol=1e-4), "the adapter does something"
