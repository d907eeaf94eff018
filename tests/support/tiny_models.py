"""Makes complete base-model folders, small enough that a test can train them: random weights, a byte-level tokenizer.

Dropout is above zero in every configuration, as in many published ones: what must not depend on it is then tested.
"""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% if m['role'] == 'assistant' %}"
    "{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
VOCAB_SIZE = 320
CONTEXT_LENGTH = 512
DROPOUT = 0.1

_TEXT = (
    "The quick brown fox jumps over the lazy dog while the small model learns to answer in one short sentence.",
    "How do I keep the house style? Say what to do first, then add one tip that the reader can use.",
    "A preference is a prompt with two responses: the chosen one is better than the rejected one.",
)
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_GROUPED = _SIZES | {"num_key_value_heads": 2, "head_dim": 8, "attention_dropout": DROPOUT}
_POSITIONS = {"max_position_embeddings": CONTEXT_LENGTH}
CONFIGS: dict[str, dict[str, object]] = {
    "llama": _GROUPED | _POSITIONS,
    "mistral": _GROUPED | _POSITIONS | {"sliding_window": None},
    "qwen2": _GROUPED | _POSITIONS,
    "gemma": _GROUPED | _POSITIONS,
    "gpt_neox": _SIZES | _POSITIONS | {"hidden_dropout": DROPOUT, "attention_dropout": DROPOUT},
    "gpt2": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": CONTEXT_LENGTH,
        "resid_pdrop": DROPOUT,
        "embd_pdrop": DROPOUT,
        "attn_pdrop": DROPOUT,
    },
}
"""What each architecture is made with; all have `VOCAB_SIZE` tokens."""


def make_tiny_model(directory: Path, architecture: str = "llama", seed: int = 0) -> Path:
    """Writes a base model of some ten thousand float32 parameters into `directory`, and returns it.

    The same architecture and seed give the same bytes. The global random state stays as it was.
    """
    shutil.copytree(_tiny_model(architecture, seed), directory, dirs_exist_ok=True)
    return directory


@cache
def _tiny_model(architecture: str, seed: int) -> Path:
    """To be copied; it goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="preftune-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    directory = folder / "model"
    directory.mkdir()
    write_tiny_tokenizer(directory)
    tokens = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(architecture, vocab_size=VOCAB_SIZE, **tokens, **CONFIGS[architecture])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(directory)
    return directory


def write_tiny_tokenizer(directory: Path, chat_template: str | None = CHATML) -> Path:
    """Writes a byte-level tokenizer that encodes any text: ids 0-2 are control tokens, `<|im_end|>` ends a turn."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END_OF_TEXT,
        "model_max_length": CONTEXT_LENGTH,
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    if chat_template is not None:
        (directory / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    return directory


def write_llama_2_tokenizer(directory: Path, **config: object) -> None:
    """A tokenizer.json as converted from SentencePiece: a normaliser puts a space before the first word."""
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(
        ["user: how do I keep the house style? user how assistant: say what to do"] * 3, trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:3]  # bytes are no control tokens
    (directory / "tokenizer.json").write_text(json.dumps(document))
    (directory / "tokenizer_config.json").write_text(json.dumps(named | config))
    (directory / "chat_template.jinja").write_text(LLAMA_2_TEMPLATE)
