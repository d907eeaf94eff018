"""One model with the process that answers for it: orders go in, reports come back to those who asked."""

import asyncio
import itertools
import json
import logging
import os
import signal
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from core.confinement import Bounds, confined
from core.domain import generation_protocol as protocol
from core.domain.generation_protocol import (
    End,
    GenerationTask,
    Ready,
    Refused,
    Report,
    Score,
    Scored,
    Start,
    Stop,
    Token,
)
from core.services.chat.runner import (
    AnswerEnd,
    EndReason,
    GeneratedToken,
    GenerationRequest,
    ModelNotServed,
    RunnerEvent,
    RunnerFailed,
    ScoreRequest,
)
from worker.child_environment import trainer_environment
from worker.priority import lower_session
from worker.processes.start import command_of

COMMAND = command_of("generation")
START_SECONDS = 600.0
FIRST_NUMBER = 1000
"""Numbers below are those of the process's own trials."""
_KEPT_LOG_LINES = 50
_ENDED = "The process that answers for this model has ended; ask again."

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EngineBounds:
    """Where the process runs, and what it may read."""

    work_dir: Path
    reads: tuple[Path, ...]
    niceness: int = 0
    """Niceness once it is loaded: with 10 it gets a tenth of a processor that training wants as well."""


class Engine:
    """Lives on one event loop; `open` it before use."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.ready: Ready | None = None
        self._process = process
        self._numbers = itertools.count(FIRST_NUMBER)
        self._listeners: dict[int, asyncio.Queue[Report | None]] = {}
        """Reports by the number of the request; None says that the process has ended."""
        self._log_lines: deque[str] = deque(maxlen=_KEPT_LOG_LINES)
        self._has_started = asyncio.Event()
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._read_log())]

    @classmethod
    async def open(cls, name: str, task: GenerationTask, bounds: EngineBounds) -> "Engine":
        """Start the process and load the model. Raises ModelNotServed."""
        work_dir = bounds.work_dir
        (work_dir / "tmp").mkdir(exist_ok=True)
        (work_dir / protocol.TASK_FILE).write_text(json.dumps(asdict(task)), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *confined([*COMMAND, str(work_dir)], Bounds(writes=[work_dir], reads=bounds.reads)),
            cwd=work_dir,
            env=trainer_environment(work_dir, task.num_threads),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=protocol.MAX_LINE_BYTES,
        )
        engine = cls(name, process)
        try:
            async with asyncio.timeout(START_SECONDS):
                await engine._has_started.wait()
        except BaseException:
            await engine.close()
            raise
        if engine.ready is None:
            await engine.close()
            raise ModelNotServed(engine._why())
        if bounds.niceness:  # not before: somebody waits until it is loaded
            _lower(process.pid, bounds.niceness)
        return engine

    @property
    def num_open(self) -> int:
        """Number of answers and scores under way."""
        return len(self._listeners)

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def resident_bytes(self) -> int:
        """Memory that the process holds now."""
        try:
            fields = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[RunnerEvent, None]:
        """Yield events of all answers. Raises RunnerFailed."""
        self._require_alive()
        reports: asyncio.Queue[Report | None] = asyncio.Queue()
        numbers = {next(self._numbers): index for index in range(request.num_answers)}
        still_open = set(numbers)
        self._listeners |= dict.fromkeys(numbers, reports)
        try:
            for order in _orders(request, numbers):
                self._tell(order)
            while still_open:
                match await reports.get():
                    case Token() as token:
                        top = tuple((int(other), float(value)) for other, value in token.top)
                        index = numbers[token.number]
                        yield GeneratedToken(index=index, token_id=token.token_id, logprob=token.logprob, top=top)
                    case End() as end:
                        still_open.discard(end.number)
                        reason: EndReason = "stop" if end.reason == "stop" else "length"
                        yield AnswerEnd(index=numbers[end.number], reason=reason)
                    case Refused() as refused:
                        raise RunnerFailed(refused.detail)
                    case _:
                        raise RunnerFailed(_ENDED)
        finally:
            for number in numbers:
                self._listeners.pop(number, None)
            for number in still_open:
                self._tell(Stop(number=number))

    async def score(self, request: ScoreRequest) -> list[float]:
        """Return log-probabilities of the response's tokens. Raises RunnerFailed."""
        self._require_alive()
        number, reports = next(self._numbers), asyncio.Queue[Report | None]()
        self._listeners[number] = reports
        try:
            self._tell(Score(number=number, prompt_ids=request.prompt_ids, response_ids=request.response_ids))
            report = await reports.get()
        finally:
            del self._listeners[number]
        if isinstance(report, Scored):
            return report.logprobs
        raise RunnerFailed(report.detail if isinstance(report, Refused) else _ENDED)

    def _require_alive(self) -> None:
        if not self.is_alive:  # nobody would ever be told of its end
            raise RunnerFailed(_ENDED)

    async def close(self) -> None:
        """End the process and all that waits for it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tell(self, order: Start | Score | Stop) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        if not stdin.is_closing() and self.is_alive:
            stdin.write(protocol.encode(order))

    async def _listen(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            while line := await stdout.readline():
                self._hear(protocol.decode(line))
        except ValueError:
            _log.error("the process of %s does not speak the protocol", self.name)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._has_started.set()
        for reports in self._listeners.values():
            reports.put_nowait(None)

    def _hear(self, message: object) -> None:
        if isinstance(message, Ready):
            self.ready = message
            self._has_started.set()
        elif isinstance(message, Token | End | Scored | Refused) and message.number in self._listeners:
            self._listeners[message.number].put_nowait(message)

    async def _read_log(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while chunk := await stderr.read(65536):
            for line in chunk.decode(errors="replace").splitlines():
                self._log_lines.append(line)
                _log.info("%s: %s", self.name, line)

    def _why(self) -> str:
        """Return why the process ended before the model was loaded."""
        _log.error("%s could not be loaded: %s", self.name, "\n".join(self._log_lines))
        told = [line for line in self._log_lines if line.startswith(protocol.REFUSAL_PREFIX)]
        if told:
            return told[-1].removeprefix(protocol.REFUSAL_PREFIX)
        return f"{self.name} could not be loaded, perhaps for lack of memory; the runner's log says more."


def _lower(pid: int, niceness: int) -> None:
    """Lower a process with all its threads, and its session against others."""
    with suppress(ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)
    lower_session(pid, niceness)


def _orders(request: GenerationRequest, numbers: dict[int, int]) -> Iterator[Start]:
    """Yield an order for each answer; `numbers` maps the orders' numbers to the answers' places."""
    sampling = request.sampling
    seed = int.from_bytes(os.urandom(7)) if sampling.seed is None else sampling.seed
    for number, index in numbers.items():
        yield Start(
            number=number,
            prompt_ids=request.prompt_ids,
            max_tokens=sampling.max_tokens or 1,
            end_ids=list(request.end_ids),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=(seed + index) % 2**63,
            top_logprobs=sampling.top_logprobs,
        )
