"""Real full disks, of a few pages: whatever writes then calls it a full disk and says what had no room.

What one process writes by itself is tested where it is written; here are child processes and libraries, which tell of
it in words of their own.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import write_tiny_tokenizer
from tiny_runs import RecordingObserver, World
from trained_jobs import make_rows

from core.datasets.check.check_process import check_in_child
from core.datasets.options import CheckOptions
from core.disk_space import NoRoom, is_out_of_space, purpose_of, room_for
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import Unavailable
from core.domain.jobs.failure_codes import FailureCode
from core.domain.trainer_protocol import Failed
from core.storage.object_store import StoreUnavailable
from core.tokenization.encode_file import encode_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.failures import DiskFull
from core.training.pipeline import run
from core.training.plan import LoraPlan
from worker.light.lane import RequestContext, RequestRefused
from worker.processes.trainer.__main__ import explain


class Disk:
    """A file system of its own; leaving it takes it away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def make(self, kibibytes: int) -> Path:
        self.close()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(self.folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root")
        return self.folder

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


def test_rows_that_are_tokenised_by_several_processes(disk: Disk, tmp_path: Path) -> None:
    """Not for lack of memory, as any other sudden end of such a process."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in make_rows(900)))
    tokenizer = PairTokenizer.open(write_tiny_tokenizer(tmp_path / "base"))
    out = disk.make(96)
    with pytest.raises(OSError, match="No space left") as caught:
        encode_file(rows, tokenizer, out / "rows", kind=DatasetKind.PREFERENCE, max_length=512, num_processes=2)
    failed = explain(caught.value)
    assert (failed.code, "has no room for the tokenised rows" in failed.detail) == (FailureCode.DISK_FULL, True)


def test_rows_that_are_checked_in_a_child(disk: Disk, tmp_path: Path) -> None:
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row | {"line": None}) + "\n" for row in make_rows(3000)))
    with pytest.raises(Unavailable, match="no room to write the rows"):
        check_in_child(source, CheckOptions(), disk.make(64), timeout_seconds=60, memory_bytes=512 << 20)


@pytest.mark.parametrize("changes", [{}, {"lora": LoraPlan(rank=2)}], ids=["full", "lora"])
def test_a_run_on_small_disks_ends_well_or_with_the_code_and_is_resumed(
    changes: dict[str, Any], disk: Disk, tmp_path: Path
) -> None:
    """The code has the words of what was being written; from its last checkpoint the run goes on elsewhere."""
    world = World.make(tmp_path / "world", num_train=6, num_validation=3)
    whole = run(world.plan("whole", sft=None, **changes), RecordingObserver())
    plan = dataclasses.replace(world.plan("-", sft=None, checkpoint_every_steps=1, **changes), work_dir="")
    purposes = set()
    last = None
    for size in (16, 110, 700):
        work_dir, observer = str(disk.make(size) / "work"), RecordingObserver()
        failure: DiskFull | None = None
        try:
            run(dataclasses.replace(plan, work_dir=work_dir), observer)
        except DiskFull as error:
            failure = error
        if failure is not None:
            assert failure.failure_code is FailureCode.DISK_FULL
            assert "the job continues from its last checkpoint" in failure.detail
            assert str(disk.folder) not in failure.detail
            purposes.add(failure.detail.partition(" has no room for ")[2].partition(".")[0])
        if observer.checkpoints:
            last = shutil.copytree(observer.checkpoints[-1].directory, tmp_path / f"checkpoint-{size}")
    assert last is not None
    resumed = dataclasses.replace(plan, work_dir=str(tmp_path / "rest"), resume_from=str(last))
    assert run(resumed, RecordingObserver()).evaluation == whole.evaluation
    assert purposes
    assert purposes <= {"a checkpoint", "the reference's log-probabilities", "the tuned policy", "the pair report"}


def test_words_of_safetensors(disk: Disk) -> None:
    path = disk.make(16) / "x.safetensors"
    with pytest.raises(OSError, match=r"no room|No space") as caught, room_for("a tensor"):
        save_file({"x": torch.zeros(100_000)}, path)
    assert purpose_of(caught.value) == "a tensor"
    assert explain(caught.value).code is FailureCode.DISK_FULL


@pytest.mark.parametrize("text", ["raise SystemExit(1)", "raise OSError(28, 'No space left on device')"])
def test_programs_of_the_light_lane(text: str, disk: Disk) -> None:
    """Whether or not there was room for the program's own last words."""
    filler = "open(sys.argv[1] + '/big', 'wb', buffering=0)\nwhile file.write(bytes(4096)): pass"
    program = f"import sys\ntry:\n  file = {filler}\nexcept OSError:\n  {text}"
    program = program.replace("\nwhile", "\n  while")
    lane = SimpleNamespace(
        backend=SimpleNamespace(settings=SimpleNamespace(lease_seconds=60)),
        num_threads=1,
        drain=SimpleNamespace(is_begun=False),
        beat=lambda: None,
    )
    context = RequestContext(lane, SimpleNamespace(id="x"), disk.make(128))  # type: ignore[arg-type]
    with pytest.raises(RequestRefused, match=r"disk is full .* the files of this request.*then ask again"):
        context.run([sys.executable, "-c", program], "The conversion")


def test_what_is_no_full_disk_of_the_worker() -> None:
    with pytest.raises(ValueError, match="other"), room_for("a tensor"):
        raise ValueError("other")
    with pytest.raises(StoreUnavailable) as caught, room_for("a tensor"):
        raise StoreUnavailable("The disk of the object store is full.") from NoRoom("an object")
    assert not is_out_of_space(caught.value)
    failed = explain(OSError(5, "Input/output error"))
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.INTERNAL
