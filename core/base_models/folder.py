"""Inspection of a base model's folder: refuses what must not be loaded, and derives its description."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.base_models.errors import (
    DamagedBaseModel,
    IncompleteBaseModel,
    PickleRefused,
    RemoteCodeRefused,
    SymlinkRefused,
    UnsupportedBaseModel,
)
from core.base_models.safetensors_header import WeightSummary, read_weights
from core.domain.training.stored_weights import find_quantised, has_position_table

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
SIDE_FILES = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""Read where they are there; none is needed."""
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""Files of models that take images too: never read here, but servers of the published policy need them."""
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
MAX_JSON_BYTES = 64 * 1024**2

_CODE_BEARING = (CONFIG_FILE, "tokenizer_config.json", "generation_config.json", *PROCESSOR_FILES)
_ENCODERS = frozenset(
    {
        "bert",
        "bert-generation",
        "big_bird",
        "camembert",
        "data2vec-text",
        "electra",
        "ernie",
        "megatron-bert",
        "reformer",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types that see later tokens unless their configuration sets `is_decoder`."""
_NEVER_CAUSAL = frozenset({"cpmant", "xlnet"})
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts about a model that its files tell."""

    architecture: str
    num_parameters: int
    context_length: int | None
    """In tokens; None where the config does not say."""
    has_position_table: bool
    """Positions are learned: there are none beyond the context length."""
    vocab_size: int | None
    has_chat_template: bool
    licence: str | None


@dataclass(frozen=True, kw_only=True)
class FolderFacts(ModelFacts):
    """Facts found in a folder."""

    files: tuple[str, ...]
    """Names of all files that determine training, sorted."""


def inspect(folder: Path) -> FolderFacts:
    """Check a folder and describe it; reads JSON files and safetensors headers, never tensors.

    Raises:
        PickleRefused, RemoteCodeRefused, SymlinkRefused, UnsupportedBaseModel: it must not or cannot be loaded.
        IncompleteBaseModel, DamagedBaseModel: it is not whole.
    """
    refuse_links(folder)
    _refuse_pickles(folder)
    config = _read_config(folder)
    weights = _weight_files(folder)
    summaries = [read_weights(folder / name) for name in weights]
    _refuse_quantised(folder, summaries)
    if not (folder / TOKENIZER_FILE).is_file():
        raise IncompleteBaseModel(
            f"`{folder.name}` has no {TOKENIZER_FILE}. Make one with transformers: "
            "AutoTokenizer.from_pretrained(<folder>).save_pretrained(<folder>)."
        )
    present = [name for name in (CONFIG_FILE, TOKENIZER_FILE, INDEX_FILE, *SIDE_FILES) if (folder / name).is_file()]
    text_config = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    return FolderFacts(
        architecture=_architecture(config),
        num_parameters=sum(summary.num_parameters for summary in summaries),
        context_length=next((v for k in _CONTEXT_KEYS if isinstance(v := text_config.get(k), int)), None),
        has_position_table=any(has_position_table(summary.tensors) for summary in summaries),
        vocab_size=size if isinstance(size := text_config.get("vocab_size"), int) else None,
        has_chat_template=_has_chat_template(folder),
        licence=_licence(folder),
        files=tuple(sorted([*present, *weights])),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a base model's folder. Raises DamagedBaseModel."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DamagedBaseModel(f"{path.name} is larger than {MAX_JSON_BYTES // 1024**2} MiB.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DamagedBaseModel(f"{path.name} is not JSON. Fetch it again.") from None
    if not isinstance(value, dict):
        raise DamagedBaseModel(f"{path.name} is not a JSON object. Fetch it again.")
    return value


def refuse_links(folder: Path) -> None:
    """Raise SymlinkRefused when the folder, or anything in it, links out of it."""
    inside = folder.parent.resolve() / folder.name
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise SymlinkRefused(
                f"`{path.relative_to(folder.parent)}` is a link out of the models directory. Copy the files instead "
                "(`cp -rL`)."
            )


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(path.name for path in folder.rglob("*") if path.suffix.lower() in PICKLE_SUFFIXES)
    if pickles:
        raise PickleRefused(
            f"`{folder.name}` holds {', '.join(pickles[:3])}: loading a pickle can run any code. Remove it, and save "
            "the weights with save_pretrained, which writes safetensors."
        )


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG_FILE).is_file():
        raise IncompleteBaseModel(f"`{folder.name}` has no {CONFIG_FILE}.")
    for name in _CODE_BEARING:
        if (folder / name).is_file() and "auto_map" in read_json(folder / name):
            raise RemoteCodeRefused(
                f"`auto_map` in {name} of `{folder.name}` points to code of the model's author, which is never run. "
                "Use an architecture that transformers ships."
            )
    config = read_json(folder / CONFIG_FILE)
    if config.get("is_encoder_decoder"):
        raise UnsupportedBaseModel(f"`{folder.name}` is an encoder-decoder; only causal language models can be tuned.")
    if _sees_later_tokens(config):
        raise UnsupportedBaseModel(
            f"`{folder.name}` is no causal language model ({_architecture(config)}): what it predicts for a token "
            "depends on the tokens after it. Use a decoder-only language model."
        )
    nested = [value for value in config.values() if isinstance(value, dict)]
    if any(part.get(name) for part in (config, *nested) for name in ("quantization_config", "compression_config")):
        raise UnsupportedBaseModel(
            f"`{folder.name}` holds quantised weights, which cannot be trained. Use the original weights."
        )
    return config


def _sees_later_tokens(config: dict[str, Any]) -> bool:
    """Return whether the configuration alone shows an encoder; the others are found when they are loaded."""
    model_type = config.get("model_type")
    if config.get("is_decoder"):
        return False
    if model_type == "xlm":
        return not config.get("causal")
    return model_type in _ENCODERS | _NEVER_CAUSAL or _architecture(config).endswith("ForMaskedLM")


def _weight_files(folder: Path) -> list[str]:
    if (folder / WEIGHTS_FILE).is_file():
        return [WEIGHTS_FILE]
    if not (folder / INDEX_FILE).is_file():
        raise IncompleteBaseModel(f"`{folder.name}` has no {WEIGHTS_FILE} and no {INDEX_FILE}.")
    shards = shard_names(read_json(folder / INDEX_FILE))
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise IncompleteBaseModel(f"`{folder.name}` lacks {', '.join(missing[:3])}, which {INDEX_FILE} names.")
    return shards


def shard_names(index: dict[str, Any]) -> list[str]:
    """Return the weight files that an index names, sorted. Raises DamagedBaseModel."""
    weight_map = index.get("weight_map")
    names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
    if not names or not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise DamagedBaseModel(f"{INDEX_FILE} names no safetensors files.")
    return names


def _architecture(config: dict[str, Any]) -> str:
    architectures = config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    if not isinstance(name, str):
        raise DamagedBaseModel(f"{CONFIG_FILE} names neither `architectures` nor a `model_type`.")
    return name


def _refuse_quantised(folder: Path, summaries: list[WeightSummary]) -> None:
    for summary in summaries:
        if name := find_quantised(summary.types):
            raise UnsupportedBaseModel(
                f"`{folder.name}` holds quantised weights ({name} is {summary.types[name]}), which cannot be trained. "
                "Use the original weights."
            )


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(read_json(config).get("chat_template"))


def _licence(folder: Path) -> str | None:
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    with readme.open(encoding="utf-8", errors="replace") as file:
        head = file.read(20_000)
    found = re.search(r"\A---\n(?:.*\n)*?license:[ \t]*([\w.-]+)[ \t]*\n(?:.*\n)*?---", head)
    return found[1] if found else None
