"""The README.md of an artifact."""

import json
from collections.abc import Mapping
from typing import Any

_LOAD = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```"""


def model_card(record: Mapping[str, Any]) -> str:
    """A model card from the contents of `job.json`."""
    spec = record["spec"]
    name = spec.get("name") or record["job_id"]
    sft = "skipped" if spec["sft"] == "skip" else f"{spec['sft']['epochs']} epochs at {spec['sft']['learning_rate']}"
    rows = {
        "base model": spec["base_model"],
        "data set": spec["dataset_id"],
        "variant": f"{spec['variant']}, beta {spec['beta']}",
        "SFT": sft,
        "DPO": f"{spec['dpo']['epochs']} epochs at {spec['dpo']['learning_rate']}",
        "tuning": "LoRA, merged (the adapter is in adapter/)" if spec.get("lora") else "full fine-tuning",
        "pairs": spec.get("num_pairs"),
        "seed": spec.get("seed"),
    }
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["preftune", "dpo", spec["variant"]],
    }
    parts = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        "",
        f"# {_cell(name)}",
        "",
        "A preference-tuned policy, made by Preftune.",
        "",
        _table("setting", rows),
        "",
    ]
    if record["evaluation"]:
        parts += ["Held-out pairs, at the end:", "", _table("metric", record["evaluation"]), ""]
    parts += [_LOAD, "", "`job.json` holds every setting and version, `metrics.jsonl` the curves.", ""]
    return "\n".join(parts)


def _table(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {title} | |", "|---|---|", *(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items())]
    return "\n".join(lines)


def _cell(value: object) -> str:
    """Text that cannot leave its cell or become markup."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
