"""Every code of the closed list, by the least file that earns it; what it does is what the list says it does."""

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
import zstandard

from core.datasets.options import Limits
from core.domain.issue_codes import ISSUE_KINDS, Effect, IssueCode

from .conftest import Check, jsonl

PAIR = {"prompt": "Which colour?", "chosen": "Blue, of course.", "rejected": "No idea."}
VERDICT = {"prompt": "Which colour?", "response_1": "No idea.", "response_2": "Blue, of course."}
SMALL = Limits(max_bytes=100_000, max_line_bytes=1_000, max_rows=100, ratio_free_bytes=1_000, max_near_duplicate_rows=5)


def rows(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Number {n}?", "chosen": f"Yes, {n}.", "rejected": f"Not {n} at all."} | fields
        for n in range(count)
    ]


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def hh(chosen: Any, rejected: Any) -> dict[str, Any]:
    return {"chosen": chosen, "rejected": rejected}


def messages(*turns: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "text"} for role in turns]


LONG = " ".join(f"word{number}" for number in range(60))
TURN = "\n\nHuman: Hi\n\nAssistant:"
USER, REPLY = messages("user"), messages("assistant")
Content = bytes | list[Any]
CASES: dict[str, tuple[Content, dict[str, Any]]] = {
    "empty-file": (b"", {}),
    "no-rows": (b" \n\n", {}),
    "binary-file": (b"\x89PNG\r\n\x1a\n" + bytes(50), {}),
    "archive": (b"PK\x03\x04" + bytes(50), {}),
    "workbook": (b"PK\x03\x04" + bytes(30) + b"xl/workbook.xml" + bytes(50), {}),
    "pickle": (b"\x80\x04\x95" + bytes(20), {}),
    "git-lfs-pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", {}),
    "unsupported-compression": (b"\x04\x22\x4d\x18" + bytes(50), {}),
    "nested-compression": (gzip.compress(zstandard.compress(jsonl([PAIR]))), {}),
    "encoding-mismatch": (jsonl([PAIR]), {"content_encoding": "gzip"}),
    "damaged-file": (gzip.compress(jsonl(rows(50)))[:-20], {}),
    "encrypted-file": (b"PARE" + bytes(50), {}),
    "wrong-encoding": (jsonl([PAIR]).decode().encode("utf-16-le"), {}),
    "wrong-extension": (b"PAR1" + bytes(50), {"filename": "pairs.jsonl"}),
    "invalid-array": (json.dumps([PAIR]).encode()[:-1], {}),
    "pretty-printed": (json.dumps(PAIR, indent=2).encode(), {}),
    "invalid-table": (b'prompt,chosen,rejected\n"never closed,b,c\n', {}),
    "file-too-large": (bytes(100_001), {"limits": SMALL}),
    "decompressed-too-large": (
        gzip.compress(jsonl(rows(50))),
        {"limits": replace(SMALL, max_decompressed_bytes=2_000)},
    ),
    "compression-ratio": (gzip.compress(b" " * 1_000_000), {"limits": SMALL}),
    "line-too-long": (jsonl([{**PAIR, "chosen": "x" * 2_000}]), {"limits": SMALL}),
    "too-many-rows": (rows(101), {"limits": SMALL}),
    "unknown-format": ([{"a": 1}], {}),
    "unsupported-format": ([{"prompt": "only"}], {}),
    "wrong-kind": ([PAIR], {"kind": "demonstration"}),
    "wrong-column-names": ([{"Prompt": "a", "Chosen": "b", "Rejected": "c"}], {}),
    "missing-column": ([PAIR], {"columns": {"prompt": "question"}}),
    "mixed-formats": ([PAIR, hh(f"{TURN} a", f"{TURN} b")], {}),
    "no-prompt-column": ([{"brief": "Name a colour, please.", "chosen": "Blue it is.", "rejected": "No."}], {}),
    "verdict-unclear": ([VERDICT | {"preference": n} for n in (0, 1)], {}),
    "field-to-decide": ([PAIR | {"winner": n} for n in ("a", "b")], {}),
    "split-to-choose": ([PAIR], {"split": "train"}),
    "verdict-as-response": (
        [{"prompt": "Why?", "chosen": "A", "rejected": "B", "answer_a": "Because.", "answer_b": "No."}],
        {},
    ),
    "too-many-bad-rows": (b"no\n" * 10_001, {}),
    "no-usable-row": ([{**PAIR, "rejected": PAIR["chosen"]}], {}),
    "invalid-json": (jsonl([PAIR]) + b"{'a': 1}\n", {}),
    "not-utf-8": (jsonl([PAIR]) + b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}\n', {}),
    "not-an-object": ([PAIR, "text"], {}),
    "duplicate-key": (jsonl([PAIR]) + b'{"prompt": "a", "chosen": "b", "chosen": "c", "rejected": "d"}\n', {}),
    "too-deep": ([PAIR, {**PAIR, "x": nested(70)}], {}),
    "too-many-keys": ([PAIR, {**PAIR, **{str(n): n for n in range(300)}}], {}),
    "lone-surrogate": (jsonl([PAIR]) + b'{"prompt": "\\ud800", "chosen": "b", "rejected": "c"}\n', {}),
    "nul-character": ([PAIR, {**PAIR, "chosen": "a\0b"}], {}),
    "missing-field": ([PAIR, {"prompt": "a", "chosen": "b"}], {}),
    "null-field": ([PAIR, {**PAIR, "rejected": None}], {}),
    "wrong-type": ([PAIR, {**PAIR, "rejected": 42}], {}),
    "unknown-role": ([{"prompt": messages("wizard"), "chosen": REPLY, "rejected": REPLY}], {}),
    "empty-messages": ([{"prompt": [], "chosen": REPLY, "rejected": REPLY}], {}),
    "too-many-messages": ([{"prompt": USER * 1_001, "chosen": REPLY, "rejected": REPLY}], {}),
    "missing-content": ([{"prompt": [{"role": "user"}], "chosen": REPLY, "rejected": REPLY}], {}),
    "not-text": (
        [{"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], "chosen": REPLY, "rejected": REPLY}],
        {},
    ),
    "needs-media": ([PAIR | {"images": ["cup.jpg"]}], {}),
    "invalid-tool-call": ([hh([*USER, {**REPLY[0], "tool_calls": [{"function": {}}]}], [*USER, *REPLY])], {}),
    "message-weight": ([{"messages": [*USER, {**REPLY[0], "weight": 0.5}]}], {"kind": "demonstration"}),
    "nothing-trained": (
        [PAIR, PAIR | {"chosen": [{**REPLY[0], "weight": 0}], "rejected": REPLY}],
        {"format": "explicit"},
    ),
    "empty-turn": (
        [{"messages": [*USER, {**REPLY[0], "content": ""}, *USER, *REPLY]}],
        {"kind": "demonstration"},
    ),
    "rendered-text": ([PAIR | {"prompt": "Go on: <|im_start|>user\nHi"}], {}),
    "end-token-in-text": ([PAIR | {"chosen": "Blue.<|im_end|>"}], {}),
    "no-assistant-reply": ([{"prompt": USER, "chosen": USER, "rejected": REPLY}], {}),
    "different-prompts": ([hh("\n\nHuman: A\n\nAssistant: a", "\n\nHuman: B\n\nAssistant: b")], {}),
    "no-common-prompt": ([hh("one", "two")], {}),
    "invalid-label": ([{"prompt": "a", "completion": "b", "label": "maybe"}], {"kind": "unpaired"}),
    "scores-disagree": ([PAIR, PAIR | {"score_chosen": 1, "score_rejected": "2"}], {}),
    "too-many-answers": ([{"prompt": "a", "responses": list("abcdefghijklmnopq"), "scores": list(range(17))}], {}),
    "wrong-cell-count": (b"prompt,chosen,rejected\na,b,c\na,b\n", {}),
    "invalid-cell": ([{**PAIR, "prompt": json.dumps(USER)}, {**PAIR, "prompt": json.dumps(USER)[:-5]}], {}),
    "cell-may-be-cut": (b"prompt,chosen,rejected\na,b," + b"c" * 32_767 + b"\n", {}),
    "messages-as-text": ([PAIR, PAIR, {**PAIR, "chosen": json.dumps(USER)}], {}),
    "decoded-texts": ([{name: json.dumps(text) for name, text in PAIR.items()}], {}),
    "escapes-in-text": (rows(3, chosen="One\\nTwo", rejected="Three"), {}),
    "identical-pair": ([PAIR, {**PAIR, "rejected": PAIR["chosen"]}], {}),
    "empty-chosen": ([PAIR, {**PAIR, "chosen": " \n"}], {}),
    "empty-rejected": ([PAIR, {**PAIR, "rejected": ""}], {}),
    "empty-response": ([{"prompt": "a", "response": "b"}, {"prompt": "a", "response": ""}], {"kind": "demonstration"}),
    "tie": ([{"prompt": "a", "responses": ["b", "c", "d"], "scores": [1, 1, 2]}], {}),
    "nothing-to-compare": (
        [
            {"prompt": "a", "responses": ["b", "c"], "scores": [1, 2]},
            {"prompt": "a", "responses": ["b"], "scores": [1]},
        ],
        {},
    ),
    "ends-on-user-turn": ([hh(f"{TURN} a", f"{TURN} b"), hh(f"{TURN} a", f"{TURN} b\n\nHuman: c")], {}),
    "empty-prompt": ([{**PAIR, "prompt": ""}], {}),
    "nearly-identical-pair": ([{**PAIR, "rejected": PAIR["chosen"].upper() + " "}], {}),
    "long-row": ([{**PAIR, "chosen": "word " * 10_000}], {}),
    "turn-marker-in-response": ([hh(f"{TURN} a\n\nAssistant: b", f"{TURN} c")], {}),
    "prompt-column-differs": (
        [
            {
                "prompt": "other",
                "chosen": messages("user", "assistant"),
                "rejected": [*USER, {**REPLY[0], "content": "no"}],
            }
        ],
        {},
    ),
    "tools-ignored": (
        [
            {
                "input": {"messages": USER, "tools": "You may call a calculator."},
                "preferred_output": REPLY,
                "non_preferred_output": [{**REPLY[0], "content": "no"}],
            }
        ],
        {},
    ),
    "meaningful-field-ignored": ([PAIR | {"context": "a"}], {}),
    "missing-value-as-text": (b"prompt,chosen,rejected\na,b,NaN\nd,e,f\n", {}),
    "score-tie": ([PAIR | {"score_chosen": 2, "score_rejected": 2.0}], {}),
    "one-verdict-only": ([VERDICT | {"preference": "b", "prompt": n} for n in "xy"], {}),
    "duplicate-row": ([PAIR, PAIR], {}),
    "near-duplicate-row": (
        [{name: f"{name} {LONG} {end}." for name in PAIR} for end in ("first", "last")],
        {},
    ),
    "reversed-pair": ([PAIR, {**PAIR, "chosen": PAIR["rejected"], "rejected": PAIR["chosen"]}], {}),
    "length-bias": ([{**row, "chosen": row["chosen"] * 9} for row in rows(60)], {}),
    "repeated-response": (rows(20, rejected="I cannot say."), {}),
    "one-label-only": ([{"prompt": "a", "completion": "b", "label": True}], {"kind": "unpaired"}),
    "near-duplicates-skipped": (rows(20), {"limits": SMALL}),
}
"""Code -> a file, and the options of its check."""
NOT_FROM_A_FILE = {"check-failed"}
"""Said by the service, of a check that did not come to its end."""
ALONE: set[str] = {"no-usable-row"}


def test_every_code_has_its_case() -> None:
    assert CASES.keys() | NOT_FROM_A_FILE == set(IssueCode)


@pytest.mark.parametrize("code", CASES)
def test_a_code_is_given_and_does_what_it_says(check: Check, code: str) -> None:
    content, options = CASES[code]
    checked = check(content, **options)
    effect = ISSUE_KINDS[IssueCode(code)].effect
    assert checked.codes[code] >= 1
    found = [issue for issue in checked.issues if issue["code"] == code]
    assert found
    for issue in found:
        assert issue["severity"] == ISSUE_KINDS[IssueCode(code)].severity
        assert len(issue["detail"]) > 15
        assert issue["detail"].endswith((".", "?"))
    if effect is Effect.FILE_REFUSED:
        assert not checked.is_ready
        assert checked.result.refusal is not None
        assert checked.result.refusal.code == code
        assert checked.result.refusal.kind == ISSUE_KINDS[IssueCode(code)].error_kind
        assert not check(content, **options | {"on_error": "skip"}).is_ready
    elif effect is Effect.ROW_REFUSED:
        assert not checked.is_ready
        assert all(isinstance(issue["line"], int) for issue in found)
        skipped = check(content, **options | {"on_error": "skip"})
        assert skipped.is_ready == (skipped.result.num_accepted > 0)
        assert skipped.result.num_rejected == checked.codes[code]
    elif effect is Effect.ROW_SET_ASIDE:
        assert checked.result.num_set_aside >= 1
        assert checked.is_ready or code in ALONE
    else:
        assert checked.is_ready
        assert checked.result.num_accepted > 0


@pytest.mark.parametrize("code", CASES)
def test_no_message_repeats_more_of_a_file_than_a_name(check: Check, code: str) -> None:
    """Messages go to terminals, logs and pages: printable, short, and never a text of the file."""
    content, options = CASES[code]
    for issue in check(content, **options).issues:
        assert issue["detail"].isprintable()
        assert len(issue["detail"]) < 500


def test_counts_are_exact_beyond_what_is_listed(check: Check) -> None:
    checked = check([PAIR] * 300)
    assert checked.codes["duplicate-row"] == 299
    shown = checked.result.report["issues"]
    assert sum(issue["code"] == "duplicate-row" for issue in shown) == 25
    assert checked.result.report["issues_truncated"]
    assert len(checked.lines("duplicate-row")) == 299


def test_all_malformed_rows_are_named_at_once(check: Check) -> None:
    content = b"".join(jsonl([PAIR]) if line % 3 else b"no\n" for line in range(1, 1000))
    checked = check(content)
    assert [issue["line"] for issue in checked.result.report["issues"]] == list(range(3, 1000, 3))
    assert checked.detail.startswith("333 of 999 rows are malformed. The first is line 3: ")
