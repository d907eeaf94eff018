"""`make test-architectures`: every causal type of the installed transformers, each in a process of its own.

    python benchmarks/architectures/sweep.py [type …]

Bounded in time and memory; results are kept as JSON lines, so that a broken-off sweep goes on where it was. At the
end the table of the documentation is written anew. Exit status 1 when a type is wrong or fails inside the engine.
"""

import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "tests" / "support"), str(_ROOT / "benchmarks")]

from architectures.table import write_table  # noqa: E402 - its place is on the path now
from architectures.trial import try_type  # noqa: E402

SECONDS = 120
"""Of one type."""
MEMORY_BYTES = 8 * 2**30
RESULTS = _ROOT / "benchmarks" / "results" / "architectures.jsonl"
PAGE = _ROOT / "docs" / "evidence" / "architectures.md"
_BAD = ("wrong", "internal")


def main(wanted: list[str]) -> int:
    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    kept = _read_results()
    for model_type in wanted or [name for name in known if name not in kept]:
        kept[model_type] = _isolated(model_type)
        print(model_type, kept[model_type]["verdict"], *kept[model_type]["faults"], kept[model_type]["reason"][:90])
        _write_results(kept)
    write_table(PAGE, [kept[name] for name in known if name in kept], transformers.__version__)
    bad = [name for name, result in kept.items() if result["verdict"] in _BAD]
    print(f"{len(kept)} of {len(known)} types tried; wrong or failed inside the engine: {', '.join(bad) or 'none'}")
    return 1 if bad else 0


def _isolated(model_type: str) -> dict[str, Any]:
    """The outcome of one type in a forked process, which may be killed for time or memory."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(model_type, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if answer:
        found: dict[str, Any] = json.loads(answer)
        return found
    return _failed(model_type, "not tried", f"took more than {SECONDS} s or {MEMORY_BYTES >> 30} GiB")


def _run_child(model_type: str, writer: int) -> None:
    """Never returns."""
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        facts = try_type(model_type).facts()
    except Exception as error:  # noqa: BLE001 - what the engine let through: the thing this sweep looks for
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        facts = _failed(model_type, "internal", reason.replace("\n", " ")[:300])
    os.write(writer, json.dumps(facts).encode())
    os._exit(0)


def _failed(model_type: str, verdict: str, reason: str) -> dict[str, Any]:
    return {"model_type": model_type, "verdict": verdict, "reason": reason, "faults": []}


def _read_results() -> dict[str, dict[str, Any]]:
    if not RESULTS.is_file():
        return {}
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    return {result["model_type"]: result for result in map(json.loads, lines)}


def _write_results(kept: dict[str, dict[str, Any]]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(kept[name], sort_keys=True) + "\n" for name in sorted(kept))
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
