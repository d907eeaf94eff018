"""Waiting for a stage output that another running job builds."""

import time

from core.domain.jobs.job_state import Stage
from core.domain.trainer_protocol import StageOutputQuery, TrainerEvent
from core.services.attempts import recording, stage_builds
from worker.attempt.inputs.fetcher import Fetcher, outage_seconds


class StageWait:
    """Wait as long as the builder's attempt lives, or for an upload's time once it is in a later stage."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._claim = fetcher.claim
        self._is_given_up = False
        self._announced: str | None = None
        """The digest whose waiting was told of."""
        self._past_since: float | None = None

    def give_up(self) -> None:
        """Stop waiting: the attempt is to stop, or its trainer is gone."""
        self._is_given_up = True

    def must_wait(self, query: StageOutputQuery) -> bool:
        """Whether another job builds it; if not, this attempt has announced that it does."""
        if self._is_given_up:
            return False
        builder = stage_builds.announce(self._claim, Stage(query.stage), query.digest)
        if builder is None:
            return False
        if self._announced != query.digest:
            self._announced, self._past_since = query.digest, None
            self._tell(query.stage, builder.job_id)
        if not builder.is_past:
            self._past_since = None
            return True
        self._past_since = self._past_since or time.monotonic()
        return time.monotonic() - self._past_since < outage_seconds(self._claim)

    def _tell(self, stage: str, job_id: str) -> None:
        message = f"{job_id} is building the same {stage} stage; waiting for it."
        event = TrainerEvent(
            level="info", kind="stage_awaited", message=message, data={"stage": stage, "job_id": job_id}
        )
        recording.record_events(self._claim, [event])
