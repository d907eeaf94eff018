"""Check that llama.cpp reads an export as its policy: `python -m worker.processes.gguf_check <work directory>`.

It must split a text into the same tokens, give them the policy's log-probabilities, claim no context beyond a sliding
window, which llama.cpp does not have, and stop at the token that ends a trained turn. Writes `verification.json`, or
`refused.txt` with a sentence for the user.
"""

import json
import os
import secrets
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xllamacpp
from gguf import GGUFReader
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from core.domain.exports import ExportFormat
from core.tokenization.pair_tokenizer import PairTokenizer
from worker.processes.gguf_conversion import (
    GGUF_FILE,
    NICENESS,
    REFUSAL_FILE,
    ExportTask,
    read_task,
    sliding_window_of,
)

VERIFICATION_FILE = "verification.json"
TEXT = (
    "The trained policy's answers should read as before, word for word.\n\nIn 2026 it costs 1,250.75 (or 3/4 of that): "
    "isn't it what you've asked for? Ça va très bien, merci. Tokens  with   spaces, x = f(y) + 10;\n\t- and a list."
)
MAX_TOKENS = 96
TOLERANCES = {ExportFormat.GGUF_F32: 0.03, ExportFormat.GGUF_F16: 0.03, ExportFormat.GGUF_Q8_0: 0.25}
"""Nats a token, on average: single unlikely tokens differ by more, and a file read wrongly differs by whole nats."""
MAX_FLOAT32_BYTES = 8 * 1024**3
"""Size of weights beyond which policies compute in bfloat16."""
_CERTAIN = 1e4


class ReadOtherwise(Exception):
    """Raised when llama.cpp reads another policy from the file. The text is for the user."""


@dataclass(frozen=True, kw_only=True)
class GgufVerification:
    num_tokens: int
    mean_difference: float
    """Mean difference of a token's log-probability, in nats."""
    max_difference: float
    tolerance: float
    """Permitted mean difference."""
    context_length: int
    """Tokens up to which the file is the policy; with a sliding window, the window's."""
    end_token_ids: list[int]
    """Where llama.cpp stops, of the tokens at which the policy does."""


class LlamaCpp:
    """One GGUF file, as llama.cpp serves it."""

    def __init__(self, path: Path, num_threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 4 * MAX_TOKENS, 1, False, -1
        params.cpuparams.n_threads = num_threads
        # It listens on loopback, where others live too.
        self._key = secrets.token_hex()
        params.api_keys = [self._key]
        self._server = xllamacpp.Server(params)
        # A server that is let go before its loop runs never ends (xllamacpp 2026.10): once it has answered, it runs.
        self._server.handle_completions({"prompt": [0], "n_predict": 1})

    def tokenize(self, text: str) -> list[int]:
        content = json.dumps({"content": text, "add_special": False}).encode()
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._server.listening_address}/tokenize", content, headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            tokens: list[int] = json.load(answer)["tokens"]
        return tokens

    def token_logps(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Return log-probabilities of each token after the first, [T-1]; NaN in the middle of a character."""
        found = []
        for place in range(1, len(ids)):
            # The bias makes the next token certain; its log-probability is told as it is without.
            request = {"prompt": list(ids[:place]), "logit_bias": [[ids[place], _CERTAIN]]}
            answer = self._server.handle_completions(request | {"n_predict": 1, "n_probs": 1, "temperature": 0.0})
            told = answer["choices"][0]["logprobs"]
            found.append(told["content"][0]["logprob"] if told else np.nan)
        return np.array(found, dtype=np.float64)

    def stops_at(self, ids: Sequence[int], token: int) -> bool:
        """Whether a generation ends at that token."""
        request = {"prompt": list(ids), "logit_bias": [[token, _CERTAIN]], "n_predict": 2, "temperature": 0.0}
        return bool(self._server.handle_completions(request)["choices"][0]["finish_reason"] == "stop")


def policy_token_logps(policy_dir: Path, ids: Sequence[int]) -> NDArray[np.float64]:
    """Return log-probabilities by transformers alone, [T-1]."""
    num_bytes = sum(path.stat().st_size for path in policy_dir.glob("*.safetensors"))
    dtype = torch.float32 if num_bytes <= MAX_FLOAT32_BYTES else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(policy_dir, dtype=dtype, local_files_only=True).eval()
    tokens = torch.tensor([list(ids)])
    with torch.no_grad():
        logps = model(input_ids=tokens).logits[0, :-1].float().log_softmax(-1)
    values: NDArray[np.float64] = logps.gather(-1, tokens[0, 1:, None])[:, 0].double().numpy()
    return values


def check(task: ExportTask, path: Path) -> GgufVerification:
    """Compare the file with the policy; raises ReadOtherwise."""
    policy_dir = Path(task.policy_dir)
    ids = Tokenizer.from_file(str(policy_dir / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    context_length = _context_length(policy_dir, path)
    read = LlamaCpp(path, task.num_threads)
    if read.tokenize(TEXT) != ids:
        raise ReadOtherwise("llama.cpp splits text into other tokens than this tokenizer; the file is not published.")
    ids = ids[: min(MAX_TOKENS, context_length)]
    found = read.token_logps(ids)
    differences = np.abs(found - policy_token_logps(policy_dir, ids))[~np.isnan(found)]
    if 2 * differences.size < len(ids):
        raise ReadOtherwise("llama.cpp gives too few log-probabilities to judge the file by; it is not published.")
    mean, tolerance = float(differences.mean()), TOLERANCES[task.format]
    if not mean <= tolerance:  # NaN is no equality
        raise ReadOtherwise(
            f"llama.cpp reads other log-probabilities from the file, by {mean:.2g} nats a token; it is not published."
        )
    return GgufVerification(
        num_tokens=differences.size,
        mean_difference=mean,
        max_difference=float(differences.max()),
        tolerance=tolerance,
        context_length=context_length,
        end_token_ids=_ends(policy_dir, read, ids[:8]),
    )


def _context_length(policy_dir: Path, path: Path) -> int:
    """Return the file's context length. Raises ReadOtherwise where it exceeds the policy's sliding window."""
    fields = GGUFReader(path).fields
    length = int(fields[f"{fields['general.architecture'].contents()}.context_length"].contents())
    window = sliding_window_of(json.loads((policy_dir / "config.json").read_text(encoding="utf-8")))
    if window is not None and window < length:
        raise ReadOtherwise(
            f"llama.cpp would attend to all {length} tokens where the policy attends to {window}; the file is not "
            "published."
        )
    return length


def _ends(policy_dir: Path, read: LlamaCpp, ids: Sequence[int]) -> list[int]:
    """Return end tokens at which llama.cpp stops after `ids`. Raises ReadOtherwise without that of a turn."""
    wanted = PairTokenizer.open(policy_dir).eos_ids
    found = [token for token in wanted if read.stops_at(ids, token)]
    if wanted[0] not in found:
        raise ReadOtherwise("llama.cpp does not stop at the token that ends a turn; the file is not published.")
    return found


def main(work_dir: Path) -> int:
    os.nice(NICENESS)
    task = read_task(work_dir)
    torch.set_num_threads(task.num_threads)
    try:
        verification: dict[str, Any] = asdict(check(task, work_dir / GGUF_FILE))
        (work_dir / VERIFICATION_FILE).write_text(json.dumps(verification, allow_nan=False), encoding="utf-8")
    except ReadOtherwise as refusal:
        (work_dir / REFUSAL_FILE).write_text(str(refusal), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
