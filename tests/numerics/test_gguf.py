"""Exports as llama.cpp itself reads them: the tokens of a text, and the log-probabilities that training gave them.

float16 keeps 11 bits of a weight and Q8_0 about 7, so single tokens differ from the float32 policy by up to 5e-3 and
0.1 nats here; a file read wrongly is off by more than that on average, which the last tests show.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, CONTEXT_LENGTH, write_tiny_tokenizer
from tiny_runs import RecordingObserver
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from trained_shapes import SHAPES, make_plan
from transformers import AutoConfig, AutoModelForCausalLM

from core.domain.exports import GGUF_ARCHITECTURES, ExportFormat
from core.training.pipeline import run
from core.training.plan import LoraPlan
from worker.light.exports import find_converter
from worker.processes.gguf_check import ReadOtherwise, check
from worker.processes.gguf_conversion import ExportTask, sliding_window_of

LARGEST = {ExportFormat.GGUF_F32: 5e-3, ExportFormat.GGUF_F16: 5e-3, ExportFormat.GGUF_Q8_0: 0.1}
OTHERS: dict[str, dict[str, Any]] = {
    name: CONFIGS["llama"] | {"sliding_window": CONTEXT_LENGTH, "pad_token_id": 0} | changes
    for name, changes in {"mistral": {"sliding_window": None}, "qwen3": {}, "phi3": {}}.items()
}
WINDOW = 64
CONVERT_ALL = """
import sys
from pathlib import Path
from worker.processes.gguf_conversion import main
sys.exit(sum(main(Path(folder)) for folder in sys.argv[1:]))
"""


def trained_policy(directory: Path, architecture: str, lora: LoraPlan | None) -> Path:
    policy_dir = run(make_plan(directory, architecture, lora), RecordingObserver()).policy_dir
    write_tiny_tokenizer(policy_dir)
    return policy_dir


def fresh_model(
    directory: Path, architecture: str, vocab_size: int = 320, seed: int = 0, window: int | None = None
) -> Path:
    """Weights large enough that two models differ."""
    values = OTHERS.get(architecture, CONFIGS["llama"]) | ({} if window is None else {"sliding_window": window})
    config = AutoConfig.for_model(architecture, vocab_size=vocab_size, **values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(directory)
    return directory


def write_sentence_pieces(directory: Path) -> int:
    """A tokenizer as Llama 2's and Gemma's: spaces become a letter, unknown characters bytes; returns its size."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?=▁)"), "isolated")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=tokens, show_progress=False)
    tokenizer.train_from_iterator(
        ["the policy reads as before, the tokens are the same as they were before it"], trainer
    )
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = values["added_tokens"][:3]  # bytes are tokens of the vocabulary, not control tokens
    values["pre_tokenizer"] = None
    (directory / "tokenizer.json").write_text(json.dumps(values))
    return len(values["model"]["vocab"])


def rename_ends(policy_dir: Path) -> Path:
    """Ends of turns that no program knows by their spelling, and another token at the end of a text."""
    for path in (policy_dir / "tokenizer.json", policy_dir / "chat_template.jinja"):
        path.write_text(path.read_text().replace("<|im_end|>", "<|fin|>"))
    config = json.loads((policy_dir / "tokenizer_config.json").read_text()) | {"eos_token": "<|endoftext|>"}
    (policy_dir / "tokenizer_config.json").write_text(json.dumps(config))
    return policy_dir


def add_task(work_dir: Path, policy_dir: Path, export_format: ExportFormat) -> ExportTask:
    task = ExportTask(policy_dir=str(policy_dir), format=export_format, name="tiny", num_threads=1)
    work_dir.mkdir()
    (work_dir / "export.json").write_text(json.dumps(dataclasses.asdict(task)))
    return task


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ExportFormat], tuple[ExportTask, Path]]:
    """All converted by one process, as the light lane starts it for each."""
    folder = tmp_path_factory.mktemp("exports")
    policies = {name: trained_policy(folder / name, name, None) for name in SHAPES}
    lora = LoraPlan(rank=4, alpha=16)
    policies |= {f"{name} lora": trained_policy(folder / f"{name}-lora", name, lora) for name in ("llama", "gpt2")}
    policies |= {name: write_tiny_tokenizer(fresh_model(folder / name, name)) for name in OTHERS}
    policies |= {
        f"{name} window": write_tiny_tokenizer(fresh_model(folder / f"{name}-window", name, window=WINDOW))
        for name in ("mistral", "phi3")
    }
    policies["odd ends"] = rename_ends(write_tiny_tokenizer(fresh_model(folder / "odd-ends", "llama")))
    (folder / "pieces").mkdir()
    size = write_sentence_pieces(folder / "pieces")
    policies["sentence pieces"] = fresh_model(folder / "pieces", "llama", size)
    policies["unknown steps"] = shutil.copytree(policies["llama"], folder / "unknown")
    odd = json.loads((folder / "unknown" / "tokenizer.json").read_text())
    odd["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, odd["pre_tokenizer"]]}
    (folder / "unknown" / "tokenizer.json").write_text(json.dumps(odd))
    made = {}
    for name, policy_dir in policies.items():
        for export_format in ExportFormat:
            work_dir = folder / f"{name}.{export_format.value}"
            made[name, export_format] = (add_task(work_dir, policy_dir, export_format), work_dir)
    converter = find_converter(None)
    assert converter is not None, "make venv brings the converter"
    command = [sys.executable, "-P", "-c", CONVERT_ALL, *(str(work_dir) for _, work_dir in made.values())]
    environment = os.environ | {"PYTHONPATH": str(converter), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return made


def test_llama_cpp_reads_the_policy_that_was_trained(exported: Any) -> None:
    architectures = set()
    for (name, export_format), (task, work_dir) in exported.items():
        if name == "unknown steps":
            continue
        architectures.add(json.loads((Path(task.policy_dir) / "config.json").read_text())["architectures"][0])
        found = check(task, work_dir / "policy.gguf")
        assert found.num_tokens > 40, name
        assert found.max_difference < LARGEST[export_format], (name, export_format, found)
        assert found.mean_difference < LARGEST[export_format] / 5, (name, export_format, found)
    assert architectures == GGUF_ARCHITECTURES


def test_a_tokenizer_that_llama_cpp_lacks_is_refused(exported: Any) -> None:
    _, work_dir = exported["unknown steps", ExportFormat.GGUF_F16]
    assert "does not know how this tokenizer splits" in (work_dir / "refused.txt").read_text()
    assert not (work_dir / "policy.gguf").exists()


def test_a_file_of_another_policy_is_refused(exported: Any, tmp_path: Path) -> None:
    task, work_dir = exported["mistral", ExportFormat.GGUF_F16]
    other = write_tiny_tokenizer(fresh_model(tmp_path / "other", "mistral", seed=1))
    with pytest.raises(ReadOtherwise, match="other log-probabilities"):
        check(dataclasses.replace(task, policy_dir=str(other)), work_dir / "policy.gguf")
    spaced = json.loads((other / "tokenizer.json").read_text())
    spaced["pre_tokenizer"]["add_prefix_space"] = True
    (other / "tokenizer.json").write_text(json.dumps(spaced))
    with pytest.raises(ReadOtherwise, match="other tokens"):
        check(dataclasses.replace(task, policy_dir=str(other)), work_dir / "policy.gguf")


@pytest.mark.parametrize("architecture", ["mistral", "phi3"])
def test_the_context_ends_with_the_window_that_llama_cpp_does_not_have(exported: Any, architecture: str) -> None:
    task, work_dir = exported[f"{architecture} window", ExportFormat.GGUF_F16]
    found = check(task, work_dir / "policy.gguf")
    assert found.context_length == WINDOW
    assert found.num_tokens < WINDOW, "beyond it, llama.cpp would attend to more"
    task, work_dir = exported[architecture, ExportFormat.GGUF_F16]
    assert check(task, work_dir / "policy.gguf").context_length == CONTEXT_LENGTH


@pytest.mark.parametrize("architecture", ["mistral", "phi3"])
def test_a_file_that_claims_more_than_the_window_is_refused(exported: Any, tmp_path: Path, architecture: str) -> None:
    task, work_dir = exported[architecture, ExportFormat.GGUF_F16]
    policy = shutil.copytree(task.policy_dir, tmp_path / "policy")
    config = json.loads((policy / "config.json").read_text()) | {"sliding_window": WINDOW}
    (policy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ReadOtherwise, match="all 512 tokens where the policy attends to 64"):
        check(dataclasses.replace(task, policy_dir=str(policy)), work_dir / "policy.gguf")


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({}, None),
        ({"sliding_window": None}, None),
        ({"sliding_window": 64}, 64),
        ({"sliding_window": 64, "use_sliding_window": False}, None),
        ({"sliding_window": 64, "use_sliding_window": True, "layer_types": ["full_attention"]}, None),
        ({"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}, 64),
    ],
)
def test_whether_a_layer_has_a_window(config: dict[str, Any], window: int | None) -> None:
    assert sliding_window_of(config) == window


def test_llama_cpp_stops_where_turns_were_trained_to_end(exported: Any, tmp_path: Path) -> None:
    task, work_dir = exported["odd ends", ExportFormat.GGUF_F16]
    assert check(task, work_dir / "policy.gguf").end_token_ids == [2, 0]
    task, work_dir = exported["llama", ExportFormat.GGUF_F16]
    policy = shutil.copytree(task.policy_dir, tmp_path / "policy")
    template = (policy / "chat_template.jinja").read_text().replace("<|im_end|>", "<|im_start|>")
    (policy / "chat_template.jinja").write_text(template)
    with pytest.raises(ReadOtherwise, match="does not stop"):
        check(dataclasses.replace(task, policy_dir=str(policy)), work_dir / "policy.gguf")


def test_the_file_holds_what_its_format_says(exported: Any) -> None:
    sizes = {
        export_format: (exported["llama", export_format][1] / "policy.gguf").stat().st_size
        for export_format in ExportFormat
    }
    assert sizes[ExportFormat.GGUF_F32] > 1.7 * sizes[ExportFormat.GGUF_F16]
    assert sizes[ExportFormat.GGUF_Q8_0] < 0.85 * sizes[ExportFormat.GGUF_F16]
    assert np.isfinite(list(sizes.values())).all()
