"""`chat_template_kwargs` reach the template in training as in use, and a name that it does not read is refused."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from core.domain.dataset_rows import DatasetKind
from core.tokenization.encode_file import encode_file
from core.tokenization.errors import UnencodableRow, UnusableChatTemplate
from core.tokenization.pair_tokenizer import PairTokenizer

from .conftest import byte_level, write_folder
from .tool_templates import QWEN_3, THINKS_UNLESS_TOLD

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
OFF = {"enable_thinking": False}
ROW = {"line": 1, "prompt": "fox?", "chosen": "dog", "rejected": "cat"}


def folder(path: Path, template: str) -> Path:
    return write_folder(path, byte_level(CONTROL), {"eos_token": "<|im_end|>"}, template)


@pytest.mark.parametrize("template", [QWEN_3, THINKS_UNLESS_TOLD], ids=["qwen3", "nemotron"])
def test_prompts_are_those_of_transformers(tmp_path: Path, template: str) -> None:
    model = folder(tmp_path, template)
    tokenizer = PairTokenizer.open(model, template_kwargs=OFF)
    theirs = PreTrainedTokenizerFast.from_pretrained(model)
    messages = [{"role": "user", "content": "fox?"}]
    expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert tokenizer.show_text(tokenizer.split("fox?", ["dog"]).prompt) == expected
    assert tokenizer.decode(tokenizer.encode_preference(ROW).chosen_ids) == "dog"  # type: ignore[arg-type]


def test_a_refusal_names_the_switch_that_helps(tmp_path: Path) -> None:
    tokenizer = PairTokenizer.open(folder(tmp_path, THINKS_UNLESS_TOLD))
    with pytest.raises(UnencodableRow, match=r'Send chat_template_kwargs \{"enable_thinking": false\}') as refusal:
        tokenizer.encode_preference(ROW)  # type: ignore[arg-type]
    advised = json.loads(refusal.value.detail.partition("chat_template_kwargs ")[2].rstrip("."))
    assert PairTokenizer.open(tmp_path, template_kwargs=advised).encode_preference(ROW)  # type: ignore[arg-type]


def test_a_switch_that_does_not_help_is_not_advised(tmp_path: Path) -> None:
    switch = "enable_thinking is not defined or enable_thinking"
    template = THINKS_UNLESS_TOLD.replace(switch, "enable_thinking or true")
    with pytest.raises(UnencodableRow) as refusal:
        PairTokenizer.open(folder(tmp_path, template)).encode_preference(ROW)  # type: ignore[arg-type]
    assert "chat_template_kwargs" not in refusal.value.detail


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "enable_thoughts", "eos_token"])
def test_a_name_that_the_template_cannot_be_given_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnusableChatTemplate, match=f"'{name}'.*reads enable_thinking"):
        PairTokenizer.open(folder(tmp_path, QWEN_3), template_kwargs={name: False})


def test_nothing_given_leaves_the_digest_as_it_was(tmp_path: Path) -> None:
    model = folder(tmp_path, QWEN_3)
    plain, given = PairTokenizer.open(model), PairTokenizer.open(model, template_kwargs=OFF)
    assert plain.digest == PairTokenizer.open(model, template_kwargs={}).digest
    assert plain.digest != given.digest


def test_parts_in_other_processes_are_given_them_too(tmp_path: Path) -> None:
    tokenizer = PairTokenizer.open(folder(tmp_path / "m", THINKS_UNLESS_TOLD), template_kwargs=OFF)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(ROW | {"line": line}) + "\n" for line in range(1, 9)))
    summaries = [
        encode_file(
            rows, tokenizer, tmp_path / str(count), kind=DatasetKind.PREFERENCE, max_length=64, num_processes=count
        )
        for count in (1, 2)
    ]
    assert summaries[0] == summaries[1]
    assert summaries[0].num_rows == 8


def test_a_base_model_without_a_template_takes_none(tmp_path: Path) -> None:
    model = write_folder(tmp_path, byte_level(["<|endoftext|>"]), {"eos_token": "<|endoftext|>"}, None)
    with pytest.raises(UnusableChatTemplate, match="has no chat template"):
        PairTokenizer.open(model, template_kwargs=OFF)
