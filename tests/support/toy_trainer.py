"""A trainer for fault tests: true to the protocol, deterministic, without torch. `python toy_trainer.py <work dir>`

Its "weights" are a hash chained over the steps, so that an interrupted run ends in the same bytes as an
undisturbed one, or visibly does not. A job's metadata `toy` (JSON) says how it behaves: see `Script`.
"""

import errno
import hashlib
import json
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.domain.jobs.event_kinds import CHECKPOINT_UNUSABLE
from core.domain.trainer_protocol import (
    ASSIGNMENT_FILE,
    Assignment,
    CheckpointWritten,
    Done,
    Failed,
    Hello,
    MetricPoint,
    Progress,
    Resolved,
    SamplesWritten,
    StageChanged,
    StageOutputQuery,
    StageOutputWritten,
    Stopped,
    TrainerEvent,
)
from worker.processes.trainer.supervisor_link import SupervisorLink

STAGES = ("sft", "dpo")


@dataclass(frozen=True, kw_only=True)
class Script:
    steps: int = 10
    """Of each stage."""
    step_seconds: float = 0.0
    checkpoint_every: int = 3
    checkpoint_bytes: int = 1000
    kill_at: dict[str, int] = field(default_factory=dict)
    """Attempt (or `*`) -> step of DPO at which it kills itself."""
    hold_at: dict[str, int] = field(default_factory=dict)
    """Attempt -> step of DPO behind which it waits until it is told to stop, so that a test comes in time."""
    hold_until: str = ""
    """Or until this folder has a file of the attempt's number."""
    fail: dict[str, str] = field(default_factory=dict)
    """`code` and `detail` of a failure at the first step."""
    ignores_stop: bool = False
    says_nonsense: bool = False
    refuses_checkpoints: bool = False
    refuse_at: dict[str, int] = field(default_factory=dict)
    """Attempt -> how many of the checkpoints that it is given it cannot use."""
    hangs_at_end: bool = False
    measures: str = ""
    """What it finds to be the faster precision, where it has to look; empty: it does not look."""
    raises: str = ""
    """The text of an error that nothing catches, at the start of each attempt."""
    prints: bool = True
    """Something on standard output, as libraries do."""


@dataclass
class State:
    stage: str
    step: int
    chain: bytes


class ToyTrainer:
    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.assignment = Assignment.load((work_dir / ASSIGNMENT_FILE).read_text())
        self.script = Script(**json.loads(self.assignment.spec["metadata"].get("toy", "{}")))
        self.link = SupervisorLink()
        self._is_saving = False
        self._checkpointed: tuple[str, int] | None = None

    def run(self) -> None:
        script = self.script
        precision = self.assignment.fast_precision or script.measures
        hello = Hello(
            pid=os.getpid(), versions={"toy": "1"}, device=self.assignment.device, fast_precision=precision or None
        )
        self.link.send(hello)
        if script.prints:
            print("a library's chatter")  # noqa: T201
        if script.raises:
            raise RuntimeError(script.raises)
        if script.says_nonsense:
            os.write(1, b"")
            self.link._output.write(b"this is no message\n")
            self.link._output.flush()
            time.sleep(60)
        if script.fail:
            self.link.send(Failed(**script.fail))
            return
        spec = self.assignment.spec | {"micro_batch_tokens": 4096}
        if precision and spec["precision"] == "auto":
            spec["precision"] = precision
        self.link.send(Resolved(spec=spec))
        state = self._start()
        if state is None:
            return
        for stage in STAGES[STAGES.index(state.stage) :]:
            if not self._run_stage(stage, state):
                return
            if self._is_saving:
                break  # as the real one: the policy is that of this stage
            state = State(stage="dpo", step=0, chain=state.chain)
        self._finish(state)

    def _start(self) -> State | None:
        if self.assignment.resume_from is None:
            rows = Path(self.assignment.rows).read_bytes()
            return State(stage="sft", step=0, chain=hashlib.sha256(rows).digest())
        if self.script.refuses_checkpoints or self._refuses_once_more():
            self.link.send(TrainerEvent(level="warning", kind=CHECKPOINT_UNUSABLE, message="it is of another run."))
            self.link.send(Failed(code="internal", detail="The checkpoint cannot be used."))
            return None
        values = json.loads((Path(self.assignment.resume_from) / "state.json").read_text())
        return State(stage=values["stage"], step=values["step"], chain=bytes.fromhex(values["chain"]))

    def _refuses_once_more(self) -> bool:
        """Every refusal is another start of this attempt, in the same directory."""
        notes = self.work_dir / "refusals"
        num_before = len(notes.read_text()) if notes.exists() else 0
        notes.write_text("x" * (num_before + 1))
        return num_before < self.script.refuse_at.get(str(self.assignment.attempt), 0)

    def _run_stage(self, stage: str, state: State) -> bool:
        """False when it was stopped."""
        steps = self.script.steps
        digest = hashlib.sha256(state.chain + f"{stage} of {steps} steps".encode()).hexdigest()
        if stage == "sft" and state.step == 0 and self._take_over(state, digest):
            return True
        self.link.send(StageChanged(stage=stage, status="started", step=state.step, total_steps=steps))
        self.link.send(Progress(stage=stage, step=state.step, total_steps=steps))
        self.link.send(TrainerEvent(level="info", kind="toy", message=f"On with {stage}."))
        if stage == "dpo" and self._pauses_at(state):
            return False
        while state.step < steps:
            self._step(stage, state)
            if stage == "dpo" and self._pauses_at(state):
                return False
            self._hold(stage, state)
            mode = None if self.script.ignores_stop else self.link.stop_mode
            if mode == "save":
                self._is_saving = True
                break
            if mode == "checkpoint" or state.step % self.script.checkpoint_every == 0:
                self._checkpoint(stage, state)
            if mode is not None:
                self.link.send(Stopped())
                return False
        self.link.send(StageChanged(stage=stage, status="finished", step=state.step, total_steps=steps))
        if stage == "sft" and state.step == steps:
            directory = self.work_dir / "sft-output"
            directory.mkdir(exist_ok=True)
            (directory / "chain").write_text(state.chain.hex())
            self.link.send(StageOutputWritten(stage=stage, digest=digest, directory=str(directory)))
        return True

    def _take_over(self, state: State, digest: str) -> bool:
        answer = self.link.ask(StageOutputQuery(stage="sft", digest=digest))
        if answer.directory is None:
            return False
        state.chain = bytes.fromhex((Path(answer.directory) / "chain").read_text())
        self.link.send(StageChanged(stage="sft", status="reused"))
        return True

    def _step(self, stage: str, state: State) -> None:
        time.sleep(self.script.step_seconds)
        state.step += 1
        state.chain = hashlib.sha256(state.chain + f"{stage}{state.step}".encode()).digest()
        kill_at = self.script.kill_at.get(str(self.assignment.attempt), self.script.kill_at.get("*"))
        if stage == "dpo" and state.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = int.from_bytes(state.chain[:4]) / 2**32
        self.link.send(
            MetricPoint(
                stage=stage,  # type: ignore[arg-type]
                split="train",
                step=state.step,
                epoch=state.step / self.script.steps,
                values={"loss": loss, "tokens_per_second": time.monotonic()},
            )
        )

    def _pauses_at(self, state: State) -> bool:
        """Pause where the job is compared with others, once it is evaluated: nearer to a beta of 0.3 is better."""
        share = self.assignment.pause_at_share
        if share is None or state.step < math.ceil(share * self.script.steps):
            return False
        values: dict[str, float | None] = {"rewards/accuracies": 1 - abs(self.assignment.spec["beta"] - 0.3)}
        self.link.send(
            MetricPoint(stage="dpo", split="validation", step=state.step, epoch=state.step / 10, values=values)
        )
        self._checkpoint("dpo", state)
        self.link.send(Stopped(is_planned=True))
        return True

    def _hold(self, stage: str, state: State) -> None:
        attempt = str(self.assignment.attempt)
        is_here = stage == "dpo" and state.step == self.script.hold_at.get(attempt)
        if is_here and state.step % self.script.checkpoint_every == 0:
            self._checkpoint(stage, state)
        gate = self.script.hold_until
        while is_here and self.link.stop_mode is None and not (gate and Path(gate, attempt).exists()):
            time.sleep(0.05)

    def _checkpoint(self, stage: str, state: State) -> None:
        directory = self.work_dir / "checkpoints" / f"{stage}-{state.step}"
        if self._checkpointed == (stage, state.step):
            return
        self._checkpointed = (stage, state.step)
        directory.mkdir(parents=True)
        values: dict[str, Any] = {"stage": stage, "step": state.step, "chain": state.chain.hex()}
        (directory / "state.json").write_text(json.dumps(values))
        (directory / "weights.bin").write_bytes(state.chain * (self.script.checkpoint_bytes // 32 + 1))
        self.link.send(CheckpointWritten(directory=str(directory), stage=stage, step=state.step))

    def _finish(self, state: State) -> None:
        directory = self.work_dir / "artifact"
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(state.chain)
        (directory / "config.json").write_text("{}")
        samples = [{"prompt": "p", "reference": "r", "policy": state.chain.hex()[:8]}]
        self.link.send(SamplesWritten(step=state.step, samples=samples))
        self.link.send(Done(directory=str(directory), evaluation={"loss": 0.25}))
        if self.script.hangs_at_end:
            time.sleep(60)


def expected_weights(rows: bytes, script: Script) -> bytes:
    """What an undisturbed run publishes."""
    chain = hashlib.sha256(rows).digest()
    for stage in STAGES:
        for step in range(1, script.steps + 1):
            chain = hashlib.sha256(chain + f"{stage}{step}".encode()).digest()
    return chain


def main() -> None:
    trainer = ToyTrainer(Path(sys.argv[1]))
    try:
        trainer.run()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        trainer.link.send(Failed(code="disk_full", detail="The worker's disk is full."))  # as the real one says it


if __name__ == "__main__":
    main()
