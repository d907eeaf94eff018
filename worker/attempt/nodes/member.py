"""The part of a node that does not lead: stage the inputs, run the trainers, store their files of checkpoints.

Node 0 ends the attempt, for all. Until then a node stays, whatever became of its trainers: it says how they ended, and
goes once the attempt is over. Never imports torch.
"""

import logging
import time
from pathlib import Path

from core.confinement import Bounds
from core.control_groups import count_out_of_memory_kills, memory_limit_bytes
from core.disk_space import room_for
from core.domain.errors import Fenced, Unavailable
from core.domain.jobs.job_state import AttemptOutcome
from core.domain.jobs.stored_files import StoredTree
from core.domain.trainer_protocol import ASSIGNMENT_FILE
from core.failpoints import reach
from core.services.attempts import nodes
from core.services.attempts.claimed_job import ClaimedJob
from core.storage.trees import TreeDamaged
from core.telemetry.scrubbing import scrubber_for
from worker.attempt.assignments import make_assignment
from worker.attempt.conversation import TrainerDialogue
from worker.attempt.failures import StagingFailed
from worker.attempt.inputs.fetcher import Fetcher
from worker.attempt.inputs.staging import Inputs, NotOnThisWorker, stage_inputs
from worker.attempt.nodes.causes import is_consequence, report_of
from worker.attempt.nodes.log_tail import LogTail
from worker.attempt.nodes.parts import PartRecorder
from worker.attempt.nodes.pulse import NodePulse, NodeStops
from worker.attempt.outcomes import Fail, GiveBack, TrainerEnd, judge, judge_os_error
from worker.attempt.stopping import Interrupted, Stopper
from worker.attempt.trainer_process import TrainerProcess
from worker.attempt.workplace import Workplace
from worker.patience import patiently

_LOOK_SECONDS = 0.2
_END_SECONDS = 24 * 3600.0

_log = logging.getLogger(__name__)


def run_node(place: Workplace, claim: ClaimedJob, work_dir: Path) -> None:
    """Run a node's part of an attempt until the attempt is over. Raises nothing."""
    where = f"node {claim.place.node} of attempt {claim.attempt} of {claim.job_id}"
    _log.info("%s starts", where)
    with NodePulse(claim) as pulse:
        node = _Node(place, claim, work_dir, pulse)
        try:
            node.run()
        except Fenced:
            _log.info("%s ends, with the attempt", where)
        except Interrupted:
            _log.warning("no time left for %s: its job goes on without it", where)
        except Exception:  # noqa: BLE001 - the edge of the worker: the next job must get its turn
            _log.exception("%s: unexpected error; its pulse ends", where)
        finally:
            node.close()


class _Node:
    def __init__(self, place: Workplace, claim: ClaimedJob, work_dir: Path, pulse: NodePulse) -> None:
        self._place = place
        self._claim = claim
        self._work_dir = work_dir
        self._pulse = pulse
        self._stops = NodeStops(claim, pulse, place.drain, place.beat)
        self._fetcher = Fetcher(claim=claim, work_dir=work_dir, check=self._stops.current)
        self._parts = PartRecorder(claim, pulse)
        self._log = LogTail(scrubber_for(claim.backend.settings, work_dir))

    def close(self) -> None:
        self._parts.close()

    def run(self) -> None:
        """Run the part, report a failure, and stay until the attempt is over. Raises Fenced, Interrupted."""
        failure = self._try()
        self._parts.end()
        self._pulse.is_waiting = True
        if failure is not None:
            _log.warning("node %d of %s ends: %s", self._claim.place.node, self._claim.job_id, failure["detail"])
            patiently(
                lambda: nodes.report(self._claim, failure),
                between_tries=self._stops.current,
                max_seconds=_END_SECONDS,
            )
        while True:
            self._stops.current()
            time.sleep(_LOOK_SECONDS)

    def _try(self) -> dict[str, object] | None:
        """Run the trainers; return a report of what went wrong."""
        verdict: Fail | GiveBack
        try:
            return self._train()
        except StagingFailed as failure:
            verdict = Fail(code=failure.code, detail=failure.detail)
        except (NotOnThisWorker, TreeDamaged) as lack:
            verdict = GiveBack(outcome=AttemptOutcome.CRASHED, detail=str(lack))
        except Unavailable as error:
            verdict = GiveBack(outcome=AttemptOutcome.OUTAGE, detail=error.detail)
        except OSError as error:
            verdict = judge_os_error(error)
        except (Fenced, Interrupted):
            raise
        except Exception:  # noqa: BLE001 - whatever it is, node 0 hears of it
            _log.exception("node %d of %s: unexpected error", self._claim.place.node, self._claim.job_id)
            verdict = GiveBack(outcome=AttemptOutcome.CRASHED, detail="The worker met an unexpected error.")
        return report_of(verdict, is_consequence=False, log=self._log.lines())

    def _train(self) -> dict[str, object] | None:
        with room_for("the base model and the rows of the data set"):
            inputs = stage_inputs(self._fetcher)
        with room_for("the checkpoint to go on from"):
            resume = self._fetch_resume_point()
        self._write_assignment(inputs, resume)
        self._pulse.is_waiting = False
        end = self._run_trainers(inputs)
        if end.last is None and end.returncode == 0:
            return None
        verdict = judge(end)
        if not isinstance(verdict, Fail | GiveBack):
            return None
        return report_of(verdict, is_consequence=is_consequence(end), log=self._log.lines())

    def _fetch_resume_point(self) -> Path | None:
        """Fetch the checkpoint that node 0 goes on from, once node 0 listens. Raises TreeDamaged."""
        fetched: StoredTree | None = None
        target = self._work_dir / "resume"
        while True:
            self._stops.current()
            reply = self._pulse.reply
            if reply is not None and reply.has_begun:
                if reply.resume is not None and reply.resume != fetched:
                    self._fetcher.fetch_checkpoint(reply.resume, target)
                    fetched = reply.resume
                if reply.port is not None:
                    return target if reply.resume is not None else None
            time.sleep(_LOOK_SECONDS)

    def _write_assignment(self, inputs: Inputs, resume_dir: Path | None) -> None:
        reply = self._pulse.reply
        assert reply is not None
        assert reply.port is not None
        assignment = make_assignment(
            self._place, self._claim, self._claim.spec, inputs, resume_dir, (reply.address, reply.port)
        )
        (self._work_dir / ASSIGNMENT_FILE).write_text(assignment.dump(), encoding="utf-8")
        reach("node.assignment_written")

    def _run_trainers(self, inputs: Inputs) -> TrainerEnd:
        num_kills = count_out_of_memory_kills()
        bounds = Bounds(writes=[self._work_dir], reads=[inputs.base_model_dir], allows_tcp=True)
        process = TrainerProcess(self._place.launch.for_group(), self._work_dir, self._log.add, bounds)
        reach("node.trainer_started")
        grace_seconds = self._claim.backend.settings.stop_grace_seconds
        dialogue = TrainerDialogue(
            process=process,
            recorder=self._parts,
            stopper=Stopper(process, grace_seconds),
            stop_requests=self._stops,
            work_dir=self._work_dir,
            grace_seconds=grace_seconds,
        )
        try:
            ended = dialogue.follow()
        finally:
            process.close()
        return TrainerEnd(
            last=dialogue.last,
            returncode=ended.returncode,
            has_spoken_nonsense=ended.has_spoken_nonsense,
            was_out_of_memory=count_out_of_memory_kills() > num_kills,
            peak_bytes=ended.peak_bytes,
            memory_limit_bytes=memory_limit_bytes(),
        )
