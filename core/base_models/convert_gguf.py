"""`python -m core.base_models.convert_gguf <file.gguf> <folder>`: a GGUF file as a base model in bf16 safetensors.

A program of its own, because it loads torch.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.quantization_config import GgufConfig


def convert(gguf: Path, folder: Path, *, context_length: int, split_digits: bool) -> None:
    """Dequantise the weights once and save them with config, tokenizer and chat template."""
    # Without `dequantize` the model stays marked as quantised, and cannot be saved or trained.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        local_files_only=True,
    )
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True
    )
    if split_digits:
        steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)
    tokenizer.model_max_length = context_length
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name_plain_class(folder / "tokenizer_config.json")


def _name_plain_class(path: Path) -> None:
    """Write the class name that every release of transformers knows, and nothing of this machine."""
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key.endswith("_token") or key == "model_max_length"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | kept
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--context-length", type=int, required=True)
    parser.add_argument("--split-digits", action="store_true")
    given = parser.parse_args()
    convert(given.gguf, given.folder, context_length=given.context_length, split_digits=given.split_digits)


if __name__ == "__main__":
    main()
