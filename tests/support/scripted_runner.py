"""A runner without a model: it says what the test gave it, and counts what was asked and what was let go."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from core.services.chat.runner import AnswerEnd, GeneratedToken, GenerationRequest, RunnerEvent, ScoreRequest


@dataclass(kw_only=True)
class ScriptedRunner:
    answers: Sequence[Sequence[int]] = ((5, 6, 2),)
    """Token ids of each answer, over and over; one that ends with an end token ends as `stop`."""
    is_stuck: bool = False
    """Says nothing after the first token of each answer."""
    asked: list[GenerationRequest] = field(default_factory=list)
    num_open: int = 0
    """Requests that are neither done nor let go."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[RunnerEvent, None]:
        self.asked.append(request)
        self.num_open += 1
        try:
            most = request.sampling.max_tokens or 0
            for index in range(request.num_answers):
                ids = self.answers[index % len(self.answers)][:most]
                for place, token in enumerate(ids):
                    if place and self.is_stuck:
                        await asyncio.Event().wait()
                    top = tuple((token + step, -0.5 - step) for step in range(request.sampling.top_logprobs))
                    yield GeneratedToken(index=index, token_id=token, logprob=-0.5, top=top)
                yield AnswerEnd(index=index, reason="stop" if ids and ids[-1] in request.end_ids else "length")
        finally:
            self.num_open -= 1

    async def score(self, request: ScoreRequest) -> list[float]:
        return [-0.25] * len(request.response_ids)

    async def close(self) -> None:
        return
