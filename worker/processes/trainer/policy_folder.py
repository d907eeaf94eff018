"""Completion of saved weights to a loadable folder: tokenizer, processor files, name of the adapter's base.

The one place that completes a policy: the artifact and checkpoints' policies alike. Its `config.json` and
`generation_config.json` are the engine's (`core.training.model.config_files`).
"""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from core.base_models.directory import get_base_model
from core.base_models.folder import PROCESSOR_FILES, SIDE_FILES, TOKENIZER_FILE
from core.domain.jobs.job_spec import JobSpec
from core.domain.jobs.methods import get_method
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.model.adapters.adapter_files import CONFIG_FILE as ADAPTER_CONFIG_FILE
from core.training.model.config_files import GENERATION_CONFIG_FILE
from core.training.model.policies import ADAPTER_DIR
from worker.processes.trainer.tokenizer_config import TOKENIZER_CONFIG_FILE, published_tokenizer_config

_HUB = "hub:"


@dataclass(frozen=True)
class PolicyFolder:
    """Completes folders of policies that were trained from one base model."""

    base_model_dir: Path
    base_model: str
    """Name in the job: a folder of the models directory, or a policy (`job_…`)."""
    tokenizer: PairTokenizer
    publishes_policy: bool = True
    """False for a reward model: it generates nothing, and its tokenizer names a token to pad texts with."""

    @classmethod
    def of(cls, spec: JobSpec, base_model_dir: Path, tokenizer: PairTokenizer) -> Self:
        """Return what completes the folders of a job."""
        is_policy = get_method(spec.method).publishes_policy
        return cls(base_model_dir, spec.base_model, tokenizer, publishes_policy=is_policy)

    def complete(self, directory: Path) -> None:
        """Add what a saved policy lacks; existing files stay."""
        for name in (TOKENIZER_FILE, *SIDE_FILES, *PROCESSOR_FILES):
            source, target = self.base_model_dir / name, directory / name
            is_wanted = self.publishes_policy or name != GENERATION_CONFIG_FILE
            if is_wanted and source.is_file() and not target.exists():
                shutil.copyfile(source, target)
        (directory / TOKENIZER_CONFIG_FILE).write_bytes(self._tokenizer_config)
        adapter_config = directory / ADAPTER_DIR / ADAPTER_CONFIG_FILE
        if adapter_config.is_file():
            document = json.loads(adapter_config.read_text(encoding="utf-8")) | self._base_of_adapter
            adapter_config.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    @cached_property
    def _tokenizer_config(self) -> bytes:
        return published_tokenizer_config(self.base_model_dir, self.tokenizer, needs_padding=not self.publishes_policy)

    @cached_property
    def _base_of_adapter(self) -> dict[str, str | None]:
        """Return where peft finds the base model: on the hub, or under the name that the job gives it."""
        base = get_base_model(self.base_model_dir.parent, self.base_model_dir.name)
        if base.source.startswith(_HUB):
            return {"base_model_name_or_path": base.source.removeprefix(_HUB), "revision": base.revision}
        return {"base_model_name_or_path": self.base_model, "revision": None}
