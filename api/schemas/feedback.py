"""Schemas of `/feedback`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from api.schemas.arenas import Comment
from api.schemas.base import Answer, Id
from api.schemas.datasets import Text
from core.domain.arenas.arenas import VoterName
from core.domain.arenas.feedback import FeedbackKind
from core.domain.jobs.job_spec import Payload

Thumb = Literal["up", "down"]
FeedbackDatasetKind = Literal["preference", "unpaired"]
AnswerName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
Edit = Annotated[str, StringConstraints(min_length=1, max_length=1_000_000, pattern=r"^[^\x00]*$")]


class NewFeedback(Payload):
    """What somebody thinks of a served answer: exactly one of `thumb`, `edit` and `better_than`."""

    answer_id: AnswerName = Field(
        description="A completion's `id`, for its first answer; `<id>-<index>` for the choice of that index.",
        examples=["chatcmpl_01m8pqqp3n05aemzrpm8reze9r"],
    )
    thumb: Thumb | None = Field(None, description="Good or bad: a row of the unpaired dataset.", examples=["up"])
    edit: Edit | None = Field(
        None, description="The answer as it should have been: chosen, against what was served.", examples=[None]
    )
    better_than: AnswerName | None = Field(
        None, description="A worse answer to the same prompt: rejected, against this one.", examples=[None]
    )
    comment: Comment | None = Field(None, description="Why, in words.")
    giver: VoterName | None = Field(
        None, description="Who says so, where an application's key serves many; null: the key's holder."
    )

    @model_validator(mode="after")
    def _require_one(self) -> "NewFeedback":
        if sum(value is not None for value in (self.thumb, self.edit, self.better_than)) != 1:
            raise ValueError("needs exactly one of thumb, edit and better_than")
        return self


class Feedback(Answer):
    """What somebody thinks of a served answer."""

    id: Id
    kind: FeedbackKind = Field(description="What was given.")
    answer_id: str = Field(description="The answer; of a preference the better one.")
    other_id: str | None = Field(description="The worse one of a preference.")
    thumb: Thumb | None = Field(description="Of a thumb.")
    edit: str | None = Field(description="Of an edit: the answer as it should have been.")
    comment: str | None = Field(description="As sent.")
    giver: str = Field(description="Who said so.")
    created_at: datetime = Field(description="RFC 3339, UTC.")


class ServedAnswer(Answer):
    """An answer that was kept because its request said `store: true`."""

    id: str = Field(description="The completion's id with the index of the choice: `<id>-<index>`.")
    model: str = Field(description="The model, as it was asked for.")
    prompt: Text = Field(description="The conversation, or the text that was continued.")
    answer: str = Field(description="The text.")
    key_id: str | None = Field(description="The key that asked.")
    feedback: list[Feedback] = Field(description="What people think of it; without any it goes after the retention.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
    expires_at: datetime | None = Field(description="When it goes if nothing is said of it; null: something was.")


class NewFeedbackDataset(Payload):
    """Which feedback becomes rows."""

    kind: FeedbackDatasetKind = Field(
        "preference", description="`preference`: edits and preferences, as pairs. `unpaired`: thumbs, for `kto`."
    )
