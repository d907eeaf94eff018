"""The GPU benchmark's every line, on the CPU and a tiny shape: a lent GPU is no place to find a typing error."""

import importlib.util
import json
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_train_gpu.py"


def test_the_gpu_benchmark_runs_through(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("bench_train_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    out = tmp_path / "result.json"
    report = script.main(["--tiny", "--device", "cpu", "--out", str(out)])
    assert json.loads(out.read_text())["ratios"] == report["ratios"]
    assert report["resume"] == {"repeats_to_the_bit": True, "resumes_to_the_bit": True}
    assert max(report["parity"].values()) < 1e-5
    for name in script.parts():
        assert isinstance(report[name], dict), report[name]
    assert report["ratios"]["times trl-like default"] > 0
