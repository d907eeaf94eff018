"""Layout of chosen and rejected as whole texts without a prompt: their common beginning, cut between words, is it."""

from typing import Final

from core.datasets.faults import RowFault
from core.datasets.layouts.layout import Example, Reading, SourceRow
from core.datasets.messages.messages import read_string
from core.domain.issue_codes import IssueCode

# Scripts that write no spaces: a sentence or clause ends at these.
_CLAUSE_END: Final = frozenset("。！？；：，、」』）】")


def read_implicit(row: SourceRow) -> Reading:
    chosen, rejected = read_string(row, "chosen"), read_string(row, "rejected")
    cut = common_prompt_length(chosen, rejected)
    if cut == 0:
        raise RowFault(
            IssueCode.NO_COMMON_PROMPT,
            "There is no 'prompt', and 'chosen' and 'rejected' share no first word to take as one. "
            "Add a 'prompt', or name its column with `columns`.",
            "/prompt",
        )
    return Reading([Example(chosen[:cut], chosen[cut:], rejected[cut:])], [])


def common_prompt_length(chosen: str, rejected: str) -> int:
    """Characters of the shared prompt, cut before a space that leads a word, or after a line break.

    A space stays with the word that follows it, as tokenizers have it ("Paris is" + " lovely"); a line break ends the
    prompt. Both responses keep at least one word. 0 where no such cut is left.
    """
    shared = common_prefix_length(chosen, rejected)
    last_full = min(shared, len(chosen.rstrip()) - 1, len(rejected.rstrip()) - 1)
    return next((cut for cut in range(last_full, 0, -1) if _is_boundary(chosen, rejected, cut)), 0)


def _is_boundary(chosen: str, rejected: str, cut: int) -> bool:
    """Whether both texts may be cut before index `cut`, up to which they are equal."""
    before = chosen[cut - 1]
    if before == "\n" or before in _CLAUSE_END:
        return True
    return (
        not before.isspace()
        and chosen[cut].isspace()
        and rejected[cut].isspace()
        and not (_newline_follows(chosen, rejected, cut))
    )


def _newline_follows(chosen: str, rejected: str, cut: int) -> bool:
    """Whether both texts share a line break in the white space at `cut`; the cut then comes after it."""
    for first, second in zip(chosen[cut:], rejected[cut:], strict=False):
        if first != second or not first.isspace():
            return False
        if first == "\n":
            return True
    return False


def common_prefix_length(first: str, second: str) -> int:
    """Find the common prefix by bisection over slices, which compare at memory speed.

    `os.path.commonprefix` goes a character at a time.
    """
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low
