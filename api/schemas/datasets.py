"""Schemas of `/datasets`: options of an upload, and the description of a dataset."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.base import Answer, Id
from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.job_spec import Metadata, Name, Payload
from core.domain.json_numbers import MAX_WHOLE, WHOLE
from core.domain.set_aside import SetAsideReason

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Verdict = Literal["first", "second", "tie"]
Ties = Literal["keep", "drop"]
OnError = Literal["reject", "skip"]
UploadStatus = Literal["open", "completed"]
IssueSeverity = Literal["error", "warning"]
Role = Literal["system", "user", "assistant", "tool"]
DatasetStatus = Literal["processing", "ready", "rejected"]
ContentFormat = Literal["original", "parquet", "hf"]
ISSUE_POINTER = "JSON pointer into the row, such as `/rejected`; null for the row or file as a whole."


class DatasetOptions(Payload):
    """Form fields beside `file`, or query parameters with a raw body; all may be left out."""

    name: Name | None = Field(None, description="A name to recognise it by; default: the file's name.")
    kind: DatasetKind = Field(
        DatasetKind.PREFERENCE,
        description="What the rows are; a file of another kind is refused, naming the value to send.",
    )
    format: Name = Field("auto", description="Layout of the rows; `auto` recognises it.")
    columns: dict[ColumnName, ColumnName] = Field(
        default_factory=dict,
        max_length=32,
        description='Columns of the file by role, as a JSON object: `{"prompt": "question"}`.',
    )
    values: dict[ColumnName, Verdict] = Field(
        default_factory=dict,
        max_length=32,
        description='What verdicts mean, as a JSON object: `{"0": "first", "1": "second", "2": "tie"}`.',
    )
    ignore: list[ColumnName] = Field(
        default_factory=list,
        max_length=64,
        description='Columns, and keys of messages, not to count, as a JSON list: `["weight", "messages[].name"]`.',
    )
    ties: Ties = Field(
        "keep", description="Pairs whose own scores are equal: `keep` them with a warning, or `drop` them."
    )
    split: Name | None = Field(
        None, description="Which dataset of a tar of a saved `DatasetDict`; needed where it has several."
    )
    on_error: OnError = Field(
        "reject", description="`reject`: a malformed row refuses the file; `skip`: the good rows are kept."
    )
    metadata: Metadata = Field(default_factory=dict, description="Strings of yours, as a JSON object.")


CHECK_OPTIONS: Final = {"kind", "format", "columns", "values", "ignore", "ties", "split", "on_error"}
"""Those that say how to read the file."""


class NewUpload(DatasetOptions):
    """Announcement of a file in parts, and of the dataset it becomes."""

    num_bytes: Annotated[int, Field(ge=1, le=MAX_WHOLE), WHOLE] = Field(description="Of the whole file.")
    sha256: Sha256 | None = Field(None, description="Of the whole file; checked when it is complete.")
    filename: Name | None = Field(None, description="The file's name: data, never a path.")


class DatasetPatch(BaseModel):
    """Fields that can be changed at any time. Fields left out stay; null means the default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Name | None = Field(None, description="A name to recognise it by; null: the file's name.")
    metadata: Metadata | None = Field(None, description="Replaces all of it; null empties it.")

    def changes(self) -> dict[str, Any]:
        """Return the fields that were sent; the name is None for its default."""
        values: dict[str, Any] = {"name": self.name, "metadata": self.metadata or {}}
        return {key: value for key, value in values.items() if key in self.model_fields_set}


class UploadPart(Answer):
    number: int = Field(description="From 1; the file is its parts in this order.")
    num_bytes: int = Field(description="Bytes.")
    sha256: str = Field(description="Of its bytes, hexadecimal.")


class Upload(Answer):
    """An upload in progress. It expires a day after its last part."""

    id: Id
    status: UploadStatus = Field(description="`open` takes parts; `completed` is a dataset.")
    name: str | None = Field(description="Name of the dataset to be.")
    filename: str | None = Field(description="The file's name.")
    num_bytes: int = Field(description="Of the whole file, as announced.")
    sha256: str | None = Field(description="Of the whole file, where announced.")
    num_received_bytes: int = Field(description="Bytes of the parts that are here.")
    part_bytes: int = Field(description="A good size for a part; any up to 64 MiB is taken.")
    parts: list[UploadPart] = Field(description="What is here, by number: send the rest.")
    dataset_id: str | None = Field(description="Once completed.")
    metadata: dict[str, str] = Field(description="Strings of yours.")
    expires_at: datetime = Field(description="When it is deleted unless a further part arrives. RFC 3339, UTC.")
    created_at: datetime = Field(description="RFC 3339, UTC.")


class Issue(Answer):
    """One fault or remark about a row or the file."""

    line: int | None = Field(description="Line of the file, from 1; null for what concerns the whole file.")
    row: int | None = Field(description="Row of the file, from 0; null for what concerns the whole file.")
    severity: IssueSeverity = Field(description="`error`: the row or the file is refused for it.")
    code: str = Field(description="Stable name of the issue.")
    detail: str = Field(description="What it is, in words.")
    pointer: str | None = Field(None, description=ISSUE_POINTER)


class Report(Answer):
    """The verdict on a file. Counts are exact; the list may be cut, see `GET /datasets/{id}/report`."""

    counts: dict[str, int] = Field(description="Number of issues by code.")
    issues: list[Issue] = Field(description="The first issues, in the order of the file.")
    issues_truncated: bool = Field(description="Are there more issues than listed?")
    statistics: dict[str, Any] = Field(
        description="Of the accepted rows: lengths in characters, turns, duplicates, languages, which side is longer."
    )


class PartialReport(Answer):
    """Report before there is one: every member may be absent."""

    counts: dict[str, int] = Field(default_factory=dict, description="Number of issues by code.")
    issues: list[Issue] = Field(default_factory=list, description="The first issues, in the order of the file.")
    issues_truncated: bool = Field(False, description="Are there more issues than listed?")
    statistics: dict[str, Any] = Field(default_factory=dict, description="Empty until the file is checked.")


class Message(Answer):
    """One message; fields that it does not have are absent."""

    role: Role = Field(description="Who speaks.")
    content: str = Field(description="The text; empty where the message is nothing but calls.")
    reasoning_content: str = Field("", description="What the assistant thinks before it answers.")
    tool_calls: list[dict[str, Any]] = Field(
        default_factory=list, description="Calls: `{id, type, function: {name, arguments}}`, arguments an object."
    )
    tool_call_id: str = Field("", description="Of a `tool` message: the call that it answers.")
    name: str = Field("", description="Of the tool, or of who speaks.")
    train: bool = Field(True, description="false: the turn is context only, no loss is taken on it.")


Text = str | list[Message]
"""A plain text, trained as it stands, or messages, rendered by the base model's chat template."""


class PreviewedText(Answer):
    text: str = Field(description="As rendered by the chat template, control tokens and all.")
    num_tokens: int = Field(description="Tokens of the whole text.")
    token_ids: list[int] = Field(description="The first 4096.")
    tokens: list[str] = Field(description="The same as texts; a part of a character shows as `�`.")
    scored: list[bool] = Field(description="The same: is a loss taken on the token?")


class RowPreview(Answer):
    """A row as a base model sees it."""

    num_tokens: int | None = Field(description="Of prompt and longest response; null where it cannot be encoded.")
    fits: bool = Field(description="Is it within `max_length`? A job sets a longer row aside, never cuts it.")
    fits_context: bool = Field(False, description="Is it within the base model's context length?")
    set_aside: SetAsideReason | None = Field(None, description="Why a job sets the row aside; null: it is trained on.")
    problem: str | None = Field(description="In words, why the base model cannot take the row, or learns nothing.")
    texts: dict[str, PreviewedText] = Field(description="By field: `prompt` and the responses.")


class TokenLengths(Answer):
    min: int = Field(description="Tokens.")
    mean: float = Field(description="Tokens.")
    p50: int = Field(description="Half of the rows have at most so many tokens.")
    p90: int = Field(description="As p50, of 90 %.")
    p95: int = Field(description="As p50, of 95 %.")
    p99: int = Field(description="As p50, of 99 %.")
    max: int = Field(description="Tokens.")


class RowProblem(Answer):
    detail: str = Field(description="Why the base model cannot take rows.")
    num_rows: int = Field(description="Of the rows looked at.")
    line: int = Field(description="The first of them.")


class TokenStatistics(Answer):
    """Lengths in tokens under one base model."""

    base_model: str = Field(description="As asked for.")
    max_length: int = Field(description="As asked for: the job's setting.")
    is_exact: bool = Field(description="All rows were looked at; else 16 stretches of the file, evenly spread.")
    num_rows: int = Field(description="Rows looked at.")
    num_over_max_length: int = Field(description="Of those, rows that a job sets aside as too long.")
    context_length: int | None = Field(description="Of the base model, in tokens; null where it names no limit.")
    num_over_context: int = Field(description="Of the rows looked at, those longer than `context_length`.")
    num_equal_once_rendered: int = Field(
        description="Of them, pairs that a job sets aside: chosen and rejected are the same tokens."
    )
    num_unencodable: int = Field(description="Of them, rows that a job sets aside: the base model cannot take them.")
    problems: list[RowProblem] = Field(description="Why it cannot, the most frequent first; at most 5.")
    share_over_max_length: float = Field(description="`num_over_max_length` over `num_rows`.")
    lengths: dict[str, TokenLengths] = Field(
        description="By field; `row` is prompt and longest response, what `max_length` is compared with."
    )


class DatasetRow(Answer):
    """A row as jobs read it, with the fields of the dataset's kind."""

    line: int = Field(description="Line of the file as uploaded, from 1.")
    prompt: Text = Field(description="What is answered; may be empty.")
    chosen: Text = Field("", description="`preference`: the better response.")
    rejected: Text = Field("", description="`preference`: the worse response.")
    response: Text = Field("", description="`demonstration`, `unpaired` and `responses`: the response.")
    model: str = Field("", description="`responses`: the model that gave the response, where it is named.")
    label: bool = Field(False, description="`unpaired`: is the response desirable?")
    tools: list[dict[str, Any]] = Field(default_factory=list, description="Functions that may be called, if any.")
    documents: list[dict[str, Any]] = Field(default_factory=list, description="Documents to answer from, if any.")
    preview: RowPreview | None = Field(None, description="With `base_model`: what that model sees.")


class ModelAnswer(Answer):
    """An answer of a model to a prompt."""

    line: int = Field(description="Line of the file, from 1.")
    model: str = Field(description="The model; empty where the row names none.")
    response: Text = Field(description="What it answered.")


class AnsweredPrompt(Answer):
    """A prompt of a dataset of responses, with all answers to it."""

    position: int = Field(description="Place among the different prompts, from 1.")
    prompt: Text = Field(description="What is answered.")
    tools: list[dict[str, Any]] = Field(default_factory=list, description="Functions that may be called, if any.")
    documents: list[dict[str, Any]] = Field(default_factory=list, description="Documents to answer from, if any.")
    answers: list[ModelAnswer] = Field(
        description="In the order of the file: the n-th of each model is its n-th sample."
    )


class Rereading(Answer):
    """Differences between the rows stored by an earlier version of the reader and the file as read today."""

    reader_version: int = Field(description="Of the reading that the rows were compared with.")
    is_refused: bool = Field(description="The file would be refused today, so nothing was compared.")
    detail: str = Field(description="In words, and what to do.")
    num_changed: int = Field(description="Lines of the file that would have other rows.")
    num_added: int = Field(description="Lines that would have rows, and have none.")
    num_removed: int = Field(description="Lines that would have none.")
    first_line: int | None = Field(description="The first of them.")
    dropped: dict[str, int] = Field(description="What the stored rows lack, by key: in so many lines.")


class DatasetWarning(Answer):
    """What to know before a job trains on a dataset."""

    dataset_id: Id
    code: str = Field(
        description="A code of the report, or `read-otherwise` (an earlier version took the file in, and it is read "
        "otherwise today), `not-compared` (that is not known yet) or `rows-left-out` (malformed rows were skipped)."
    )
    detail: str = Field(description="What it is, in words.")
    num_found: int = Field(description="How many times.")


class Dataset(Answer):
    """A dataset. `num_rows = num_accepted + num_rejected + num_set_aside`."""

    id: Id
    name: str = Field(description="A name to recognise it by.")
    status: DatasetStatus = Field(
        description="`processing`: being checked; `ready`: jobs can use it; `rejected`: only the report is kept."
    )
    kind: DatasetKind = Field(description="What the rows are.")
    format: str = Field(description="Layout as recognised; `auto` while processing.")
    sha256: str = Field(description="Of the bytes as uploaded, hexadecimal.")
    num_bytes: int = Field(description="Bytes as uploaded.")
    num_rows: int = Field(description="Rows read.")
    num_accepted: int = Field(description="Rows that jobs train on.")
    num_rejected: int = Field(description="Malformed rows.")
    num_set_aside: int = Field(description="Well-formed rows that teach nothing, such as chosen = rejected.")
    report: PartialReport = Field(description="What was found in the file.")
    metadata: dict[str, str] = Field(description="Strings of yours.")
    rereading: Rereading | None = Field(
        description="Where an earlier version took the file in and it is read otherwise today: how; else null."
    )
    warnings: list[DatasetWarning] = Field(
        description="What to know before a job trains on it; the report has the rest."
    )
    expires_at: datetime | None = Field(
        description="When it is deleted, unless a live job still reads it then; null: never. RFC 3339, UTC."
    )
    version: int = Field(description="Number of this version, from 1; its own name is `<dataset>@<version>`.")
    made_from: dict[str, Any] | None = Field(
        description="null: uploaded. Else `how` the service made it (`change`, `merge`, `split`, `votes`, "
        "`feedback`, `generation`, `judgement` or `round`), `datasets` (rows taken of each version) and counts of what "
        "happened to rows."
    )
    created_at: datetime = Field(description="RFC 3339, UTC.")
