"""Served answers on their way into the database, where a request says `store: true` and its key allows it."""

from functools import partial
from typing import Any

from anyio import to_thread

from api.access.callers import Caller
from api.openai.answer_feed import Keep
from core.domain.errors import FieldError, Forbidden, InvalidRequest
from core.services.backend import Backend
from core.services.chat.answering import Question
from core.services.feedback import answers
from core.services.feedback.answers import NewAnswer, answer_id_of


class KeepingNotAllowed(Forbidden):
    code = "keeping-not-allowed"
    title = "Answers are not kept with this key"


class AnswerKeeper:
    """Keeps the answers of one completion."""

    def __init__(self, backend: Backend, caller: Caller, completion_id: str) -> None:
        self._backend = backend
        self._caller = caller
        self._completion_id = completion_id

    async def admit(self, questions: list[Question]) -> Keep:
        """Return what keeps the answers to these questions. Raises KeepingNotAllowed, FeedbackFull, InvalidRequest."""
        if not self._caller.may_keep_answers:
            detail = "This key lets no answer be kept: leave out `store`, or ask for a key with `keeps_answers`."
            raise KeepingNotAllowed(detail, errors=[FieldError("/store", detail)])
        if any(_is_of_tokens(question.prompt) for question in questions):
            detail = "needs a prompt of text or messages: token ids make no row of a dataset"
            raise InvalidRequest(f"/store: {detail}", errors=[FieldError("/store", detail)])
        await to_thread.run_sync(answers.require_room, self._backend, self._caller.project_id)
        return partial(self._keep, questions)

    async def _keep(self, questions: list[Question], texts: list[str]) -> None:
        asked = [question for question in questions for _ in range(question.num_answers)]
        served = [
            NewAnswer(
                id=answer_id_of(self._completion_id, index), model=question.model, prompt=question.prompt, text=text
            )
            for index, (question, text) in enumerate(zip(asked, texts, strict=True))
        ]
        caller = self._caller
        await to_thread.run_sync(answers.keep, self._backend, caller.project_id, caller.key_id, served)


def _is_of_tokens(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], int)
