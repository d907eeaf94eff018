"""Base-model folders with every kind of tokenizer and chat template that published models have, made here."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXT = (
    "The quick brown fox jumps over the lazy dog. What is the capital of France? The capital of France is Paris.",
    "You are a helpful assistant. Answer in one sentence, then add a tip. It costs $46 or 12,345 euros in total.",
    "user assistant system model tool <think> reasoning </think> end start turn header id INST SYS",
    "Über die Brücke gehen viele Leute; naïve café. 日本語のテキスト。",
)

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'"
    "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + message['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)


def special(token_id: int, content: str, **flags: bool) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content} | plain | flags


def byte_level(control: list[str]) -> dict[str, Any]:
    """GPT-2's kind: bytes, no space put before the first word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return json.loads(tokenizer.to_str())


def sentence_piece(*, legacy: bool | None) -> dict[str, Any]:
    """Llama 2's kind. A space before the first word: `legacy` by the normalizer, after every control token too; not
    `legacy` only at the start; None (Gemma's kind) never."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    parsed = json.loads(tokenizer.to_str())
    vocab = parsed["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if legacy is False:
        parsed["normalizer"] = None
        parsed["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    else:
        prepend = [{"type": "Prepend", "prepend": "▁"}] if legacy else []
        parsed["normalizer"] = {"type": "Sequence", "normalizers": [*prepend, replace]}
        parsed["pre_tokenizer"] = None
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    parsed["decoder"] = json.loads(tokenizer.to_str())["decoder"]
    return parsed


def add_control(tokenizer: dict[str, Any], *contents: str, **flags: bool) -> dict[str, Any]:
    """Appends control tokens behind the vocabulary, as fine-tuned models do."""
    vocab = tokenizer["model"]["vocab"]
    first = max([len(vocab), *(token["id"] + 1 for token in tokenizer["added_tokens"])])
    tokenizer["added_tokens"] += [special(first + place, text, **flags) for place, text in enumerate(contents)]
    return tokenizer


def starting_with(tokenizer: dict[str, Any], bos: str) -> dict[str, Any]:
    """Lets the tokenizer put `bos` before plain text."""
    token_id = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == bos)
    loaded = Tokenizer.from_str(json.dumps(tokenizer))
    loaded.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, token_id)])
    tokenizer["post_processor"] = json.loads(loaded.to_str())["post_processor"]
    return tokenizer


@dataclass(frozen=True)
class Kind:
    """A tokenizer with the chat template it is published with."""

    name: str
    make: Callable[[], dict[str, Any]]
    named: dict[str, str]
    template: str | None
    end: str
    """The token that ends an answer."""
    bos_per_prompt: int
    """Start tokens in a prompt of one user message."""


KINDS = (
    Kind(
        "qwen: no bos, pad differs from eos",
        lambda: byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        CHATML,
        "<|im_end|>",
        0,
    ),
    Kind(
        "smollm2: pad equals eos, bos opens every message",
        lambda: byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        CHATML,
        "<|im_end|>",
        2,
    ),
    Kind(
        "llama 3: template and tokenizer both write bos",
        lambda: starting_with(
            byte_level(
                ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
            ),
            "<|begin_of_text|>",
        ),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        LLAMA_3,
        "<|eot_id|>",
        1,
    ),
    Kind(
        "llama 2: legacy SentencePiece",
        lambda: starting_with(sentence_piece(legacy=True), "<s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        LLAMA_2,
        "</s>",
        1,
    ),
    Kind(
        "mistral: SentencePiece, space at the start only",
        lambda: starting_with(sentence_piece(legacy=False), "<s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        LLAMA_2,
        "</s>",
        1,
    ),
    Kind(
        "gemma: SentencePiece without a first space",
        lambda: starting_with(add_control(sentence_piece(legacy=None), "<start_of_turn>", "<end_of_turn>"), "<s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        GEMMA,
        "<end_of_turn>",
        1,
    ),
    Kind(
        "gpt-2: one control token, no template",
        lambda: byte_level(["<|endoftext|>"]),
        dict.fromkeys(["bos_token", "eos_token", "pad_token", "unk_token"], "<|endoftext|>"),
        None,
        "<|endoftext|>",
        0,
    ),
    Kind(
        "base llama: no template",
        lambda: starting_with(sentence_piece(legacy=True), "<s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        None,
        "</s>",
        1,
    ),
)
BY_NAME = {kind.name.partition(":")[0]: kind for kind in KINDS}


def write_folder(directory: Path, tokenizer: dict[str, Any], named: dict[str, str], template: str | None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | named
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if template is not None:
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each of `KINDS`, by the first word of its name."""
    root = tmp_path_factory.mktemp("tokenizers")
    return {
        name: write_folder(root / name.replace(" ", "-"), kind.make(), kind.named, kind.template)
        for name, kind in BY_NAME.items()
    }
