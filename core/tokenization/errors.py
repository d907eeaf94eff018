"""Errors of rows, or of all rows, that cannot be turned into token ids."""

from collections.abc import Mapping

from core.domain.errors import InvalidRequest, Unavailable


class UnusableTokenizer(InvalidRequest):
    code = "unusable-tokenizer"
    title = "The base model's tokenizer cannot be used"


class UnusableChatTemplate(InvalidRequest):
    """Raised for a template that is faulty whatever the row."""

    code = "unusable-chat-template"
    title = "The base model's chat template cannot be used"


class TemplateTooCostly(UnusableChatTemplate):
    code = "chat-template-too-costly"
    title = "The chat template does too much work"


class UnencodableRow(InvalidRequest):
    """Raised for one row that does not fit this base model; others may."""

    code = "row-not-encodable"
    title = "The row does not fit the base model"


class ChatTemplateRefused(UnencodableRow):
    code = "chat-template-refused"
    title = "The chat template refuses the conversation"


class ControlTokenInText(UnencodableRow):
    code = "control-token-in-text"
    title = "A text would become a control token"


class NothingToEncode(InvalidRequest):
    code = "nothing-to-encode"
    title = "No row is left to train on"

    def __init__(self, detail: str, *, reasons: Mapping[int, str] | None = None) -> None:
        super().__init__(detail)
        self.reasons = reasons or {}
        """Why each row was set aside, by its line; the first ones, where there are many."""


class DamagedRows(InvalidRequest):
    code = "damaged-rows"
    title = "The stored rows are damaged"


class EncodingStopped(Unavailable):
    code = "encoding-stopped"
    title = "Encoding the rows was cut short"
