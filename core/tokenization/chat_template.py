"""Chat template of a base model: from messages to the model's input text, as transformers renders it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2
from jinja2 import meta

from core.domain.dataset_rows import Message, RowContext
from core.tokenization.bounded_sandbox import BoundedSandbox
from core.tokenization.errors import ChatTemplateRefused, TemplateTooCostly, UnusableChatTemplate
from core.tokenization.template_features import NO_CONTEXT, TemplateFeatures

RESERVED_VARIABLES = frozenset(("messages", "tools", "documents", "add_generation_prompt"))
"""What the rows and the rules decide, and no setting may."""
MAX_TEMPLATE_CHARS = 256 * 1024
"""The longest of well-known models has about 20,000."""


class ChatTemplate:
    """A compiled template. Not for use by two threads at once.

    Args:
        tokens: special tokens by name, such as `bos_token`.
        kwargs: what else each rendering is given, such as `enable_thinking`.

    Raises:
        UnusableChatTemplate: the source is no Jinja template, or reads no variable of a name in `kwargs`.
    """

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str],
        now: Callable[[], datetime],
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise UnusableChatTemplate(f"The chat template is longer than {MAX_TEMPLATE_CHARS} characters.")
        self.source = source
        self._tokens, self._now = tokens, now
        self.kwargs = dict(kwargs or {})
        self._variables = {**tokens, **self.kwargs}
        self._environment = BoundedSandbox(now)
        try:
            self._template = self._environment.compile_bounded(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise UnusableChatTemplate(f"The chat template cannot be read: {error}.") from error
        self._require_known_variables()
        self.features = TemplateFeatures(
            lambda messages, context: self._render(messages, context, add_generation_prompt=False), source
        )

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names that the source reads and does not set."""
        return frozenset(meta.find_undeclared_variables(self._environment.parse(self.source)))

    def with_kwargs(self, kwargs: Mapping[str, Any]) -> "ChatTemplate":
        return ChatTemplate(self.source, self._tokens, self._now, {**self.kwargs, **kwargs})

    @property
    def _free_variables(self) -> frozenset[str]:
        """Variables that a setting may give."""
        return self.variables - RESERVED_VARIABLES - self._tokens.keys() - self._environment.globals.keys()

    def _require_known_variables(self) -> None:
        for name in self.kwargs:
            if name not in self._free_variables:
                free = ", ".join(sorted(self._free_variables)) or "nothing else"
                raise UnusableChatTemplate(
                    f"`chat_template_kwargs` names {name!r}, which the base model's chat template cannot be given: "
                    f"beside messages, tools and documents it reads {free}."
                )

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool, context: RowContext = NO_CONTEXT
    ) -> str:
        """Return the conversation as text; with a generation prompt it ends where an answer starts.

        Raises:
            ChatTemplateRefused: the template fails on these messages, or says itself that it cannot take them.
            TemplateTooCostly: it takes too much work.
        """
        prepared = [
            {"role": message["role"], "content": message["content"]}
            if len(message) == 2
            else self.features.prepare(message)
            for message in messages
        ]
        return self._render(prepared, context, add_generation_prompt=add_generation_prompt)

    def _render(self, messages: list[dict[str, Any]], context: RowContext, *, add_generation_prompt: bool) -> str:
        variables = self._variables | {
            "messages": messages,
            "tools": context.get("tools"),
            "documents": context.get("documents"),
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._environment.render_bounded(self._template, variables)
        except (RecursionError, MemoryError) as error:
            raise TemplateTooCostly("The chat template does not come to an end; it was stopped.") from error
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise ChatTemplateRefused(f"The base model's chat template refuses this conversation: {error}.") from error
