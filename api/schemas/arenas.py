"""Schemas of `/arenas`."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from api.schemas.base import Answer, Id
from api.schemas.datasets import Text
from core.domain.arenas.arenas import Choice, VoterName
from core.domain.jobs.job_spec import Payload

Comment = Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=r"^[^\x00]*$")]


class ModelStanding(Answer):
    """How often a model's answer was better."""

    model: str = Field(description="The model; of a file's rows `chosen` or `rejected`.")
    wins: int = Field(description="Votes for it.")
    losses: int = Field(description="Votes for the other.")
    win_rate: float = Field(description="Share of all votes, where a tie, and both bad, count half; 0.5 without votes.")
    low: float = Field(description="Lower end of Wilson's interval of 95 %.")
    high: float = Field(description="Upper end.")


class Arena(Answer):
    """Pairs that people compare without knowing which model answered what."""

    id: Id
    name: str | None = Field(description="A name to recognise it by.")
    is_open: bool = Field(description="Can people vote?")
    source: str | None = Field(description="Version of the dataset that prompts or pairs are from, if any.")
    num_pairs: int = Field(description="Pairs of the arena.")
    num_decided: int = Field(description="Pairs that have all their votes.")
    num_equal: int = Field(description="Pairs that nobody is asked about: both answers are the same.")
    num_failed: int = Field(description="Pairs that nobody is asked about: a model could not answer.")
    num_votes: int = Field(description="Votes that count.")
    num_voters: int = Field(description="Different voters.")
    num_ties: int = Field(description="Votes for neither, both being as good.")
    num_both_bad: int = Field(description="Votes for neither, both being bad.")
    votes_per_pair: int = Field(description="Votes that each pair gets.")
    standing: list[ModelStanding] = Field(description="Both models, the better one first.")
    dataset_id: str | None = Field(description="Preference dataset that was cut from the votes; null: none yet.")
    requested: dict[str, Any] = Field(description="The request as sent, without prompts.")
    metadata: dict[str, str] = Field(description="Strings of yours.")
    created_at: datetime = Field(description="RFC 3339, UTC.")


class ArenaPair(Answer):
    """A pair as a voter sees it: without the names of the models, on sides that are drawn for each voter."""

    id: Id
    position: int = Field(description="Place among the arena's pairs, from 1.")
    prompt: Text = Field(description="What both answer.")
    left: Text = Field(description="One answer.")
    right: Text = Field(description="The other.")


class LeasedPairs(Answer):
    """Pairs that are the voter's for ten minutes."""

    voter: str = Field(description="Who has them.")
    data: list[ArenaPair] = Field(description="Empty: nothing is left for this voter.")


class NewVote(Payload):
    """A voter's judgement of a pair."""

    pair_id: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(description="The pair judged.")
    verdict: Choice = Field(description="Which answer is better, or neither.")
    comment: Comment | None = Field(None, description="Why, in words.")
    voter: VoterName | None = Field(
        None, description="Who votes, where several people share a key; null: the key's holder."
    )


class Vote(Answer):
    """A vote that counts, with what stood where."""

    id: Id
    pair_id: Id
    voter: str = Field(description="Who voted.")
    verdict: Choice = Field(description="As sent.")
    winner: str | None = Field(description="The better model; null for neither.")
    left: str = Field(description="Model whose answer stood there.")
    right: str = Field(description="Model whose answer stood there.")
    comment: str | None = Field(description="As sent.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
