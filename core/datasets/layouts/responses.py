"""Layout of responses that are to be judged: a prompt, what was answered, and by which model."""

from typing import Final

from core.datasets.faults import RowFault
from core.datasets.layouts.columns import Role
from core.datasets.layouts.layout import Example, Layout, Reading, SourceRow, first_filled
from core.datasets.layouts.pairs import require_reply
from core.datasets.messages.messages import as_messages, read_field, read_messages, read_text
from core.domain.dataset_rows import DatasetKind, Text
from core.domain.issue_codes import IssueCode

_RESPONSES: Final = ("response", "completion")
_MAX_NAME_CHARS: Final = 255


def _response_field(row: SourceRow) -> str:
    return first_filled(row, _RESPONSES) or _RESPONSES[0]


def _read(row: SourceRow) -> Reading:
    """Read the row as it stands: an answer may be empty, and look like anything."""
    name = _response_field(row)
    prompt, response = read_text(row, "prompt"), read_field(row, name)
    if isinstance(prompt, str) and isinstance(response, str):
        return Reading([Example(prompt, response, model=_read_model(row))], [])
    answer: Text = (
        [{"role": "assistant", "content": response}]
        if isinstance(response, str)
        else read_messages(response, f"/{name}")
    )
    require_reply(as_messages(answer, "assistant"), name)
    return Reading([Example(as_messages(prompt, "user"), answer, model=_read_model(row))], [])


def _read_model(row: SourceRow) -> str | None:
    value = row.get("model")
    if value is None or (isinstance(value, str) and 0 < len(value) <= _MAX_NAME_CHARS and "\0" not in value):
        return value
    detail = f"'model' must be a model's name, of at most {_MAX_NAME_CHARS} characters."
    raise RowFault(IssueCode.WRONG_TYPE, detail, "/model")


RESPONSES_LAYOUT: Final = Layout(
    name="responses",
    kind=DatasetKind.RESPONSES,
    title="a prompt and what a model answered (prompt, response or completion, model)",
    columns={"prompt": Role.PROMPT, "response": Role.RESPONSE, "completion": Role.RESPONSE, "model": Role.PROVENANCE},
    one_of=(_RESPONSES,),
    matches=lambda row: "prompt" in row and any(name in row for name in _RESPONSES),
    read=_read,
)
"""Taken where its kind is asked for: by its columns alone, a row is a demonstration."""
