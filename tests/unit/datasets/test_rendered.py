"""Texts that a chat template rendered before they were written down are read as the turns they were made of."""

from typing import Any

import pytest

from .conftest import Check

SYSTEM = {"role": "system", "content": "You are a guide."}
USER = {"role": "user", "content": "How long?\nIn minutes."}
CHATML = "<|im_start|>system\nYou are a guide.<|im_end|>\n<|im_start|>user\nHow long?\nIn minutes.<|im_end|>\n"
LLAMA_3 = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a guide.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHow long?\nIn minutes.<|eot_id|>"
)
GEMMA = "<bos><start_of_turn>user\nHow long?\nIn minutes.<end_of_turn>\n"
NEMO = "<extra_id_0>System\nYou are a guide.\n<extra_id_1>User\nHow long?\nIn minutes.\n"
ZEPHYR = "<|system|>\nYou are a guide.</s>\n<|user|>\nHow long?\nIn minutes.</s>\n"
FORMS = [
    (CHATML, "<|im_start|>assistant\n", "<|im_end|>", [SYSTEM, USER]),
    (LLAMA_3, "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", [SYSTEM, USER]),
    (GEMMA, "<start_of_turn>model\n", "<end_of_turn>\n", [USER]),
    (NEMO, "<extra_id_1>Assistant\n", "\n<extra_id_1>", [SYSTEM, USER]),
    (ZEPHYR, "<|assistant|>\n", "</s>", [SYSTEM, USER]),
]


def reply(content: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content}]


@pytest.mark.parametrize(("turns", "opening", "end", "messages"), FORMS)
def test_a_rendered_prompt_is_its_turns(
    check: Check, turns: str, opening: str, end: str, messages: list[dict[str, str]]
) -> None:
    row = {"prompt": turns + opening, "chosen": f"Two minutes.{end}", "rejected": f"Twenty.{end}"}
    checked = check([row, row | {"prompt": turns, "chosen": "Two minutes.", "rejected": "Twenty."}])
    expected = {"prompt": messages, "chosen": reply("Two minutes."), "rejected": reply("Twenty.")}
    assert checked.rows == [{"line": line, **expected} for line in (1, 2)]


@pytest.mark.parametrize(("turns", "opening", "end", "messages"), FORMS)
def test_whole_conversations_are_split_at_the_reply(
    check: Check, turns: str, opening: str, end: str, messages: list[dict[str, str]]
) -> None:
    whole = turns + opening
    row = {"chosen": f"{whole}It takes two minutes.{end}", "rejected": f"{whole}It takes twenty.{end}"}
    checked = check([row])
    assert checked.rows[0]["prompt"] == messages
    assert checked.rows[0]["chosen"] == reply("It takes two minutes.")
    assert checked.rows[0]["rejected"] == reply("It takes twenty.")
    demonstration = check([{"text": row["chosen"]}], kind="demonstration").rows[0]
    assert (demonstration["prompt"], demonstration["response"]) == (messages, reply("It takes two minutes."))


@pytest.mark.parametrize(
    "prompt",
    [
        "Complete: <|im_start|>user\nHi<|im_end|>",
        CHATML + "<|im_start|>narrator\nNight falls.<|im_end|>\n<|im_start|>assistant\n",
        "<s>[INST] How long? [/INST]",
        "\n\nHuman: How long?\n\nAssistant:",
        "User: How long?\nAssistant:",
        "A chat. USER: How long? ASSISTANT:",
        "### Human: How long?\n### Assistant:",
        "Below is a task.\n\n### Instruction:\nHow long?\n\n### Response:\n",
        "<|prompter|>How long?<|endoftext|><|assistant|>",
        "<｜User｜>How long?<｜Assistant｜>",
        "<extra_id_1>User\nHow long?\n<extra_id_1>Assistant\n<extra_id_2>quality:4",
    ],
)
def test_a_text_that_is_not_wholly_turns_is_kept_and_reported(check: Check, prompt: str) -> None:
    checked = check([{"prompt": prompt, "chosen": "Two minutes.", "rejected": "Twenty."}])
    assert checked.rows[0]["prompt"] == prompt
    assert checked.codes == {"rendered-text": 1}


def test_turns_of_which_the_first_has_no_marker(check: Check) -> None:
    prompt = "Hello.\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nHow long?\nIn minutes."
    checked = check([{"prompt": prompt, "chosen": "Two minutes.", "rejected": "Twenty."}])
    assert checked.rows[0]["prompt"] == [{"role": "user", "content": "Hello."}, *reply("Yes?"), USER]
    assert not checked.codes


@pytest.mark.parametrize("prompt", ["Write a response:", "Who is the assistant: a person?", "### Response times"])
def test_words_that_look_like_speakers_are_not_reported(check: Check, prompt: str) -> None:
    assert not check([{"prompt": prompt, "chosen": "Two minutes.", "rejected": "Twenty."}]).codes


def test_markers_in_a_response_are_reported(check: Check) -> None:
    row = {"prompt": "Go on.", "chosen": "Yes.<|im_end|>\n<|im_start|>user\nAnd?", "rejected": "No."}
    assert check([row]).codes == {"rendered-text": 1}


@pytest.mark.parametrize("end", ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>", "<end_of_turn>\n"])
def test_an_end_token_that_is_spelled_out_is_taken_off(check: Check, end: str) -> None:
    checked = check([{"prompt": "Colour?", "chosen": f"Blue.{end}", "rejected": "Red."}])
    assert checked.rows[0]["chosen"] == "Blue."
    assert checked.codes == {"end-token-in-text": 1}


@pytest.mark.parametrize("text", ["Struck: <s>blue</s>", "The token <|im_end|> ends a turn.", "a < b", "x<|y|>z"])
def test_other_texts_stay_byte_for_byte(check: Check, text: str) -> None:
    checked = check([{"prompt": "Say.", "chosen": text, "rejected": "No."}])
    assert checked.rows[0]["chosen"] == text
    assert not checked.codes


def test_transcripts_with_single_line_breaks(check: Check) -> None:
    chosen = "Human: How long?\nAssistant: Two.\nHuman: Minutes?\nAssistant: Yes, minutes."
    checked = check([{"chosen": chosen, "rejected": chosen.replace("Yes, minutes.", "Hours.")}])
    assert checked.rows[0]["prompt"] == [
        {"role": "user", "content": "How long?"},
        *reply("Two."),
        {"role": "user", "content": "Minutes?"},
    ]
    assert (checked.rows[0]["chosen"], checked.rows[0]["rejected"]) == (reply("Yes, minutes."), reply("Hours."))
