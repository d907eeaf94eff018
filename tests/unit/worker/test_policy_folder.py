"""What completes a policy's folder: the tokenizer as loaders read it, processors' files, the base model's name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from tiny_models import CHATML, LLAMA_2_TEMPLATE, START, make_tiny_model, write_llama_2_tokenizer, write_tiny_tokenizer
from transformers import AutoTokenizer

from core.base_models.errors import RemoteCodeRefused
from core.base_models.folder import PROCESSOR_FILES, inspect
from core.base_models.manifest import describe, write_manifest
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.model.adapters.adapter_files import save_adapter
from core.training.model.adapters.adapters import LoraConfig, inject
from core.training.model.loading import load_causal_lm
from core.training.model.policies import ADAPTER_DIR
from worker.processes.trainer.policy_folder import PolicyFolder

MESSAGES = [{"role": "user", "content": "How do I keep the house style?"}]


def complete(base: Path, policy: Path, *, name: str = "tiny") -> dict[str, Any]:
    """The policy's tokenizer_config.json after completion."""
    policy.mkdir(exist_ok=True)
    if not (policy / "config.json").exists():
        (policy / "config.json").write_bytes((base / "config.json").read_bytes())
    PolicyFolder(base, name, PairTokenizer.open(base)).complete(policy)
    values: dict[str, Any] = json.loads((policy / "tokenizer_config.json").read_text(encoding="utf-8"))
    return values


def prompt_ids(folder: Path) -> list[int]:
    """As who loads the folder by transformers prompts the policy."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids: list[int] = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
    return ids


def trained_ids(base: Path) -> list[int]:
    return PairTokenizer.open(base).encode_prompt([{"role": "user", "content": MESSAGES[0]["content"]}])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "models" / "tiny")


def test_a_class_that_reads_other_ids_is_not_published(base: Path, tmp_path: Path) -> None:
    write_llama_2_tokenizer(base, tokenizer_class="LlamaTokenizer", legacy=False)
    assert prompt_ids(base) != trained_ids(base), "transformers 5 puts steps of its own in the place of the file's"
    config = complete(base, tmp_path / "policy")
    assert prompt_ids(tmp_path / "policy") == trained_ids(base)
    assert (config["tokenizer_class"], config["legacy"]) == ("PreTrainedTokenizerFast", False)
    assert (tmp_path / "policy" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_a_class_that_transformers_4_does_not_know_is_not_published(base: Path, tmp_path: Path) -> None:
    extra = {"backend": "tokenizers", "extra_special_tokens": ["<unk>"]}
    write_llama_2_tokenizer(base, tokenizer_class="TokenizersBackend", **extra)
    config = complete(base, tmp_path / "policy")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" not in config, "a list there stops transformers 4"
    assert config["additional_special_tokens"] == ["<unk>"]
    assert config["chat_template"] == LLAMA_2_TEMPLATE, "where transformers 4.46 looks for it"
    assert prompt_ids(tmp_path / "policy") == trained_ids(base)


def test_no_class_named_is_not_left_to_the_loader(base: Path, tmp_path: Path) -> None:
    """transformers 4 takes the architecture's, which adds a start token to a byte-level tokenizer."""
    config = {key: value for key, value in complete(base, tmp_path / "first").items() if key != "tokenizer_class"}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    assert complete(base, tmp_path / "policy")["tokenizer_class"] == "PreTrainedTokenizerFast"
    (base / "tokenizer_config.json").unlink()
    (base / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|im_end|>"}}))
    config = complete(base, tmp_path / "no-file")
    assert (config["tokenizer_class"], config["eos_token"]) == ("PreTrainedTokenizerFast", "<|im_end|>")
    assert prompt_ids(tmp_path / "no-file") == trained_ids(base)


def test_a_class_that_adds_the_start_token_of_training_stays(base: Path, tmp_path: Path) -> None:
    """Without a template the start token is asked for by the configuration, and the plain class would not add it."""
    write_tiny_tokenizer(base, chat_template=None)
    (base / "chat_template.jinja").unlink()
    own = {"eos_token": "<|im_end|>", "bos_token": START, "add_bos_token": True}
    (base / "tokenizer_config.json").write_text(json.dumps(own | {"tokenizer_class": "GPT2Tokenizer"}))
    assert complete(base, tmp_path / "policy")["tokenizer_class"] == "GPT2Tokenizer"


def test_where_nothing_is_wrong_the_file_stays_as_it_was(base: Path, tmp_path: Path) -> None:
    (base / "chat_template.jinja").unlink()
    config = json.loads((base / "tokenizer_config.json").read_text()) | {"chat_template": CHATML}
    raw = json.dumps(config, indent=7).encode()
    (base / "tokenizer_config.json").write_bytes(raw)
    complete(base, tmp_path / "policy")
    assert (tmp_path / "policy" / "tokenizer_config.json").read_bytes() == raw
    assert (tmp_path / "policy" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_a_policy_is_a_base_model_of_the_same_ids(base: Path, tmp_path: Path) -> None:
    write_llama_2_tokenizer(base, tokenizer_class="LlamaTokenizer")
    first = complete(base, tmp_path / "first")
    assert complete(tmp_path / "first", tmp_path / "second") == first
    assert trained_ids(tmp_path / "first") == trained_ids(base)


def test_processors_files_go_along_and_bring_no_code(base: Path, tmp_path: Path) -> None:
    for name in PROCESSOR_FILES:
        (base / name).write_text(json.dumps({"image_processor_type": "Gemma3ImageProcessor"}))
    complete(base, tmp_path / "policy")
    assert all((tmp_path / "policy" / name).read_bytes() == (base / name).read_bytes() for name in PROCESSOR_FILES)
    (base / PROCESSOR_FILES[0]).write_text(json.dumps({"auto_map": {"AutoProcessor": "code.Processor"}}))
    with pytest.raises(RemoteCodeRefused, match=PROCESSOR_FILES[0]):
        inspect(base)


def save_policy_with_adapter(base: Path, policy: Path) -> None:
    model = load_causal_lm(base, dtype=torch.float32)
    config = LoraConfig(rank=2, alpha=4.0)
    inject(model, config, seed=0)
    save_adapter(model, config, policy / ADAPTER_DIR)


def test_the_adapter_names_its_base_and_peft_loads_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy"
    save_policy_with_adapter(base, policy)
    complete(base, policy)
    config = json.loads((policy / ADAPTER_DIR / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("tiny", None)
    monkeypatch.chdir(base.parent)
    loaded = AutoPeftModelForCausalLM.from_pretrained(policy / ADAPTER_DIR)
    assert loaded.peft_config["default"].r == 2


def test_the_adapter_names_the_hubs_repository_and_commit(base: Path, tmp_path: Path) -> None:
    write_manifest(base, describe(base, source="hub:org/some-model", revision="5" * 40))
    policy = tmp_path / "policy"
    save_policy_with_adapter(base, policy)
    complete(base, policy)
    config = json.loads((policy / ADAPTER_DIR / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/some-model", "5" * 40)


def test_the_adapter_names_the_policy_that_it_started_from(base: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    save_policy_with_adapter(base, policy)
    complete(base, policy, name="job_abc@ckpt_1")
    config = json.loads((policy / ADAPTER_DIR / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "job_abc@ckpt_1"
