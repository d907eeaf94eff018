"""States of a job, and every permitted transition.

    ┌────────┐ claim  ┌─────────┐ finish ┌───────────┐
    │ queued ├───────►│ running ├───────►│ succeeded │
    └─┬─▲──▲─┘        └─┬─┬─┬─┬─┘        └───────────┘
      │ │  └──requeue───┘ │ │ └─────────► failed
      │ └──resume── paused◄─┘ └─────────► cancelled
      └─────────────► paused, cancelled

`stage` and `progress` are columns of a job, not states. A wish of the user is the level `Desired`, which a worker
reads in each heartbeat's reply. One repository function makes the moves, by compare-and-set.
"""

from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"
    """Waits for a worker; `next_run_at` may lie ahead after a crash."""
    RUNNING = "running"
    """One attempt holds the lease. A dead worker's job leaves this state by the sweeper."""
    PAUSED = "paused"
    """Holds a checkpoint (or none yet) and no device, until resumed or cancelled."""
    SUCCEEDED = "succeeded"
    """The artifact is committed. Final."""
    FAILED = "failed"
    """Ended with an error code. Final."""
    CANCELLED = "cancelled"
    """Ended on request, perhaps with a saved policy. Final."""


class Desired(StrEnum):
    """State that the user requests; the worker and the sweeper bring it about."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


FINAL_STATUSES = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})

ALLOWED_TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.QUEUED, JobStatus.PAUSED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


class Stage(StrEnum):
    """The stages of a run, in order, as users see them."""

    STAGING = "staging"
    SFT = "sft"
    REFERENCE = "reference"
    DPO = "dpo"
    REWARD = "reward"
    EVALUATION = "evaluation"
    PUBLISHING = "publishing"

    @property
    def label(self) -> str:
        """Name of a training stage for people."""
        return "Reward model" if self is Stage.REWARD else self.value.upper()


class AttemptOutcome(StrEnum):
    """Ways in which an attempt at a job ends, which decide how the next one is counted."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    DRAINED = "drained"
    """Handed back on SIGTERM: free of charge."""
    OUTAGE = "outage"
    """Handed back because database or store stayed away: free of charge."""
    CRASHED = "crashed"
    """The trainer died: counts, until a new checkpoint commits."""
    LOST = "lost"
    """The lease ran out, as the worker vanished: no crash of the job's, but bounded too."""


MAX_CRASHES = 3
"""Crashes without a new checkpoint in between, after which a job fails: as `crash_loop`, or by their known cause."""
MAX_LOSSES = 30
"""Workers that vanished since the newest checkpoint, after which a job fails as `crash_loop`."""
MAX_LOSSES_AT_ONE_STEP = 5
"""Workers in a row that vanished at one and the same step; on `MIN_POISONED_HOSTS` machines it is the job's doing."""
MIN_POISONED_HOSTS = 3
MAX_OUTAGES = 100
"""Attempts in a row that an outage ended, after which a job fails as `store_unavailable`: a day or more."""
