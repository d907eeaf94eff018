"""Pairs for the benchmarks: a file's first ones, or made-up ones of exact lengths."""

import json
import random
import sys
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

TURN = "\n\nAssistant:"
LENGTHS = {"128-64": (128, 64), "512-128": (512, 128), "100-400": (100, 400)}
"""Tokens of the prompt, and of each response with its end token."""
Pair = dict[str, str]


def read_pairs(path: Path, count: int) -> list[Pair]:
    """prompt, chosen, rejected, of messages the last one's text; or transcripts in the style of hh-rlhf."""
    rows: list[Pair] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "prompt" not in row:
                cut = row["chosen"].rfind(TURN) + len(TURN)
                row = {"prompt": row["chosen"][:cut], "chosen": row["chosen"][cut:], "rejected": row["rejected"][cut:]}
            rows.append({key: _plain(row[key]) for key in ("prompt", "chosen", "rejected")})
            if len(rows) == count:
                return rows
    sys.exit(f"{path.name} has {len(rows)} pairs, {count} are needed")


def _plain(value: str | list[dict[str, str]]) -> str:
    return value if isinstance(value, str) else value[-1]["content"]


def make_pairs(model_dir: Path, prompt_tokens: int, response_tokens: int, count: int) -> list[Pair]:
    """Random words of one token each: the texts have exactly these lengths, whoever tokenises them."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    words = one_token_words(tokenizer)
    draw = random.Random(0)

    def text(num_tokens: int) -> str:
        return "".join(draw.choices(words, k=num_tokens))

    pairs = [
        {"prompt": text(prompt_tokens), "chosen": text(response_tokens - 1), "rejected": text(response_tokens - 1)}
        for _ in range(count)
    ]
    found = len(tokenizer(pairs[0]["prompt"] + pairs[0]["chosen"], add_special_tokens=False)["input_ids"])
    assert found == prompt_tokens + response_tokens - 1, f"{found} tokens"
    return pairs


def one_token_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Lower-case words that are one token with the space before them."""
    words = (tokenizer.decode([token]) for token in range(1000, 8000))
    plain = sorted({word for word in words if word[:1] == " " and word[1:].isascii() and word[1:].isalpha()})
    return [
        word for word in plain if word.islower() and len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1
    ]


def warm_up_pairs(count: int) -> list[Pair]:
    """Short ones for the first step, which is not counted."""
    return [{"prompt": f"Question {i}:", "chosen": " Yes, it is.", "rejected": " No."} for i in range(count)]
