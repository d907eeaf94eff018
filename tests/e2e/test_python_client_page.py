"""The examples of docs/guide/python-client.md run, in their order, against a service whose worker is a thread here."""

import re
from pathlib import Path

import pytest
from api_server import pairs, serve
from backends import BASE_MODEL
from played_jobs import plays_all

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guide" / "python-client.md"
KEY = "pt_python_client_0123456789abcdef"


def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 5
    (tmp_path / "pairs.jsonl").write_bytes(pairs())
    monkeypatch.chdir(tmp_path)
    with serve(tmp_path / "service", api_key=KEY) as api:
        monkeypatch.setenv("PREFTUNE_API_KEY", KEY)
        api.http.headers["Authorization"] = f"Bearer {KEY}"
        with plays_all(api):
            names: dict[str, object] = {}
            for example in examples:
                here = example.replace("http://127.0.0.1:8000", api.url).replace("smollm2-135m-instruct", BASE_MODEL)
                exec(compile(here, str(PAGE), "exec"), names)
    told = capsys.readouterr().out
    assert "3 pairs" in told
    assert "succeeded" in told
    assert "422 invalid-request" in told
    assert "/beta must be greater than 0" in told
    assert (tmp_path / "policy" / "model.safetensors").read_bytes() == b"weights"
