"""Transactions as functions: they take a session, their callers give the backend in its place.

A function so marked may run more than once (`core.database.session`): the keys of what it inserts are arguments.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from core.domain.errors import NotFound
from core.services.backend import Backend

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def reads(
    work: Callable[Concatenate[Session, Arguments], Result],
) -> Callable[Concatenate[Backend, Arguments], Result]:
    """Run each call in a transaction of its own that only reads. Raises Unavailable when the database stays away."""

    @wraps(work)
    def call(backend: Backend, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return backend.database.read(lambda session: work(session, *args, **kwargs))

    return call


def writes(
    work: Callable[Concatenate[Session, Arguments], Result],
) -> Callable[Concatenate[Backend, Arguments], Result]:
    """Run each call in a transaction of its own, and commit. Raises Unavailable when the database stays away."""

    @wraps(work)
    def call(backend: Backend, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return backend.database.write(lambda session: work(session, *args, **kwargs))

    return call


def deletes(
    work: Callable[Concatenate[Session, Arguments], None],
) -> Callable[Concatenate[Backend, Arguments], None]:
    """Run each call like `writes`; a repeated run that finds nothing more is an answer to the commit that was lost."""

    @wraps(work)
    def call(backend: Backend, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        has_run = False

        def unit(session: Session) -> None:
            nonlocal has_run
            try:
                work(session, *args, **kwargs)
            except NotFound:
                if not has_run:
                    raise
            has_run = True

        backend.database.write(unit)

    return call
