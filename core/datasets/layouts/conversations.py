"""Layouts with whole conversations on both sides: their common beginning up to a reply is the prompt."""

from collections.abc import Sequence

from core.datasets.faults import Note, RowFault
from core.datasets.layouts.layout import Example, Reading
from core.datasets.layouts.pairs import require_reply
from core.domain.dataset_rows import Message
from core.domain.issue_codes import IssueCode


def split_conversations(chosen: list[Message], rejected: list[Message], notes: Sequence[Note] = ()) -> Reading:
    """Split two conversations; raises RowFault where their prompts differ, or one has no reply."""
    shared = _num_shared(chosen, rejected)
    if shared == 0:
        raise RowFault(
            IssueCode.DIFFERENT_PROMPTS,
            "The conversations of 'chosen' and 'rejected' differ from the first message on: "
            "both must answer the same prompt.",
            "/rejected",
        )
    require_reply(chosen[shared:], "chosen")
    require_reply(rejected[shared:], "rejected")
    return Reading([Example(chosen[:shared], chosen[shared:], rejected[shared:])], notes)


def _num_shared(chosen: list[Message], rejected: list[Message]) -> int:
    """Count common messages so that both sides keep at least one, and continue with the assistant if possible."""
    longest = min(len(chosen), len(rejected)) - 1
    shared = 0
    while shared < longest and chosen[shared] == rejected[shared]:
        shared += 1
    while shared > 1 and chosen[shared]["role"] == rejected[shared]["role"] == "tool":
        shared -= 1
    return shared
