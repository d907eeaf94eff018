"""Check of a job's `chat_template_kwargs` against the template, without loading the tokenizer."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from core.tokenization.chat_template import ChatTemplate
from core.tokenization.errors import UnusableChatTemplate
from core.tokenization.model_files import read_tokenizer_files

NO_TEMPLATE = "`chat_template_kwargs` is given, but the base model has no chat template."


def check_template_kwargs(model_dir: Path, kwargs: Mapping[str, Any]) -> None:
    """Raise UnusableChatTemplate for names that the template does not read; may raise UnusableTokenizer."""
    files = read_tokenizer_files(model_dir)
    if not files.chat_template:
        raise UnusableChatTemplate(NO_TEMPLATE)
    ChatTemplate(files.chat_template, files.named_tokens, datetime.now, kwargs)
