"""The gradient of one parameter over the micro-batches of a step, which threads may compute side by side."""

import threading

import torch
from torch import Tensor

from core.training.data.micro_batches import LANES
from core.training.side_by_side import current_place

CHUNK = 2**18
"""Elements added up at a time: they stay in the cache."""


class GradientSum:
    """Sum of a parameter's gradients in the order of the micro-batches, whichever of them was ready first.

    A sum is float32; the gradient of a single micro-batch stays as it is. As many gradients of 16 bits as there are
    lanes wait to be added until all is done, since they take no more than their sum: while the activations of as many
    micro-batches take memory, there is no sum.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._lock = threading.Lock()
        self._parts: list[Tensor] = []
        """The sum so far, or gradients of 16 bits that are not yet added up."""
        self._next = 0
        """Micro-batch whose gradient is added next."""
        self._waiting: dict[int, Tensor] = {}
        """Gradients of later ones: at most as many as there are lanes, since no thread is further ahead."""

    def watch(self, parameter: Tensor) -> None:
        """Take every gradient away from the parameter as soon as it is there, of one thread at a time."""
        parameter.register_hook(self.expect)  # type: ignore[no-untyped-call]
        parameter.register_post_accumulate_grad_hook(self.collect)  # type: ignore[no-untyped-call]

    def expect(self, gradient: Tensor | None) -> None:
        """Let no other thread add its gradient to this one, which `collect` is about to take."""
        if gradient is not None:
            self._lock.acquire()

    def collect(self, parameter: Tensor) -> None:
        """Take the gradient away from the parameter, after its backward pass."""
        try:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            self._take(gradient, current_place())
        finally:
            self._lock.release()

    def value(self) -> Tensor | None:
        """Return the sum; None where no gradient flowed. To be called when all micro-batches are done."""
        for place in sorted(self._waiting):
            self._add(self._waiting.pop(place))
        self._join()
        return self._parts[0] if self._parts else None

    def _take(self, gradient: Tensor, place: int | None) -> None:
        if place is None or place < self._next:
            self._add(gradient)
            return
        self._waiting[place] = gradient
        # Micro-batches that are not among those under way are done; this parameter may have had no part in them.
        while self._waiting and (self._next in self._waiting or self._next <= place - LANES):
            if (following := self._waiting.pop(self._next, None)) is not None:
                self._add(following)
            self._next += 1

    def _add(self, gradient: Tensor) -> None:
        self._parts.append(gradient)
        if self._parts[0].dtype == torch.float32 or len(self._parts) > LANES:
            self._join()

    def _join(self) -> None:
        """Add up what there is."""
        if len(self._parts) < 2:
            return
        first = self._parts[0]
        total = first if first.dtype == torch.float32 else torch.empty_like(first, dtype=torch.float32)
        for into, one, *others in zip(*_chunks([total, *self._parts]), strict=True):
            if total is not first:
                into.copy_(one)
            for other in others:
                into.add_(other)
        self._parts = [total]


def _chunks(tensors: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Return views of the same parts of each; the whole of each where some do not lie in memory as one piece."""
    if all(tensor.is_contiguous() and not tensor.is_cuda for tensor in tensors):
        return [torch.split(tensor.view(-1), CHUNK) for tensor in tensors]
    return [(tensor,) for tensor in tensors]
