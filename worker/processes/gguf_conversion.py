"""`python -m worker.processes.gguf_conversion <work directory>`: a policy as a GGUF file, by llama.cpp's own converter.

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
from worker.processes.gguf_vocabulary import UnknownTokenizer, name_of_steps, write_vocabulary

TASK_FILE, GGUF_FILE, REFUSAL_FILE = "export.json", "policy.gguf", "refused.txt"
NICENESS = 5
"""Training comes first where both want the processor."""
_FILE_TYPES = {ExportFormat.GGUF_F16: "MOSTLY_F16", ExportFormat.GGUF_Q8_0: "MOSTLY_Q8_0"}


@dataclass(frozen=True, kw_only=True)
class ExportTask:
    """Plain values and local paths."""

    policy_dir: str
    format: ExportFormat
    name: str
    """Of the model, as programs show it."""
    num_threads: int


def read_task(work_dir: Path) -> ExportTask:
    values = json.loads((work_dir / TASK_FILE).read_text(encoding="utf-8"))
    return ExportTask(**values | {"format": ExportFormat(values["format"])})


def convert(task: ExportTask, target: Path) -> None:
    """Raises UnknownTokenizer."""
    conversion, gguf = importlib.import_module("conversion"), importlib.import_module("gguf")
    policy_dir = Path(task.policy_dir)
    hparams = _named_as_before(conversion.ModelBase.load_hparams(policy_dir, False))
    architecture = conversion.get_model_architecture(hparams, conversion.ModelType.TEXT)
    model_class = _with_our_vocabulary(conversion.get_model_class(architecture))
    file_type = gguf.LlamaFileType[_FILE_TYPES[task.format]]
    with torch.inference_mode():
        model_class(policy_dir, file_type, target, hparams=hparams, model_name=task.name).write()


def _named_as_before(hparams: dict[str, Any]) -> dict[str, Any]:
    """The converter asks for `n_ctx`, which newer configurations of GPT-2 do not repeat."""
    return {"n_ctx": hparams["n_positions"], **hparams} if "n_positions" in hparams else hparams


def _with_our_vocabulary(model_class: Any) -> Any:
    members = {
        "model_arch": model_class.model_arch,
        "known_vocab_base_pre": model_class.get_vocab_base_pre,
        "get_vocab_base_pre": name_of_steps,
        "set_vocab": write_vocabulary,
    }
    return type(model_class.__name__, (model_class,), members)


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
