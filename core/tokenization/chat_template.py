"""A base model's chat template: messages → the text a model is given, as transformers renders it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2

from core.domain.dataset_rows import Message, RowContext
from core.tokenization.bounded_sandbox import BoundedSandbox
from core.tokenization.errors import ChatTemplateRefused, TemplateTooCostly, UnusableChatTemplate
from core.tokenization.template_features import NO_CONTEXT, TemplateFeatures

MAX_TEMPLATE_CHARS = 256 * 1024
"""The longest of well-known models has about 20,000."""


class ChatTemplate:
    """A compiled template. Not for use by two threads at once.

    Args:
        variables: names of special tokens, and what else each rendering is given (`chat_template_kwargs`).

    Raises:
        UnusableChatTemplate: the source is no Jinja template.
    """

    def __init__(self, source: str, variables: Mapping[str, Any], now: Callable[[], datetime]) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise UnusableChatTemplate(f"The chat template is longer than {MAX_TEMPLATE_CHARS} characters.")
        self.source = source
        self._variables = dict(variables)
        self._environment = BoundedSandbox(now)
        try:
            self._template = self._environment.compile_bounded(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise UnusableChatTemplate(f"The chat template cannot be read: {error}.") from error
        self.features = TemplateFeatures(
            lambda messages, context: self._render(messages, context, add_generation_prompt=False), source
        )

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool, context: RowContext = NO_CONTEXT
    ) -> str:
        """The conversation as text; with a generation prompt it ends where an answer starts.

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
