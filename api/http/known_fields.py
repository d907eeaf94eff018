"""Names of the fields that an object of a request can have, for what was probably meant by an unknown one."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel


def known_fields(annotation: Any, loc: Sequence[str | int]) -> list[str]:
    """Return the names beside which the last part of a pydantic location stands; `annotation`: of the whole body."""
    models = list(_models_of(annotation))
    for part in loc[:-1]:
        inner = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if inner:
            models = [model for each in inner for model in _models_of(each)]
        else:  # an index, or the name of one of several types
            models = [model for model in models if model.__name__ == part] or models
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_of(part)
