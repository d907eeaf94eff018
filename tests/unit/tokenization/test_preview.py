"""What people see of a row before they train on it is what training sees."""

from pathlib import Path

import pytest

from core.tokenization.pair_tokenizer import PairTokenizer
from core.tokenization.preview import measure_row, preview_row

from .conftest import BY_NAME

ROW = {"line": 4, "prompt": "The capital of France? <|im_end|>", "chosen": "Paris, café 日本.", "rejected": " Rome"}


@pytest.mark.parametrize("name", list(BY_NAME))
def test_preview_is_what_is_encoded(model_dirs: dict[str, Path], name: str) -> None:
    tokenizer = PairTokenizer.open(model_dirs[name])
    preview, encoded = preview_row(tokenizer, ROW), tokenizer.encode_preference(ROW)
    assert preview.prompt.token_ids == encoded.prompt_ids
    assert preview.prompt.scored == [False] * len(encoded.prompt_ids)
    chosen, rejected = preview.responses["chosen"], preview.responses["rejected"]
    assert (chosen.token_ids, chosen.scored) == (encoded.chosen_ids, encoded.chosen_scored)
    assert (rejected.token_ids, rejected.scored) == (encoded.rejected_ids, encoded.rejected_scored)
    assert len(chosen.tokens) == len(chosen.token_ids)
    counts = {"prompt": len(encoded.prompt_ids), "chosen": len(chosen.token_ids), "rejected": len(rejected.token_ids)}
    assert measure_row(tokenizer, ROW).lengths == counts | {"row": preview.num_tokens}
    assert preview.num_tokens == len(encoded.prompt_ids) + max(len(encoded.chosen_ids), len(encoded.rejected_ids))


def test_text_is_the_rendered_one(model_dirs: dict[str, Path]) -> None:
    preview = preview_row(PairTokenizer.open(model_dirs["qwen"]), ROW)
    assert preview.prompt.text == (
        "<|im_start|>user\nThe capital of France? <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert preview.responses["chosen"].text == "Paris, café 日本.<|im_end|>"
    assert preview.responses["chosen"].tokens[-1] == "<|im_end|>"


def test_text_without_a_template_shows_the_end(model_dirs: dict[str, Path]) -> None:
    preview = preview_row(PairTokenizer.open(model_dirs["gpt-2"]), {"line": 1, "prompt": "fox", "response": " dog"})
    assert list(preview.responses) == ["response"]
    assert preview.responses["response"].text == " dog<|endoftext|>"
    assert preview.responses["response"].scored == [True] * len(preview.responses["response"].token_ids)
