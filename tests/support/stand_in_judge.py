"""A stand-in for a language model that judges: an OpenAI-compatible server whose every answer a test decides."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STALL_SECONDS = 30
_PARTS = re.compile(
    r"<conversation>\n(.*)\n</conversation>\n\n<answer_a>\n(.*)\n</answer_a>\n\n<answer_b>\n(.*)\n</answer_b>",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Question:
    before: str
    """Tools and documents that stand before the conversation."""
    prompt: str
    a: str
    b: str
    number: int
    """How often the same was asked before."""
    key: str | None
    """Key that it came with."""


Reply = str | int | None
"""The text that the model says; a status; or nothing at all until the test is over."""


@dataclass(kw_only=True)
class StandInJudge:
    decide: Callable[[Question], Reply]
    questions: list[Question] = field(default_factory=list)
    url: str = ""
    is_over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, body: dict[str, Any], key: str | None) -> Question:
        asked = body["messages"][-1]["content"]
        found = _PARTS.search(asked)
        assert found is not None
        with self._lock:
            number = sum((q.prompt, q.a, q.b) == found.groups() for q in self.questions)
            parts = {"before": asked[: found.start()], "prompt": found[1], "a": found[2], "b": found[3]}
            question = Question(**parts, number=number, key=key)
            self.questions.append(question)
        return question


def verdict(side: str, **more: Any) -> str:
    return json.dumps({"reason": f"{side} it is.", "verdict": side, **more})


@contextmanager
def stand_in_judge(decide: Callable[[Question], Reply]) -> Iterator[StandInJudge]:
    """Serve on a free port of loopback."""
    judge = StandInJudge(decide=decide)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = judge.decide(judge.note(body, self.headers["Authorization"]))
            if reply is None:
                judge.is_over.wait(STALL_SECONDS)
                return
            status = reply if isinstance(reply, int) else 200
            text = json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]}).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:  # who asked is gone
                return

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield judge
    finally:
        judge.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()
