"""Estimates of queued jobs, made in the background so that submitting one never waits for them."""

from collections import OrderedDict

from core.database.repositories import measurements
from core.domain.jobs.job_spec import JobSpec
from core.services.backend import Backend
from core.services.estimates import estimates

MAX_JOBS = 20
"""Jobs of one step."""
MAX_REMEMBERED = 10_000


class Filling:
    """Gives every job without an estimate one, the newest first; of several processes the first one's counts."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._done: OrderedDict[str, None] = OrderedDict()
        """Jobs that this process has seen to."""

    def step(self) -> None:
        """Make the estimates of some jobs. Raises Unavailable."""
        jobs = self._backend.database.read(
            lambda session: [
                (job.id, job.project_id, job.spec, str(job.base_model_facts["name"]))
                for job in measurements.list_unestimated(session, MAX_JOBS)
                if job.id not in self._done
            ]
        )
        for job_id, project_id, values, base_model in jobs:
            self._note(job_id)
            spec = JobSpec.model_validate(values)
            found = estimates.of_job(self._backend, project_id, spec, base_model)
            self._backend.database.write(
                lambda session, job_id=job_id, found=found: measurements.set_estimate(session, job_id, found)  # type: ignore[misc]
            )

    def _note(self, job_id: str) -> None:
        self._done[job_id] = None
        while len(self._done) > MAX_REMEMBERED:
            self._done.popitem(last=False)
