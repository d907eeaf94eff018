"""Whether an upload would work, tried on a file's first rows and on some later ones."""

from collections.abc import Iterable, Sequence
from typing import Final

from core.datasets.advice.advice import Advice
from core.datasets.advice.later_rows import LaterRows
from core.datasets.column_account import judge_columns
from core.datasets.faults import FileFault
from core.datasets.layouts.columns import Role, meaning_of
from core.datasets.layouts.layout import SourceRow
from core.datasets.options import CheckOptions
from core.datasets.recognition import NUM_SAMPLED_ROWS
from core.datasets.rows.row_processing import BatchResult, RowProcessor
from core.datasets.settled import settle
from core.datasets.sources.batches import Record, RecordBatch
from core.domain.dataset_rows import DatasetKind

_JUDGING: Final = (Role.LABEL, Role.VERDICT, Role.SCORE, Role.RESPONSE)
_MAX_CHARS: Final = 300
"""Limit of one sentence; names of columns may be of any length."""


def _drops_judgements(result: BatchResult, options: CheckOptions) -> bool:
    """Whether another kind is read, which passes over something that says how good the responses are."""
    roles = {meaning_of(name) for name in result.tally.account.unused}
    return options.kind is DatasetKind.DEMONSTRATION and not roles.isdisjoint(_JUDGING)


class Trial:
    def __init__(
        self, records: list[Record], sample: Sequence[SourceRow], later: LaterRows, options: CheckOptions
    ) -> None:
        """`records`: the file's first rows, as they are read; `sample`: those of them that are objects."""
        self._first = records
        self._sample = sample
        self._later = later
        self._options = options

    @property
    def scope(self) -> str:
        """On what the uploads were tried, as a sentence; empty where the file may have no more rows than that."""
        if not self._has_more:
            return ""
        num_later = len(self._later.records)
        later = f" and on {num_later:,} spread over the file" if num_later else ""
        return f"(Tried on the first {len(self._first):,} rows{later}.)"

    @property
    def _has_more(self) -> bool:
        return len(self._first) == NUM_SAMPLED_ROWS

    def followable(self, advice: Iterable[Advice]) -> list[Advice]:
        """Return the advice that works, with `on_error=skip` added where the file needs that as well."""
        found: list[Advice] = []
        for one in (each.beside(self._options) for each in advice):
            if len(one.sentence) > _MAX_CHARS:
                continue
            for way in (one, one.with_skipping()):
                if self.accepts(way.applied_to(self._options)):
                    found.append(way)
                    break
        return found

    def accepts(self, options: CheckOptions) -> bool:
        """Whether the rows would be accepted; skipping may drop less than half of them."""
        result = self._process(options)
        if result is None or result.fault is not None or not result.num_accepted:
            return False
        if options.on_error == "skip":
            return result.num_rejected < result.num_accepted
        return result.num_rejected == 0

    def _process(self, options: CheckOptions) -> BatchResult | None:
        """Return the result of all rows; None where the file would be refused."""
        try:
            settled = settle(self._sample, options)
            processor = RowProcessor(settled.options, settled.layout.name, settled.serialised)
            rows = [*self._first, *self._later.records] if self._has_more else self._first
            result = processor.process(RecordBatch(rows), with_sketches=False)
            judge_columns(result.tally.account, settled.layout, settled.options)
            if options.kind is not self._options.kind and _drops_judgements(result, options):
                return None
        except FileFault:
            return None
        return result
