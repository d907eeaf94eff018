"""Text of an answer while its tokens come: whole characters only, up to a stop sequence."""

from collections.abc import Sequence

from core.tokenization.pair_tokenizer import PairTokenizer

_INCOMPLETE = "\ufffd"
_MAX_HELD_TOKENS = 8
"""A character has at most four bytes; whatever stays unreadable for longer is shown as it is."""


class AnswerText:
    """Decodes one answer piece by piece; the pieces joined are the whole text."""

    def __init__(self, tokenizer: PairTokenizer, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._from = 0
        """Where the decoded window begins: some tokens before the new ones, since a first word loses its space."""
        self._told = 0
        """Tokens whose text is in `_held` or was given out."""
        self._held = ""
        """Text that may be the beginning of a stop sequence."""
        self.is_stopped = False

    def add(self, token_id: int) -> str:
        """Return the text that a token completes; may be empty."""
        self._ids.append(token_id)
        return self._release(self._decode_new(), is_last=False)

    def finish(self) -> str:
        """Return the rest of the text, once no token follows."""
        if self.is_stopped:
            return ""
        rest = self._window(len(self._ids))[len(self._window(self._told)) :]
        self._told = len(self._ids)
        return self._release(rest, is_last=True)

    def _decode_new(self) -> str:
        known, both = self._window(self._told), self._window(len(self._ids))
        is_held = both.endswith(_INCOMPLETE) and len(self._ids) - self._told < _MAX_HELD_TOKENS
        if is_held or len(both) <= len(known):
            return ""
        self._from, self._told = self._told, len(self._ids)
        return both[len(known) :]

    def _window(self, end: int) -> str:
        return self._tokenizer.decode(self._ids[self._from : end]) if end > self._from else ""

    def _release(self, text: str, *, is_last: bool) -> str:
        if self.is_stopped:
            return ""
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if is_last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return how many of the last characters may begin a stop sequence."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
