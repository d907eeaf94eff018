"""The runner that the settings name."""

from collections.abc import AsyncGenerator
from typing import NoReturn

from core.services.backend import Backend
from core.services.chat.http_runner import HttpRunner
from core.services.chat.runner import GenerationRequest, Runner, RunnerEvent, RunnerUnavailable, ScoreRequest
from core.services.chat.vllm.address import check_url
from core.services.chat.vllm.runner import VllmRunner
from core.settings import Settings


def check_runner(settings: Settings) -> None:
    """Check the address of a runner that is not ours. Raises SettingsError."""
    if settings.runner_kind == "vllm":
        check_url(str(settings.runner_url))


def open_runner(backend: Backend) -> Runner:
    """Return the runner, for use on one event loop; nothing is connected to yet. Raises SettingsError."""
    settings = backend.settings
    if settings.runner_url is None:
        return NoRunner()
    if settings.runner_kind == "vllm":
        return VllmRunner(backend)
    return HttpRunner(settings.runner_url, settings.current("runner_secret"))


class NoRunner:
    """Stands where no runner was set up."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[RunnerEvent, None]:
        _refuse()
        yield  # makes this a generator, as the protocol has it

    async def score(self, request: ScoreRequest) -> list[float]:
        _refuse()

    async def close(self) -> None:
        return


def _refuse() -> NoReturn:
    raise RunnerUnavailable(
        "This API has no runner to answer with. `preftune serve` starts one by itself; elsewhere run `preftune runner` "
        "and set PREFTUNE_RUNNER_URL to its address."
    )
