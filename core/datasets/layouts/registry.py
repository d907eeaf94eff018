"""All layouts, in the order in which a row is tried against them: the more telling first."""

from collections.abc import Mapping
from typing import Final

from core.datasets.layouts.judged import JUDGED_LAYOUTS
from core.datasets.layouts.layout import Layout, SourceRow
from core.datasets.layouts.preferences import PREFERENCE_LAYOUTS
from core.datasets.layouts.ranked import RANKED_LAYOUTS
from core.datasets.layouts.singles import SINGLE_LAYOUTS

LAYOUTS: Final[tuple[Layout, ...]] = (*PREFERENCE_LAYOUTS, *JUDGED_LAYOUTS, *RANKED_LAYOUTS, *SINGLE_LAYOUTS)
LAYOUTS_BY_NAME: Final[Mapping[str, Layout]] = {layout.name: layout for layout in LAYOUTS}


def classify(row: SourceRow) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.matches(row)), None)
