import json
from pathlib import Path

import pytest
import torch
from packed_rows import PROMISED, make_stock_model, random_rows, stock_sums, write_rows
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.training.data.packing import pack_pairs
from core.training.model.capabilities import capabilities_of
from core.training.model.loading import UnsupportedModel, load_causal_lm, save_policy
from core.training.model.logps import pair_logps


def saved(directory: Path, architecture: str = "llama", **options: object) -> Path:
    make_stock_model(architecture, **options).save_pretrained(directory)
    return directory


def edit_config(directory: Path, **values: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("architecture", PROMISED)
def test_a_saved_policy_is_the_loaded_one(architecture: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "base", architecture)
    save_policy(load_causal_lm(source, dtype=torch.float32), tmp_path / "policy")
    before = AutoModelForCausalLM.from_pretrained(source)
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in after.state_dict().items())
    kept = {"architectures", "tie_word_embeddings", "attention_dropout", "attn_pdrop", "resid_pdrop", "hidden_dropout"}
    configs = [json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "policy")]
    assert all(configs[0].get(key) == configs[1].get(key) for key in kept), "the base's dropout is not lost"
    assert configs[1].get("use_cache", True) is True
    assert not any("preftune" in json.dumps(value) for value in configs[1].values())


def test_large_policies_come_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_causal_lm(saved(tmp_path / "base"), dtype=torch.float32)
    monkeypatch.setattr("core.training.model.loading.MAX_SHARD_BYTES", 20_000)
    save_policy(model, tmp_path / "policy")
    shards = sorted(tmp_path.glob("policy/*.safetensors"))
    assert len(shards) > 2
    assert max(path.stat().st_size for path in shards) < 30_000
    index = json.loads((tmp_path / "policy" / "model.safetensors.index.json").read_text())
    assert {*index["weight_map"].values()} == {path.name for path in shards}
    again = load_causal_lm(tmp_path / "policy", dtype=torch.float32)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    save_policy(load_causal_lm(saved(tmp_path / "base"), dtype=torch.float32), tmp_path / "policy")
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "policy").iterdir())


@pytest.mark.parametrize("tied", [True, False])
def test_tying_of_embeddings_survives(tied: bool, tmp_path: Path) -> None:
    model = load_causal_lm(saved(tmp_path / "base", tie_word_embeddings=tied), dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight[5] += 1
    save_policy(model, tmp_path / "policy")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    embeddings, head = loaded.get_input_embeddings().weight, loaded.get_output_embeddings().weight
    assert (embeddings.data_ptr() == head.data_ptr()) == tied
    assert torch.equal(embeddings, model.get_input_embeddings().weight)


def test_weights_are_loaded_in_the_type_asked_for(tmp_path: Path) -> None:
    model = load_causal_lm(saved(tmp_path), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert capabilities_of(model).is_packable


@pytest.mark.parametrize("architecture", PROMISED)
def test_a_loaded_model_has_no_dropout_left(architecture: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "base", architecture)
    model = load_causal_lm(source, dtype=torch.float32).train()
    rows = random_rows()
    with torch.no_grad():
        actual = pair_logps(model, pack_pairs(write_rows(tmp_path / "rows", rows), range(6), "cpu")).chosen.sums
        expected = stock_sums(AutoModelForCausalLM.from_pretrained(source).eval(), rows, 0)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)


def test_code_in_the_folder_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    edit_config(tmp_path, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    (tmp_path / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(UnsupportedModel, match="auto_map"):
        load_causal_lm(tmp_path, dtype=torch.float32)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    edit_config(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModel, match="quantised"):
        load_causal_lm(tmp_path, dtype=torch.float32)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    model: PreTrainedModel = make_stock_model("llama")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="safetensors"):
        load_causal_lm(tmp_path, dtype=torch.float32)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"model_type": "no-such-model"}', '{"model_type": "t5"}'])
def test_folders_without_a_causal_lm_are_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UnsupportedModel):
        load_causal_lm(tmp_path, dtype=torch.float32)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnsupportedModel):
        load_causal_lm(tmp_path, dtype=torch.float32)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    """transformers would make up what a file lacks, and only warn."""
    saved(tmp_path)
    edit_config(tmp_path, num_hidden_layers=3)
    with pytest.raises(UnsupportedModel, match="lack"):
        load_causal_lm(tmp_path, dtype=torch.float32)


def test_an_unprepared_model_is_an_error(tmp_path: Path) -> None:
    rows = random_rows()
    with pytest.raises(ValueError, match="load_causal_lm"):
        pair_logps(make_stock_model("llama"), pack_pairs(write_rows(tmp_path, rows), [0], "cpu"))
