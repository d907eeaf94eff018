"""An upload that would work, as a refusal names it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.datasets.options import CheckOptions
from core.domain.dataset_rows import DatasetKind


@dataclass(frozen=True)
class Advice:
    """Options to send the same file with. It is tried on rows of the file before anyone reads it."""

    change: Mapping[str, Any]
    """Names of options to the whole of their new values."""
    when: str = ""
    """What must be true of the file: 'If 'brief' is the prompt'."""
    is_example: bool = False
    """Whether the values show the form only, and what they mean is for the user to say."""

    def applied_to(self, options: CheckOptions) -> CheckOptions:
        """Return the options with the change made."""
        change = dict(self.change)
        if "kind" in change:
            change["kind"] = DatasetKind(change["kind"])
        return replace(options, **change)

    def beside(self, options: CheckOptions) -> "Advice":
        """Return the same advice with what the options say already: `ignore` and `values` are added to."""
        change = dict(self.change)
        if "ignore" in change:
            change["ignore"] = [*options.ignore, *(name for name in change["ignore"] if name not in options.ignore)]
        if "values" in change:
            change["values"] = {**options.values, **change["values"]}
        return replace(self, change=change)

    def with_skipping(self) -> "Advice":
        """Return the same advice for a file that has malformed rows as well."""
        return replace(self, change={**self.change, "on_error": "skip"})

    @property
    def sentence(self) -> str:
        """One sentence that says what to send, and when."""
        options = " and ".join(f"{name}={_shown(value)}" for name, value in self.change.items())
        verb = "send for example" if self.is_example else "send"
        sentence = f"{self.when}, {verb} {options}." if self.when else f"{verb} {options}."
        return sentence[0].upper() + sentence[1:]


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    shown = json.dumps(value, ensure_ascii=False)
    return shown if shown.isprintable() else json.dumps(value)
