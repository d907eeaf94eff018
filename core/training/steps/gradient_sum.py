"""The gradient of one parameter over the micro-batches of a step, which threads may compute side by side."""

import threading

import torch
from torch import Tensor

from core.training.data.micro_batches import LANES
from core.training.side_by_side import current_place


class GradientSum:
    """Sum of a parameter's gradients in the order of the micro-batches, whichever of them was ready first.

    A sum is float32; the gradient of a single micro-batch stays as it is.
    """

    def __init__(self, master: Tensor) -> None:
        self._master = master
        self._buffer: Tensor | None = None
        """Made when a second gradient of 16 bits asks for it, and kept."""
        self.clear()

    def clear(self) -> None:
        self._lock = threading.Lock()
        self._value: Tensor | None = None
        self._num_added = 0
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
        return self._value

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
        self._num_added += 1
        if self._value is None:
            self._value = gradient
            return
        if self._num_added == 2 and self._value.dtype != torch.float32:
            if self._buffer is None:
                self._buffer = torch.empty_like(self._master)
            self._value = self._buffer.copy_(self._value)
        self._value.add_(gradient)
