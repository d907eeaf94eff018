"""Pieces of the answers to one request, from all its prompts, until they are over or nobody wants them any more."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace

import structlog

from core.domain.errors import DomainError
from core.services.chat import answering
from core.services.chat.answering import Answer, Piece, PreparedQuestion
from core.services.chat.runner import Runner, RunnerFailed

_log = structlog.get_logger("api")

Keep = Callable[[list[str]], Awaitable[None]]
"""Takes the texts of all answers."""


class AnswerFeed:
    """Lives on the event loop; to be closed. Answers of the second prompt count on from those of the first."""

    def __init__(
        self, runner: Runner, prepared: Sequence[PreparedQuestion], held: ExitStack, keep: Keep | None = None
    ) -> None:
        """`held` is closed with the feed; `keep` is called once all answers are whole."""
        self._held = held
        self._keep = keep
        self.num_prompt_tokens = sum(len(each.prompt_ids) for each in prepared)
        self.num_answers = sum(each.question.num_answers for each in prepared)
        self._texts = [""] * self.num_answers
        self._pieces: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._num_running = len(prepared)
        starts = [sum(each.question.num_answers for each in prepared[:place]) for place in range(len(prepared))]
        self._tasks = [
            asyncio.create_task(self._follow(runner, each, first)) for each, first in zip(prepared, starts, strict=True)
        ]

    async def next(self, timeout_seconds: float | None = None) -> Piece | None:
        """Return the next piece; None at the end. Raises TimeoutError, what `answering.stream` and `keep` raise."""
        async with asyncio.timeout(timeout_seconds):
            found = await self._pieces.get()
        if isinstance(found, BaseException):
            raise found
        if self._keep is not None and found is not None:
            self._texts[found.index] += found.text
        elif self._keep is not None:
            await self._keep(self._texts)
        return found

    async def collect(self) -> list[Answer]:
        """Return the whole answers, in order."""
        answers = [Answer(index=index) for index in range(self.num_answers)]
        while (piece := await self.next()) is not None:
            answers[piece.index].add(piece)
        return answers

    async def close(self) -> None:
        """Stop the work; what was taken for it is free once this returns."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._held.close()

    async def _follow(self, runner: Runner, prepared: PreparedQuestion, first: int) -> None:
        try:
            async with aclosing(answering.stream(runner, prepared)) as pieces:
                async for piece in pieces:
                    self._pieces.put_nowait(replace(piece, index=first + piece.index))
        except DomainError as error:
            self._pieces.put_nowait(error)
        except Exception:  # noqa: BLE001 - who asked must be told, and nobody else looks at this task
            _log.exception("answer_failed", model=prepared.model.name)
            self._pieces.put_nowait(RunnerFailed("The answer could not be made; ask again."))
            return
        self._num_running -= 1
        if self._num_running == 0:
            self._pieces.put_nowait(None)


def now_seconds() -> int:
    """Return the Unix time, as OpenAI's objects have it."""
    return int(time.time())
