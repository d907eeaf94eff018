"""Recognition of a file's layout, by the fields of its first rows or as the user says, with reasons for a refusal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from core.datasets.advice.advice import Advice
from core.datasets.advice.suggestions import MAX_ADVICE, suggest
from core.datasets.faults import FileFault, RowFault, listed, quoted
from core.datasets.layouts.columns import Role, meaning_of
from core.datasets.layouts.layout import Layout, SourceRow, is_filled
from core.datasets.layouts.preferences import prompt_candidates
from core.datasets.layouts.registry import LAYOUTS, LAYOUTS_BY_NAME, classify
from core.datasets.layouts.responses import RESPONSES_LAYOUT
from core.datasets.layouts.unreadable import find_many_scores, find_unreadable
from core.datasets.options import CheckOptions
from core.datasets.rows.renaming import MEANINGS
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import FieldError, InvalidRequest
from core.domain.issue_codes import IssueCode

NUM_SAMPLED_ROWS: Final = 200
KNOWN_FIELDS: Final = tuple(sorted({name for layout in LAYOUTS for name in layout.roles}))
_MESSAGE_KEYS: Final = frozenset(("role", "from", "content"))
_EXPECTED: Final = {
    DatasetKind.PREFERENCE: "prompt, chosen and rejected",
    DatasetKind.DEMONSTRATION: "messages, prompt and completion, or text",
    DatasetKind.UNPAIRED: "prompt, completion and label",
    DatasetKind.RESPONSES: "prompt, response and model",
}
_KIND_NAMES: Final = {
    DatasetKind.PREFERENCE: "pairs of a chosen and a rejected response",
    DatasetKind.DEMONSTRATION: "demonstrations: one response a row, as for SFT",
    DatasetKind.UNPAIRED: "unpaired rows: single responses with a label each",
    DatasetKind.RESPONSES: "responses of models, to be judged",
}


def validate_options(options: CheckOptions) -> None:
    """Check the options; raises InvalidRequest for a format or a target field that does not exist."""
    if options.format != "auto" and options.format not in LAYOUTS_BY_NAME:
        raise InvalidRequest(
            f"There is no format {quoted(options.format)}; leave it out to have it recognised, "
            f"or use one of {', '.join(LAYOUTS_BY_NAME)}.",
            errors=[FieldError("/format", "is not a known format")],
        )
    ours = {*KNOWN_FIELDS, *(RESPONSES_LAYOUT.roles if options.kind is DatasetKind.RESPONSES else ())}
    unknown = [name for name in options.columns if name not in ours]
    if unknown:
        raise InvalidRequest(
            f"`columns` maps our names to those of the file; {listed(unknown)} is none of ours "
            f"(such as {_EXPECTED[options.kind]}).",
            errors=[FieldError("/columns", f"{quoted(name)} is not a known field") for name in unknown],
        )
    wrong = [value for value in options.values.values() if value not in MEANINGS]
    if wrong:
        raise InvalidRequest(
            f"`values` says what verdicts mean: {', '.join(MEANINGS)}; {listed(wrong)} is none of them.",
            errors=[FieldError("/values", f"{quoted(value)} is not a meaning") for value in wrong],
        )


def recognise(rows: Sequence[SourceRow], options: CheckOptions) -> Layout:
    """Return the layout of most of the sampled rows (already renamed), the earlier one where two tie.

    Raises:
        FileFault: none of the rows is of a layout known, or they are of another kind than asked for.
    """
    if options.kind is DatasetKind.RESPONSES and options.format == "auto":
        return LAYOUTS_BY_NAME["responses"]  # what is asked for: such rows are those of a demonstration as well
    if options.format != "auto":
        asked = LAYOUTS_BY_NAME[options.format]
        _require_kind(asked, rows, options.kind)
        return asked
    if len(rows) == 1 and (shape := _shape_of_columns(rows[0])):
        raise FileFault(IssueCode.UNSUPPORTED_FORMAT, shape)
    votes = Counter(found.name for row in rows if (found := classify(row)))
    if not votes:
        raise _no_layout(rows, options)
    layout = LAYOUTS_BY_NAME[votes.most_common(1)[0][0]]
    _require_kind(layout, rows, options.kind)
    return layout


def require_columns(rows: Iterable[SourceRow], columns: Mapping[str, str]) -> None:
    """Raise FileFault when no sampled row has a column that the mapping names."""
    found = _field_names(rows)
    missing = [theirs for theirs in columns.values() if theirs not in found]
    if missing and found:
        raise FileFault(
            IssueCode.MISSING_COLUMN,
            f"`columns` names {listed(missing)}, but the rows have no such field. They have {listed(list(found))}.",
        )


def is_readable(layout: Layout, row: SourceRow) -> bool:
    try:
        layout.read(row)
    except RowFault:
        return False
    return True


def _require_kind(layout: Layout, rows: Sequence[SourceRow], kind: DatasetKind) -> None:
    if layout.kind is kind:
        return
    if kind is DatasetKind.PREFERENCE and (several := find_many_scores(rows)):
        raise FileFault(IssueCode.UNSUPPORTED_FORMAT, several)
    advice = [Advice({"kind": layout.kind.value}), *suggest(rows, kind)]
    detail = (
        f"This file holds {_KIND_NAMES[layout.kind]} (it is {layout.title}), and was sent as the kind {quoted(kind)}, "
        f"of which a file has {_EXPECTED[kind]}."
    )
    if layout.kind is DatasetKind.DEMONSTRATION and (scores := _scores_beside(layout, rows)):
        detail += (
            f" {listed(scores)} says how good a response is, and one by itself makes no pair: write two of one prompt "
            "as chosen and rejected, or send unpaired rows, with a label (true or false) in its place."
        )
        when = f"For SFT on every response, whatever {listed(scores)} says"
        advice.append(Advice({"kind": layout.kind.value, "ignore": scores}, when))
    raise FileFault(IssueCode.WRONG_KIND, detail, advice=advice)


def _scores_beside(layout: Layout, rows: Sequence[SourceRow]) -> list[str]:
    """Columns of scores that a layout of prompts and responses does not read."""
    if Role.PROMPT not in layout.columns.values():
        return []
    names = {name: None for row in rows for name, value in row.items() if is_filled(value)}
    return [name for name in names if name not in layout.roles and meaning_of(name) is Role.SCORE][:MAX_ADVICE]


def _no_layout(rows: Sequence[SourceRow], options: CheckOptions) -> FileFault:
    found = _field_names(rows)
    expected = _EXPECTED[options.kind]
    lowered = {name.strip().lower(): name for name in found}
    misspelt = [lowered[name] for name in KNOWN_FIELDS if name in lowered and lowered[name] != name]
    if misspelt:
        wanted = [name.strip().lower() for name in misspelt]
        return FileFault(
            IssueCode.WRONG_COLUMN_NAMES,
            f"Found {listed(misspelt)}, expected {listed(wanted)}: names are compared letter by letter.",
            advice=[Advice({"columns": {**options.columns, **dict(zip(wanted, misspelt, strict=True))}})],
        )
    if {"chosen", "rejected"} <= found.keys() and "prompt" not in found and (asked := _prompt_candidates(rows)):
        return FileFault(
            IssueCode.NO_PROMPT_COLUMN,
            f"'chosen' and 'rejected' stand beside {listed(asked)}, and no column has the name of a prompt.",
            advice=[
                *(
                    Advice({"columns": {**options.columns, "prompt": name}}, f"If {quoted(name)} is the prompt")
                    for name in asked[:MAX_ADVICE]
                ),
                Advice({"format": "implicit"}, "If the prompt is the beginning that both texts share"),
            ],
        )
    if known := find_unreadable(found) or find_many_scores(rows):
        return FileFault(IssueCode.UNSUPPORTED_FORMAT, known)
    if options.kind is DatasetKind.PREFERENCE and found.keys() & {
        "chosen",
        "completion",
        "response",
        "messages",
        "text",
    }:
        return FileFault(
            IssueCode.WRONG_KIND,
            f"The rows have {listed(list(found))}, and no rejected response beside the other, as a file for SFT. "
            "Preference training needs chosen and rejected.",
            advice=[*suggest(rows, options.kind), Advice({"kind": DatasetKind.DEMONSTRATION.value}, "For SFT")],
        )
    if set(found) <= {"prompt", "text", "question", "instruction", "id"} and found:
        return FileFault(
            IssueCode.UNSUPPORTED_FORMAT,
            f"These rows hold prompts only ({listed(list(found))}). Training needs responses as well: {expected}.",
        )
    return FileFault(
        IssueCode.UNKNOWN_FORMAT,
        f"The rows have {listed(list(found)) or 'no fields'}; expected {expected}. "
        "If they are there under other names, map them with `columns`.",
        advice=suggest(rows, options.kind),
    )


def _prompt_candidates(rows: Sequence[SourceRow]) -> list[str]:
    counts = Counter(name for row in rows for name in prompt_candidates(row))
    return [name for name, _ in counts.most_common()]


def _shape_of_columns(row: SourceRow) -> str | None:
    """Return advice where the file is one object with a list, or an object, per column; else None."""
    columns = [value for value in row.values() if isinstance(value, list | dict) and value]
    texts = [value for column in columns for value in (column.values() if isinstance(column, dict) else column)]
    if len(row) > 1 and len(columns) == len(row) and all(isinstance(text, str) for text in texts):
        return (
            "The file is one object with columns. Write one object a line: with pandas, "
            "to_json(orient='records', lines=True); with datasets, to_json()."
        )
    if (
        len(row) == 1
        and texts
        and classify(row) is None
        and all(isinstance(item, dict) and _MESSAGE_KEYS.isdisjoint(item) for item in texts)
    ):
        return f"The rows stand inside {quoted(next(iter(row)))}. Send that list alone, or one row a line."
    return None


def _field_names(rows: Iterable[SourceRow]) -> dict[str, None]:
    return {name: None for row in rows for name in row}
