"""Pairs for the benchmarks: a file's first ones, or made-up ones of exact lengths."""

import json
import random
import sys
import tempfile
from itertools import combinations
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from core.datasets.check.check import check_file
from core.datasets.options import CheckOptions
from core.datasets.result import ROWS_FILE

TURN = "\n\nAssistant:"
LENGTHS = {"128-64": (128, 64), "512-128": (512, 128), "100-400": (100, 400)}
"""Tokens of the prompt, and of each response with its end token."""
RANKED = {"ranked-4": 4, "ranked-7": 7}
"""Answers to a prompt, of which every two make a pair."""
RANKED_TOKENS = (100, 300)
SYSTEM_TOKENS = 300
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


def ranked_pairs(model_dir: Path, texts: list[Pair], num_answers: int, count: int) -> list[Pair]:
    """Return the pairs of whole ranked lists, built from the texts of pairs: every list has a prompt of its own.

    Prompts of 100 tokens, answers of 300 with their end token, in the tokens of this model.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    words = tokenizer(" ".join(text for pair in texts for text in pair.values()), add_special_tokens=False)["input_ids"]
    prompt_tokens, answer_tokens = RANKED_TOKENS
    pairs: list[Pair] = []
    for start in range(0, len(words), prompt_tokens + num_answers * answer_tokens):
        if len(pairs) >= count:
            return pairs[:count]
        prompt = tokenizer.decode(words[start : start + prompt_tokens])
        first = start + prompt_tokens
        answers = [
            tokenizer.decode(words[first + place * answer_tokens :][: answer_tokens - 1])
            for place in range(num_answers)
        ]
        pairs += [{"prompt": prompt, "chosen": one, "rejected": two} for one, two in combinations(answers, 2)]
    sys.exit(f"the texts are too few for {count} pairs")


def ranked_file(path: Path, count: int) -> list[Pair]:
    """Return the pairs of the first ranked lists of a file, as an upload of it reads them, prompt by prompt."""
    with tempfile.TemporaryDirectory() as folder:
        check_file(path, CheckOptions(), Path(folder))
        rows = [json.loads(line) for line in Path(folder, ROWS_FILE).read_text(encoding="utf-8").splitlines()]
    by_prompt: dict[str, list[Pair]] = {}
    for row in rows:
        pair = {key: _transcript(row[key]) for key in ("prompt", "chosen", "rejected")}
        by_prompt.setdefault(pair["prompt"], []).append(pair)
    pairs = [pair for group in by_prompt.values() for pair in group]
    if len(pairs) < count:
        sys.exit(f"{path.name} has {len(pairs)} pairs, {count} are needed")
    return pairs[:count]


def _transcript(value: str | list[dict[str, str]]) -> str:
    """Return messages as one text in the style of hh-rlhf."""
    if isinstance(value, str):
        return value
    asked = ("user", "system")
    return "".join(
        f"\n\nHuman: {message['content']}{TURN} " if message["role"] in asked else message["content"]
        for message in value
    )


def with_system_prompt(model_dir: Path, pairs: list[Pair]) -> list[Pair]:
    """Return the pairs with the same 300 tokens before every prompt."""
    words = one_token_words(AutoTokenizer.from_pretrained(model_dir))
    system = "".join(random.Random(1).choices(words, k=SYSTEM_TOKENS))
    return [pair | {"prompt": system + pair["prompt"]} for pair in pairs]


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
