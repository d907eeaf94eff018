"""Requests below `/generations`, `/judgements` and `/rounds`: what models answer, what is better, and both repeated."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from preftune.transport import Resource, wait_for_end


class Generations(Resource):
    """What models answer to prompts, as datasets of responses."""

    def create(self, *, models: Sequence[str], **settings: Any) -> dict[str, Any]:
        """Post a generation; `settings`: `dataset_id`, `held_out_of` or `prompts`, and any field of the API's."""
        return self._transport.post("/generations", {"models": [*models], **settings})

    def get(self, generation_id: str) -> dict[str, Any]:
        return self._transport.get(f"/generations/{generation_id}")

    def list(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        dataset_id: str | None = None,
        job_id: str | None = None,
    ) -> dict[str, Any]:
        """Return a page, newest first: of those with prompts of a dataset, or by policies of a job."""
        asked = {"limit": limit, "cursor": cursor, "dataset_id": dataset_id, "job_id": job_id}
        return self._transport.get("/generations", **asked)

    def cancel(self, generation_id: str) -> dict[str, Any]:
        """Cancel a generation; what it has answered is dropped."""
        return self._transport.post(f"/generations/{generation_id}/cancel")

    def delete(self, generation_id: str) -> None:
        """Delete the record of a generation that has ended; its dataset stays."""
        self._transport.delete(f"/generations/{generation_id}")

    def wait(
        self, generation_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = 2.0
    ) -> dict[str, Any]:
        """Return the generation once it has ended. Raises TimeoutError."""
        return wait_for_end(partial(self.get, generation_id), timeout_seconds, poll_seconds)


class Judgements(Resource):
    """Verdicts on pairs of answers, with win rates."""

    def create(self, *, dataset_id: str, judge: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Post a judgement; `judge`: its `kind` with the settings of that kind; `settings`: any field of the API's."""
        body = {"dataset_id": dataset_id, "judge": judge, **settings}
        return self._transport.post("/judgements", body)

    def get(self, judgement_id: str) -> dict[str, Any]:
        return self._transport.get(f"/judgements/{judgement_id}")

    def list(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        dataset_id: str | None = None,
        job_id: str | None = None,
    ) -> dict[str, Any]:
        """Return a page, newest first: of those of a dataset, or of policies of a job."""
        asked = {"limit": limit, "cursor": cursor, "dataset_id": dataset_id, "job_id": job_id}
        return self._transport.get("/judgements", **asked)

    def of_job(self, job_id: str, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of what was judged of a job's policies, each with its step of training, newest first."""
        return self._transport.get(f"/jobs/{job_id}/win-rates", limit=limit, cursor=cursor)

    def pairs(
        self,
        judgement_id: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        verdict: str | None = None,
        search: str | None = None,
    ) -> dict[str, Any]:
        """Return a page of the pairs with their verdicts: those of a verdict, or that hold a text."""
        asked = {"limit": limit, "cursor": cursor, "verdict": verdict, "search": search}
        return self._transport.get(f"/judgements/{judgement_id}/pairs", **asked)

    def agreement(self, judgement_id: str, *, against: str) -> dict[str, Any]:
        """Return how often another judgement of the same pairs says the same."""
        return self._transport.get(f"/judgements/{judgement_id}/agreement", against=against)

    def cancel(self, judgement_id: str) -> dict[str, Any]:
        return self._transport.post(f"/judgements/{judgement_id}/cancel")

    def delete(self, judgement_id: str) -> None:
        """Delete a judgement that has ended, with its pairs; its dataset stays."""
        self._transport.delete(f"/judgements/{judgement_id}")

    def wait(
        self, judgement_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = 2.0
    ) -> dict[str, Any]:
        """Return the judgement once it has ended. Raises TimeoutError."""
        return wait_for_end(partial(self.get, judgement_id), timeout_seconds, poll_seconds)


class Rounds(Resource):
    """Rounds: a policy answers, a judge judges, and the policy is trained on that, several times."""

    def create(self, *, job: dict[str, Any], judge: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Post rounds; `job`: what each trains; `judge`: its `kind` with settings; `settings`: further fields."""
        return self._transport.post("/rounds", {"job": job, "judge": judge, **settings})

    def preview(self, *, job: dict[str, Any], judge: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Check rounds and return their stages, answers, pairs and judgements, without starting any."""
        return self._transport.post("/rounds/preview", {"job": job, "judge": judge, **settings})

    def get(self, rounds_id: str) -> dict[str, Any]:
        return self._transport.get(f"/rounds/{rounds_id}")

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        return self._transport.get("/rounds", limit=limit, cursor=cursor)

    def cancel(self, rounds_id: str) -> dict[str, Any]:
        """Cancel rounds, with what is under way."""
        return self._transport.post(f"/rounds/{rounds_id}/cancel")

    def pause(self, rounds_id: str) -> dict[str, Any]:
        """Pause rounds: a job stops at a checkpoint, a generation or judgement after its part; nothing follows."""
        return self._transport.post(f"/rounds/{rounds_id}/pause")

    def resume(self, rounds_id: str) -> dict[str, Any]:
        """Resume paused rounds, or failed ones, whose failed stage is done again."""
        return self._transport.post(f"/rounds/{rounds_id}/resume")

    def extend(self, rounds_id: str, num_rounds: int) -> dict[str, Any]:
        """Allow so many rounds, those that are done among them."""
        return self._transport.post(f"/rounds/{rounds_id}/extend", {"num_rounds": num_rounds})

    def delete(self, rounds_id: str) -> None:
        """Delete the record of rounds that have ended; all that they made stays."""
        self._transport.delete(f"/rounds/{rounds_id}")

    def wait(
        self, rounds_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = 2.0
    ) -> dict[str, Any]:
        """Return the rounds once they have ended. Raises TimeoutError."""
        return wait_for_end(partial(self.get, rounds_id), timeout_seconds, poll_seconds)
