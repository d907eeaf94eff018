"""Model card, the README.md of an artifact."""

import json
from collections.abc import Mapping
from typing import Any

from core.domain.jobs.methods import method_of
from core.wording import counted
from worker.artifact.summary_text import (
    baseline_rows,
    drift_text,
    interval_text,
    published_text,
    result_rows,
    start_of,
    verification_text,
)

_LOAD = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```"""


_LOAD_REWARD = """```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder", dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
rewards = model(**batch).logits[:, 0]
```

The number is read at the last token that is no padding token. Only differences between responses to one prompt have a
meaning: sigmoid of the difference is the probability that the first one is preferred. Conversations end with the answer
that is judged; a base model without a chat template takes prompt and response as one text."""


_PAIRS = ", `pairs.jsonl` what became of every pair"


def model_card(record: Mapping[str, Any]) -> str:
    """Return a model card from the contents of `job.json`."""
    spec = record["spec"]
    has_pairs = method_of(spec).has_rewards
    parts = [
        *_front_matter(record),
        "",
        f"# {_cell(spec.get('name') or record['job_id'])}",
        "",
        f"{method_of(spec).product}, made by Preftune.",
        "",
        _table("setting", _settings(record)),
        "",
        "![Curves of the run](curves.svg)",
        "",
        *_evaluation(record),
        "## Loading",
        "",
        _LOAD if method_of(spec).publishes_policy else _LOAD_REWARD,
        "",
        *_adapter(record),
        *_reproduction(record),
        f"`job.json` holds every setting and version, `metrics.jsonl` the curves{_PAIRS if has_pairs else ''}; "
        "`report.html` shows it all without a server. `sha256sum -c SHA256SUMS` checks the files.",
        "",
    ]
    return "\n".join(parts)


def _front_matter(record: Mapping[str, Any]) -> list[str]:
    base, spec = record["base_model"], record["spec"]
    method = method_of(spec)
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation" if method.publishes_policy else "text-classification",
        "tags": ["preftune", *(["dpo", spec["variant"]] if "variant" in spec else [method.name])],
    }
    if base.get("licence"):
        front["license"] = base["licence"]
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---"]


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    spec, base = record["spec"], record["base_model"]
    licence = base.get("licence") or "not stated; look at the base model's own page before you share this model"
    rows = {
        "base model": spec["base_model"],
        "its source": " ".join(str(base[key]) for key in ("source", "revision") if base.get(key)),
        "its licence, which binds this model too": licence,
        "dataset": spec["dataset_id"],
        **{f"SHA-256 of {name}": digest for name, digest in record["dataset_sha256"].items()},
        "variant": f"{spec['variant']}, beta {spec['beta']}" if "variant" in spec else None,
        **{
            stage.label: "skipped" if spec[stage.value] == "skip" else stage_settings(spec[stage.value])
            for stage in method_of(spec).trained
        },
        "tuning": "LoRA, merged (the adapter is in adapter/)" if spec.get("lora") else "full fine-tuning",
        "pairs" if method_of(spec).has_rewards else "rows": spec.get("num_pairs"),
        "given to the chat template (give it the same in use)": json.dumps(spec["chat_template_kwargs"])
        if spec.get("chat_template_kwargs")
        else None,
        "seed": spec.get("seed"),
    }
    return {name: value for name, value in rows.items() if value not in (None, "")}


def stage_settings(values: Mapping[str, Any]) -> str:
    """Return all settings of a stage as text; those without a value are left out."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items() if value is not None)


def _evaluation(record: Mapping[str, Any]) -> list[str]:
    summary, parts = record.get("summary") or {}, []
    if results := result_rows(summary.get("results")):
        parts += ["## Results", "", _table("figure, with its 95 % interval", results), ""]
    held_out = summary.get("held_out")
    if held_out:
        parts += [
            "## Held-out pairs",
            "",
            f"{counted(held_out['num_pairs'], 'pair')} not trained on. Reward accuracy: the share whose chosen "
            f"response gets the higher reward, with its 95 % bootstrap interval over pairs.",
            "",
            _table("judge", {"this model": interval_text(held_out["reward_accuracy"]), **baseline_rows(held_out)}),
            "",
        ]
    if record["evaluation"]:
        parts += [_table("held-out metric at the end", record["evaluation"]), ""]
    if drift := drift_text(summary.get("drift"), start_of(record["spec"])):
        parts += [drift, ""]
    for text in (published_text(summary.get("published")), verification_text(summary.get("verification"))):
        parts += [text, ""] if text else []
    return parts


def _adapter(record: Mapping[str, Any]) -> list[str]:
    """Describe where to get the base model of the adapter."""
    spec, base = record["spec"], record["base_model"]
    if not spec.get("lora"):
        return []
    named, source = str(spec["base_model"]), str(base.get("source") or "")
    name = _cell(named)
    is_policy = method_of(spec).publishes_policy
    loader = "AutoPeftModelForCausalLM" if is_policy else "AutoPeftModelForSequenceClassification"
    loads = f"`{loader}.from_pretrained` loads it"
    if not is_policy:
        loads += ", with num_labels=1,"
    if named.startswith("job_"):
        job, _, checkpoint = named.partition("@")
        fetch = f"preftune download {_cell(job)}" + (f" --checkpoint {_cell(checkpoint)}" if checkpoint else "")
        text = f"the policy {name}, which {fetch} fetches. In a directory that holds it as {name}, {loads}."
    elif source.startswith("hub:"):
        revision = f" at commit {_cell(base['revision'])}" if base.get("revision") else ""
        text = f"{_cell(source.removeprefix('hub:'))} on the hub{revision}. {loads} from there."
    else:
        made = f" (preftune models pull {name} makes it from {_cell(source)})" if source.startswith("pypi:") else ""
        text = f"the folder {name} in the models directory of the service{made}. In that directory, {loads}."
    return ["## The adapter alone", "", f"`adapter/` belongs to a base model: {text}", ""]


def _reproduction(record: Mapping[str, Any]) -> list[str]:
    """Return the request; datasets have other ids in every service, their digests are in the table."""
    versions = ", ".join(f"{name} {value}" for name, value in sorted(record["versions"].items()))
    body = json.dumps(record.get("requested") or {}, indent=1, ensure_ascii=False)
    return [
        "## How to make it again",
        "",
        f"Upload the data (the digests are above) and post this to `/jobs`, with {_cell(versions)} on "
        f"{_cell(record['device'])}:",
        "",
        "```json",
        body.replace("```", "` ` `"),
        "```",
        "",
    ]


def _table(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {title} | |", "|---|---|", *(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items())]
    return "\n".join(lines)


def _cell(value: object) -> str:
    """Escape text so that it cannot leave its cell or become markup."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
