"""Summary of lengths that are counted."""

from collections import Counter
from collections.abc import Iterable

from core.datasets.result import LengthStatistics


def summarise(counts: Counter[int]) -> LengthStatistics:
    """Summarise lengths exactly; a percentile is the smallest length that at least that share does not exceed."""
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
