"""Estimates of queued jobs, made in the background so that submitting one never waits for them."""

from collections import OrderedDict

from core.database.repositories import measurements
from core.domain.errors import Unavailable
from core.domain.jobs.job_spec import JobSpec
from core.services.backend import Backend
from core.services.estimates import estimates

MAX_JOBS = 20
"""Jobs of one step."""
MAX_REMEMBERED = 1000


class Filling:
    """Gives every job without an estimate one, the newest first; of several processes the first one's counts."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._failed: OrderedDict[str, None] = OrderedDict()
        """Jobs that no estimate can be made of, for another reason than a passing fault; they are not tried again."""

    def step(self) -> None:
        """Make the estimates of some jobs. Raises Unavailable, and whatever hindered one of them."""
        jobs = self._backend.database.read(
            lambda session: [
                (job.id, job.project_id, job.spec, str(job.base_model_facts["name"]))
                for job in measurements.list_unestimated(session, MAX_JOBS, left_out=self._failed)
            ]
        )
        for job_id, project_id, values, base_model in jobs:
            try:
                spec = JobSpec.model_validate(values)
                found = estimates.of_job(self._backend, project_id, spec, base_model)
            except Unavailable:
                raise
            except Exception:
                self._leave_out(job_id)
                raise
            self._backend.database.write(
                lambda session, job_id=job_id, found=found: measurements.set_estimate(session, job_id, found)  # type: ignore[misc]
            )

    def _leave_out(self, job_id: str) -> None:
        self._failed[job_id] = None
        while len(self._failed) > MAX_REMEMBERED:
            self._failed.popitem(last=False)
