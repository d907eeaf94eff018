"""What a child process knows of ours, and that it ends when we do."""

import os
import subprocess
import sys

import pytest

from core.children.environment import kept_environment

WAITS = """
import os, time
from core.children.parent import end_with_parent
end_with_parent(lambda: os._exit(7))
print("up", flush=True)
time.sleep(60)
"""


def test_no_secret_is_handed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("PREFTUNE_API_KEY", "PREFTUNE_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_API_KEY")
    for name in secrets:
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    kept = kept_environment()
    assert "a-secret" not in kept.values()
    assert kept["CUDA_VISIBLE_DEVICES"] == "1"
    assert kept["PATH"] == os.environ["PATH"]


def test_a_child_ends_when_its_standard_input_is_closed() -> None:
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        child.stdin.write(b"whatever is sent before")
        child.stdin.close()
        assert child.wait(30) == 7
