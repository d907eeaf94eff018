"""The matrix of docs/guide/loaders.md: what other programs read in published policies, beside the model in memory.

`make loaders` makes their environments and runs this; a loader whose environment is missing keeps an empty column.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loaders.policies import SHAPES, publish

from core.domain.exports import GGUF_ARCHITECTURES, ExportFormat
from worker.light.exports import find_converter
from worker.processes.gguf_conversion import ExportTask

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venv-loaders"
PAGE = ROOT / "docs" / "guide" / "loaders.md"
BEGIN, END = "<!-- matrix: made by `make loaders` -->", "<!-- end of the matrix -->"
TOLERANCE = 1e-3
"""Nats, of every token's log-probability in float32."""
GGUF_MEAN_TOLERANCE = 0.03
SECONDS = 900
AT_ONCE = 2
"""Programs that read at a time."""


_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""The models are tiny: more threads only wait for each other."""
_ALONE = _ONE_THREAD | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "TRANSFORMERS_VERBOSITY": "error"}


@dataclass(frozen=True)
class Column:
    """One loader in one environment."""

    environment: str | None
    """A folder of ENVIRONMENTS; None: the service's own."""
    reader: str
    note: str = ""


COLUMNS = [
    Column("transformers-4.46", "transformers"),
    Column("transformers-4.57", "transformers"),
    Column(None, "transformers"),
    Column("transformers-newest", "transformers"),
    Column(None, "peft"),
    Column("mlx", "mlx"),
    Column("transformers-4.57", "ctranslate2", "transformers 4.57"),
    Column("transformers-newest", "ctranslate2", "transformers 5"),
    Column("transformers-4.57", "onnx", "transformers 4.57"),
    Column("vllm", "vllm", "its configuration"),
    Column("sglang", "sglang", "its configuration"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(SHAPES), help="shapes, by name")
    parser.add_argument("--print", action="store_true", dest="prints", help="print the matrix and write no file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="preftune-loaders-") as name:
        table = make_matrix(Path(name), options.only)
    if options.prints:
        print(table)  # noqa: T201
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def make_matrix(folder: Path, names: list[str]) -> str:
    """The table, a row a shape."""
    expected = {}
    for number, name in enumerate(names):
        target = folder / str(number)
        expected[name] = publish(SHAPES[name], target)
        (target / "request.json").write_text(json.dumps(expected[name]))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        readings = pool.map(lambda column: read_column(column, folder, expected), COLUMNS)
        converted = pool.map(read_gguf, [folder / str(number) for number in range(len(names))])
        columns = [reading for reading in readings if reading is not None]
        columns.append(("llama.cpp (GGUF f16)", list(converted)))
    heads = [head for head, _ in columns]
    cells = {name: [values[number] for _, values in columns] for number, name in enumerate(names)}
    rule = "|".join("---" for _ in ["shape", *heads])
    rows = [f"| {name} | " + " | ".join(values) + " |" for name, values in cells.items()]
    return "\n".join([f"Of {datetime.date.today()}.", "", f"| shape | {' | '.join(heads)} |", f"|{rule}|", *rows])


def read_column(column: Column, folder: Path, expected: dict[str, dict[str, Any]]) -> tuple[str, list[str]] | None:
    """Head and cells of one loader; None without its environment."""
    found = read_all(column, folder, len(expected))
    if not found:
        return None
    first = next(iter(found.values()))
    head = f"{first['package']} {first['version']}" + (f", {column.note}" if column.note else "")
    values = []
    for number, wanted in enumerate(expected.values()):
        policy, base = (found.get(str(folder / str(number) / kind)) for kind in ("policy", "base"))
        values.append(verdict(wanted, policy, base))
    print(json.dumps([head, values]), file=sys.stderr, flush=True)  # noqa: T201
    return head, values


def read_all(column: Column, folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """By folder, what the loader found in policies and base models; empty without its environment."""
    python = Path(sys.executable) if column.environment is None else ENVIRONMENTS / column.environment / "bin/python"
    if not python.is_file():
        return {}
    kinds = ("policy",) if column.reader == "peft" else ("policy", "base")
    folders = [str(folder / str(number) / kind) for number in range(count) for kind in kinds]
    command = [str(python), str(Path(__file__).with_name("readers.py")), column.reader, *folders]
    environment = (
        os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "TRANSFORMERS_VERBOSITY": "error"} | _ONE_THREAD
    )
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)  # noqa: T201
    return {line["policy"]: line for line in map(json.loads, done.stdout.splitlines())}


def verdict(expected: dict[str, Any], policy: dict[str, Any] | None, base: dict[str, Any] | None) -> str:
    """One cell."""
    if policy is None:
        return "ended"
    if "rope" in policy:
        return _configuration(policy, base)
    if "error" in policy:
        also = "; the base model too" if base is not None and "error" in base else ""
        return f"refuses{also}: {policy['error'].replace('|', '/')}"
    largest = _largest(policy, expected)
    if largest > TOLERANCE:
        of_base = 0.0 if base is None or "error" in base else _largest(base, expected)
        if abs(of_base - largest) < TOLERANCE:
            return f"**differs by {largest:.2g}**, as for the base model"
        also = f", the base model by {of_base:.2g}" if of_base > TOLERANCE else ""
        return f"**differs by {largest:.2g}**{also}"
    if policy.get("prompt_ids", expected["prompt_ids"]) != expected["prompt_ids"]:
        return "**other ids**"
    stops = policy.get("stops")
    if stops is not None and not all(stops):
        return f"**stops at {sum(stops)} of {len(stops)} ends**"
    return f"same ({largest:.0e})" + ("" if stops is not None or policy["package"] == "peft" else ", stops as called")


def _largest(found: dict[str, Any], expected: dict[str, Any]) -> float:
    wanted = found.get("expected_logps", expected["logps"])
    return float(max(abs(one - other) for one, other in zip(found["logps"], wanted, strict=True)))


def _configuration(policy: dict[str, Any], base: dict[str, Any] | None) -> str:
    same = base is not None and (policy["rope"], policy["window"]) == (base.get("rope"), base.get("window"))
    return "as of the base model" if same else "**another one than of the base model**"


def read_gguf(folder: Path) -> str:
    """The cell of llama.cpp: converted and checked as an export is."""
    policy = folder / "policy"
    if json.loads((policy / "config.json").read_text())["architectures"][0] not in GGUF_ARCHITECTURES:
        return "not exported (422)"
    work = folder / "gguf"
    work.mkdir()
    task = ExportTask(policy_dir=str(policy), format=ExportFormat.GGUF_F16, name="tiny", num_threads=1)
    (work / "export.json").write_text(json.dumps(asdict(task)))
    converter = find_converter(None)
    for module, path in (("gguf_conversion", f"{converter}:{ROOT}"), ("gguf_check", str(ROOT))):
        command = [sys.executable, "-P", "-m", f"worker.processes.{module}", str(work)]
        done = subprocess.run(
            command,
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if (work / "refused.txt").is_file():
            return f"refused: {(work / 'refused.txt').read_text()}"
        if done.returncode:
            return f"fails: {done.stderr.strip().splitlines()[-1][:160]}"
    found = json.loads((work / "verification.json").read_text())
    length = json.loads((policy / "config.json").read_text())
    cut = found["context_length"] < length.get("max_position_embeddings", length.get("n_positions"))
    until = f", up to {found['context_length']} tokens" if cut else ""
    return f"same (mean {found['mean_difference']:.0e}, float16){until}"


if __name__ == "__main__":
    main()
