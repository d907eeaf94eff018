"""`python readers.py LOADER FOLDER`: what one loader reads in a published policy, as a JSON line. Runs in its own
environment, and knows nothing of the service.

`request.json` in the folder says what to read: `messages`, `ids`, `end_ids`.
"""

import contextlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FREE_TOKENS = 3
"""A generation is let run so long, then the end token is made certain: whoever honours it stops there."""
MAX_NEW_TOKENS = 8
_CERTAIN = 1e4


def prompt_ids(policy: Path, messages: list[dict[str, str]]) -> list[int]:
    from transformers import AutoTokenizer  # noqa: PLC0415 - each loader needs other packages

    ids = AutoTokenizer.from_pretrained(policy).apply_chat_template(messages, add_generation_prompt=True)
    return list(ids if isinstance(ids, list) else ids["input_ids"])


def _logps(logits: Any, ids: list[int]) -> list[float]:
    values = np.asarray(logits, dtype=np.float64)[: len(ids) - 1]
    values = values - values.max(-1, keepdims=True)
    values = values - np.log(np.exp(values).sum(-1, keepdims=True))
    return [float(row[token]) for row, token in zip(values, ids[1:], strict=True)]


def _by_transformers(model: Any, ids: list[int], end_ids: list[int]) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    class ForcesEnd:
        def __init__(self, start: int, end: int) -> None:
            self.start, self.end = start, end

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if input_ids.shape[1] == self.start + FREE_TOKENS:
                scores[:, self.end] = _CERTAIN
            else:
                scores[:, end_ids] = -_CERTAIN
            return scores

    tokens = torch.tensor([ids])
    mask = torch.ones_like(tokens)
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=mask).logits[0]
    stops = []
    for end in end_ids:
        options = {"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False, "logits_processor": [ForcesEnd(20, end)]}
        out = model.generate(input_ids=tokens[:, :20], attention_mask=mask[:, :20], **options)
        stops.append(out.shape[1] == 20 + FREE_TOKENS + 1)
    return {"logps": _logps(logits, ids), "stops": stops}


def read_transformers(policy: Path, request: dict[str, Any]) -> dict[str, Any]:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    options = {} if os.environ.get("ATTENTION") is None else {"attn_implementation": os.environ["ATTENTION"]}
    model = AutoModelForCausalLM.from_pretrained(policy, torch_dtype=torch.float32, **options).eval()
    return _by_transformers(model, request["ids"], request["end_ids"])


def read_peft(policy: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The adapter on the base model that it names, beside the merged weights as the service wrote them."""
    import torch  # noqa: PLC0415
    from peft import AutoPeftModelForCausalLM  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    tokens = torch.tensor([request["ids"]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(policy.parent / "merged").eval()(input_ids=tokens).logits[0]
        model = AutoPeftModelForCausalLM.from_pretrained(policy / "adapter").eval()
        found = model(input_ids=tokens).logits[0]
    return {"logps": _logps(found, request["ids"]), "expected_logps": _logps(merged, request["ids"])}


def read_onnx(policy: Path, request: dict[str, Any]) -> dict[str, Any]:
    from optimum.onnxruntime import ORTModelForCausalLM  # noqa: PLC0415

    return _by_transformers(
        ORTModelForCausalLM.from_pretrained(policy, export=True), request["ids"], request["end_ids"]
    )


def read_ctranslate2(policy: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Stops at the tokenizer's end token alone, whatever the folder: its callers name others (`end_token`)."""
    import ctranslate2  # noqa: PLC0415
    from ctranslate2.converters import TransformersConverter  # noqa: PLC0415

    target = policy.parent / f"ctranslate2-{policy.name}-{os.getpid()}"
    TransformersConverter(str(policy)).convert(str(target))
    generator = ctranslate2.Generator(str(target))
    batch = ctranslate2.StorageView.from_array(np.array([request["ids"]], dtype=np.int32))
    lengths = ctranslate2.StorageView.from_array(np.array([len(request["ids"])], dtype=np.int32))
    return {"logps": _logps(np.array(generator.forward_batch(batch, lengths))[0], request["ids"])}


def read_mlx(policy: Path, request: dict[str, Any]) -> dict[str, Any]:
    import mlx.core as mx  # noqa: PLC0415
    from mlx_lm import load, stream_generate  # noqa: PLC0415

    model, tokenizer = load(str(policy))
    ids, end_ids = request["ids"], request["end_ids"]
    found = {"logps": _logps(np.array(model(mx.array([ids]))[0].astype(mx.float32)), ids), "stops": []}
    for end in end_ids:
        made = 0

        def force(tokens: Any, logits: Any, end: int = end) -> Any:
            nonlocal made
            made += 1
            chosen = end if made == FREE_TOKENS + 1 else 5
            return mx.where(mx.arange(logits.shape[-1]) == chosen, _CERTAIN, 0.0)[None]

        prompt = ids[:20]
        answers = list(stream_generate(model, tokenizer, prompt, max_tokens=MAX_NEW_TOKENS, logits_processors=[force]))
        found["stops"].append(answers[-1].finish_reason == "stop" and answers[-1].generation_tokens == FREE_TOKENS + 1)
    return found


def _rope_of(config: Any) -> dict[str, Any]:
    """What a configuration reader makes of the rotary embedding."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return {"rope": getattr(text, "rope_parameters", None), "window": getattr(text, "sliding_window", None)}


def read_vllm(policy: Path, request: dict[str, Any]) -> dict[str, Any]:
    from vllm.transformers_utils.config import get_config  # noqa: PLC0415

    return _rope_of(get_config(str(policy), trust_remote_code=False))


def read_sglang(policy: Path, request: dict[str, Any]) -> dict[str, Any]:
    from sglang.srt.utils.hf_transformers.config import get_config  # noqa: PLC0415

    return _rope_of(get_config(str(policy), trust_remote_code=False))


READERS = {
    "transformers": (read_transformers, "transformers"),
    "peft": (read_peft, "peft"),
    "onnx": (read_onnx, "optimum-onnx"),
    "ctranslate2": (read_ctranslate2, "ctranslate2"),
    "mlx": (read_mlx, "mlx-lm"),
    "vllm": (read_vllm, "vllm"),
    "sglang": (read_sglang, "sglang"),
}


def main(loader: str, policies: list[Path]) -> None:
    read, package = READERS[loader]
    for policy in policies:
        request = json.loads((policy.parent / "request.json").read_text())
        found: dict[str, Any] = {"policy": str(policy), "package": package, "version": version(package)}
        with contextlib.redirect_stdout(sys.stderr):
            try:
                found |= read(policy, request)
                if loader not in ("peft", "vllm", "sglang"):
                    found["prompt_ids"] = prompt_ids(policy, request["messages"])
            except Exception as error:  # noqa: BLE001 - whatever a loader does is what the matrix tells
                found["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:160]}"
        print(json.dumps(found), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], [Path(name) for name in sys.argv[2:]])
