"""Counts over accepted rows that add up: each batch makes its own, and the sum is the file's."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from core.datasets.judgement import content_of
from core.datasets.languages import language_of, script_of
from core.datasets.layouts.layout import Example, SourceRow
from core.datasets.result import LengthStatistics, PairStatistics, Statistics
from core.domain.dataset_rows import DatasetKind

_MAX_FIELD_NAMES: Final = 50
_ALL_SAMPLED_LINES: Final = 2_000
_SAMPLED_EVERY: Final = 16
_REFUSALS: Final = (
    "i'm sorry, but", "i am sorry, but", "sorry, but i", "i apologize, but", "i can't", "i cannot", "i can not",
    "i'm unable", "i am unable", "i'm not able", "as an ai", "i'm just an ai", "i am just an ai",
)  # fmt: skip
_FIELD_NAMES: Final = {
    DatasetKind.PREFERENCE: ("chosen", "rejected"),
    DatasetKind.DEMONSTRATION: ("response",),
    DatasetKind.UNPAIRED: ("response",),
}


@dataclass
class Tally:
    chars: dict[str, Counter[int]] = field(default_factory=dict)
    """Field → length → rows."""
    turns: Counter[int] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    longer: Counter[str] = field(default_factory=Counter)
    """Which side of a pair is longer: `chosen`, `rejected` or `same`."""
    ignored_fields: Counter[str] = field(default_factory=Counter)

    def note_fields(self, row: SourceRow, used: tuple[str, ...]) -> None:
        """Remember fields that the layout does not read."""
        extra = row.keys() - used
        if extra:
            known = self.ignored_fields
            self.ignored_fields.update(name for name in extra if name in known or len(known) < _MAX_FIELD_NAMES)

    def add(self, line: int, example: Example, kind: DatasetKind) -> None:
        texts = [content_of(text) for text in (example.first, example.second) if text is not None]
        prompt = content_of(example.prompt)
        self._add_length("prompt", len(prompt))
        for name, text in zip(_FIELD_NAMES[kind], texts, strict=True):
            self._add_length(name, len(text))
            self.refusals[name] += text[:64].lstrip().lower().replace("’", "'").startswith(_REFUSALS)
        if len(texts) == 2:
            gap = len(texts[0]) - len(texts[1])
            self.longer["chosen" if gap > 0 else "rejected" if gap else "same"] += 1
        if example.label is not None:
            self.labels["desirable" if example.label else "undesirable"] += 1
        if not isinstance(example.prompt, str):
            self.turns[len(example.prompt)] += 1
        self._add_language(line, texts[0] if len(texts[0]) >= 40 else f"{prompt[-200:]} {texts[0]}")

    def _add_length(self, name: str, length: int) -> None:
        lengths = self.chars.get(name)
        if lengths is None:
            lengths = self.chars[name] = Counter()
        lengths[length] += 1

    def _add_language(self, line: int, text: str) -> None:
        script = script_of(text)
        self.scripts[script or "none"] += 1
        if line <= _ALL_SAMPLED_LINES or line % _SAMPLED_EVERY == 0:
            self.languages[language_of(text, script)] += 1

    def merge(self, other: "Tally") -> None:
        for name, lengths in other.chars.items():
            self.chars.setdefault(name, Counter()).update(lengths)
        for name in ("turns", "scripts", "languages", "refusals", "labels", "longer", "ignored_fields"):
            getattr(self, name).update(getattr(other, name))

    def statistics(self, num_source_rows: int) -> Statistics:
        """All but what describes the file, and what the lint adds."""
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
        )
        num_rows = sum(self.scripts.values())
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


def summarise(counts: Counter[int]) -> LengthStatistics:
    """Exact; a percentile is the smallest length that at least that share of the rows does not exceed."""
    total = sum(counts.values())
    lengths = sorted(counts)
    percentiles = dict(zip((50, 90, 95, 99), _percentiles(counts, lengths, total, (50, 90, 95, 99)), strict=True))
    return LengthStatistics(
        min=lengths[0],
        mean=round(sum(length * count for length, count in counts.items()) / total, 2),
        p50=percentiles[50],
        p90=percentiles[90],
        p95=percentiles[95],
        p99=percentiles[99],
        max=lengths[-1],
    )


def _percentiles(counts: Counter[int], lengths: list[int], total: int, wanted: Iterable[int]) -> list[int]:
    found = []
    reached, index = counts[lengths[0]], 0
    for percent in wanted:
        while reached * 100 < percent * total:
            index += 1
            reached += counts[lengths[index]]
        found.append(lengths[index])
    return found


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = sum(counts.values())
    return {
        name: round(count / total, 4) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }
