"""Generations in a lane of their own: each model answers the parts that are left, in a process beside training.

On the CPU it has a tenth of a processor that training wants as well; another device it has while no job trains there,
and gives back at once when one comes. A part that was not done by then is done again.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from core.domain.errors import DomainError
from core.domain.generation_protocol import GenerationTask
from core.domain.judging.generations import Part
from core.domain.judging.responses_task import PROMPTS_FILE, TASK_FILE, ResponsesTask, part_file
from core.failpoints import reach
from core.services.backend import Backend
from core.services.chat import served_models
from core.services.chat.model_parts import find_parts
from core.services.chat.served_models import ServedModel
from core.services.generations import parts
from core.services.generations.parts import GenerationClaim
from worker.device_slot import DeviceSlot
from worker.light.lane import (
    LaneStopping,
    ProgramKilled,
    RequestContext,
    RequestKind,
    RequestRefused,
    TryAgain,
    refusals,
)
from worker.light.scores import find_base_model
from worker.processes.start import command_of
from worker.runner.files import ModelFiles, fetch_model
from worker.runner.sizes import measure

COMMAND = command_of("responses")
MAX_CONTEXT = 131_072
"""Tokens of a prompt with its answer, where the model itself sets no bound."""
_NICENESS = 10


def generations_on(device: str, slot: DeviceSlot) -> RequestKind[GenerationClaim]:
    """Return the kind of generations, on one device."""

    def claim(backend: Backend, lease_seconds: float) -> GenerationClaim | None:
        return None if device != "cpu" and slot.is_wanted else parts.claim(backend, lease_seconds)

    return RequestKind(claim, lambda claimed, context: _Generation(claimed, device, slot).do(context))


@dataclass(frozen=True)
class _Generation:
    claim: GenerationClaim
    device: str
    slot: DeviceSlot

    def do(self, context: RequestContext) -> None:
        with ExitStack() as held:
            if self.device != "cpu" and not held.enter_context(self.slot.borrowed()):
                raise LaneStopping
            for number, name in enumerate(self.claim.models):
                left = [
                    part for part in self.claim.parts if part.model == number and part.number not in self.claim.done
                ]
                if left:
                    self._answer(context, name, left)
        reach("generation.answered")
        with refusals():
            parts.finish(context.backend, self.claim)

    def _answer(self, context: RequestContext, name: str, left: Sequence[Part]) -> None:
        folder = context.work_dir / f"model-{left[0].model}"
        folder.mkdir()
        try:
            model = served_models.find(context.backend, self.claim.project_id, name)
            found = find_parts(context.backend, model)
            max_context = measure(context.backend, model, found).context(MAX_CONTEXT)
            files = fetch_model(context.backend, model, found, folder, context.check)
        except DomainError as error:
            if error.kind == "unavailable":
                raise
            raise RequestRefused(error.detail) from None
        tokenizer_dir = find_base_model(context, model.root_name, None)
        task = ResponsesTask(
            model=asdict(self._loading(model, files, max_context, context.num_threads)),
            tokenizer_dir=str(tokenizer_dir),
            template_kwargs=dict(model.template_kwargs),
            rendered_at=self._rendered_at(model),
            sampling=self.claim.sampling.model_dump(mode="json"),
            num_samples=self.claim.num_samples,
            parts=[asdict(part) for part in left],
        )
        _write(context.work_dir / PROMPTS_FILE, self.claim.prompts)
        _write(context.work_dir / TASK_FILE, asdict(task))
        waiting = list(left)
        try:
            context.run(
                COMMAND,
                f"Answering with {name}",
                reads=[*files.reads, tokenizer_dir],
                session_niceness=self._niceness,
                while_running=lambda: self._collect(context, waiting),
            )
        except ProgramKilled as killed:
            raise TryAgain from killed
        if waiting:
            raise RequestRefused(f"Answering with {name} ended before all was done; the worker's log says more.")

    def _loading(self, model: ServedModel, files: ModelFiles, max_context: int, num_threads: int) -> GenerationTask:
        """Return how the process loads the model."""
        return GenerationTask(
            model_dir=str(files.model_dir),
            adapter_dir=None if files.adapter_dir is None else str(files.adapter_dir),
            precision=model.precision,
            device=self.device,
            num_threads=num_threads,
            niceness=self._niceness,
            max_sequences=1,
            max_context=max_context,
        )

    @property
    def _niceness(self) -> int:
        return _NICENESS if self.device == "cpu" else 0

    def _rendered_at(self, model: ServedModel) -> str:
        """Return the time that templates see: a job's own, else that of the request, whenever it is done."""
        return (model.rendered_at or self.claim.created_at).isoformat()

    def _collect(self, context: RequestContext, waiting: list[Part]) -> None:
        """Keep the parts that are there. Raises LaneStopping."""
        while waiting and (path := context.work_dir / part_file(waiting[0].number)).is_file():
            answers = json.loads(path.read_text(encoding="utf-8"))
            if not parts.record(context.backend, self.claim, waiting[0], answers):
                raise LaneStopping
            reach("generation.part_recorded")
            path.unlink()
            del waiting[0]
        if self.device != "cpu" and self.slot.is_wanted:
            raise LaneStopping


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
