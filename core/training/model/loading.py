"""Loading of base models for training, and saving of policies, as folders of transformers."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from core.domain.errors import InvalidRequest
from core.domain.training.stored_weights import find_quantised
from core.training.checkpoints.tensor_files import DTYPES
from core.training.kernels import gated_mlp, rms_norm
from core.training.model import causality, probe, rotary
from core.training.model.adapters import merging
from core.training.model.adapters.merging import RoundingLoss
from core.training.model.capabilities import architecture_of, reward_head_of, run_whole
from core.training.model.config_files import (
    SourceFiles,
    complete_config,
    complete_generation_config,
    state_dtype,
)
from core.training.model.sharding import NamedWeight, compute_dtype

MAX_SHARD_BYTES = 5 * 1000**3
"""Size of a file of weights: larger policies come in several, so that a broken download costs one of them."""
_FILE_MODE = 0o644
_DROPOUT_NAMES = ("dropout", "drop", "pdrop")
_DROPOUT_MEMORY = "preftune_config_dropouts"
_SOURCE_MEMORY = "preftune_source_files"
_SAVES_HERE = "should_save_on_this_rank"
"""Method of transformers' models."""


class UnsupportedModel(InvalidRequest):
    code = "untrainable-model"
    title = "The base model cannot be trained"


@dataclass(frozen=True, kw_only=True)
class ReadModel:
    """A model as read from a folder, before it is prepared."""

    model: PreTrainedModel
    gaps: tuple[str, ...]
    """Weights of the architecture that the files lack, or hold in another shape."""


ReadFunction = Callable[[type[_BaseAutoModelClass], Path, torch.dtype, Callable[[PretrainedConfig], None]], ReadModel]
"""`read_model`, or `read_in_place`."""


def load_causal_lm(directory: Path | str, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> PreTrainedModel:
    """Load a causal LM ready for `core.training.model.logps`: `dtype`, no dropout of any kind, packed attention.

    Reads safetensors only and runs no code from the folder.

    Raises:
        UnsupportedModel: custom code, quantised weights, no safetensors weights, or not a causal LM.
    """
    return prepare_model(open_causal_lm(directory, dtype=dtype).to(device))


def open_causal_lm(directory: Path | str, *, dtype: torch.dtype, read: ReadFunction | None = None) -> PreTrainedModel:
    """Read what `load_causal_lm` loads, by `read` (None: `read_model`), and prepare nothing.

    Raises:
        UnsupportedModel: as `load_causal_lm`, but for what shows only where it computes.
    """
    found = (read or read_model)(AutoModelForCausalLM, Path(directory), dtype, lambda config: None)
    refuse_gaps(found.gaps)
    return found.model


def read_model(
    auto_class: type[_BaseAutoModelClass],
    directory: Path,
    dtype: torch.dtype,
    adjust: Callable[[PretrainedConfig], None] = lambda config: None,
) -> ReadModel:
    """Read weights and configuration; configured dropouts are 0, and restored by `save_policy`.

    Args:
        adjust: what else is set in the configuration before the model is built.

    Raises:
        UnsupportedModel: custom code, quantised weights, no safetensors weights, or not of the class.
    """
    _refuse_foreign_code(directory)
    _refuse_quantised(directory)
    try:
        config, dropouts = _read_config(directory, adjust)
        model, report = auto_class.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except AssertionError as error:  # of torch's embedding, for a padding id it has no row for
        raise UnsupportedModel(
            "The base model cannot be built: pad_token_id in its config.json is no row of its embeddings. Set it to "
            "the id of a token, or to null."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UnsupportedModel(
            "The base model cannot be loaded: it needs a config.json of a causal language model known to "
            "transformers, and its weights as *.safetensors."
        ) from error
    model.config.use_cache = False
    setattr(model, _DROPOUT_MEMORY, dropouts)
    setattr(model, _SOURCE_MEMORY, SourceFiles.read(directory))
    gaps = [*report.get("missing_keys", ()), *report.get("mismatched_keys", ())]
    return ReadModel(model=model, gaps=tuple(sorted(str(gap) for gap in gaps)))


def read_in_place(
    auto_class: type[_BaseAutoModelClass],
    directory: Path,
    dtype: torch.dtype,
    adjust: Callable[[PretrainedConfig], None] = lambda config: None,
) -> ReadModel:
    """Read a model as `read_model` does, its weights mapped from their files into the memory of the host.

    They take no memory that the system could not take back. Their type is that of the files, to be rounded to `dtype`
    when they are used, unless more than the weights depends on the type: then a copy of type `dtype` is in memory, as
    where transformers puts weights together from several tensors of the files (experts).
    """
    read = read_model(auto_class, directory, _type_in_place(auto_class, directory, dtype, adjust), adjust)
    for config in (read.model.config, read.model.config.get_text_config()):
        config.dtype = dtype
    return read


def _type_in_place(
    auto_class: type[_BaseAutoModelClass],
    directory: Path,
    dtype: torch.dtype,
    adjust: Callable[[PretrainedConfig], None],
) -> torch.dtype:
    _refuse_foreign_code(directory)
    stored = {DTYPES.get(name) for name in _stored_types(directory).values()}
    found = next(iter(stored), None)
    if len(stored) != 1 or found is None or not found.is_floating_point or found == dtype:
        return dtype
    outlines = []
    for wanted in (dtype, found):
        try:
            with torch.device("meta"):
                outline = auto_class.from_config(_read_config(directory, adjust)[0], dtype=wanted)
        except (*probe.FOREIGN_FAILURES, OSError):
            return dtype  # and `read_model` says what is wrong
        if any(parameter.dtype != wanted for parameter in outline.parameters()):
            return dtype
        outlines.append(outline)
    kept = [getattr(outlines[0], f"_keep_in_fp32_modules{kind}", None) for kind in ("", "_strict")]
    buffers = [[buffer.dtype for buffer in outline.buffers()] for outline in outlines]
    return dtype if any(kept) or buffers[0] != buffers[1] else found


def _read_config(
    directory: Path, adjust: Callable[[PretrainedConfig], None]
) -> tuple[PretrainedConfig, dict[str, float]]:
    """Return the configuration with every dropout at 0, and the dropouts as they were."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    dropouts = _clear_config_dropouts(config)
    adjust(config)
    return config, dropouts


def prepare_model(model: PreTrainedModel, reward_head: str | None = None) -> PreTrainedModel:
    """Prepare a model made in memory as `load_causal_lm` does after reading. Returns it in eval mode.

    Args:
        reward_head: name of the head of a reward model, which has no LM head; None for a language model.

    Raises:
        UnsupportedModel: it cannot run on text alone, or a token's prediction depends on later tokens.
    """
    settle(model, reward_head)
    examine(model, reward_head)
    return model


def settle(
    model: PreTrainedModel,
    reward_head: str | None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> None:
    """Do the part of `prepare_model` that changes modules; of a model in files a layer at a time is in memory.

    Args:
        dtype: that the model will compute in; None: that of its weights.
        device: that it will compute on; None: where it is.
    """
    _disable_dropout(model)
    model.eval()
    rotary.forget_earlier_lengths(model)
    rms_norm.replace_norms(model, dtype, device)
    gated_mlp.replace_gated_mlps(model, dtype, device)
    probe.remember_least(model, reward_head)


def examine(model: PreTrainedModel, reward_head: str | None) -> None:
    """Do the rest of `prepare_model`: what computes with the weights. Of a sharded model all ranks enter together.

    Raises:
        UnsupportedModel: as `prepare_model`.
    """
    outputs = None if reward_head is None else partial(run_whole, model, probe.last_hidden_states, model)
    _refuse_not_causal(model, outputs)
    probe.prepare(model, reward_head)


def save_policy(
    model: PreTrainedModel,
    directory: Path | str,
    *,
    end_ids: Sequence[int] = (),
    dtype: torch.dtype | None = None,
    passing: Iterable[NamedWeight] | None = None,
) -> RoundingLoss | None:
    """Save a folder that the auto class of the model loads; with LoRA, the merged weights.

    Weights are of type `dtype`, by default the model's own; returns what that cost the adapter's update, if there is
    one. While it runs, it takes the disk of the folder twice, and memory for one file of weights. The weights of a
    sharded model come from `passing` (`sharding.passing_weights`).

    The configuration keeps the base model's dropout values and the names by which other programs read it.
    `generation_config.json`, which a reward model has none of, stops at the base model's end tokens and at every one of
    `end_ids`, those at which a turn was trained to end. Files are readable by all (0644), which safetensors alone would
    not give.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dropouts: dict[str, Any] = getattr(model, _DROPOUT_MEMORY, {})
    cleared = {name: getattr(model.config, name) for name in dropouts}
    try:
        for name, value in dropouts.items():
            setattr(model.config, name, value)
        model.config.use_cache = True
        with TemporaryDirectory(dir=directory.parent, prefix=".merging-") as spool:
            state, loss = merging.merged_state_dict(model, dtype, Path(spool), passing)
            with _saving_on_this_rank(model):
                model.save_pretrained(directory, state_dict=state, max_shard_size=MAX_SHARD_BYTES)
            del state
    finally:
        model.config.use_cache = False
        for name, value in cleared.items():
            setattr(model.config, name, value)
    source: SourceFiles = getattr(model, _SOURCE_MEMORY, SourceFiles())
    saved_dtype = dtype or compute_dtype(model)
    if saved_dtype != model.dtype:
        state_dtype(directory, saved_dtype)
    complete_config(directory, source, model.config, is_tied=_is_tied(model))
    if reward_head_of(model) is None:
        complete_generation_config(directory, source, tuple(end_ids))
    for path in directory.iterdir():
        if path.is_file():
            path.chmod(_FILE_MODE)
    return loss


@contextmanager
def _saving_on_this_rank(model: PreTrainedModel) -> Iterator[None]:
    """Make transformers write inside: in a process group it leaves that to rank 0, without a word on the others."""
    setattr(model, _SAVES_HERE, lambda is_main_process: is_main_process)
    try:
        yield
    finally:
        delattr(model, _SAVES_HERE)


def _refuse_not_causal(model: PreTrainedModel, outputs: causality.Outputs | None) -> None:
    try:
        is_causal = causality.is_causal(model, outputs)
    except probe.FOREIGN_FAILURES as error:
        raise UnsupportedModel(
            f"The base model ({architecture_of(model)}) cannot be trained on text alone: it fails on a sequence of "
            "token ids, or has no gradients. Use a decoder-only language model."
        ) from error
    if not is_causal:
        raise UnsupportedModel(
            f"The base model ({architecture_of(model)}) is no causal language model: what it predicts for a token "
            "depends on the tokens after it (an encoder such as BERT). Use a decoder-only language model."
        )


def _is_tied(model: PreTrainedModel) -> bool:
    """Whether head and embeddings are one tensor, whatever the configuration says."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _refuse_foreign_code(directory: Path) -> None:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModel("The base model has no readable config.json.") from error
    if not isinstance(config, dict):
        raise UnsupportedModel("The base model's config.json is not a JSON object.")
    if config.get("auto_map"):
        raise UnsupportedModel(
            "The base model brings its own code (auto_map in config.json), which is never run here. "
            "Use a model whose architecture transformers knows."
        )
    nested = [value for value in config.values() if isinstance(value, dict)]
    if any(part.get(name) for part in (config, *nested) for name in ("quantization_config", "compression_config")):
        raise UnsupportedModel(
            "The base model's weights are quantised (quantization_config in config.json). Use the unquantised weights."
        )


def refuse_gaps(gaps: Sequence[str]) -> None:
    """Refuse files that lack weights or hold them in another shape, which transformers would only warn about."""
    if gaps:
        raise UnsupportedModel(
            f"The base model's files lack {len(gaps)} weights of its architecture, the first being {gaps[0]}. Fetch "
            "the whole model again."
        )


def _refuse_quantised(directory: Path) -> None:
    """Refuse quantised weights whose configuration does not declare it: they would be read without their scales."""
    types = _stored_types(directory)
    if name := find_quantised(types):
        raise UnsupportedModel(
            f"The base model's weights are quantised ({name} is {types[name]}). Use the unquantised weights."
        )


def _stored_types(directory: Path) -> dict[str, str]:
    """Return the types of all tensors by name, as safetensors calls them."""
    types: dict[str, str] = {}
    try:
        for path in sorted(directory.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                types |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UnsupportedModel("The base model's weights cannot be read. Fetch the whole model again.") from error
    return types


def _is_dropout(name: str) -> bool:
    return name.endswith(_DROPOUT_NAMES) or name.endswith(("dropout_rate", "dropout_p", "dropout_prob"))


def _clear_config_dropouts(config: Any) -> dict[str, float]:
    """Set every dropout of the configuration to 0 and return the former values.

    Many models read `config.attention_dropout` in their attention function, where no module is left to switch off.
    """
    dropouts = {name: value for name, value in vars(config).items() if _is_dropout(name) and isinstance(value, float)}
    for name in dropouts:
        setattr(config, name, 0.0)
    return dropouts


def _disable_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and _is_dropout(name):
                setattr(module, name, 0.0)
