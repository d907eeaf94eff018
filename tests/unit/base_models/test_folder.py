"""What a folder must be to count as a base model, and what is told of it."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from core.base_models.directory import (
    base_model_digest,
    get_base_model,
    list_base_models,
    refused_base_models,
)
from core.base_models.errors import (
    BaseModelNotFound,
    DamagedBaseModel,
    IncompleteBaseModel,
    InvalidModelName,
    PickleRefused,
    RemoteCodeRefused,
    SymlinkRefused,
    UnsupportedBaseModel,
)
from core.base_models.folder import inspect
from core.base_models.manifest import MANIFEST_FILE, describe, read_manifest, verify, write_manifest
from core.base_models.names import check_name
from core.base_models.safetensors_header import read_weights
from core.domain.errors import InvalidRequest

Tensors = dict[str, tuple[str, list[int]]]
TENSORS: Tensors = {
    "model.embed_tokens.weight": ("BF16", [10, 4]),
    "model.norm.weight": ("F32", [4]),
    "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [2]),
    "model.layers.0.attn.bias": ("BOOL", [3, 3]),
}
NUM_PARAMETERS = 10 * 4 + 4
BYTES = {"BF16": 2, "F32": 4, "BOOL": 1, "F8_E4M3": 1, "I32": 4, "I8": 1}


def write_safetensors(path: Path, tensors: Tensors, fill: bytes = b"\0") -> None:
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + fill * end)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 128, "vocab_size": 10}
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer.json", {})
    write_safetensors(folder / "model.safetensors", TENSORS)
    return tmp_path / "models"


def change_config(folder: Path, **values: object) -> None:
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | values)


def test_facts_of_a_folder_put_there_by_hand(models_dir: Path) -> None:
    (models_dir / "small" / "README.md").write_text("---\ntags:\n- x\nlicense: apache-2.0\n---\n# Small\n")
    (models_dir / "small" / "chat_template.jinja").write_text("{{ messages }}")
    (model,) = list_base_models(models_dir)
    assert (model.name, model.source, model.revision, model.pulled_at) == ("small", "folder", None, None)
    assert (model.architecture, model.num_parameters) == ("LlamaForCausalLM", NUM_PARAMETERS)
    assert (model.context_length, model.vocab_size, model.licence) == (128, 10, "apache-2.0")
    assert model.has_chat_template
    assert model == get_base_model(models_dir, "small")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 77, "vocab_size": 5}, "max_position_embeddings": 1}, 77),
        ({"max_position_embeddings": None}, None),
    ],
)
def test_context_length_by_whatever_name(models_dir: Path, config: dict, expected: int | None) -> None:
    folder = models_dir / "small"
    write_json(folder / "config.json", {"model_type": "gpt2"} | config)
    assert inspect(folder).context_length == expected
    assert inspect(folder).architecture == "gpt2"


def test_shards_are_counted_together(models_dir: Path) -> None:
    folder = models_dir / "small"
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "model-00001-of-00002.safetensors", {"a": ("BF16", [3, 5])})
    write_safetensors(folder / "model-00002-of-00002.safetensors", {"b": ("BF16", [7])})
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    write_json(folder / "model.safetensors.index.json", {"weight_map": shards})
    facts = inspect(folder)
    assert facts.num_parameters == 15 + 7
    assert set(shards.values()) < set(facts.files)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(IncompleteBaseModel, match="00002-of-00002"):
        inspect(folder)


@pytest.mark.parametrize("shard", ["../../etc/passwd", "/etc/passwd", "x/y.safetensors", "model.bin", ""])
def test_index_cannot_lead_out_of_the_folder(models_dir: Path, shard: str) -> None:
    folder = models_dir / "small"
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": shard}})
    with pytest.raises(DamagedBaseModel, match="names no safetensors"):
        inspect(folder)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return write


def cut_weights(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1)


def link_out(folder: Path) -> None:
    outside = folder.parent.parent / "secret.json"
    outside.write_text("{}")
    (folder / "generation_config.json").symlink_to(outside)


def link_to_nothing(folder: Path) -> None:
    (folder / "generation_config.json").symlink_to(folder.parent.parent / "absent")


FAULTS: list[tuple[Callable[[Path], object], type[InvalidRequest]]] = [
    (put("pytorch_model.bin"), PickleRefused),
    (put("training_args.PT"), PickleRefused),
    (put("optimizer/state.pkl"), PickleRefused),
    (lambda folder: change_config(folder, auto_map={"AutoConfig": "code.Config"}), RemoteCodeRefused),
    (put("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["code.T", null]}}'), RemoteCodeRefused),
    (lambda folder: change_config(folder, is_encoder_decoder=True), UnsupportedBaseModel),
    (lambda folder: change_config(folder, quantization_config={"quant_method": "gptq"}), UnsupportedBaseModel),
    (link_out, SymlinkRefused),
    (link_to_nothing, SymlinkRefused),
    (remove("config.json"), IncompleteBaseModel),
    (remove("tokenizer.json"), IncompleteBaseModel),
    (remove("model.safetensors"), IncompleteBaseModel),
    (put("config.json", b"not json"), DamagedBaseModel),
    (put("config.json", b"[1]"), DamagedBaseModel),
    (put("config.json", b"{}"), DamagedBaseModel),
    (put("config.json", b"[" * 100_000), DamagedBaseModel),
    (cut_weights, DamagedBaseModel),
    (put("model.safetensors", b"\xff" * 7), DamagedBaseModel),
    (put("model.safetensors", b"\xff" * 100), DamagedBaseModel),
    (put("model.safetensors", struct.pack("<Q", 2) + b"[]"), DamagedBaseModel),
    (put("model.safetensors", struct.pack("<Q", 8) + b'{"a": 1}'), DamagedBaseModel),
    (put("model.safetensors", b"\x80\x04pickled pickled"), DamagedBaseModel),
]


@pytest.mark.parametrize(("spoil", "error"), FAULTS)
def test_faulty_folder_is_refused_and_does_not_hide_the_others(
    models_dir: Path, spoil: Callable[[Path], object], error: type[InvalidRequest]
) -> None:
    healthy = models_dir / "healthy"
    healthy.mkdir()
    for path in (models_dir / "small").iterdir():
        (healthy / path.name).write_bytes(path.read_bytes())
    spoil(models_dir / "small")
    with pytest.raises(error) as raised:
        get_base_model(models_dir, "small")
    assert str(models_dir) not in raised.value.detail
    assert [model.name for model in list_base_models(models_dir)] == ["healthy"]
    assert {name: type(fault) for name, fault in refused_base_models(models_dir).items()} == {"small": error}


def test_link_of_the_whole_folder_is_refused(models_dir: Path) -> None:
    (models_dir / "small").rename(models_dir.parent / "elsewhere")
    (models_dir / "small").symlink_to(models_dir.parent / "elsewhere")
    with pytest.raises(SymlinkRefused):
        get_base_model(models_dir, "small")


def test_links_within_the_folder_are_fine(models_dir: Path) -> None:
    folder = models_dir / "small"
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    assert get_base_model(models_dir, "small").num_parameters == NUM_PARAMETERS


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", ".hidden", "../small", "small/..", "/etc/passwd", "a/b", "a\\b", "Small", "small\n", "small\0",
        "file:small", "http://169.254.169.254/", "s3://bucket/x", "job_1", "ds_1", "ｓmall", "small ", "-x", "a" * 97,
    ],
)  # fmt: skip
def test_names_are_strict(models_dir: Path, name: str) -> None:
    with pytest.raises(InvalidModelName):
        get_base_model(models_dir, name)


def test_usual_names_are_fine() -> None:
    for name in ("smollm2-135m-instruct", "llama-3.1-8b", "gpt2", "a", "0x", "pythia_70m"):
        assert check_name(name) == name


def test_unknown_name_tells_what_there_is(models_dir: Path) -> None:
    with pytest.raises(BaseModelNotFound, match="There are: small"):
        get_base_model(models_dir, "other")
    with pytest.raises(BaseModelNotFound, match="none yet"):
        get_base_model(models_dir.parent / "absent", "other")


def test_change_of_a_folder_is_seen_at_once(models_dir: Path) -> None:
    assert get_base_model(models_dir, "small").context_length == 128
    change_config(models_dir / "small", max_position_embeddings=4096)
    assert get_base_model(models_dir, "small").context_length == 4096


DETERMINING = ("config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja", "generation_config.json")


@pytest.mark.parametrize("name", DETERMINING)
def test_digest_follows_every_file_that_determines_training(models_dir: Path, name: str) -> None:
    model = get_base_model(models_dir, "small")
    before = base_model_digest(model)
    content = (model.directory / name).read_bytes() if (model.directory / name).exists() else b""
    if name == "model.safetensors":
        content = content[:-1] + b"\1"
    elif name.endswith(".json"):
        content = json.dumps(json.loads(content or b"{}") | {"changed": True}).encode()
    (model.directory / name).write_bytes(content)
    assert base_model_digest(get_base_model(models_dir, "small")) != before


def test_digest_ignores_what_does_not_determine_training(models_dir: Path) -> None:
    before = base_model_digest(get_base_model(models_dir, "small"))
    (models_dir / "small" / "README.md").write_text("x")
    (models_dir / "small").rename(models_dir / "renamed")
    assert base_model_digest(get_base_model(models_dir, "renamed")) == before


def test_digest_is_kept_and_files_are_not_read_again(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = get_base_model(models_dir, "small")
    digest = base_model_digest(model)
    assert json.loads((model.directory / MANIFEST_FILE).read_text())["digest"] == digest

    def fail(*args: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("core.base_models.manifest.sum_file", fail)
    assert base_model_digest(model) == digest
    with pytest.raises(AssertionError):
        describe(model.directory)


def test_digest_of_a_read_only_folder(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    model = get_base_model(models_dir, "small")
    monkeypatch.setattr("core.base_models.manifest.write_manifest", refuse)
    assert base_model_digest(model) == describe(model.directory).digest
    assert not (model.directory / MANIFEST_FILE).exists()


def test_changed_files_of_a_pulled_model_are_noticed(models_dir: Path) -> None:
    folder = models_dir / "small"
    write_manifest(folder, describe(folder, source="hub:org/small", revision="c" * 40))
    model = get_base_model(models_dir, "small")
    assert (model.source, model.revision) == ("hub:org/small", "c" * 40)
    before = base_model_digest(model)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content)  # copied: another time of change, the same bytes
    assert base_model_digest(model) == before
    (folder / "model.safetensors").write_bytes(content[:-1] + b"\1")
    with pytest.raises(DamagedBaseModel, match="not the file that was pulled"):
        base_model_digest(model)
    (folder / "model.safetensors").unlink()
    with pytest.raises(IncompleteBaseModel):
        base_model_digest(model)


def test_same_size_and_time_is_caught_when_every_file_is_read(models_dir: Path) -> None:
    folder = models_dir / "small"
    manifest = describe(folder, source="hub:org/small", revision="c" * 40)
    write_manifest(folder, manifest)
    model = get_base_model(models_dir, "small")
    weights = folder / "model.safetensors"
    stat = weights.stat()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    base_model_digest(model)
    with pytest.raises(DamagedBaseModel):
        verify(folder, manifest)


@pytest.mark.parametrize("content", ["not json", '{"version": 99}', '{"version": 1}', '{"version": 1, "files": 3}'])
def test_damaged_manifest_is_told(models_dir: Path, content: str) -> None:
    (models_dir / "small" / MANIFEST_FILE).write_text(content)
    with pytest.raises(DamagedBaseModel):
        read_manifest(models_dir / "small")


def test_header_counts_only_parameters(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", TENSORS)
    summary = read_weights(tmp_path / "x.safetensors")
    assert summary.num_parameters == NUM_PARAMETERS
    assert summary.tensors == TENSORS.keys()


@pytest.mark.parametrize(
    "tensors",
    [
        {"model.layers.0.mlp.up_proj.weight": ("F8_E4M3", [4, 4])},
        {"model.layers.0.mlp.up_proj.weight": ("I8", [4, 4])},
        {"model.layers.0.mlp.up_proj.qweight": ("I32", [4, 4])},
        {"model.layers.0.mlp.up_proj.weight_scale": ("F32", [1])},
        {"model.layers.0.mlp.up_proj.weight.absmax": ("F32", [1])},
    ],
)
def test_quantised_weights_in_disguise_are_refused(models_dir: Path, tensors: Tensors) -> None:
    folder = models_dir / "small"
    write_safetensors(folder / "model.safetensors", TENSORS | tensors)
    with pytest.raises(UnsupportedBaseModel, match="quantised weights"):
        inspect(folder)


@pytest.mark.parametrize(
    ("values", "is_refused"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, True),
        ({"model_type": "xlm-roberta", "architectures": ["XLMRobertaForCausalLM"], "is_decoder": False}, True),
        ({"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]}, True),
        ({"model_type": "xlnet", "architectures": ["XLNetLMHeadModel"]}, True),
        ({"model_type": "xlm", "architectures": ["XLMWithLMHeadModel"]}, True),
        ({"model_type": "xlm", "architectures": ["XLMWithLMHeadModel"], "causal": True}, False),
        ({"model_type": "roberta", "architectures": ["RobertaForCausalLM"], "is_decoder": True}, False),
    ],
)
def test_encoders_are_refused_by_their_configuration(
    models_dir: Path, values: dict[str, object], is_refused: bool
) -> None:
    folder = models_dir / "small"
    change_config(folder, **values)
    if not is_refused:
        assert inspect(folder).architecture
        return
    with pytest.raises(UnsupportedBaseModel, match="no causal language model"):
        inspect(folder)


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_nested_quantisation_is_refused(models_dir: Path, key: str) -> None:
    folder = models_dir / "small"
    change_config(folder, text_config={key: {"bits": 4}})
    with pytest.raises(UnsupportedBaseModel, match="quantised"):
        inspect(folder)


def test_a_table_of_positions_is_seen(models_dir: Path) -> None:
    folder = models_dir / "small"
    assert not inspect(folder).has_position_table
    patches: Tensors = {
        "vision_tower.vision_model.embeddings.position_embedding.weight": ("F32", [4, 4]),
        "model.audio_tower.embed_positions.weight": ("F32", [4, 4]),
    }
    write_safetensors(folder / "model.safetensors", TENSORS | patches)
    assert not inspect(folder).has_position_table, "of images and sound"
    write_safetensors(folder / "model.safetensors", TENSORS | patches | {"transformer.wpe.weight": ("F32", [4, 4])})
    assert inspect(folder).has_position_table
