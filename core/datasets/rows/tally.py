"""Counts over accepted rows that can be summed: each batch makes its own, and the sum is the file's."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import sub
from typing import Final

from core.datasets.layouts.layout import Layout, SourceRow, is_filled
from core.datasets.messages.fields import unread_keys
from core.datasets.result import PairStatistics, Statistics
from core.datasets.rows.account import Account
from core.datasets.rows.contents import Accepted, Contents
from core.datasets.rows.languages import language_of, script_of
from core.datasets.rows.lengths import summarise
from core.domain.dataset_rows import DatasetKind, Text

_MAX_FIELD_NAMES: Final = 50
_MAX_FIELD_NAME_CHARS: Final = 64
_NESTED: Final = (list, dict)
_OF_TREES: Final = frozenset(("rank", "labels"))
"""Keys of the nodes of a tree that its layout reads, or that say what its ranks say."""
_NO_MESSAGES: Final = frozenset(("content", "tool_calls", "function_call"))
_ALL_SAMPLED_LINES: Final = 1_000
_SAMPLED_EVERY: Final = 64
_MIN_ESCAPED_SHARE: Final = 0.01
_MISSING: Final = frozenset(("NaN", "nan", "NULL", "None", "<NA>", "NaT"))
"""Words that pandas, SQL and Python write for a value that is missing."""
_LONGEST_MISSING: Final = max(map(len, _MISSING))
_REFUSALS: Final = (
    "i'm sorry, but", "i am sorry, but", "sorry, but i", "i apologize, but", "i can't", "i cannot", "i can not",
    "i'm unable", "i am unable", "i'm not able", "as an ai", "i'm just an ai", "i am just an ai",
)  # fmt: skip
_REFUSAL_INITIALS: Final = frozenset("iIsSaA \n")
_FIELD_NAMES: Final[Mapping[DatasetKind, tuple[str, ...]]] = {
    DatasetKind.PREFERENCE: ("chosen", "rejected"),
    DatasetKind.DEMONSTRATION: ("response",),
    DatasetKind.UNPAIRED: ("response",),
    DatasetKind.RESPONSES: ("response",),
}


@dataclass
class MissingWords:
    """Texts of one field that are a word for a missing value."""

    num_rows: int
    line: int
    """Line of the first one."""
    word: str


@dataclass
class Tally:
    chars: dict[str, Counter[int]] = field(default_factory=dict)
    """Field → length → rows."""
    turns: Counter[int] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    """Scripts of the sampled rows, as `languages`."""
    languages: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    longer: Counter[str] = field(default_factory=Counter)
    """Which side of a pair is longer: `chosen`, `rejected` or `same`."""
    ignored_fields: Counter[str] = field(default_factory=Counter)
    num_escaped: int = 0
    """Responses that have a backslash before an n, as an export that escapes line breaks leaves it."""
    has_line_breaks: bool = False
    """Does any response have one?"""
    missing_words: dict[str, MissingWords] = field(default_factory=dict)
    """Field → rows of which the whole text is such a word."""
    first_lines: dict[str, int] = field(default_factory=dict)
    """`tools`, `tool_calls` → line of the first row that has them."""
    account: Account = field(default_factory=Account)

    def note_fields(self, row: SourceRow, used: frozenset[str]) -> None:
        """Record fields that the layout does not read."""
        if used.issuperset(row):
            return
        self._note(sorted(name[:_MAX_FIELD_NAME_CHARS] for name in row.keys() - used))

    def note_message_keys(self, row: SourceRow, line: int, layout: Layout) -> None:
        """Record keys of messages and answers that nothing reads, as `messages[].id`."""
        for name, value in row.items():
            if type(value) in _NESTED and name in layout.fields:
                self._note_messages(name[:_MAX_FIELD_NAME_CHARS], value, line, layout.message_keys)
        if layout.unread_in_answers is not None:
            name, found = layout.unread_in_answers(row)
            told = {key: value for key, value in found.items() if is_filled(value) and key != "value"}
            self.account.note_message_keys(name, told, line)

    def _note_messages(self, name: str, value: object, line: int, read: frozenset[str]) -> None:
        """Note the keys of the messages in a value, wherever it has them; those of a tree are as of one list."""
        found: dict[str, object] = {}
        for item in value if isinstance(value, list) else (value,):
            if type(item) is not dict:
                continue
            if "replies" in item:
                item = {key: inner for key, inner in item.items() if key not in _OF_TREES}
            if len(item) > 2 and ("role" in item or "from" in item):
                found |= {key: item[key] for key in unread_keys(item) if f"{name}[].{key}" not in read}
            for key, inner in item.items():
                if key == "replies":
                    self._note_messages(name, inner, line, read)
                elif type(inner) in _NESTED and key not in _NO_MESSAGES:
                    short = key[:_MAX_FIELD_NAME_CHARS]
                    path = f"{name}[].{short}" if isinstance(value, list) else f"{name}.{short}"
                    self._note_messages(path, inner, line, read)
        if found:
            self._note(sorted(f"{name}[].{key[:_MAX_FIELD_NAME_CHARS]}" for key in found))
            self.account.note_message_keys(name, found, line)

    def _note(self, names: Sequence[str]) -> None:
        known = self.ignored_fields
        known.update([name for name in names if name in known or len(known) < _MAX_FIELD_NAMES])

    def count(self, accepted: Sequence[Accepted], kind: DatasetKind) -> None:
        """Count the rows of one batch, under the field names of this kind of dataset."""
        if not accepted:
            return
        prompts, *responses = zip(*[row.contents for row in accepted], strict=True)
        names = _FIELD_NAMES[kind]
        self.chars = {"prompt": Counter(map(len, prompts))}
        for name, texts in zip(("prompt", *names), (prompts, *responses), strict=False):
            self._find_missing(name, texts, accepted)
        for name, texts in zip(names, responses, strict=False):
            self.chars[name] = Counter(map(len, texts))
            self._count_line_breaks(texts)
            self.refusals[name] = sum([text[:1] in _REFUSAL_INITIALS and is_refusal(text) for text in texts])
        if kind is DatasetKind.PREFERENCE:
            gaps = [(gap > 0) - (gap < 0) for gap in map(sub, map(len, responses[0]), map(len, responses[1]))]
            self.longer = +Counter(chosen=gaps.count(1), rejected=gaps.count(-1), same=gaps.count(0))
        if kind is DatasetKind.UNPAIRED:
            self.labels = Counter("desirable" if row.example.label else "undesirable" for row in accepted)
        turns = [row.example.prompt for row in accepted if type(row.example.prompt) is not str]
        self.turns = Counter(map(len, turns))
        self._find_tools(accepted)
        for row in accepted:
            if row.line <= _ALL_SAMPLED_LINES or row.line % _SAMPLED_EVERY == 0:
                self._guess_language(row.contents)

    def _find_tools(self, accepted: Sequence[Accepted]) -> None:
        tools = next((row.line for row in accepted if row.example.tools), None)
        calls = next((row.line for row in accepted if any(map(_has_calls, row.example[:3]))), None)
        found = {"tools": tools, "tool_calls": calls}
        self.first_lines = {name: line for name, line in found.items() if line is not None}

    def _find_missing(self, name: str, texts: Sequence[str], accepted: Sequence[Accepted]) -> None:
        found = [row for row, text in enumerate(texts) if len(text) <= _LONGEST_MISSING and text in _MISSING]
        if found:
            self.missing_words[name] = MissingWords(len(found), accepted[found[0]].line, texts[found[0]])

    def _count_line_breaks(self, texts: Sequence[str]) -> None:
        """Count line breaks in all texts at once, as most batches have no escape."""
        whole = "\0".join(texts)
        self.has_line_breaks = self.has_line_breaks or "\n" in whole
        if "\\" in whole and "\\n" in whole:
            self.num_escaped += sum(["\\n" in text for text in texts])

    def _guess_language(self, contents: Contents) -> None:
        text = contents.first if len(contents.first) >= 40 else f"{contents.prompt[-200:]} {contents.first}"
        script = script_of(text)
        self.scripts[script or "none"] += 1
        self.languages[language_of(text, script)] += 1

    def merge(self, other: "Tally") -> None:
        for name, lengths in other.chars.items():
            self.chars.setdefault(name, Counter()).update(lengths)
        for name in ("turns", "scripts", "languages", "refusals", "labels", "longer", "ignored_fields"):
            getattr(self, name).update(getattr(other, name))
        for name, words in other.missing_words.items():
            known = self.missing_words.setdefault(name, words)
            if known is not words:
                known.num_rows += words.num_rows
        for name, line in other.first_lines.items():
            self.first_lines[name] = min(line, self.first_lines.get(name, line))
        self.num_escaped += other.num_escaped
        self.has_line_breaks = self.has_line_breaks or other.has_line_breaks
        self.account.merge(other.account)

    def may_be_escaped(self) -> bool:
        """Whether many responses spell line breaks out, and none has one."""
        num_rows = sum(self.chars["prompt"].values()) if self.chars else 0
        return not self.has_line_breaks and self.num_escaped >= max(2, num_rows * _MIN_ESCAPED_SHARE)

    def statistics(self, num_source_rows: int) -> Statistics:
        """Return all statistics but those of the file and of the lint."""
        statistics = Statistics(
            container=None,
            compression=None,
            encoding=None,
            num_source_rows=num_source_rows,
            ignored_fields=sorted(self.ignored_fields)[:_MAX_FIELD_NAMES],
            chars={name: summarise(lengths) for name, lengths in self.chars.items()},
            turns=summarise(self.turns) if self.turns else None,
            scripts=_shares(self.scripts),
            languages=_shares(self.languages),
            first_lines=self.first_lines,
        )
        num_rows = sum(self.chars["prompt"].values()) if self.chars else 0
        if num_rows:
            statistics["refusal_shares"] = {
                name: round(self.refusals[name] / num_rows, 4) for name in self.chars if name != "prompt"
            }
        if self.labels:
            statistics["labels"] = dict(sorted(self.labels.items()))
        if self.longer:
            statistics["pairs"] = self._pairs()
        return statistics

    def _pairs(self) -> PairStatistics:
        chosen, rejected = self.longer["chosen"], self.longer["rejected"]
        share = chosen / (chosen + rejected) if chosen + rejected else None
        return PairStatistics(
            chosen_longer=chosen,
            rejected_longer=rejected,
            same_length=self.longer["same"],
            longer_wins_share=None if share is None else round(share, 4),
            length_rule_accuracy=None if share is None else round(max(share, 1 - share), 4),
        )


def _has_calls(text: Text | None) -> bool:
    return type(text) is list and any("tool_calls" in message for message in text)


def is_refusal(text: str) -> bool:
    return text[:64].lstrip().lower().replace("’", "'").startswith(_REFUSALS)


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = sum(counts.values())
    return {
        name: round(count / total, 4) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }
