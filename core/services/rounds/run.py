"""Rounds as read in one transaction, with what their stages need to know of each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.orm import Session

from core.database.repositories import rounds as rows
from core.database.tables.rounds import Rounds, RoundStep
from core.domain.errors import InvalidRequest
from core.domain.judging.rounds import (
    CHILD_OF,
    ID_PREFIX,
    MEMBER_OF,
    NUMBER,
    RoundsRequest,
    RoundsStopReason,
    RoundStage,
    RoundStepStatus,
    plan_round,
)
from core.services.ids import make_id

MAX_NAME_CHARS = 255
OPEN_STEPS = (RoundStepStatus.WAITING, RoundStepStatus.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Run:
    row: Rounds
    request: RoundsRequest
    steps: list[RoundStep]

    @classmethod
    def read(cls, session: Session, row: Rounds) -> "Run":
        """Read the steps. Raises InvalidRequest where this release does not take the request any more."""
        try:
            request = RoundsRequest.model_validate(row.requested)
        except ValidationError as error:
            raise InvalidRequest(f"The request is not valid any more: {error.errors()[0]['msg']}.") from None
        return cls(row=row, request=request, steps=rows.list_steps(session, [row.id]))

    @property
    def open_step(self) -> RoundStep | None:
        """The first step that has not ended."""
        return next((step for step in self.steps if step.status in OPEN_STEPS), None)

    @property
    def last_number(self) -> int:
        """Number of the newest round."""
        return max((step.round for step in self.steps), default=0)

    def find(self, number: int, stage: RoundStage) -> RoundStep | None:
        """Return a step that has succeeded."""
        found = (step for step in self.steps if (step.round, step.stage) == (number, stage))
        return next((step for step in found if step.status is RoundStepStatus.SUCCEEDED), None)

    def done(self, number: int, stage: RoundStage) -> RoundStep:
        step = self.find(number, stage)
        assert step is not None, f"{stage} of round {number} comes before"
        return step

    def trained_before(self, number: int) -> list[int]:
        """Return the numbers of the earlier rounds that have trained a policy, in order."""
        return [before for before in range(1, number) if self.find(before, RoundStage.TRAIN) is not None]

    @property
    def first_policy(self) -> str:
        """Name of the policy that the first round starts from."""
        initial = self.find(0, RoundStage.INITIAL)
        return self.request.job.base_model if initial is None else initial.child_id

    def policy_before(self, number: int) -> str:
        """Return the name of the newest policy that was trained before a round."""
        trained = self.trained_before(number)
        return self.done(trained[-1], RoundStage.TRAIN).child_id if trained else self.first_policy

    def start_policy(self, number: int) -> str:
        """Return the name of the policy that a round's job trains from."""
        return self.first_policy if self.request.reference == "first" else self.policy_before(number)

    @property
    def training_part(self) -> str:
        """Name of the dataset of which nothing is held out."""
        split = self.find(0, RoundStage.SPLIT)
        return self.request.job.dataset_id if split is None else str(split.result["train_dataset_id"])

    @property
    def held_out_part(self) -> str:
        split = self.find(0, RoundStage.SPLIT)
        return str(self.request.evaluation.dataset_id) if split is None else str(split.result["dataset_id"])

    @property
    def initial_dataset(self) -> str:
        """Name of the dataset that the first policy is trained on, without what is held out of it."""
        initial = self.request.initial
        assert initial is not None
        return self.training_part if initial.dataset_id == self.request.job.dataset_id else initial.dataset_id

    def title(self, number: int, what: str) -> str:
        """Return the name of something that a round makes."""
        return f"{self.row.name or self.row.id}, round {number}: {what}"[:MAX_NAME_CHARS]

    def metadata(self, number: int) -> dict[str, str]:
        return {MEMBER_OF: self.row.id, NUMBER: str(number)}

    def stop_reason(self) -> RoundsStopReason | None:
        """Return why no further round comes after the newest one; None: one does."""
        number = self.last_number
        if number >= self.row.num_rounds:
            return RoundsStopReason.ALL_ROUNDS
        if not self.request.stop_early:
            return None
        rate = self.done(number, RoundStage.COMPARE).result["win_rate"]
        return None if rate is not None and rate["low"] > 0.5 else RoundsStopReason.NO_IMPROVEMENT

    def next_stages(self) -> list[RoundStage]:
        """Return the stages of the round after the newest one."""
        return plan_round(self.request, has_earlier=bool(self.trained_before(self.last_number + 1)))


def add_steps(
    session: Session, row: Rounds, stages: Sequence[tuple[int, RoundStage]], suffixes: Sequence[str], after: int
) -> None:
    """Add steps behind the position `after`, each with the id of its child.

    Args:
        stages: numbers of rounds, and their stages.
        suffixes: of the ids, at least as many.
    """
    session.add_all(
        RoundStep(
            rounds_id=row.id,
            position=position,
            project_id=row.project_id,
            round=number,
            stage=stage,
            status=RoundStepStatus.WAITING,
            child_id=make_id(ID_PREFIX[CHILD_OF[stage]], suffix),
            earlier={"ids": []},
            is_held=False,
            result={},
        )
        for position, ((number, stage), suffix) in enumerate(zip(stages, suffixes, strict=False), after + 1)
    )
    session.flush()
