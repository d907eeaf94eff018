"""Run by the `openai` package of each version, in its own environment: a chat, whole and streamed, and a completion."""

import sys
from typing import Any

from openai import OpenAI
from openai_session import refusal


def main(url: str, model: str) -> None:
    client = OpenAI(base_url=f"{url}/v1")
    messages: Any = [{"role": "user", "content": "How do I keep the house style?"}]
    asked: Any = {
        "model": model,
        "messages": messages,
        "max_tokens": 12,
        "seed": 5,
        "logprobs": True,
        "top_logprobs": 2,
    }
    whole = client.chat.completions.create(**asked)
    choice = whole.choices[0]
    assert choice.finish_reason in ("stop", "length")
    assert whole.usage is not None
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert whole.usage.completion_tokens == len(choice.logprobs.content) <= 12
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == choice.message.content
    assert chunks[-1].usage == whole.usage
    text = client.completions.create(model=model, prompt="The quick", max_tokens=3)
    assert text.usage is not None
    assert text.usage.completion_tokens <= 3
    missing = {"model": "nosuch", "messages": messages}
    assert refusal(lambda: client.chat.completions.create(**missing)) == (404, "model_not_found")


if __name__ == "__main__":
    main(*sys.argv[1:])
