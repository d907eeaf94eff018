"""Schemas of versions of datasets: what makes one, merging, splitting, and differences."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from api.schemas.base import Answer, Page
from api.schemas.datasets import DatasetRow
from core.domain.jobs.job_spec import Name, Payload, PositiveInt
from core.domain.jobs.whole_numbers import Lines
from core.domain.json_numbers import MAX_WHOLE, REAL, WHOLE

MAX_ROWS = 1000
MAX_SOURCES = 32
MAX_PARTS = 8
_NOT_A_SUM = 1e-6

Names = Annotated[list[Name], Field(max_length=MAX_SOURCES)]
RowChangeKind = Literal["added", "swapped", "removed"]
Fraction = Annotated[float, Field(gt=0, lt=1), REAL]


class NewVersion(Payload):
    """What the new version has otherwise than the one that it is made from; at least one of these."""

    base_version: PositiveInt | None = Field(
        None, description="Version that it is made from; null: the newest that is ready."
    )
    append: Names = Field(
        default_factory=list, description="Datasets of the same kind whose rows are added: `ds_…` or `ds_…@<version>`."
    )
    rows: Annotated[list[dict[str, Any]], Field(max_length=MAX_ROWS)] = Field(
        default_factory=list,
        description="Rows that are added, as `GET /datasets/{id}/rows` shows them, without `line`. Larger ones: upload "
        "them as a dataset and append that.",
        examples=[[{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}]],
    )
    drop_lines: Lines = Field(default_factory=list, description="Lines of the base version that are left out.")
    swap_lines: Lines = Field(
        default_factory=list, description="Lines of the base version whose pair (or label) is swapped."
    )
    drop_duplicates: bool = Field(
        False, strict=True, description="Of rows that are equal, keep the first; those of `rows` are kept all."
    )

    @model_validator(mode="after")
    def _dropped_or_swapped(self) -> "NewVersion":
        if both := sorted({*self.drop_lines} & {*self.swap_lines}):
            raise ValueError(f"line {both[0]} is in drop_lines and in swap_lines")
        return self


class NewMerge(Payload):
    """Datasets whose rows become a new one, in this order."""

    dataset_ids: Annotated[list[Name], Field(min_length=1, max_length=MAX_SOURCES)] = Field(
        description="Datasets of one kind: `ds_…` or `ds_…@<version>`."
    )
    name: Name | None = Field(None, description="A name to recognise it by; null: the names of all of them.")
    drop_duplicates: bool = Field(False, strict=True, description="Of rows that are equal, keep the first.")


class NewSplit(Payload):
    """Parts that a dataset is split into, each a new dataset."""

    fractions: Annotated[list[Fraction], Field(min_length=2, max_length=MAX_PARTS)] = Field(
        description="Share of each part, together 1. Whole prompts go to one part, so a part may be a little larger "
        "or smaller.",
        examples=[[0.9, 0.1]],
    )
    seed: Annotated[int, Field(ge=0, le=MAX_WHOLE), WHOLE] = Field(
        0, description="The same dataset, fractions and seed give the same parts."
    )

    @model_validator(mode="after")
    def _whole(self) -> "NewSplit":
        if abs(math.fsum(self.fractions) - 1) > _NOT_A_SUM:
            raise ValueError(f"the fractions are {math.fsum(self.fractions):g} together; they must be 1")
        return self


class RowChange(Answer):
    """A row that two versions do not have in common."""

    change: RowChangeKind = Field(
        description="`swapped`: both have it, with chosen and rejected, or the label, the other way."
    )
    line: int | None = Field(description="In the newer version; null for a removed row.")
    old_line: int | None = Field(description="In the older version; null for an added row.")
    row: DatasetRow = Field(description="As the newer version has it; a removed one as the older has it.")


class DatasetDiff(Page[RowChange]):
    """Differences of two versions: added and swapped rows in the newer one's order, then removed ones."""

    old: str = Field(description="The older version, as `ds_…@<version>`.")
    new: str = Field(description="The newer version.")
    num_added: int = Field(description="Rows that only the newer has.")
    num_removed: int = Field(description="Rows that only the older has.")
    num_swapped: int = Field(description="Rows that are swapped.")
    num_equal: int = Field(description="Rows that both have, wherever they stand.")
