"""No control token comes from the text of a row, whatever the text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.tokenization.control_tokens import ControlTokens
from core.tokenization.errors import ControlTokenInText
from core.tokenization.pair_tokenizer import PairTokenizer

from .conftest import BY_NAME, CHATML, byte_level, special, write_folder

KIND_NAMES = tuple(BY_NAME)
BENIGN = "fox"


def control_ids(tokenizer: PairTokenizer, ids: list[int]) -> list[int]:
    names = set(tokenizer._control.ids)
    return [token for token, shown in zip(ids, tokenizer.show_tokens(ids), strict=True) if shown in names]


def look_alikes(tokenizer: PairTokenizer) -> list[str]:
    names = list(tokenizer._control.ids)
    found = []
    for name in names:
        found += [name, f"a {name} b", name * 3, f"{name[0]}{name}{name[1:]}", name[:-1], name[1:], f" {name}\n"]
    return [*found, "".join(names), "".join(name[:2] for name in names)]


@pytest.mark.parametrize("name", KIND_NAMES)
def test_look_alikes_are_plain_text(model_dirs: dict[str, Path], name: str) -> None:
    tokenizer = PairTokenizer.open(model_dirs[name])
    plain = tokenizer.encode_preference({"line": 1, "prompt": BENIGN, "chosen": BENIGN, "rejected": BENIGN})
    for text in look_alikes(tokenizer):
        row = {"line": 1, "prompt": text, "chosen": text, "rejected": f"x{text}"}
        encoded = tokenizer.encode_preference(row)
        for ids, expected in (
            (encoded.prompt_ids, plain.prompt_ids),
            (encoded.chosen_ids, plain.chosen_ids),
            (encoded.rejected_ids, plain.rejected_ids),
        ):
            assert control_ids(tokenizer, ids) == control_ids(tokenizer, expected), text
        assert tokenizer.decode(encoded.chosen_ids).strip() == text.strip()


@pytest.mark.parametrize("name", ["qwen", "llama 3"])
def test_header_in_a_role_is_plain_text(model_dirs: dict[str, Path], name: str) -> None:
    tokenizer = PairTokenizer.open(model_dirs[name])
    expected = control_ids(tokenizer, tokenizer.encode_prompt([{"role": "user", "content": BENIGN}]))
    hostile = "user" + "".join(tokenizer._control.ids)
    found = tokenizer.encode_prompt([{"role": hostile, "content": BENIGN}])
    assert control_ids(tokenizer, found) == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("<|>im_endstartu/s[]INST \n\ue000\ue001\ue002\ue0030123"), max_size=40))
def test_no_text_makes_a_control_token(text: str, model_dirs: dict[str, Path]) -> None:
    tokenizer = PairTokenizer.open(model_dirs["smollm2"])
    plain = tokenizer.encode_preference({"line": 1, "prompt": BENIGN, "chosen": BENIGN, "rejected": BENIGN})
    row = {"line": 1, "prompt": [{"role": "user", "content": text}], "chosen": [], "rejected": []}
    row["chosen"] = row["rejected"] = [{"role": "assistant", "content": text}]
    encoded = tokenizer.encode_preference(row)
    assert control_ids(tokenizer, encoded.prompt_ids) == control_ids(tokenizer, plain.prompt_ids)
    assert control_ids(tokenizer, encoded.chosen_ids) == control_ids(tokenizer, plain.chosen_ids)
    assert tokenizer.decode(encoded.chosen_ids) == text


def test_template_cannot_complete_a_part_of_a_control_token(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_' + m['content'] + 'end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    control = ["<|im_start|>", "<|im_end|>"]
    tokenizer = PairTokenizer.open(write_folder(tmp_path, byte_level(control), {"eos_token": "<|im_end|>"}, template))
    for text in ("start|>", "<|im_", "e", "n<|im_", "|"):
        assert control_ids(tokenizer, tokenizer.encode_prompt([{"role": "user", "content": text}])) == []


def test_declared_control_token_that_plain_text_gives_is_kept_apart(tmp_path: Path) -> None:
    """In a word-piece style vocabulary `</s>` is a piece like any other, which text could reach."""
    vocab = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], *[[piece, -2.0] for piece in "<>/sab▁"]]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
        "post_processor": None,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False},
    }
    opened = PairTokenizer.open(write_folder(tmp_path, tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}, None))
    ids = opened.encode_preference({"line": 1, "prompt": "a", "chosen": "b</s>a", "rejected": "b"}).chosen_ids
    assert ids.count(2) == 1
    assert opened.show_tokens(ids) == ["b", "<", "/", "s", ">", "a", "</s>"]


def test_tokenizer_that_loses_a_control_token_of_the_template_is_noticed(tmp_path: Path) -> None:
    tokenizer = byte_level(["<|im_start|>", "<|im_end|>"])
    for token in tokenizer["added_tokens"]:
        token["single_word"] = True  # so not between letters, where this template writes it
    folder = write_folder(tmp_path, tokenizer, {"eos_token": "<|im_end|>"}, CHATML)
    with pytest.raises(ControlTokenInText):
        PairTokenizer.open(folder).encode_prompt([{"role": "user", "content": "fox"}])


def test_vocabulary_in_angle_brackets_stays_vocabulary(tmp_path: Path) -> None:
    """`<think>` is an added token too, but one that answers are made of."""
    tokenizer = byte_level(["<|im_start|>", "<|im_end|>"])
    tokenizer["added_tokens"] += [special(420, "<think>", special=False), special(421, "</think>", special=False)]
    opened = PairTokenizer.open(write_folder(tmp_path, tokenizer, {"eos_token": "<|im_end|>"}, CHATML))
    row = {"line": 1, "prompt": "a", "chosen": "<think>fox</think>dog", "rejected": "b"}
    ids = opened.encode_preference(row).chosen_ids
    assert ids[0] == 420
    assert 421 in ids


def test_delimiters_of_the_template_are_control_tokens_even_if_not_declared_special() -> None:
    tokenizer = {
        "added_tokens": [special(5, "<|user|>", special=False), special(6, "<|other|>", special=False)],
        "model": {"vocab": {"</s>": 1}},
    }
    control = ControlTokens.find(tokenizer, {"eos_token": "</s>"}, "<|user|>{{ messages[0]['content'] }}")
    assert control.ids == {"<|user|>": 5, "</s>": 1}


def test_secrets_differ_from_process_to_process() -> None:
    tokenizer = {"added_tokens": [special(1, "</s>")], "model": {"vocab": {}}}
    made = {ControlTokens.find(tokenizer, {}, None).nonce for _ in range(20)}
    assert len(made) == 20
