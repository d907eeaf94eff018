"""Registry of all layouts, and the classification of rows."""

from collections.abc import Mapping
from typing import Final

from core.datasets.layouts.exports import EXPORT_LAYOUTS
from core.datasets.layouts.judged import JUDGED_LAYOUTS
from core.datasets.layouts.layout import Layout, SourceRow
from core.datasets.layouts.paired import PAIRED_LAYOUTS
from core.datasets.layouts.preferences import PREFERENCE_LAYOUTS
from core.datasets.layouts.published import PUBLISHED_LAYOUTS
from core.datasets.layouts.ranked import RANKED_LAYOUTS
from core.datasets.layouts.rated import RATED_LAYOUTS
from core.datasets.layouts.responses import RESPONSES_LAYOUT
from core.datasets.layouts.singles import SINGLE_LAYOUTS

LAYOUTS: Final[tuple[Layout, ...]] = (
    *PAIRED_LAYOUTS,
    *PREFERENCE_LAYOUTS,
    *JUDGED_LAYOUTS,
    *RANKED_LAYOUTS,
    *EXPORT_LAYOUTS,
    *PUBLISHED_LAYOUTS,
    *RATED_LAYOUTS,
    *SINGLE_LAYOUTS,
)
_TELLING: Final = frozenset(("prompt", "chosen", "rejected"))
"""Names that are ours: a layout that leaves them out fits worse than one that leaves out others."""
LAYOUTS_BY_NAME: Final[Mapping[str, Layout]] = {layout.name: layout for layout in (*LAYOUTS, RESPONSES_LAYOUT)}
"""All that can be asked for; that of responses is recognised by its kind, not by its columns."""


def classify(row: SourceRow) -> Layout | None:
    """Return the layout that uses most of the row's columns; of equals the first."""
    return max(
        (layout for layout in LAYOUTS if layout.matches(row)), key=lambda layout: _fit(layout, row), default=None
    )


def _fit(layout: Layout, row: SourceRow) -> int:
    used = [name for name in row.keys() & layout.columns.keys() if row[name] not in (None, "", [])]
    return len(used) + 2 * len(_TELLING.intersection(used))
