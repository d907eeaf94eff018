"""A whole job on real preference data, through the API of a running service, judged on held-out pairs.

    preftune serve                                                    # in another terminal
    python benchmarks/real_run.py FILE.jsonl --report docs/evidence/real-run.md  [--job job_…]  [--url http://127.0.0.1:8000]

Trains on the first `--train` lines of FILE (Anthropic-HH transcripts or any other preference layout), validates on the
`--validation` lines after them, downloads the policy, and prints the held-out reward margin and accuracy, with 95 %
bootstrap intervals, beside the rule that the longer response wins. `--job` reports on a job that was run before.
"""

import argparse
import json
import platform
import tempfile
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from preftune import Client
from preftune.cli.console import out
from preftune.cli.watch import watch_job

NUM_RESAMPLES = 10_000
PROMPTS = ("How do I keep bread fresh for longer?", "What is a good way to learn the names of my new colleagues?")


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory() as work, Client(arguments.url) as client:
        if arguments.job is None:
            job = watch_job(client, _submit(client, arguments, Path(work))["id"], out)
        else:
            job = client.jobs.get(arguments.job)
        if job["status"] != "succeeded":
            raise SystemExit(f"the job ended as {job['status']}: {job['error']}")
        folder = client.jobs.download(job["id"], Path(work) / "policy")
        rows = _rows(client, job["spec"]["validation_dataset_id"])
        figures = judge(held_out_margins(folder), rows)
        text = _report(arguments, job, figures, _answers(folder), json.loads((folder / "job.json").read_text()))
    print(text)
    if arguments.report:
        arguments.report.write_text(text, encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--validation", type=int, default=400)
    parser.add_argument("--base-model", default="smollm2-135m-instruct")
    parser.add_argument("--settings", type=json.loads, default={}, help="further fields of POST /jobs, as JSON")
    parser.add_argument("--job", help="report on this job instead of running one")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--report", type=Path, help="write the report here, as Markdown")
    return parser.parse_args()


def _submit(client: Client, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    with arguments.file.open(encoding="utf-8") as lines:
        parts = {
            "train": list(islice(lines, arguments.train)),
            "validation": list(islice(lines, arguments.validation)),
        }
    ids = {}
    for name, part in parts.items():
        path = work / f"{name}.jsonl"
        path.write_text("".join(part), encoding="utf-8")
        dataset = client.datasets.upload(path)
        ids[name] = dataset["id"]
        print(f"{name}: {dataset['num_accepted']} pairs, format {dataset['format']}")
    fields = {"sample_prompts": list(PROMPTS), "name": "real run"} | arguments.settings
    return client.jobs.submit(
        base_model=arguments.base_model,
        dataset_id=ids["train"],
        validation_dataset_id=ids["validation"],
        **fields,
    )


def _rows(client: Client, dataset_id: str) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    cursor = None
    while True:
        page = client.datasets.rows(dataset_id, limit=100, cursor=cursor)
        rows |= {row["line"]: row for row in page["data"]}
        cursor = page["next_cursor"]
        if cursor is None:
            return rows


def held_out_margins(folder: Path) -> dict[int, float]:
    """Reward margin of every held-out pair by line, as the trained policy gives it."""
    records = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    return {record["line"]: record["margin_last"] for record in records if record["split"] == "validation"}


def judge(margins: dict[int, float], rows: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Means over the pairs with 95 % intervals from resampling pairs with replacement."""
    values = np.array([margins[line] for line in sorted(margins)])
    longer = np.array(
        [_num_chars(rows[line]["chosen"]) - _num_chars(rows[line]["rejected"]) for line in sorted(margins)]
    )
    draws = np.random.default_rng(0).integers(len(values), size=(NUM_RESAMPLES, len(values)))
    return {
        "num_pairs": len(values),
        "margin": (values.mean(), *_interval(values[draws].mean(axis=1))),
        "accuracy": ((values > 0).mean(), *_interval((values[draws] > 0).mean(axis=1))),
        "longer_wins": float((longer > 0).mean() + 0.5 * (longer == 0).mean()),
        "correlation_with_length": float(np.corrcoef(values, longer)[0, 1]),
    }


def _interval(means: NDArray[np.floating]) -> tuple[float, float]:
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _num_chars(response: Any) -> int:
    return len(response) if isinstance(response, str) else sum(len(message["content"]) for message in response)


@torch.no_grad()
def _answers(folder: Path) -> list[tuple[str, str]]:
    """The downloaded folder, loaded as anybody would."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    answers = []
    for prompt in PROMPTS:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        answers.append((prompt, tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)))
    return answers


def _report(
    arguments: argparse.Namespace,
    job: dict[str, Any],
    figures: dict[str, Any],
    answers: list[tuple[str, str]],
    record: dict[str, Any],
) -> str:
    spec, versions, base = job["spec"], record["versions"], record["base_model"]
    margin, accuracy = figures["margin"], figures["accuracy"]
    lines = [
        "# A real run",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {versions['python']}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, Preftune {versions['preftune']}; {_minutes(job):.0f} minutes from "
        "start to end.",
        "",
        f"Lines 1–{arguments.train} of {arguments.file.name} to train on, the {arguments.validation} lines after them "
        f"held out. Base model {spec['base_model']} ({base['source']}, {base['revision']}); "
        f"{spec['variant']}, beta {spec['beta']}; {spec['precision']}, seed "
        f"{spec['seed']}.",
        "",
        "| stage | epochs | learning rate | batch size |",
        "|---|---|---|---|",
        *(_stage_line(name, spec[name]) for name in ("sft", "dpo")),
        "",
        f"| held out, {figures['num_pairs']} pairs | value | 95 % bootstrap interval |",
        "|---|---|---|",
        f"| mean reward margin | {margin[0]:+.4f} | {margin[1]:+.4f} to {margin[2]:+.4f} |",
        f"| reward accuracy | {accuracy[0]:.3f} | {accuracy[1]:.3f} to {accuracy[2]:.3f} |",
        f"| accuracy of “the longer response wins” | {figures['longer_wins']:.3f} | |",
        "",
        f"Correlation of the margin with the difference in length: {figures['correlation_with_length']:+.2f}.",
        "",
        "The downloaded folder, loaded with `AutoModelForCausalLM.from_pretrained`, answers:",
        "",
        *(f"- *{prompt}* {' '.join(answer.split())}" for prompt, answer in answers),
        "",
        "Run it again: start `preftune serve`, then",
        "",
        f"    python benchmarks/real_run.py {arguments.file.name} --settings '{json.dumps(arguments.settings)}'",
        "",
    ]
    return "\n".join(lines)


def _stage_line(name: str, settings: Any) -> str:
    if settings == "skip":
        return f"| {name} | skipped | | |"
    return f"| {name} | {settings['epochs']} | {settings['learning_rate']:g} | {settings['batch_size']} |"


def _minutes(job: dict[str, Any]) -> float:
    start, end = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return (end - start).total_seconds() / 60


if __name__ == "__main__":
    main()
