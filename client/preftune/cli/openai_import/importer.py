"""Import of fine-tuning jobs: files first, then jobs, each made once however often this is repeated."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from preftune import ApiError, Client
from preftune.cli.openai_import.folder import Folder, final_figures
from preftune.cli.openai_import.source import NotThere, Source
from preftune.cli.openai_import.translation import SourceJob, idempotency_key, identity, request
from preftune.cli.openai_import.uploads import FileRefused, Uploads

POLL_SECONDS = 5.0
_WITHOUT_SUCCESS = frozenset({"failed", "cancelled"})
_FINAL = _WITHOUT_SUCCESS | {"succeeded"}

State = Literal["created", "there", "waits", "left out"]


@dataclass(kw_only=True)
class Outcome:
    """What became of one job of the account."""

    job: SourceJob
    state: State = "left out"
    base_model: str | None = None
    """The base model here at the root of its chain, once it is known."""
    job_id: str | None = None
    """The job here."""
    job_status: str | None = None
    reason: str | None = None
    """Why it waits or is left out, or what to do about a job here that has not succeeded."""
    losses: list[str] = field(default_factory=list)

    @property
    def is_carried_over(self) -> bool:
        return self.state in ("created", "there")

    @property
    def is_lost(self) -> bool:
        """Whether nothing more comes of it: it is left out, or its job here failed or was cancelled."""
        return self.state == "left out" or self.job_status in _WITHOUT_SUCCESS


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the customer chooses."""

    base_model: str
    base_models: dict[str, str] = field(default_factory=dict)
    """Models of OpenAI -> base models here, where they differ from `base_model`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Native fields that every job gets, such as `lora`."""
    again: bool = False
    """Make a job once more that is here only as failed or cancelled."""
    wait_seconds: float = 0.0
    """How long in all to wait for jobs that others start from."""


class _LeftOut(Exception):
    pass


class _Waits(Exception):
    pass


class Importer:
    """One run over the jobs of an account.

    Args:
        source: the account; None: what the folder holds of it.
        say: is told what happens, a line each.
    """

    def __init__(
        self, client: Client, source: Source | None, folder: Folder, choices: Choices, say: Callable[[str], None]
    ) -> None:
        self._client, self._source, self._folder, self._choices, self._say = client, source, folder, choices, say
        self._uploads = Uploads(client, folder, say)
        self._outcomes: dict[str, Outcome] = {}
        """Outcomes by the name of the model that the job made."""
        self._deadline = time.monotonic() + choices.wait_seconds

    def run(self, jobs: Iterable[SourceJob]) -> list[Outcome]:
        """Import the jobs, which come oldest first.

        Raises SourceFailed, PreftuneError where one side cannot be asked any more; what is done stays.
        """
        outcomes = []
        for job in jobs:
            outcome = Outcome(job=job, losses=list(job.losses))
            outcomes.append(outcome)
            if job.outcome:
                self._outcomes[job.outcome] = outcome
            try:
                self._import(outcome)
            except (_LeftOut, FileRefused) as error:
                outcome.reason = str(error)
            except _Waits as error:
                outcome.state, outcome.reason = "waits", str(error)
            self._say(f"{job.id}: {outcome.state}{f' as {outcome.job_id}' if outcome.job_id else ''}")
        return outcomes

    def _import(self, outcome: Outcome) -> None:
        job = outcome.job
        if job.kind is None:
            raise _LeftOut(f"the method {job.method} is none of this service")
        root = outcome.base_model = self._root(job)
        known = self._client.fine_tuning.find(identity(job, root))
        ended = [each["id"] for each in known if each["status"] in _WITHOUT_SUCCESS]
        if known and (len(ended) < len(known) or not self._choices.again):
            _take_best(outcome, known)
            return
        files = self._upload_files(job, job.kind)
        figures = self._results(outcome)
        model = self._start(job, root)
        body = request(job, model=model, base_model=root, files=files, settings=self._choices.settings)
        body["metadata"] = figures | body["metadata"]
        key = idempotency_key([body, *ended] if ended else body)
        try:
            made = self._client.fine_tuning.create(body, idempotency_key=key)
        except ApiError as error:
            if error.status >= 500 or error.status in (401, 403, 429):
                raise
            raise _LeftOut(f"the service refuses it: {error}") from error
        outcome.state, outcome.job_id, outcome.job_status = "created", made["id"], made["status"]

    def _root(self, job: SourceJob) -> str:
        """Return the base model here at the root of the job's chain."""
        if job.parent_model is None:
            return self._choices.base_models.get(job.model, self._choices.base_model)
        parent = self._parent(job)
        if parent.base_model is None:
            raise _LeftOut(f"it starts from {parent.job.id}, which is left out")
        return parent.base_model

    def _parent(self, job: SourceJob) -> Outcome:
        parent = self._outcomes.get(job.parent_model or "")
        if parent is None:
            raise _LeftOut(f"it starts from {job.model}, which no imported job has made")
        return parent

    def _start(self, job: SourceJob, root: str) -> str:
        """Return what the job starts from here: the base model, or the policy of the job before it in its chain."""
        if job.parent_model is None:
            return root
        parent = self._parent(job)
        if not parent.is_carried_over:
            kind: type[Exception] = _Waits if parent.state == "waits" else _LeftOut
            raise kind(f"it starts from {parent.job.id}, which {'waits' if parent.state == 'waits' else 'is left out'}")
        assert parent.job_id is not None
        here = self._client.fine_tuning.get(parent.job_id)
        while here["status"] not in _FINAL and time.monotonic() < self._deadline:
            time.sleep(min(POLL_SECONDS, max(0.1, self._deadline - time.monotonic())))
            here = self._client.fine_tuning.get(parent.job_id)
        parent.job_status = here["status"]
        if here["fine_tuned_model"]:
            return str(here["fine_tuned_model"])
        if here["status"] in _FINAL:
            raise _LeftOut(f"it starts from {parent.job.id}, which ended here as {here['status']} without a policy")
        raise _Waits(f"it starts from {parent.job.id}, here {parent.job_id}, which is {here['status']}; run this again")

    def _results(self, outcome: Outcome) -> dict[str, str]:
        """Fetch the result files; return the last losses that they hold."""
        figures: dict[str, str] = {}
        for file_id in outcome.job.result_files:
            try:
                path = self._folder.result(self._source, file_id)
            except (NotThere, ValueError) as error:
                outcome.losses.append(f"result file {file_id}: {error}")
                continue
            figures |= final_figures(path) if path else {}
        return figures

    def _upload_files(self, job: SourceJob, kind: str) -> dict[str, str]:
        """Return the datasets here of the job's files, by the id that they have there."""
        found = {}
        for name, file_id in (("training", job.training_file), ("validation", job.validation_file)):
            if file_id is None:
                continue
            try:
                path = self._folder.file(self._source, file_id)
            except (NotThere, ValueError) as error:
                where = self._folder.path / "files" / file_id
                raise _LeftOut(
                    f"its {name} file {file_id} cannot be fetched ({error}); a copy of it as {where} is taken instead"
                ) from error
            except FileNotFoundError as error:
                raise _LeftOut(f"its {name} file {file_id} is not in the folder") from error
            found[file_id] = self._uploads.dataset(path, file_id, kind)
        return found


def _take_best(outcome: Outcome, known: list[dict[str, Any]]) -> None:
    """Take over one of the jobs here, newest first: one that succeeded, else one that runs, else the newest."""
    best = min(known, key=lambda job: (job["status"] != "succeeded", job["status"] in _WITHOUT_SUCCESS))
    outcome.state, outcome.job_id, outcome.job_status = "there", best["id"], best["status"]
    if outcome.is_lost:
        outcome.reason = f"it ended here as {best['status']}; fix the cause and run this again with --again"
