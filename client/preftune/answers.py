"""Answers of models, and what people think of them: chats, arenas, feedback."""

import builtins
from collections.abc import Iterator, Sequence
from typing import Any

from preftune.transport import Resource

Messages = str | Sequence[dict[str, Any]]
"""A conversation; a text is one message of the user."""


class Chat(Resource):
    """Answers of base models and policies: `client.chat`. OpenAI's own client works as well."""

    def create(self, model: str, messages: Messages, **settings: Any) -> dict[str, Any]:
        """Ask a model, and wait for the whole answer; `settings`: fields of `POST /v1/chat/completions`."""
        body = {"model": model, "messages": _as_messages(messages), **settings}
        return self._transport.post_and_wait("/v1/chat/completions", body)

    def stream(self, model: str, messages: Messages, **settings: Any) -> Iterator[dict[str, Any]]:
        """Yield the chunks of the answer as they come. Raises ApiError also after some of them."""
        body = {"model": model, "messages": _as_messages(messages), **settings, "stream": True}
        yield from self._transport.stream_events("/v1/chat/completions", body)

    def texts(self, model: str, messages: Messages, **settings: Any) -> Iterator[str]:
        """Yield the text of one answer in pieces. Raises ApiError also after some of them."""
        for chunk in self.stream(model, messages, **settings):
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    yield text

    def complete(self, model: str, prompt: Any, **settings: Any) -> dict[str, Any]:
        """Have a text, or token ids, continued without a chat template; `settings`: as in `POST /v1/completions`."""
        body = {"model": model, "prompt": prompt, **settings}
        return self._transport.post_and_wait("/v1/completions", body)


class Arenas(Resource):
    """Arenas: blind pairs of answers, and the votes on them: `client.arenas`."""

    def create(self, **settings: Any) -> dict[str, Any]:
        """Make an arena; `settings`: fields of `POST /arenas`, such as `models` and `dataset_id` or `prompts`."""
        return self._transport.post("/arenas", settings)

    def get(self, arena_id: str) -> dict[str, Any]:
        """Return an arena with its standing."""
        return self._transport.get(f"/arenas/{arena_id}")

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        return self._transport.get("/arenas", limit=limit, cursor=cursor)

    def pairs(self, arena_id: str, *, count: int = 1, voter: str | None = None) -> builtins.list[dict[str, Any]]:
        """Return pairs to judge, which nobody else gets for ten minutes; waits until the models have answered."""
        found: dict[str, Any] = self._transport.post_and_wait(
            f"/arenas/{arena_id}/leases", {"count": count, "voter": voter}
        )
        pairs: builtins.list[dict[str, Any]] = found["data"]
        return pairs

    def vote(
        self, arena_id: str, pair_id: str, verdict: str, *, comment: str | None = None, voter: str | None = None
    ) -> dict[str, Any]:
        """Judge a pair: `left`, `right`, `tie` or `both_bad`; returns the vote, which says whose answers they were."""
        body = {"pair_id": pair_id, "verdict": verdict, "comment": comment, "voter": voter}
        return self._transport.post(f"/arenas/{arena_id}/votes", body)

    def votes(self, arena_id: str, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of the votes, newest first."""
        return self._transport.get(f"/arenas/{arena_id}/votes", limit=limit, cursor=cursor)

    def take_back(self, arena_id: str, vote_id: str) -> None:
        """Delete a vote; its pair can be judged again."""
        self._transport.delete(f"/arenas/{arena_id}/votes/{vote_id}")

    def close(self, arena_id: str) -> dict[str, Any]:
        """Let nobody vote any more; the votes stay."""
        return self._set_open(arena_id, is_open=False)

    def reopen(self, arena_id: str) -> dict[str, Any]:
        return self._set_open(arena_id, is_open=True)

    def dataset(self, arena_id: str) -> dict[str, Any]:
        """Make the votes so far a version of the arena's dataset, and return it."""
        return self._transport.post_and_wait(f"/arenas/{arena_id}/dataset")

    def delete(self, arena_id: str) -> None:
        """Delete an arena with its votes; a dataset that was made of them stays."""
        self._transport.delete(f"/arenas/{arena_id}")

    def _set_open(self, arena_id: str, *, is_open: bool) -> dict[str, Any]:
        return self._transport.patch(f"/arenas/{arena_id}", {"is_open": is_open})


class Feedback(Resource):
    """What people think of served answers: `client.feedback`."""

    def thumb(self, answer_id: str, *, is_good: bool, **more: Any) -> dict[str, Any]:
        """Say that an answer is good or bad; `more`: `comment` and `giver`."""
        return self._give(answer_id, thumb="up" if is_good else "down", **more)

    def edit(self, answer_id: str, text: str, **more: Any) -> dict[str, Any]:
        """Say how an answer should have been; `more`: `comment` and `giver`."""
        return self._give(answer_id, edit=text, **more)

    def prefer(self, answer_id: str, over: str, **more: Any) -> dict[str, Any]:
        """Say that an answer is better than another one to the same prompt; `more`: `comment` and `giver`."""
        return self._give(answer_id, better_than=over, **more)

    def answers(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of the answers that are kept, with what was said of them, newest first."""
        return self._transport.get("/feedback/answers", limit=limit, cursor=cursor)

    def delete(self, answer_id: str) -> None:
        """Delete a kept answer with all feedback on it."""
        self._transport.delete(f"/feedback/answers/{answer_id}")

    def delete_all(self) -> None:
        """Delete all kept answers of the project with all feedback on them."""
        self._transport.delete("/feedback/answers")

    def dataset(self, kind: str = "preference") -> dict[str, Any]:
        """Make a version of the project's dataset of feedback: `preference` of edits and preferences, or `unpaired`."""
        return self._transport.post_and_wait("/feedback/dataset", {"kind": kind})

    def _give(self, answer_id: str, **given: Any) -> dict[str, Any]:
        return self._transport.post("/feedback", {"answer_id": answer_id, **given})


def _as_messages(messages: Messages) -> list[dict[str, Any]]:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
