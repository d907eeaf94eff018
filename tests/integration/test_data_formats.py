"""Real data files of every layout, one by one: so many rows, and each row what the file says.

What is expected is read from the file by a few lines of its own per layout. The files lie beside the repository;
without them these tests are skipped, and `tests/unit/datasets/test_layouts.py` covers the layouts with rows of its own.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from core.datasets.check.check import check_file
from core.datasets.options import CheckOptions
from core.datasets.result import ROWS_FILE, CheckResult
from core.domain.dataset_rows import DatasetKind

FORMATS = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats"
pytestmark = pytest.mark.skipif(not FORMATS.is_dir(), reason="the collection of data files is not here")

Row = dict[str, Any]
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "prompter": "user"}


def user(content: str) -> Row:
    return {"role": "user", "content": content}


def reply(content: str) -> list[Row]:
    return [{"role": "assistant", "content": content}]


def message(raw: Row) -> Row:
    role, content = raw.get("from", raw.get("role")), raw.get("value", raw.get("content"))
    if isinstance(content, list):
        content = "".join(part["value"] for part in content)
    return {"role": ROLES.get(role, role), "content": content}


def messages(raw: list[Row]) -> list[Row]:
    return [message(item) for item in raw]


def pair(prompt: Any, chosen: Any, rejected: Any) -> list[Row]:
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected}]


def explicit(raw: Row) -> list[Row]:
    return pair(raw["prompt"], raw["chosen"], raw["rejected"])


def last_turn(chosen: list[Row], rejected: list[Row]) -> list[Row]:
    return pair(chosen[:-1], chosen[-1:], rejected[-1:])


def judged(prompt: str, first: Any, second: Any, is_first: bool) -> list[Row]:
    better, worse = (first, second) if is_first else (second, first)
    return pair([user(prompt)], reply(better), reply(worse))


def pandalm(raw: Row) -> list[Row]:
    vote, count = Counter(raw[f"annotator{number}"] for number in (1, 2, 3)).most_common(1)[0]
    prompt = f"{raw['instruction']}\n{raw['input']}" if raw["input"].strip() else raw["instruction"]
    return judged(prompt, raw["response1"], raw["response2"], vote == 1) if vote and count > 1 else []


def alpaca(raw: Row) -> list[Row]:
    prompt = f"{raw['instruction']}\n{raw['input']}" if raw["input"].strip() else raw["instruction"]
    return pair([user(prompt)], reply(raw["chosen"]), reply(raw["rejected"]))


def oasst(raw: Row) -> list[Row]:
    found: list[Row] = []

    def visit(node: Row, path: list[Row]) -> None:
        path = [*path, {"role": ROLES.get(node["role"], node["role"]), "content": node["text"]}]
        replies = [item for item in node["replies"] if not item["deleted"]]
        ranked = [item for item in replies if item["role"] == "assistant" and item.get("rank") is not None]
        for first, second in combinations(ranked, 2):
            better, worse = sorted((first, second), key=lambda item: item["rank"])
            found.extend(pair(path, reply(better["text"]), reply(worse["text"])))
        for item in replies:
            visit(item, path)

    visit(raw["prompt"], [])
    return found


def finegrained(raw: Row) -> list[Row]:
    found = []
    for (first, second), verdict in zip(combinations(range(1, 5), 2), raw["preference"], strict=True):
        if verdict:
            better, worse = (first, second) if verdict == 1 else (second, first)
            found.append((raw[f"prediction {better}"], raw[f"prediction {worse}"]))
    return [{"chosen": reply(better), "rejected": reply(worse)} for better, worse in found]


@dataclass(frozen=True)
class Case:
    format: str
    num_rows: int
    """Read, pairs made of lists counted one by one."""
    num_accepted: int
    expected: Callable[[Row], list[Row]] | None = explicit
    """A raw row to its normalised rows, without `line`; rows that teach nothing may be among them."""
    kind: DatasetKind = DatasetKind.PREFERENCE
    on_error: str = "reject"


DEMONSTRATION, UNPAIRED = DatasetKind.DEMONSTRATION, DatasetKind.UNPAIRED
CASES = {
    "CONVERTED-argilla-ultrafeedback-binarized.jsonl": Case(
        "ultrafeedback", 100, 99, lambda raw: last_turn(raw["chosen"], raw["rejected"])
    ),
    "CONVERTED-explicit.csv": Case("explicit", 100, 99),
    "CONVERTED-explicit.parquet": Case("explicit", 100, 99),
    "CONVERTED-trl-conversational-explicit.jsonl": Case("conversational", 100, 99),
    "CONVERTED-trl-conversational-implicit.jsonl": Case(
        "implicit-conversational", 100, 99, lambda raw: last_turn(raw["chosen"], raw["rejected"])
    ),
    "alpaca-ranking-instruction-data-with-preference.json": Case("alpaca-ranking", 1100, 1094, alpaca),
    "anthropic-evals-agreeableness.jsonl": Case(
        "behaviour-evals",
        100,
        100,
        lambda raw: pair(
            [user(raw["question"])],
            reply(raw["answer_matching_behavior"].strip()),
            reply(raw["answer_not_matching_behavior"].strip()),
        ),
    ),
    "colossalchat-dpo.jsonl": Case(
        "colossalchat",
        1,
        1,
        lambda raw: pair(messages(raw["context"]), messages(raw["chosen"]), messages(raw["rejected"])),
    ),
    "colossalchat-kto.jsonl": Case(
        "unpaired",
        1,
        1,
        lambda raw: [
            {"prompt": messages(raw["prompt"]), "response": [message(raw["completion"])], "label": raw["label"]}
        ],
        UNPAIRED,
    ),
    "finegrained-qa-feedback.json": Case("pairwise-list", 150, 106, finegrained),
    "llamafactory-dpo_en_demo.json": Case(
        "sharegpt-ranking",
        100,
        100,
        lambda raw: pair(messages(raw["conversations"]), [message(raw["chosen"])], [message(raw["rejected"])]),
    ),
    "llamafactory-dpo_zh_demo.json": Case(
        "sharegpt-ranking",
        60,
        60,
        lambda raw: pair(messages(raw["conversations"]), [message(raw["chosen"])], [message(raw["rejected"])]),
    ),
    "llamafactory-kto_en_demo.json": Case(
        "unpaired-messages",
        100,
        100,
        lambda raw: [
            {
                "prompt": messages(raw["messages"][:-1]),
                "response": messages(raw["messages"][-1:]),
                "label": raw["label"],
            }
        ],
        UNPAIRED,
    ),
    "llamafactory-v1_dpo_demo.jsonl": Case(
        "message-columns",
        10,
        10,
        lambda raw: last_turn(messages(raw["chosen_messages"]), messages(raw["rejected_messages"])),
    ),
    **{
        f"llmbar-{name}.json": Case(
            "llmbar",
            count,
            count,
            lambda raw: judged(raw["input"], raw["output_1"], raw["output_2"], raw["label"] == 1),
        )
        for name, count in (("natural", 100), ("adversarial-neighbor", 134), ("mtbench-human", 100))
    },
    "oasst-ranked-trees.jsonl": Case("message-tree", 313, 313, oasst),
    "openai-preference-orca.jsonl": Case(
        "openai",
        200,
        200,
        lambda raw: pair(raw["input"]["messages"], raw["preferred_output"], raw["non_preferred_output"]),
    ),
    "pandalm-testset-v1.json": Case("pandalm", 200, 133, pandalm, on_error="skip"),
    "turbo-alignment-dpo_chat.jsonl": Case(
        "turbo-alignment",
        16,
        16,
        lambda raw: pair(messages(raw["context"]), [message(raw["answer_w"])], [message(raw["answer_l"])]),
    ),
    "turbo-alignment-train_preferences.jsonl": Case(
        "turbo-alignment",
        16,
        16,
        lambda raw: pair(messages(raw["context"]), [message(raw["answer_w"])], [message(raw["answer_l"])]),
    ),
    "turbo-alignment-train_kto.jsonl": Case(
        "unpaired-turbo-alignment",
        4,
        4,
        lambda raw: [
            {"prompt": messages(raw["context"]), "response": [message(raw["answer"])], "label": raw["is_desirable"]}
        ],
        UNPAIRED,
    ),
    "ultrafeedback-explicit-clean.jsonl": Case("explicit", 200, 196),
    "ultrafeedback-explicit-label_flip_30.jsonl": Case("explicit", 200, 196),
    "trl-zen/conversational_implicit_prompt_preference.jsonl": Case(
        "implicit-conversational", 19, 19, lambda raw: last_turn(raw["chosen"], raw["rejected"])
    ),
    "trl-zen/conversational_preference.jsonl": Case("conversational", 19, 19),
    "trl-zen/standard_preference.jsonl": Case("explicit", 19, 19),
    "trl-zen/standard_implicit_prompt_preference.jsonl": Case("implicit", 19, 19, None),
    "trl-zen/conversational_language_modeling.jsonl": Case(
        "messages",
        19,
        19,
        lambda raw: [{"prompt": raw["messages"][:1], "response": raw["messages"][1:]}],
        DEMONSTRATION,
    ),
    "trl-zen/standard_language_modeling.jsonl": Case(
        "text", 19, 19, lambda raw: [{"prompt": "", "response": raw["text"]}], DEMONSTRATION
    ),
    "trl-zen/conversational_prompt_completion.jsonl": Case(
        "prompt-completion",
        19,
        19,
        lambda raw: [{"prompt": raw["prompt"], "response": raw["completion"]}],
        DEMONSTRATION,
    ),
    "trl-zen/standard_prompt_completion.jsonl": Case(
        "prompt-completion",
        19,
        19,
        lambda raw: [{"prompt": raw["prompt"], "response": raw["completion"]}],
        DEMONSTRATION,
    ),
    "trl-zen/conversational_unpaired_preference.jsonl": Case(
        "unpaired",
        19,
        19,
        lambda raw: [{"prompt": raw["prompt"], "response": raw["completion"], "label": raw["label"]}],
        UNPAIRED,
    ),
    "trl-zen/standard_unpaired_preference.jsonl": Case(
        "unpaired",
        19,
        19,
        lambda raw: [{"prompt": raw["prompt"], "response": raw["completion"], "label": raw["label"]}],
        UNPAIRED,
    ),
}
REFUSED = {
    "hh-real-oddities.index.jsonl": ("unknown-format", "'oddity'"),
    "trl-zen/conversational_prompt_only.jsonl": ("unsupported-format", "prompts only"),
    "trl-zen/standard_prompt_only.jsonl": ("unsupported-format", "prompts only"),
    "trl-zen/standard_stepwise_supervision.jsonl": ("unsupported-format", "stepwise"),
    "llamafactory-kto_en_demo.json": ("wrong-kind", "kind=unpaired"),
    "colossalchat-kto.jsonl": ("wrong-kind", "kind=unpaired"),
    "turbo-alignment-train_kto.jsonl": ("wrong-kind", "kind=unpaired"),
    "trl-zen/standard_language_modeling.jsonl": ("wrong-kind", "kind=demonstration"),
}
"""Sent as preferences: the code, and what the message says."""
HH = ("hh-real-oddities.jsonl", "../hh-helpful.jsonl")


def raw_rows(path: Path) -> list[Row]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        rows: list[Row] = pq.read_table(path).to_pylist()
        return rows
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        values: list[Row] = json.loads(text)
        return values
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def run(path: Path, output: Path, **options: Any) -> tuple[CheckResult, list[Row]]:
    result = check_file(path, CheckOptions(filename=path.name, **options), output)
    rows = output / ROWS_FILE
    return result, [json.loads(line) for line in rows.open(encoding="utf-8")] if rows.exists() else []


def test_every_file_of_the_collection_has_its_case() -> None:
    names = {str(path.relative_to(FORMATS)) for path in FORMATS.rglob("*") if path.is_file()}
    assert names == CASES.keys() | REFUSED.keys() | {HH[0]}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_read_right(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    result, rows = run(FORMATS / name, tmp_path, kind=case.kind, on_error=case.on_error)
    assert result.verdict == "ready", result.refusal
    assert result.format == case.format
    assert (result.num_rows, result.num_accepted) == (case.num_rows, case.num_accepted)
    assert len(rows) == case.num_accepted
    assert [row["line"] for row in rows] == sorted(row["line"] for row in rows)
    if case.expected is None:
        return
    expected = [wanted for raw in raw_rows(FORMATS / name) for wanted in case.expected(raw)]
    taught = [wanted for wanted in expected if teaches(wanted)]
    shown = [{key: row[key] for key in wanted} for row, wanted in zip(rows, taught, strict=True)]
    assert shown == taught


def teaches(row: Row) -> bool:
    """What is set aside: equal sides, and responses without a text; and what is no text at all is malformed."""
    sides = [row[name] for name in ("chosen", "rejected") if name in row]
    texts = [side if isinstance(side, str) else side[-1]["content"] for side in sides]
    return all(isinstance(text, str) and text.strip() for text in texts) and (len(sides) < 2 or sides[0] != sides[1])


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_preference_data_is_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    result, rows = run(FORMATS / name, tmp_path)
    assert (result.verdict, rows) == ("rejected", [])
    assert result.refusal is not None
    assert result.refusal.code == REFUSED[name][0]
    assert REFUSED[name][1] in result.refusal.detail


@pytest.mark.parametrize("name", HH)
def test_a_transcript_is_cut_where_both_sides_part(name: str, tmp_path: Path) -> None:
    """Prompt and reply put together again are the transcript, on both sides, whatever markers a reply holds."""
    result, rows = run(FORMATS / name, tmp_path)
    raw = raw_rows(FORMATS / name)
    assert result.format == "hh"
    assert rows
    for row in rows:
        source = raw[row["line"] - 1]
        prompt = "".join(
            f"\n\n{'Human' if turn['role'] == 'user' else 'Assistant'}: {turn['content']}" for turn in row["prompt"]
        )
        for side in ("chosen", "rejected"):
            whole = f"{prompt}\n\nAssistant: {row[side][0]['content']}"
            assert "".join(whole.split()) == "".join(source[side].split())
        assert row["prompt"][-1]["role"] == "user"


def test_the_real_oddities_are_each_reported(tmp_path: Path) -> None:
    result, _ = run(FORMATS / HH[0], tmp_path)
    assert result.report["counts"] == {
        "identical-pair": 36,
        "empty-chosen": 4,
        "empty-rejected": 7,
        "ends-on-user-turn": 2,
        "turn-marker-in-response": 17,
    }
    assert (result.num_accepted, result.num_set_aside, result.num_rejected) == (17, 49, 0)


def test_an_implicit_prompt_of_real_texts_ends_before_a_word(tmp_path: Path) -> None:
    name = "trl-zen/standard_implicit_prompt_preference.jsonl"
    _, rows = run(FORMATS / name, tmp_path)
    for row, raw in zip(rows, raw_rows(FORMATS / name), strict=True):
        assert row["prompt"] + row["chosen"] == raw["chosen"]
        assert row["prompt"] + row["rejected"] == raw["rejected"]
        assert row["prompt"][-1].isalnum()
        assert row["chosen"][0] == row["rejected"][0] == " "


def test_malformed_rows_of_a_real_file_are_all_named(tmp_path: Path) -> None:
    name = "pandalm-testset-v1.json"
    result, _ = run(FORMATS / name, tmp_path)
    bad = [
        index
        for index, raw in enumerate(raw_rows(FORMATS / name))
        if not all(isinstance(raw[key], str) for key in ("response1", "response2"))
    ]
    assert result.verdict == "rejected"
    assert [issue["row"] for issue in result.report["issues"] if issue["severity"] == "error"] == bad
