"""Conversion of a policy to GGUF by llama.cpp's converter: `python -m worker.processes.gguf_conversion <directory>`.

Runs with the converter's folder on its path: the converter brings a `gguf` of its own, newer than the package's. Reads
`export.json` (`ExportTask`), and writes `policy.gguf`, or `refused.txt` with a sentence for the user.
"""

import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.domain.exports import ExportFormat
from core.domain.typed_json import from_values
from core.tokenization.pair_tokenizer import PairTokenizer
from worker.processes.gguf_vocabulary import UnknownTokenizer, name_of_steps, write_vocabulary

TASK_FILE, GGUF_FILE, REFUSAL_FILE = "export.json", "policy.gguf", "refused.txt"
NICENESS = 5
"""Training comes first where both want the processor."""
_FILE_TYPES = {
    ExportFormat.GGUF_F32: "ALL_F32",
    ExportFormat.GGUF_F16: "MOSTLY_F16",
    ExportFormat.GGUF_Q8_0: "MOSTLY_Q8_0",
}


@dataclass(frozen=True, kw_only=True)
class ExportTask:
    """Task of the conversion process: plain values and local paths."""

    policy_dir: str
    format: ExportFormat
    name: str
    """Name of the model, as programs show it."""
    num_threads: int


def read_task(work_dir: Path) -> ExportTask:
    return from_values(ExportTask, json.loads((work_dir / TASK_FILE).read_text(encoding="utf-8")))


def sliding_window_of(config: dict[str, Any]) -> int | None:
    """Return the tokens that a token of some layer attends to at most; None where every layer attends to all."""
    window = config.get("sliding_window")
    layer_types = config.get("layer_types")
    if not isinstance(window, int) or config.get("use_sliding_window") is False:
        return None
    return None if layer_types and "sliding_attention" not in layer_types else window


def convert(task: ExportTask, target: Path) -> None:
    """Convert the policy; raises UnknownTokenizer."""
    conversion, gguf = importlib.import_module("conversion"), importlib.import_module("gguf")
    policy_dir = Path(task.policy_dir)
    hparams = _named_as_before(conversion.ModelBase.load_hparams(policy_dir, False))
    architecture = conversion.get_model_architecture(hparams, conversion.ModelType.TEXT)
    model_class = _with_our_vocabulary(conversion.get_model_class(architecture))
    file_type = gguf.LlamaFileType[_FILE_TYPES[task.format]]
    with torch.inference_mode():
        model_class(policy_dir, file_type, target, hparams=hparams, model_name=task.name).write()


def _named_as_before(hparams: dict[str, Any]) -> dict[str, Any]:
    """Add `n_ctx` for the converter, which newer configurations of GPT-2 do not repeat."""
    return {"n_ctx": hparams["n_positions"], **hparams} if "n_positions" in hparams else hparams


def _with_our_vocabulary(model_class: Any) -> Any:
    def set_vocab(model: Any) -> None:
        write_vocabulary(model)
        _name_ends_of_turn(model)

    def set_gguf_parameters(model: Any) -> None:
        model_class.set_gguf_parameters(model)
        _keep_within_window(model)

    members = {
        "model_arch": model_class.model_arch,
        "known_vocab_base_pre": model_class.get_vocab_base_pre,
        "get_vocab_base_pre": name_of_steps,
        "set_vocab": set_vocab,
        "set_gguf_parameters": set_gguf_parameters,
    }
    return type(model_class.__name__, (model_class,), members)


def _name_ends_of_turn(model: Any) -> None:
    """Name end tokens by id: llama.cpp recognises only well-known spellings, and takes two by id."""
    written = {key: entry.value for part in model.gguf_writer.kv_data for key, entry in part.items()}
    end_of_text = written.get("tokenizer.ggml.eos_token_id")
    others = [token for token in PairTokenizer.open(model.dir_model).eos_ids if token != end_of_text]
    for add, token in zip(
        (model.gguf_writer.add_eot_token_id, model.gguf_writer.add_eom_token_id), others, strict=False
    ):
        add(token)


def _keep_within_window(model: Any) -> None:
    """Limit the file's context to the sliding window, up to which it changes nothing.

    llama.cpp (xllamacpp 2026.10) uses none for the architectures that are exported: the converter writes no window for
    llama-like ones and qwen2, and that of phi3 is written and not used.
    """
    window = sliding_window_of(model.hparams)
    if window is not None and window < model.hparams["max_position_embeddings"]:
        model.gguf_writer.add_context_length(window)


def main(work_dir: Path) -> int:
    os.nice(NICENESS)
    task = read_task(work_dir)
    torch.set_num_threads(task.num_threads)
    try:
        convert(task, work_dir / GGUF_FILE)
    except UnknownTokenizer as refusal:
        (work_dir / REFUSAL_FILE).write_text(str(refusal), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
