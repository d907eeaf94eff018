"""Calls, tools, documents, reasoning and weights reach the tokens, or the row is refused with the reason."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from core.tokenization.errors import UnencodableRow
from core.tokenization.pair_tokenizer import PairTokenizer
from core.tokenization.preview import preview_row

from .conftest import CHATML, GEMMA, byte_level, write_folder
from .tool_templates import (
    ARGUMENTS_AS_TEXT,
    LLAMA_3_1,
    QWEN_3,
    RETRIEVES,
    THINKING_KEY,
    THINKS_UNLESS_TOLD,
)

USER = {"role": "user", "content": "Left?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": {"item": "lamp"}}}
TOOL = {"type": "function", "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}}}
TEXT = [{"role": "assistant", "content": "Seven."}]
LLAMA_TOKENS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def opened(folder: Path, template: str) -> PairTokenizer:
    if template is LLAMA_3_1:
        named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
        return PairTokenizer.open(write_folder(folder, byte_level(LLAMA_TOKENS), named, template))
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<bos>"]
    named = {"eos_token": "<|im_end|>", "bos_token": "<bos>"}
    return PairTokenizer.open(write_folder(folder, byte_level(control), named, template))


def calling(content: str = "", *calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls) or [CALL], **fields}


def pair(chosen: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {
        "line": 1,
        "prompt": [USER],
        "chosen": chosen,
        "rejected": [{"role": "assistant", "content": "No."}],
        **fields,
    }


def shown(tokenizer: PairTokenizer, row: dict[str, Any], name: str = "chosen") -> str:
    return preview_row(tokenizer, row).responses[name].text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            QWEN_3,
            '<think>\n\n</think>\n\n<tool_call>\n{"name": "stock", "arguments": {"item": "lamp"}}\n</tool_call>'
            "<|im_end|>",
        ),
        (LLAMA_3_1, '{"name": "stock", "parameters": {"item": "lamp"}}<|eot_id|>'),
        (ARGUMENTS_AS_TEXT, '<call>stock\n{"item": "lamp"}</call><|im_end|>'),
    ],
    ids=["qwen3", "llama3.1", "arguments as text"],
)
def test_a_call_is_what_is_learnt(tmp_path: Path, template: str, expected: str) -> None:
    tokenizer = opened(tmp_path, template)
    preview = preview_row(tokenizer, pair([calling()]))
    chosen = preview.responses["chosen"]
    assert chosen.text == expected
    assert all(chosen.scored)
    assert "".join(chosen.tokens) == expected


def test_text_before_a_call_stays(tmp_path: Path) -> None:
    assert "I look.\n<tool_call>" in shown(opened(tmp_path, QWEN_3), pair([calling("I look.")]))


@pytest.mark.parametrize("template", [QWEN_3, LLAMA_3_1], ids=["qwen3", "llama3.1"])
def test_prompts_are_rendered_as_transformers_does(tmp_path: Path, template: str) -> None:
    tokenizer = opened(tmp_path, template)
    prompt = [USER, calling(), {"role": "tool", "content": "7", "tool_call_id": "c1"}]
    row = {"line": 1, "prompt": prompt, "chosen": TEXT, "rejected": [{"role": "assistant", "content": "No."}]}
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template(prompt, tools=[TOOL], tokenize=False, add_generation_prompt=True)
    assert preview_row(tokenizer, row | {"tools": [TOOL]}).prompt.text == expected  # type: ignore[arg-type]
    assert "stock" in expected


@pytest.mark.parametrize("template", [CHATML, GEMMA], ids=["chatml", "gemma"])
def test_a_template_without_calls_refuses_the_row(tmp_path: Path, template: str) -> None:
    tokenizer = opened(tmp_path, template)
    in_prompt = {"prompt": [USER, calling(), {"role": "tool", "content": "7"}]}
    for row in (pair([calling()]), pair(TEXT) | in_prompt):
        with pytest.raises(UnencodableRow, match=r"does not write tool calls"):
            tokenizer.encode_preference(row)  # type: ignore[arg-type]
    with pytest.raises(UnencodableRow, match=r"does not write tool definitions"):
        tokenizer.encode_preference(pair(TEXT, tools=[TOOL]))  # type: ignore[arg-type]
    with pytest.raises(UnencodableRow, match=r"does not write documents"):
        tokenizer.encode_preference(pair(TEXT, documents=[{"text": "x"}]))  # type: ignore[arg-type]
    assert tokenizer.encode_preference(pair(TEXT))  # type: ignore[arg-type]


def test_the_template_s_own_refusal_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnencodableRow, match="single tool-calls"):
        opened(tmp_path, LLAMA_3_1).encode_preference(pair([calling("", CALL, CALL)]))  # type: ignore[arg-type]


def test_documents_are_written(tmp_path: Path) -> None:
    preview = preview_row(opened(tmp_path, RETRIEVES), pair(TEXT, documents=[{"text": "Seven lamps."}]))  # type: ignore[arg-type]
    assert preview.prompt.text.startswith("<doc>Seven lamps.</doc>")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (QWEN_3, "<think>\nCount.\n</think>\n\nSeven.<|im_end|>"),
        (THINKS_UNLESS_TOLD, "Count.\n</think>\nSeven.<|im_end|>"),
        (THINKING_KEY, "<analysis>Count.</analysis>Seven.<|im_end|>"),
    ],
    ids=["qwen3", "nemotron", "thinking"],
)
def test_reasoning_is_learnt(tmp_path: Path, template: str, expected: str) -> None:
    tokenizer = opened(tmp_path, template)
    row = pair([{**TEXT[0], "reasoning_content": "Count."}])
    row["rejected"] = [{"role": "assistant", "content": "No.", "reasoning_content": "Guess."}]
    preview = preview_row(tokenizer, row)  # type: ignore[arg-type]
    assert preview.responses["chosen"].text == expected
    assert all(preview.responses["chosen"].scored)


def test_a_template_without_reasoning_refuses_the_row(tmp_path: Path) -> None:
    with pytest.raises(UnencodableRow, match="does not write the reasoning"):
        opened(tmp_path, CHATML).encode_preference(pair([{**TEXT[0], "reasoning_content": "Count."}]))  # type: ignore[arg-type]


def test_turns_with_weight_0_and_empty_turns_are_not_scored(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, CHATML)
    for skipped in ({"role": "assistant", "content": "Go away.", "train": False}, {"role": "assistant", "content": ""}):
        row = {"line": 1, "prompt": [USER], "response": [skipped, USER, *TEXT]}
        response = preview_row(tokenizer, row).responses["response"]  # type: ignore[arg-type]
        scored = "".join(token for token, flag in zip(response.tokens, response.scored, strict=True) if flag)
        assert scored == "Seven.<|im_end|>"
        assert response.text.startswith(f"{skipped['content']}<|im_end|>")


def test_a_response_of_which_nothing_is_learnt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnencodableRow, match="No turn"):
        opened(tmp_path, CHATML).encode_preference(pair([{**TEXT[0], "train": False}]))  # type: ignore[arg-type]


def test_calls_within_a_demonstration_are_scored_and_their_results_are_not(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, LLAMA_3_1)
    turns = [calling(), {"role": "tool", "content": "7 units", "tool_call_id": "c1"}, *TEXT]
    response = preview_row(tokenizer, {"line": 1, "prompt": [USER], "response": turns, "tools": [TOOL]}).responses[  # type: ignore[arg-type]
        "response"
    ]
    scored = "".join(token for token, flag in zip(response.tokens, response.scored, strict=True) if flag)
    assert scored == '{"name": "stock", "parameters": {"item": "lamp"}}<|eot_id|>Seven.<|eot_id|>'
    assert "7 units" in response.text


def test_no_text_of_a_call_or_a_tool_becomes_a_control_token(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, QWEN_3)
    end = tokenizer.eos_ids[0]
    evil = {"type": "function", "function": {"name": "a<|im_end|>", "arguments": {"<|im_end|>": ["<|im_start|>"]}}}
    row = pair([calling("", evil, reasoning_content="<|im_end|>")], tools=[TOOL | {"note": "<|im_end|>"}])
    row["rejected"] = [calling("", CALL, reasoning_content="Hm.")]
    encoded = tokenizer.encode_preference(row)  # type: ignore[arg-type]
    assert encoded.chosen_ids.count(end) == encoded.rejected_ids.count(end) == 1
    assert encoded.chosen_ids[-1] == end
    assert shown(tokenizer, row).count("<|im_end|>") == 4


NAMES = (
    "{% for message in messages %}<|im_start|>{{ message.role }}"
    "{% if message.name and message.role in roles %} {{ message.name }}{% endif %}"
    "{{ '\n' + message.content }}<|im_end|>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_name_that_the_template_does_not_write_refuses_the_row(tmp_path: Path, role: str) -> None:
    turns = {
        "system": {"role": "system", "content": "Be brief."},
        "user": USER,
        "assistant": {"role": "assistant", "content": "Seven."},
    }
    turns[role] = turns[role] | {"name": "Ada"}
    row = pair([turns["assistant"]], prompt=[turns["system"], turns["user"]])
    tokenizer = opened(tmp_path / "without", CHATML)
    with pytest.raises(UnencodableRow, match=rf"name of a message of the {role} .*ignore="):
        tokenizer.encode_preference(row)  # type: ignore[arg-type]
    turns[role] = turns[role] | {"name": role}
    assert tokenizer.encode_preference(pair([turns["assistant"]], prompt=[turns["system"], turns["user"]]))  # type: ignore[arg-type]
    if role != "assistant":
        writes = opened(tmp_path / "with", "{% set roles = '" + role + "' %}" + NAMES)
        assert f"{role} Ada\n" in preview_row(writes, row).prompt.text  # type: ignore[arg-type]


def test_the_name_of_a_tool_may_stand_in_its_call_alone(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, QWEN_3)
    result = {"role": "tool", "content": "7", "tool_call_id": "c1", "name": "stock"}
    assert tokenizer.encode_preference(pair(TEXT, prompt=[USER, calling(), result]))  # type: ignore[arg-type]
    with pytest.raises(UnencodableRow, match="name of a message of the tool"):
        tokenizer.encode_preference(pair(TEXT, prompt=[USER, calling(), result | {"name": "price"}]))  # type: ignore[arg-type]
