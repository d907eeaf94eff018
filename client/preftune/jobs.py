"""Requests below `/jobs`."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from preftune.archives import download_archive
from preftune.downloads import download_files
from preftune.errors import ExportFailed, RepublishFailed, ScoringFailed
from preftune.stream import StreamEvent, follow
from preftune.transport import Resource

Objects = list[dict[str, Any]]

EXPORTS = "exports/"
FINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})


class Jobs(Resource):
    def submit(
        self, *, base_model: str, dataset_id: str, chat_template_kwargs: dict[str, Any] | None = None, **settings: Any
    ) -> dict[str, Any]:
        """Post a job. `settings`: any further field of `POST /jobs`."""
        body = _body(base_model, dataset_id, chat_template_kwargs, settings)
        return self._transport.post("/jobs", body)

    def preview(
        self, *, base_model: str, dataset_id: str, chat_template_kwargs: dict[str, Any] | None = None, **settings: Any
    ) -> dict[str, Any]:
        """What `submit` would queue and what it would take: `spec`, `rows`, `warnings`, `estimate`.

        `rows`: what the base model sees of the dataset. `warnings`: what to know of the data.
        """
        body = _body(base_model, dataset_id, chat_template_kwargs, settings)
        return self._transport.post("/jobs/preview", body)

    def get(self, job_id: str) -> dict[str, Any]:
        return self._transport.get(f"/jobs/{job_id}")

    def list(
        self, *, status: str | None = None, limit: int | None = None, cursor: str | None = None, **where: Any
    ) -> dict[str, Any]:
        """Return a page of jobs, newest first. `where`: further parameters of `GET /jobs`, such as `tag` and `sort`."""
        return self._transport.get("/jobs", status=status, limit=limit, cursor=cursor, **where)

    def patch(self, job_id: str, **changes: Any) -> dict[str, Any]:
        """Change `name`, `metadata` (all of it), `priority`, or `nodes` of a queued or paused one; return the job."""
        return self._transport.patch(f"/jobs/{job_id}", changes)

    def cancel(self, job_id: str, *, save: bool = False) -> dict[str, Any]:
        """Cancel the job; with `save` its current policy is published."""
        return self._transport.post(f"/jobs/{job_id}/cancel", save="true" if save else None)

    def pause(self, job_id: str) -> dict[str, Any]:
        return self._transport.post(f"/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> dict[str, Any]:
        return self._transport.post(f"/jobs/{job_id}/resume")

    def retry(self, job_id: str) -> dict[str, Any]:
        """Create a job from the newest intact checkpoint of a finished one."""
        return self._transport.post(f"/jobs/{job_id}/retry")

    def delete(self, job_id: str) -> None:
        self._transport.delete(f"/jobs/{job_id}")

    def metrics(self, job_id: str, *, after: int | None = None, **params: Any) -> dict[str, Any]:
        """Return a page of metric points after the sequence number `after`."""
        return self._transport.get(f"/jobs/{job_id}/metrics", after=after, **params)

    def events(self, job_id: str, *, after: int | None = None) -> Objects:
        """Return events after the sequence number `after`, oldest first."""
        return self._transport.get_list(f"/jobs/{job_id}/events", after=after)

    def log(self, job_id: str) -> str:
        """What the job's trainings have printed: at most the last MiB. Needs a key that may write."""
        return self._transport.get_text(f"/jobs/{job_id}/log").text

    def follow_log(self, job_id: str, *, poll_seconds: float = 2.0) -> Iterator[str]:
        """The log in pieces, as it is printed, until the job has ended."""
        after = 0
        while True:
            is_final = self.get(job_id)["status"] in FINAL_STATUSES
            answer = self._transport.get_text(f"/jobs/{job_id}/log", after=after)
            if answer.text:
                yield answer.text
            after = int(answer.headers["Preftune-Log-End"])
            if is_final:
                return
            time.sleep(poll_seconds)

    def samples(self, job_id: str) -> Objects:
        """Return the sample prompts answered by reference and policy."""
        return self._transport.get_list(f"/jobs/{job_id}/samples")

    def artifact(self, job_id: str) -> dict[str, Any]:
        """Return the files of the tuned policy, with sizes and SHA-256."""
        return self._transport.get(f"/jobs/{job_id}/artifact")

    def download(self, job_id: str, directory: str | Path, *, on_progress: Callable[[int], None] | None = None) -> Path:
        """Fetch the tuned policy into `directory`. Verified, and resumed where an earlier download stopped."""
        return download_files(self._transport, self.published_files(job_id), Path(directory), on_progress)

    def published_files(self, job_id: str) -> Objects:
        """Return the files of the tuned policy, without its exports."""
        return [file for file in self.artifact(job_id)["files"] if not file["path"].startswith(EXPORTS)]

    def export(self, job_id: str, format: str, *, timeout_seconds: float = 3600.0) -> dict[str, Any]:
        """Return the policy's export as `gguf-f32`, `gguf-f16` or `gguf-q8_0`, requested if needed and waited for.

        Raises ExportFailed, TimeoutError.
        """
        answer: dict[str, Any] = self._transport.post(f"/jobs/{job_id}/exports", {"format": format})
        answer = self._await(answer, f"/jobs/{job_id}/exports/{answer['id']}", "export", timeout_seconds)
        if answer["status"] == "failed":
            raise ExportFailed(answer["error"])
        return answer

    def republish(self, job_id: str, *, timeout_seconds: float = 3600.0) -> dict[str, Any]:
        """Merge a policy that an earlier version merged in bf16 again, in float32, and wait for it.

        Raises RepublishFailed, TimeoutError.
        """
        answer: dict[str, Any] = self._transport.post(f"/jobs/{job_id}/republish")
        answer = self._await(answer, f"/jobs/{job_id}/republish/{answer['id']}", "republication", timeout_seconds)
        if answer["status"] == "failed":
            raise RepublishFailed(answer["error"])
        return answer

    def _await(self, answer: dict[str, Any], path: str, what: str, timeout_seconds: float) -> dict[str, Any]:
        """The request once it has ended. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while answer["status"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} {answer['id']} is still {answer['status']}")
            answer = self._transport.get(path, wait=15)
        return answer

    def exports(self, job_id: str) -> Objects:
        """Return the requested exports, newest first."""
        return self._transport.get_list(f"/jobs/{job_id}/exports")

    def download_export(
        self,
        job_id: str,
        export: dict[str, Any],
        directory: str | Path,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> Path:
        """Fetch the file of a finished export into `directory`, verified and resumed; returns its path."""
        (file,) = (file for file in self.artifact(job_id)["files"] if file["path"] == export["path"])
        name: str = file["path"].removeprefix(EXPORTS)
        return download_files(self._transport, [file | {"path": name}], Path(directory), on_progress) / name

    def stream(
        self, job_id: str, *, after: str | None = None, max_lost_seconds: float = 600.0
    ) -> Iterator[StreamEvent]:
        """Yield the job's events live until the event `end`. Reconnects when the connection is lost.

        `after`: the `id` of an event read before. On `reset` forget all points: they come again from the first.
        Raises ConnectionFailed after `max_lost_seconds` without an answer.
        """
        return follow(self._transport, f"/jobs/{job_id}/stream", after, max_lost_seconds)

    def pairs(self, job_id: str, **params: Any) -> dict[str, Any]:
        """Return a page of the pair report. `params`: `sort`, `flag`, `split`, `limit`, `cursor`."""
        return self._transport.get(f"/jobs/{job_id}/pairs", **params)

    def comparison(self, job_id: str, others: Sequence[str]) -> dict[str, Any]:
        """Compare a job with others, as `sweeps.comparison` compares members."""
        return self._transport.get(f"/jobs/{job_id}/comparison", others=",".join(others))

    def all_pairs(self, job_id: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield every selected pair, page by page."""
        cursor = None
        while True:
            page = self.pairs(job_id, limit=1000, cursor=cursor, **params)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def rerun(
        self, job_id: str, *, exclude_lines: Sequence[int] = (), swap_lines: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Create the job again, with these lines of the data left out or swapped."""
        body = {"exclude_lines": [*exclude_lines], "swap_lines": [*swap_lines]}
        return self._transport.post(f"/jobs/{job_id}/rerun", body)

    def score(
        self,
        job_id: str,
        *,
        items: Objects | None = None,
        pairs: Objects | None = None,
        tokens: bool = False,
        timeout_seconds: float = 600.0,
    ) -> Objects:
        """Return implicit rewards of `items` (`prompt`, `response`) or `pairs` (`prompt`, `chosen`, `rejected`).

        With `tokens`, of at most 20 items, each response's tokens with their log-ratios as well.
        Raises ScoringFailed, TimeoutError.
        """
        body: dict[str, Any] = {name: rows for name, rows in (("items", items), ("pairs", pairs)) if rows is not None}
        body |= {"tokens": True} if tokens else {}
        answer = self._transport.post(f"/jobs/{job_id}/scores", body)
        answer = self._await(answer, f"/jobs/{job_id}/scores/{answer['id']}", "request for scores", timeout_seconds)
        if answer["status"] == "failed":
            raise ScoringFailed(answer["error"])
        results: Objects = answer["results"]
        return results

    def checkpoints(self, job_id: str) -> Objects:
        """Return the kept checkpoints with validation values, the latest step first."""
        return self._transport.get_list(f"/jobs/{job_id}/checkpoints")

    def download_checkpoint(
        self,
        job_id: str,
        checkpoint_id: str,
        directory: str | Path,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> Path:
        """Fetch the policy at a checkpoint into `directory`, verified."""
        url = f"/jobs/{job_id}/checkpoints/{checkpoint_id}/archive"
        return download_archive(self._transport, url, Path(directory), on_progress)

    def follow_metrics(self, job_id: str, *, poll_seconds: float = 1.0) -> Iterator[dict[str, Any]]:
        """Yield points as they arrive until the job has ended; starts over after a rewind."""
        after = 0
        while True:
            is_final = self.get(job_id)["status"] in FINAL_STATUSES
            page = self.metrics(job_id, after=after)
            yield from page["points"]
            after = page["last_seq"]
            if page["has_more"]:
                continue
            if is_final:
                return
            time.sleep(poll_seconds)

    def wait(self, job_id: str, *, poll_seconds: float = 1.0, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Return the job once it has ended. Raises TimeoutError."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            job = self.get(job_id)
            if job["status"] in FINAL_STATUSES:
                return job
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} is still {job['status']}")
            time.sleep(poll_seconds)


def _body(
    base_model: str, dataset_id: str, chat_template_kwargs: dict[str, Any] | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the body of a request for a job."""
    given = {} if chat_template_kwargs is None else {"chat_template_kwargs": chat_template_kwargs}
    return {"base_model": base_model, "dataset_id": dataset_id, **given, **settings}
