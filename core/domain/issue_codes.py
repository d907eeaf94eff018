"""Closed list of codes that a dataset report can carry, each with its effect on the row or the file.

A code never changes its meaning; new ones may be added. `docs/guide/datasets.md` shows the same table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from core.domain.errors import ErrorKind


class Effect(StrEnum):
    """Effect of an issue."""

    FILE_REFUSED = "file_refused"
    """The whole file is refused, in both modes of `on_error`."""
    ROW_REFUSED = "row_refused"
    """The row is malformed: `on_error: reject` refuses the file, `skip` drops the row."""
    ROW_SET_ASIDE = "row_set_aside"
    """The row is well-formed but teaches nothing: dropped in both modes, the file stays good."""
    NOTED = "noted"
    """The row stays; the user should know."""


class IssueCode(StrEnum):
    # The file cannot be read at all.
    EMPTY_FILE = "empty-file"
    NO_ROWS = "no-rows"
    BINARY_FILE = "binary-file"
    ARCHIVE = "archive"
    WORKBOOK = "workbook"
    PICKLE = "pickle"
    GIT_LFS_POINTER = "git-lfs-pointer"
    UNSUPPORTED_COMPRESSION = "unsupported-compression"
    NESTED_COMPRESSION = "nested-compression"
    ENCODING_MISMATCH = "encoding-mismatch"
    DAMAGED_FILE = "damaged-file"
    ENCRYPTED_FILE = "encrypted-file"
    WRONG_ENCODING = "wrong-encoding"
    WRONG_EXTENSION = "wrong-extension"
    INVALID_ARRAY = "invalid-array"
    PRETTY_PRINTED = "pretty-printed"
    INVALID_TABLE = "invalid-table"
    CHECK_FAILED = "check-failed"
    # Over a limit.
    FILE_TOO_LARGE = "file-too-large"
    DECOMPRESSED_TOO_LARGE = "decompressed-too-large"
    COMPRESSION_RATIO = "compression-ratio"
    LINE_TOO_LONG = "line-too-long"
    TOO_MANY_ROWS = "too-many-rows"
    # Readable, but not a dataset of the kind asked for.
    UNKNOWN_FORMAT = "unknown-format"
    UNSUPPORTED_FORMAT = "unsupported-format"
    WRONG_KIND = "wrong-kind"
    WRONG_COLUMN_NAMES = "wrong-column-names"
    MISSING_COLUMN = "missing-column"
    MIXED_FORMATS = "mixed-formats"
    NO_PROMPT_COLUMN = "no-prompt-column"
    VERDICT_UNCLEAR = "verdict-unclear"
    FIELD_TO_DECIDE = "field-to-decide"
    SPLIT_TO_CHOOSE = "split-to-choose"
    VERDICT_AS_RESPONSE = "verdict-as-response"
    TOO_MANY_BAD_ROWS = "too-many-bad-rows"
    NO_USABLE_ROW = "no-usable-row"
    # A malformed row.
    INVALID_JSON = "invalid-json"
    NOT_UTF8 = "not-utf-8"
    NOT_AN_OBJECT = "not-an-object"
    DUPLICATE_KEY = "duplicate-key"
    TOO_DEEP = "too-deep"
    TOO_MANY_KEYS = "too-many-keys"
    LONE_SURROGATE = "lone-surrogate"
    NUL_CHARACTER = "nul-character"
    MISSING_FIELD = "missing-field"
    NULL_FIELD = "null-field"
    WRONG_TYPE = "wrong-type"
    UNKNOWN_ROLE = "unknown-role"
    EMPTY_MESSAGES = "empty-messages"
    TOO_MANY_MESSAGES = "too-many-messages"
    MISSING_CONTENT = "missing-content"
    NOT_TEXT = "not-text"
    NEEDS_MEDIA = "needs-media"
    INVALID_TOOL_CALL = "invalid-tool-call"
    MESSAGE_WEIGHT = "message-weight"
    NO_ASSISTANT_REPLY = "no-assistant-reply"
    DIFFERENT_PROMPTS = "different-prompts"
    NO_COMMON_PROMPT = "no-common-prompt"
    INVALID_LABEL = "invalid-label"
    SCORES_DISAGREE = "scores-disagree"
    TOO_MANY_ANSWERS = "too-many-answers"
    WRONG_CELL_COUNT = "wrong-cell-count"
    INVALID_CELL = "invalid-cell"
    # A well-formed row that teaches nothing.
    IDENTICAL_PAIR = "identical-pair"
    EMPTY_CHOSEN = "empty-chosen"
    EMPTY_REJECTED = "empty-rejected"
    EMPTY_RESPONSE = "empty-response"
    TIE = "tie"
    NOTHING_TO_COMPARE = "nothing-to-compare"
    ENDS_ON_USER_TURN = "ends-on-user-turn"
    NOTHING_TRAINED = "nothing-trained"
    # Worth knowing; the row stays.
    EMPTY_PROMPT = "empty-prompt"
    NEARLY_IDENTICAL_PAIR = "nearly-identical-pair"
    LONG_ROW = "long-row"
    CELL_MAY_BE_CUT = "cell-may-be-cut"
    MESSAGES_AS_TEXT = "messages-as-text"
    DECODED_TEXTS = "decoded-texts"
    ESCAPES_IN_TEXT = "escapes-in-text"
    TURN_MARKER_IN_RESPONSE = "turn-marker-in-response"
    PROMPT_COLUMN_DIFFERS = "prompt-column-differs"
    TOOLS_IGNORED = "tools-ignored"
    EMPTY_TURN = "empty-turn"
    RENDERED_TEXT = "rendered-text"
    END_TOKEN_IN_TEXT = "end-token-in-text"
    MEANINGFUL_FIELD_IGNORED = "meaningful-field-ignored"
    MISSING_VALUE_AS_TEXT = "missing-value-as-text"
    SCORE_TIE = "score-tie"
    ONE_VERDICT_ONLY = "one-verdict-only"
    DUPLICATE_ROW = "duplicate-row"
    NEAR_DUPLICATE_ROW = "near-duplicate-row"
    REVERSED_PAIR = "reversed-pair"
    LENGTH_BIAS = "length-bias"
    REPEATED_RESPONSE = "repeated-response"
    ONE_LABEL_ONLY = "one-label-only"
    NEAR_DUPLICATES_SKIPPED = "near-duplicates-skipped"


@dataclass(frozen=True, kw_only=True)
class IssueKind:
    effect: Effect
    meaning: str
    remedy: str
    error_kind: ErrorKind = "invalid"
    """For file-level codes: the kind of error the refusal is."""

    @property
    def severity(self) -> Literal["error", "warning"]:
        return "error" if self.effect in (Effect.FILE_REFUSED, Effect.ROW_REFUSED) else "warning"


def _file(meaning: str, remedy: str, error_kind: ErrorKind = "invalid") -> IssueKind:
    return IssueKind(effect=Effect.FILE_REFUSED, meaning=meaning, remedy=remedy, error_kind=error_kind)


def _row(meaning: str, remedy: str) -> IssueKind:
    return IssueKind(effect=Effect.ROW_REFUSED, meaning=meaning, remedy=remedy)


def _aside(meaning: str, remedy: str) -> IssueKind:
    return IssueKind(effect=Effect.ROW_SET_ASIDE, meaning=meaning, remedy=remedy)


def _note(meaning: str, remedy: str) -> IssueKind:
    return IssueKind(effect=Effect.NOTED, meaning=meaning, remedy=remedy)


_C = IssueCode

_UNREADABLE: dict[IssueCode, IssueKind] = {
    _C.EMPTY_FILE: _file("the file has no bytes", "check that the export finished, and send it again"),
    _C.NO_ROWS: _file("the file has no rows", "check that the export finished, and send it again"),
    _C.BINARY_FILE: _file(
        "the bytes are those of an image, a program, a database …",
        "send JSONL, JSON, CSV, TSV, Parquet or Arrow",
        "unsupported",
    ),
    _C.ARCHIVE: _file(
        "the file is an archive (zip, 7z, a tar that is no saved dataset …)",
        "unpack it and send the data file itself",
        "unsupported",
    ),
    _C.WORKBOOK: _file(
        "the file is a workbook of Excel or another spreadsheet program", "save the sheet as CSV UTF-8", "unsupported"
    ),
    _C.PICKLE: _file(
        "the file is a Python pickle, which is never loaded", "save the data as JSONL or Parquet", "unsupported"
    ),
    _C.GIT_LFS_POINTER: _file(
        "the file is a git-LFS pointer, not the data it points to",
        "run `git lfs pull` and send the real file",
        "unsupported",
    ),
    _C.UNSUPPORTED_COMPRESSION: _file(
        "the compression is not gzip, zstd, bzip2 or xz", "send it uncompressed, or with gzip or zstd", "unsupported"
    ),
    _C.NESTED_COMPRESSION: _file("the file is compressed twice", "compress it once, or not at all", "unsupported"),
    _C.ENCODING_MISMATCH: _file(
        "Content-Encoding names another compression than the bytes have", "correct the header, or leave it out"
    ),
    _C.DAMAGED_FILE: _file("the file is cut short or damaged", "make it again, and send it again"),
    _C.ENCRYPTED_FILE: _file("the file, or a column of it, is encrypted", "write it without encryption", "unsupported"),
    _C.WRONG_EXTENSION: _file("the file is Parquet or Arrow under the name of a text file", "name it as what it is"),
    _C.WRONG_ENCODING: _file("the file is not UTF-8 text", "save it as UTF-8"),
    _C.INVALID_ARRAY: _file("the JSON array is not well-formed", "correct it at the line named, or write JSONL"),
    _C.PRETTY_PRINTED: _file(
        "each object is spread over several lines", "write one object a line, or one array around all objects"
    ),
    _C.CHECK_FAILED: _file(
        "the check could not be brought to its end: over its time or memory, or interrupted several times",
        "split the file, or send it again",
    ),
    _C.INVALID_TABLE: _file("the CSV, TSV, Parquet or Arrow table cannot be read", "export it again"),
}

_OVER_A_LIMIT: dict[IssueCode, IssueKind] = {
    _C.FILE_TOO_LARGE: _file("the file is over the size limit", "split it", "too_large"),
    _C.DECOMPRESSED_TOO_LARGE: _file("the file is over the size limit once decompressed", "split it", "too_large"),
    _C.COMPRESSION_RATIO: _file(
        "the file grows more than 100-fold when decompressed", "send it uncompressed", "too_large"
    ),
    _C.LINE_TOO_LONG: _file("a row is over the size limit for one row", "shorten or drop that row", "too_large"),
    _C.TOO_MANY_ROWS: _file("the file has more rows than allowed", "split it", "too_large"),
}

_NOT_THE_DATA_SET: dict[IssueCode, IssueKind] = {
    _C.UNKNOWN_FORMAT: _file("the columns are of no format known", "name them with `columns`, or rename them"),
    _C.UNSUPPORTED_FORMAT: _file(
        "the format is known, but cannot be trained on here", "see the message for what it lacks"
    ),
    _C.WRONG_KIND: _file("the file is a dataset of another kind", "send `kind` with the value named"),
    _C.WRONG_COLUMN_NAMES: _file("the column names differ only in case or spelling", "rename them, or use `columns`"),
    _C.MISSING_COLUMN: _file("no row has a column that `columns` names", "correct the mapping"),
    _C.MIXED_FORMATS: _file(
        "rows of two formats are in one file", "send one file per format; the first row that deviates is named"
    ),
    _C.NO_PROMPT_COLUMN: _file(
        "chosen and rejected stand beside other texts, of which none is named as the prompt",
        "name the prompt with `columns`",
    ),
    _C.VERDICT_UNCLEAR: _file(
        "the numbers of the verdicts may count from 0 or from 1", "send `values` with what they mean"
    ),
    _C.FIELD_TO_DECIDE: _file(
        "a column that decides which response is better, or what is asked, is not used",
        "name it with `columns`, or send `ignore` with its name",
    ),
    _C.SPLIT_TO_CHOOSE: _file(
        "the file holds several splits and `split` names none of them, or it has no splits at all",
        "send `split` with one of the names, or leave it out",
    ),
    _C.VERDICT_AS_RESPONSE: _file(
        "chosen and rejected are names of answers, such as A and B, that stand in other columns",
        "name the answers and the verdict with `columns`",
    ),
    _C.TOO_MANY_BAD_ROWS: _file(
        "all of the first 10,000 rows are malformed, so reading stopped", "correct the rows as named"
    ),
    _C.NO_USABLE_ROW: _file("no row is left to train on", "see the other issues for the reasons"),
}

_MALFORMED_ROW: dict[IssueCode, IssueKind] = {
    _C.INVALID_JSON: _row("the line is not JSON", "correct it; each line is one JSON object"),
    _C.NOT_UTF8: _row("the row is not UTF-8 text", "save the file as UTF-8"),
    _C.NOT_AN_OBJECT: _row("the row is not a JSON object", "write an object with named fields"),
    _C.DUPLICATE_KEY: _row("a key stands twice in one object", "keep one of the two"),
    _C.TOO_DEEP: _row("the row is nested too deeply", "flatten it"),
    _C.TOO_MANY_KEYS: _row("an object of the row has too many keys", "drop those that are not needed"),
    _C.LONE_SURROGATE: _row("a text holds half of a surrogate pair", "write the whole character"),
    _C.NUL_CHARACTER: _row("a text holds a NUL character", "remove it"),
    _C.MISSING_FIELD: _row("a field is missing", "add it"),
    _C.NULL_FIELD: _row("a field is null", "give it a text"),
    _C.WRONG_TYPE: _row("a field has the wrong type", "put a text, or a list of messages, there"),
    _C.UNKNOWN_ROLE: _row("a message has an unknown role", "use system, user, assistant or tool"),
    _C.EMPTY_MESSAGES: _row("a list of messages is empty", "give it at least one message"),
    _C.TOO_MANY_MESSAGES: _row("a conversation has too many messages", "shorten it"),
    _C.MISSING_CONTENT: _row("a message has no content", "give it a text"),
    _C.NOT_TEXT: _row("a message holds something else than text", "only text can be trained on"),
    _C.NEEDS_MEDIA: _row(
        "the row can only be answered with a picture, a video or a sound",
        "remove the row; only text can be trained on",
    ),
    _C.INVALID_TOOL_CALL: _row(
        "a tool call cannot be read", 'write `{"function": {"name": …, "arguments": {…}}}` with arguments that are JSON'
    ),
    _C.MESSAGE_WEIGHT: _row("the weight of a message is neither 0 nor 1", "write 0 (context only) or 1 (trained on)"),
    _C.NO_ASSISTANT_REPLY: _row("there is no reply of the assistant at the end", "end on an assistant turn"),
    _C.DIFFERENT_PROMPTS: _row("chosen and rejected do not answer the same prompt", "pair responses to one prompt"),
    _C.NO_COMMON_PROMPT: _row("without a prompt column, chosen and rejected share no beginning", "add a prompt column"),
    _C.INVALID_LABEL: _row("a label, vote, rank or score is not one that is understood", "correct it"),
    _C.SCORES_DISAGREE: _row(
        "the file's own score of the rejected response is better than that of the chosen one",
        "correct the pair, or send `ignore` with the names of the scores",
    ),
    _C.TOO_MANY_ANSWERS: _row("one prompt has too many answers to compare", "keep fewer answers"),
    _C.WRONG_CELL_COUNT: _row(
        "the row has another number of cells than the header", "quote cells that hold delimiters"
    ),
    _C.INVALID_CELL: _row(
        "a cell of a column of lists or messages begins as one, but breaks off or cannot be read",
        "export the data as JSONL or Parquet, not through a spreadsheet",
    ),
}

_TEACHES_NOTHING: dict[IssueCode, IssueKind] = {
    _C.IDENTICAL_PAIR: _aside("chosen and rejected are the same", "nothing, or remove the row"),
    _C.EMPTY_CHOSEN: _aside("the chosen response is empty", "nothing, or remove the row"),
    _C.EMPTY_REJECTED: _aside("the rejected response is empty", "nothing, or remove the row"),
    _C.EMPTY_RESPONSE: _aside("the response is empty", "nothing, or remove the row"),
    _C.TIE: _aside("the answers are judged equal", "nothing, or remove the row"),
    _C.NOTHING_TO_COMPARE: _aside("the prompt has no two ranked answers", "nothing, or remove the row"),
    _C.NOTHING_TRAINED: _aside(
        "every turn of the response has weight 0 or `train: false`", "give the turn to be learnt weight 1"
    ),
    _C.ENDS_ON_USER_TURN: _aside("one side goes on with, or ends on, a turn of the user", "nothing, or cut that turn"),
}

_WORTH_KNOWING: dict[IssueCode, IssueKind] = {
    _C.EMPTY_PROMPT: _note("the prompt is empty", "nothing, if it is meant"),
    _C.NEARLY_IDENTICAL_PAIR: _note(
        "chosen and rejected differ only in white space, case or Unicode form",
        "remove the row unless that is the lesson",
    ),
    _C.LONG_ROW: _note(
        "the row is longer than most models' training length",
        "shorten it, or raise `max_length`; else the job sets it aside",
    ),
    _C.CELL_MAY_BE_CUT: _note(
        "a cell has 32,767 characters, the most that a spreadsheet keeps", "export the data without a spreadsheet"
    ),
    _C.MESSAGES_AS_TEXT: _note(
        "a text among plain texts is a list of messages, written as JSON or Python writes it; it is kept as text",
        "nothing, if it is meant; else write messages in all rows",
    ),
    _C.DECODED_TEXTS: _note(
        "the texts of a column were JSON strings, or had the escapes of an export, and were decoded",
        "compare the preview with your data",
    ),
    _C.ESCAPES_IN_TEXT: _note(
        "many texts spell their line breaks as a backslash and an n, and none has a line break",
        "export with psql -At, or as CSV or JSON, if line breaks are meant",
    ),
    _C.TURN_MARKER_IN_RESPONSE: _note(
        "the response holds a further turn marker, such as a second `Assistant:`; it is kept as text",
        "remove the row if the text after the marker is not wanted",
    ),
    _C.PROMPT_COLUMN_DIFFERS: _note(
        "the prompt column differs from the first turns of the conversations, which are used", "check the export"
    ),
    _C.TOOLS_IGNORED: _note(
        "`tools` is no list of functions, so it is not used", "write a list of functions, or leave it out"
    ),
    _C.EMPTY_TURN: _note(
        "a turn of the assistant within the response is empty; it is not trained on", "check the export"
    ),
    _C.RENDERED_TEXT: _note(
        "a text holds the markers of a rendered conversation; it will stand inside another one",
        "write the turns as messages",
    ),
    _C.END_TOKEN_IN_TEXT: _note(
        "a response ends on an end token that is spelled out; it is taken off",
        "nothing; the base model's own end follows",
    ),
    _C.MEANINGFUL_FIELD_IGNORED: _note(
        "a column whose name has a meaning for training is not used",
        "map it with `columns`, or send `ignore` with its name",
    ),
    _C.MISSING_VALUE_AS_TEXT: _note(
        "a whole prompt or response is a word that programs write for a missing value (NaN, NULL, None)",
        "leave those rows out, or write the cells empty",
    ),
    _C.SCORE_TIE: _note(
        "the file's own scores of chosen and rejected are equal; the pair is kept",
        "nothing, or send `ties=drop`",
    ),
    _C.ONE_VERDICT_ONLY: _note("all verdicts are for the same answer", "check that the answers were shuffled"),
    _C.DUPLICATE_ROW: _note("the row repeats an earlier one", "remove one of them"),
    _C.NEAR_DUPLICATE_ROW: _note("the row is nearly the same as an earlier one", "check both"),
    _C.REVERSED_PAIR: _note("the same pair occurs in the file swapped", "keep the right one"),
    _C.LENGTH_BIAS: _note(
        "choosing the longer response is right nearly always, or nearly never",
        "use a length-desensitised variant, or balance the data",
    ),
    _C.REPEATED_RESPONSE: _note("many prompts have the very same response", "check that it is meant"),
    _C.ONE_LABEL_ONLY: _note("all rows have the same label", "add rows with the other label"),
    _C.NEAR_DUPLICATES_SKIPPED: _note(
        "near-duplicates were looked for in the first rows only", "nothing; exact duplicates are found in all rows"
    ),
}

ISSUE_KINDS: Mapping[IssueCode, IssueKind] = {
    **_UNREADABLE,
    **_OVER_A_LIMIT,
    **_NOT_THE_DATA_SET,
    **_MALFORMED_ROW,
    **_TEACHES_NOTHING,
    **_WORTH_KNOWING,
}
