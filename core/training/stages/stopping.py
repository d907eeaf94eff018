"""The stop policy of every stage: what a requested stop interrupts, and how it is carried out at a boundary."""

from collections.abc import Callable

from core.training.failures import TrainingStopped
from core.training.observer import Observer


def is_interrupted(observer: Observer, *, is_finishing: bool) -> bool:
    """Whether a stop was requested that interrupts work between two boundaries.

    In the evaluation stage (`is_finishing`) `save` interrupts nothing: it asks for what happens anyway.
    """
    request = observer.stop_requested()
    return request in ("checkpoint", "abandon") or (request == "save" and not is_finishing)


def carry_out(observer: Observer, write_checkpoint: Callable[[], None]) -> bool:
    """Carry out the requested stop, if any; True when the run is to finish with the current policy (`save`).

    Raises:
        TrainingStopped: with `checkpoint`, after one was written, and with `abandon`.
    """
    request = observer.stop_requested()
    if request == "abandon":
        raise TrainingStopped(has_checkpoint=False)
    if request == "checkpoint":
        write_checkpoint()
        raise TrainingStopped(has_checkpoint=True)
    return request == "save"
