"""What a customer's script does with OpenAI's own client; run by the Python of an environment that has one.

`python openai_session.py <model>` takes phases from its standard input, a line of JSON each: name, URL, what it has to
know; it answers each with a line. `before` ends with a queued job, `after` looks at what a finished one left, `lost`
sends a job whose answers do not arrive, `unwrap` checks a webhook that came; `supervised` ends with a queued supervised
job, `chain` looks at what it left and tunes its model. An assertion that fails ends it.
"""

import hashlib
import json
import sys
from typing import Any

import openai
import standardwebhooks
import svix.webhooks
from openai import OpenAI


def pair(number: int) -> dict[str, Any]:
    """A row of OpenAI's documented preference layout."""
    return {
        "input": {
            "messages": [{"role": "user", "content": f"What is {number} plus one?"}],
            "tools": [],
            "parallel_tool_calls": True,
        },
        "preferred_output": [{"role": "assistant", "content": f"It is {number + 1}."}],
        "non_preferred_output": [{"role": "assistant", "content": f"I guess {number}."}],
    }


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


PAIRS = lines([pair(number) for number in range(12)])
CHATS = lines([
    {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(3)
])  # fmt: skip
DPO: Any = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2, "learning_rate_multiplier": 2}}}


def files(client: OpenAI) -> str:
    file = client.files.create(file=("pairs.jsonl", PAIRS), purpose="fine-tune")
    file = client.files.wait_for_processing(file.id)
    assert (file.status, file.bytes, file.filename) == ("processed", len(PAIRS), "pairs.jsonl"), file
    assert client.files.content(file.id).read() == PAIRS
    chats = client.files.create(file=("chats.jsonl", CHATS), purpose="fine-tune")
    assert (chats.status, getattr(chats, "kind", None)) == ("processed", "demonstration"), chats
    assert "fewer than 10" in getattr(chats, "warnings", [""])[-1]
    bad = client.files.create(file=("bad.jsonl", PAIRS + b"not json\n"), purpose="fine-tune")
    assert bad.status == "error"
    assert "Line 13" in str(bad.status_details), bad
    assert f"/datasets/{bad.id}/report" in str(bad.status_details)
    going = client.files.create(
        file=("going.jsonl", PAIRS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert abs((going.expires_at or 0) - going.created_at - 3600) <= 1, going
    assert client.files.delete(going.id).deleted
    newest = [item.id for item in client.files.list(limit=2)]
    assert newest[:3] == [bad.id, chats.id, file.id]
    assert [item.id for item in client.files.list(limit=2, order="asc")][-3:] == newest[:3][::-1]
    assert client.files.delete(bad.id).deleted
    assert refusal(lambda: client.files.retrieve(bad.id)) == (404, "dataset_not_found")
    return file.id


def uploads(client: OpenAI) -> None:
    new: Any = {"bytes": len(PAIRS), "filename": "p.jsonl", "mime_type": "application/jsonl", "purpose": "fine-tune"}
    upload = client.uploads.create(**new)
    second = client.uploads.parts.create(upload.id, data=PAIRS[100:])
    first = client.uploads.parts.create(upload.id, data=PAIRS[:100])
    wrong = hashlib.md5(b"x").hexdigest()
    ids = [first.id, second.id]
    assert refusal(lambda: client.uploads.complete(upload.id, part_ids=ids, md5=wrong)) == (400, "checksum_mismatch")
    done = client.uploads.complete(upload.id, part_ids=ids, md5=hashlib.md5(PAIRS).hexdigest())
    assert done.status == "completed"
    assert done.file is not None
    assert client.files.content(done.file.id).read() == PAIRS
    assert client.uploads.cancel(client.uploads.create(**new).id).status == "cancelled"
    lost = client.uploads.create(**new)
    kept = client.uploads.parts.create(lost.id, data=PAIRS[:100])
    rest = client.uploads.parts.create(lost.id, data=PAIRS[100:])
    again = {"x-stainless-retry-count": "1"}  # as when the first answer did not arrive
    assert client.uploads.parts.create(lost.id, data=PAIRS[:100], extra_headers=again).id == kept.id
    assert client.uploads.complete(lost.id, part_ids=[kept.id, rest.id]).status == "completed"
    chunked = client.uploads.upload_file_chunked(file=PAIRS, part_size=1000, **new)
    assert chunked.file is not None
    assert client.files.content(chunked.file.id).read() == PAIRS


def refusal(call: Any) -> tuple[int, str]:
    """Of a call that must be refused; every refusal says what, where and why."""
    try:
        call()
    except openai.APIStatusError as refused:
        error = refused
    else:
        raise AssertionError("the call was not refused")
    assert error.code, error
    assert error.param, error
    assert error.message, error
    assert error.request_id, error
    if error.status_code == 409:  # a conflict that time does not settle is sent once
        assert error.request.headers["x-stainless-retry-count"] == "0", error
    return error.status_code, error.code


def before(client: OpenAI, model: str, _state: object) -> dict[str, str]:
    file_id = files(client)
    uploads(client)
    create = client.fine_tuning.jobs.create
    cancelled = create(model=model, training_file=file_id, method=DPO, suffix="gone", metadata={"team": "a"})
    assert client.fine_tuning.jobs.pause(cancelled.id).status == "paused"
    assert client.fine_tuning.jobs.resume(cancelled.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(cancelled.id).status == "cancelled"
    assert refusal(lambda: client.fine_tuning.jobs.resume(cancelled.id)) == (409, "job_not_resumable")
    found = client.fine_tuning.jobs.list(limit=1, extra_query={"metadata[team]": "a"})
    assert [job.id for job in found][:1] == [cancelled.id]
    assert refusal(lambda: client.fine_tuning.jobs.retrieve("job_none")) == (404, "job_not_found")
    assert refusal(lambda: create(model="none", training_file=file_id, method=DPO)) == (400, "model_not_found")
    assert refusal(lambda: create(model=model, training_file="none", method=DPO)) == (400, "invalid_training_file")
    supervised: Any = {"type": "reinforcement"}
    assert refusal(lambda: create(model=model, training_file=file_id, method=supervised)) == (400, "invalid_request")
    unknown = {"bogus": 1}
    assert refusal(lambda: create(model=model, training_file=file_id, method=DPO, extra_body=unknown))[0] == 400
    assert refusal(lambda: client.models.retrieve("Some/Model")) == (404, "model_not_found")
    assert refusal(lambda: client.embeddings.create(model="x", input="y")) == (404, "route_not_found")
    job = create(
        model=model, training_file=file_id, method=DPO, suffix="mine", seed=7, extra_body={"lora": {"rank": 4}}
    )
    spec = getattr(job, "spec", {})
    assert (spec["beta"], spec["seed"], spec["sft"], spec["lora"]["rank"]) == (0.2, 7, "skip", 4)
    plain = create(model=model, training_file=file_id, method={"type": "dpo"}, extra_body={"lora": {"rank": 4}})
    preset = getattr(plain, "spec", {})["dpo"]["learning_rate"]
    assert (spec["dpo"]["epochs"], spec["dpo"]["learning_rate"]) == (2, 2 * preset)
    client.fine_tuning.jobs.cancel(plain.id)
    return {"job_id": job.id, "file_id": file_id}


def lost(client: OpenAI, model: str, state: dict[str, str]) -> None:
    patient = client.with_options(max_retries=3)
    job = patient.fine_tuning.jobs.create(
        model=model, training_file=state["file_id"], method=DPO, metadata={"answers": "lost"}
    )
    assert job.status == "queued"


def after(client: OpenAI, model: str, state: dict[str, str]) -> None:
    job = client.fine_tuning.jobs.retrieve(state["job_id"])
    assert (job.status, job.trained_tokens) == ("succeeded", 600)
    name = str(job.fine_tuned_model)
    assert name.startswith(f"ft:{model}:default:mine:"), name
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    messages = [event.message for event in events]
    assert len({event.id for event in events}) == len(events)
    assert messages[0] == "The job has successfully completed"
    assert messages[1].split(": ")[1] == name
    assert messages[-1] == "Queued."
    assert next(event.data for event in events if event.type == "metrics")["step"] == 6  # type: ignore[index]
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [item.fine_tuned_model_checkpoint for item in checkpoints] == [f"{name}:ckpt-step-3"]
    table = client.files.content(job.result_files[0]).read().decode().splitlines()
    assert table[0].startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,")
    assert [row.split(",")[0] for row in table[1:]] == [str(step) for step in range(1, 7)]
    assert all(float(cell or "0") is not None for row in table[1:] for cell in row.split(","))
    assert client.files.retrieve(job.result_files[0]).purpose == "fine-tune-results"
    assert job.result_files[0] in [item.id for item in client.files.list(purpose="fine-tune-results")]
    assert name in [item.id for item in client.models.list()]
    assert client.models.retrieve(f"{name}:ckpt-step-3").id == f"{name}:ckpt-step-3"
    assert refusal(lambda: client.models.delete(f"{name}:ckpt-step-3")) == (409, "checkpoint_not_deletable")
    following = client.fine_tuning.jobs.create(
        model=f"{name}:ckpt-step-3", training_file=state["file_id"], method={"type": "dpo"}
    )
    assert refusal(lambda: client.models.delete(name)) == (409, "artifact_not_deletable")
    client.fine_tuning.jobs.cancel(following.id)
    assert client.models.delete(name).deleted
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
    assert refusal(lambda: client.models.retrieve(name)) == (404, "model_not_found")


def unwrap(client: OpenAI, model: str, state: dict[str, Any]) -> None:
    headers, body, secret = state["headers"], state["body"], state["secret"]
    event = client.webhooks.unwrap(body, headers, secret=secret)
    assert (event.type, event.data.id) == ("fine_tuning.job.succeeded", state["job_id"]), event
    assert event.id == headers["webhook-id"]
    for check in (standardwebhooks.Webhook(secret), svix.webhooks.Webhook(secret)):
        check.verify(body, headers)  # raises for what is not signed
    try:
        client.webhooks.unwrap(body.replace("succeeded", "failed"), headers, secret=secret)
    except openai.InvalidWebhookSignatureError:
        return
    raise AssertionError("a forged event was taken")


def endpoints(client: OpenAI, model: str, state: dict[str, Any]) -> None:
    """Drive `webhooks.create` and what goes with it, which clients of version 3 have."""
    made = client.webhooks.create(name="mine", url=state["url"], event_types=["fine_tuning.job.succeeded"])
    assert made.signing_secret.startswith("whsec_")
    assert client.webhooks.retrieve(made.id).name == "mine"
    assert client.webhooks.update(made.id, name="ours").name == "ours"
    assert next(item.id for item in client.webhooks.list()) == made.id
    assert client.webhooks.test(made.id, event_type="fine_tuning.job.succeeded").status_code == 200
    rotated = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != made.signing_secret
    assert client.webhooks.delete(made.id).deleted
    assert refusal(lambda: client.webhooks.retrieve(made.id)) == (404, "webhook_not_found")
    private = {"name": "x", "url": "https://10.0.0.1/", "event_types": ["fine_tuning.job.failed"]}
    assert refusal(lambda: client.webhooks.create(**private)) == (400, "webhook_address_refused")


def supervised(client: OpenAI, model: str, state: dict[str, str]) -> None:
    """Queue a supervised job, its hyperparameters under the method; a body without a method means the same."""
    create, chats = client.fine_tuning.jobs.create, client.files.create(file=("c.jsonl", CHATS), purpose="fine-tune")
    figures = {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 0.5}
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": figures}}
    plain = create(model=model, training_file=chats.id)
    assert plain.method is not None
    assert plain.method.type == "supervised"
    preset = getattr(plain, "spec", {})["sft"]["learning_rate"]
    client.fine_tuning.jobs.cancel(plain.id)
    former = create(model=model, training_file=chats.id, hyperparameters={"n_epochs": 5})  # deprecated by OpenAI
    assert former.hyperparameters.n_epochs == 5
    client.fine_tuning.jobs.cancel(former.id)
    pairs = state["file_id"]
    assert refusal(lambda: create(model=model, training_file=pairs)) == (400, "invalid_request")
    beta: Any = {"type": "supervised", "supervised": {"hyperparameters": {"beta": 0.1}}}
    assert refusal(lambda: create(model=model, training_file=chats.id, method=beta))[0] == 400
    extra = {"variant": "ipo"}
    assert refusal(lambda: create(model=model, training_file=chats.id, method=method, extra_body=extra))[0] == 400
    job = create(model=model, training_file=chats.id, method=method, suffix="sft", extra_body={"lora": {"rank": 4}})
    shown = job.hyperparameters
    assert (shown.n_epochs, shown.batch_size) == (3, 2)
    spec = getattr(job, "spec", {})
    assert (spec["method"], spec["sft"]["epochs"], spec["lora"]["rank"]) == ("supervised", 3, 4)
    assert spec["sft"]["learning_rate"] == 0.5 * preset * 2  # LoRA's preset is twice that of all weights


def chain(client: OpenAI, model: str, state: dict[str, str]) -> None:
    """Look at the finished supervised job, and tune its model with DPO."""
    job = client.fine_tuning.jobs.retrieve(state["job_id"])
    name = str(job.fine_tuned_model)
    assert name.startswith(f"ft:{model}:default:sft:"), name
    metrics = [event.data for event in client.fine_tuning.jobs.list_events(job.id) if event.type == "metrics"]
    first: Any = metrics[-1]
    assert {"train_loss", "train_mean_token_accuracy", "step"} <= set(first), metrics
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.fine_tuned_model_checkpoint == f"{name}:ckpt-step-2"
    assert checkpoint.metrics.full_valid_mean_token_accuracy == 0.5
    head, *rows = client.files.content(job.result_files[0]).read().decode().splitlines()
    table = [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]
    assert [(row["step"], row["train_accuracy"], row["valid_mean_token_accuracy"]) for row in table] == [
        ("1", "0.25", ""),
        ("2", "0.5", "0.5"),
    ]
    assert {row["train_reward_accuracy"] for row in table} == {""}
    for start in (name, f"{name}:ckpt-step-2"):
        dpo = client.fine_tuning.jobs.create(model=start, training_file=state["file_id"], method=DPO)
        assert (dpo.model, getattr(dpo, "spec", {})["sft"]) == (start, "skip")
        client.fine_tuning.jobs.cancel(dpo.id)


if __name__ == "__main__":
    phases = {phase.__name__: phase for phase in (before, lost, after, unwrap, endpoints, supervised, chain)}
    for line in sys.stdin:
        name, url, known = json.loads(line)
        said = phases[name](OpenAI(base_url=f"{url}/v1"), sys.argv[1], known)
        print(json.dumps(said), flush=True)  # noqa: T201 - who asks reads it
