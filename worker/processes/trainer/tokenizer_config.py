"""`tokenizer_config.json` of a published policy, with which loaders give the ids that training used.

`tokenizer.json` alone decides how training splits text. Programs that load by transformers go by `tokenizer_class`
first: a class may put its own steps in the place of the file's (LlamaTokenizer in transformers 5), add a start token
(LlamaTokenizerFast, which transformers 4 takes where no class is named), or not exist there (TokenizersBackend).
`PreTrainedTokenizerFast` reads the file as it is, in transformers 4 and 5.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from core.base_models.folder import CONFIG_FILE, SIDE_FILES, TOKENIZER_FILE
from core.domain.dataset_rows import Message
from core.tokenization.errors import UnencodableRow, UnusableChatTemplate
from core.tokenization.model_files import read_tokenizer_files
from core.tokenization.pair_tokenizer import PairTokenizer

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
PLAIN_CLASS = "PreTrainedTokenizerFast"
_UNREADABLE_CLASSES = (None, "TokenizersBackend")
"""Classes for which transformers 4 takes another one, or fails."""
_TEXT = "Hi there, how are you?  It's 2026: f(x) = 1,250.75;\n\n\tÇa va très bien -- merci."


def published_tokenizer_config(model_dir: Path, tokenizer: PairTokenizer, *, needs_padding: bool = False) -> bytes:
    """Return the file to publish: the base model's own bytes where every loader gives training's ids.

    Args:
        needs_padding: name a padding token where the base model names none.
    """
    path = model_dir / TOKENIZER_CONFIG_FILE
    raw = path.read_bytes() if path.is_file() else b"{}"
    own: dict[str, Any] = json.loads(raw)
    config = _readable_by_transformers_4(model_dir, own)
    if needs_padding and not config.get("pad_token"):
        config["pad_token"] = tokenizer.show_tokens([tokenizer.padding_id])[0]
    expected = _expected_ids(tokenizer)
    if own.get("tokenizer_class") in _UNREADABLE_CLASSES or not _gives(model_dir, config, expected):
        plain = config | {"tokenizer_class": PLAIN_CLASS}
        config = plain if _gives(model_dir, plain, expected) else config
    return raw if config == own else json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"


def _readable_by_transformers_4(model_dir: Path, own: dict[str, Any]) -> dict[str, Any]:
    """Add what versions from 4.46 on need: template and named tokens inline, and no list of tokens."""
    files = read_tokenizer_files(model_dir)
    config = {**files.named_tokens, **own}
    if files.chat_template is not None and not config.get("chat_template"):
        config["chat_template"] = files.chat_template
    extra = config.get("extra_special_tokens")
    if isinstance(extra, list):
        del config["extra_special_tokens"]
        config["additional_special_tokens"] = [*config.get("additional_special_tokens", ()), *extra]
    return config


def _expected_ids(tokenizer: PairTokenizer) -> list[tuple[str, bool, list[int]]]:
    """Return (text, whether special tokens are added, ids of training) of rendered prompts or plain text."""
    if not tokenizer.has_chat_template:
        return [(_TEXT, True, tokenizer.encode_prompt(_TEXT))]
    question: Message = {"role": "user", "content": _TEXT}
    answer: Message = {"role": "assistant", "content": _TEXT}
    found = []
    for messages in ([question], [question, answer, question]):
        try:
            split = tokenizer.split(messages, [[answer]])
            ids, _ = tokenizer.encode_split(split)
        except (UnencodableRow, UnusableChatTemplate):  # not every template takes every conversation
            continue
        found.append((tokenizer.show_text(split.prompt), False, ids))
    return found


def _gives(model_dir: Path, config: dict[str, Any], expected: list[tuple[str, bool, list[int]]]) -> bool:
    """Whether this process's transformers reads those ids with that configuration."""
    with tempfile.TemporaryDirectory(prefix="preftune-tokenizer-") as name:
        folder = Path(name)
        for file in (CONFIG_FILE, TOKENIZER_FILE, *SIDE_FILES):
            if (model_dir / file).is_file():
                shutil.copyfile(model_dir / file, folder / file)
        (folder / TOKENIZER_CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
        try:
            loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            return all(loaded(text, add_special_tokens=adds)["input_ids"] == ids for text, adds, ids in expected)
        except Exception:  # noqa: BLE001 - a tokenizer class may fail in any way; then its file is not the one to publish
            return False
