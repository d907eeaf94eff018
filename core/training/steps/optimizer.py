"""The optimizer update: float32 master weights and optimizer states behind compute weights of the model's dtype.

A bfloat16 weight of size 1 cannot move by less than 2^-8, so updates of 1e-6 would be lost; they add up in the
masters, and the compute weights are their roundings. Gradients of several micro-batches are summed in float32 too: a
sum of many small bfloat16 parts loses them for the same reason. That is 4 bytes a parameter for the sum, while the
bfloat16 gradients live only from one layer's backward pass to the next. The gradient of a step that is one micro-batch
stays as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop

from core.training.data.micro_batches import LANES
from core.training.model.sharding import as_part, num_copies, own_part
from core.training.plan import SftPlan
from core.training.ranks import ALONE, Ranks
from core.training.steps.gradient_sum import GradientSum

CPU_CHUNK = 2**18
"""Elements updated at a time: temporaries stay in the cache, which makes updates several times as fast."""
CPU_PORTION, CUDA_PORTION = 2**22, 2**26
"""About so many elements are handed to torch at once: their gradients are turned to float32 for it."""


class MasterOptimizer:
    """AdamW (arXiv:1711.05101, algorithm 2) or RMSprop over named parameters, by torch's own functional updates.

    Weight decay is decoupled for both, and spares biases and norms (one-dimensional parameters) as transformers does.
    A float32 parameter is its own master. States exist from the start, so that memory does not grow at the first step.
    Of parameters spread over several ranks, each rank updates its rows: the update works element by element.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], plan: SftPlan, ranks: Ranks = ALONE) -> None:
        self._plan = plan
        self._ranks = ranks
        self._parameters = dict(parameters)
        self.masters: dict[str, Tensor] = {
            name: own_part(parameter.detach()) if parameter.dtype == torch.float32 else parameter.detach().float()
            for name, parameter in parameters.items()
        }
        self.num_updates = 0
        names = ("exp_avg", "exp_avg_sq") if plan.optimizer == "adamw" else ("square_avg",)
        self._moments = {
            moment: {name: torch.zeros_like(master) for name, master in self.masters.items()} for moment in names
        }
        self._rounded = [name for name, parameter in parameters.items() if parameter.dtype != torch.float32]
        self._num_copies = num_copies(next(iter(parameters.values())), ranks)
        self._added: list[Tensor] | None = None
        """Gradients of whole parameters of several ranks, once they are added up."""
        self._sums = {name: GradientSum() for name in self._collected()}
        for name, gradients in self._sums.items():
            gradients.watch(self._parameters[name])

    def clear_gradients(self) -> None:
        self._added = None
        for parameter in self._parameters.values():
            parameter.grad = None
        for gradients in self._sums.values():
            gradients.clear()

    def grad_norm(self) -> Tensor:
        """Global norm of the gradients accumulated since they were cleared, a float32 scalar on the device."""
        is_whole = self._num_copies == self._ranks.size
        if is_whole and self._ranks.size > 1:
            self._added = self._add_up()
        norms = torch._foreach_norm(self._gradients(), 2, dtype=torch.float32)
        norm = torch.linalg.vector_norm(torch.stack(norms))
        return norm if is_whole else (self._ranks.add(norm.square()) / self._num_copies).sqrt()

    def _add_up(self) -> list[Tensor]:
        """Add the gradients of all ranks, at once."""
        gradients = self._gradients()
        whole = self._ranks.add(torch.cat([gradient.float().reshape(-1) for gradient in gradients]))
        pieces = torch.split(whole, [gradient.numel() for gradient in gradients])
        return [piece.view_as(gradient) for piece, gradient in zip(pieces, gradients, strict=True)]

    @torch.no_grad()
    def update(self, learning_rate: float, grad_norm: float) -> None:
        """Take one step with the gradients clipped to `max_grad_norm`, then clear them."""
        gradients = self._gradients()
        scale = self._plan.max_grad_norm / (grad_norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_
        self.num_updates += 1
        for decays in (True, False):
            group = [i for i, master in enumerate(self.masters.values()) if (master.dim() > 1) == decays]
            for portion in self._portions(group, gradients):
                if scale < 1:
                    torch._foreach_mul_(portion.gradients, scale)
                self._update_portion(portion, learning_rate, self._plan.weight_decay if decays else 0.0)
        self.refresh()
        self.clear_gradients()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the masters into the compute weights."""
        if self._rounded:
            torch._foreach_copy_(
                [self._parameters[name] for name in self._rounded], [self.masters[name] for name in self._rounded]
            )

    def state(self) -> dict[str, Tensor]:
        """Return the moments, named `<moment>/<parameter>`; the optimizer's own tensors, not copies."""
        return {
            f"{moment}/{name}": tensor for moment, tensors in self._moments.items() for name, tensor in tensors.items()
        }

    def parts(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return `masters`, `state()` or tensors like them as this rank's parts of whole ones, for checkpoints."""
        return {name: as_part(part, self._parameters[name.split("/")[-1]]) for name, part in tensors.items()}

    def bytes_to_come(self) -> int:
        """Upper bound of what the first step allocates: gradients; on a CPU also states.

        The zeros of new states take no memory on a CPU until they are written.
        """
        coming: list[Tensor] = list(self.masters.values())
        if not coming[0].is_cuda:
            coming += self.state().values()
            coming += (LANES - 1) * list(self._parameters.values())  # gradients that wait for those before them
        return sum(tensor.numel() * tensor.element_size() for tensor in coming)

    def _portions(self, group: list[int], gradients: list[Tensor]) -> Iterator["_Portion"]:
        masters, moments = list(self.masters.values()), [list(tensors.values()) for tensors in self._moments.values()]
        size = CUDA_PORTION if masters[0].is_cuda else CPU_PORTION
        portion = _Portion([], [], [[] for _ in moments])
        for index in group:
            pieces = [_pieces(values[index], size) for values in (masters, gradients, *moments)]
            for master, gradient, *others in zip(*pieces, strict=True):
                portion.add(master, gradient.float(), others)
                if portion.num_elements >= size:
                    yield portion
                    portion = _Portion([], [], [[] for _ in moments])
        if portion.masters:
            yield portion

    def _update_portion(self, portion: "_Portion", learning_rate: float, decay: float) -> None:
        masters, gradients, moments = portion.masters, portion.gradients, portion.moments
        is_cuda = masters[0].is_cuda
        if self._plan.optimizer == "adamw":
            beta1, beta2 = self._plan.betas
            adamw(
                masters, gradients, moments[0], moments[1], [], self._steps_before(masters),
                foreach=False, fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=learning_rate,
                weight_decay=decay, eps=self._plan.epsilon, maximize=False,
            )  # fmt: skip
            return
        if decay:
            torch._foreach_mul_(masters, 1 - learning_rate * decay)
        if not is_cuda:
            masters, gradients, moments = _chunks(masters), _chunks(gradients), [_chunks(moments[0])]
        rmsprop(
            masters, gradients, moments[0], [], [], self._steps_before(masters),
            foreach=is_cuda, lr=learning_rate, alpha=self._plan.alpha, eps=self._plan.epsilon,
            weight_decay=0.0, momentum=0.0, centered=False,
        )  # fmt: skip

    def _steps_before(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return one step counter per tensor, as the functional updates expect; they increment it."""
        counters = torch.full((len(tensors),), float(self.num_updates - 1), device=tensors[0].device)
        return list(counters.unbind())

    def _gradients(self) -> list[Tensor]:
        """Gradients in the masters' order, a single micro-batch's in the model's dtype; zeros where none flowed."""
        if self._added is not None:
            return self._added
        gradients = []
        for name, parameter in self._parameters.items():
            collected = self._sums[name].value() if name in self._sums else None
            if collected is not None:
                gradients.append(collected)
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(own_part(parameter.grad))
        return gradients

    def _collected(self) -> list[str]:
        """Return the parameters whose gradients are taken away from them: all where threads compute side by side."""
        is_alone_on_cpu = self._ranks.size == 1 and next(iter(self.masters.values())).device.type == "cpu"
        return list(self._parameters) if is_alone_on_cpu else self._rounded


@dataclass
class _Portion:
    """Equal parts of masters, gradients and moments, each a list of tensors."""

    masters: list[Tensor]
    gradients: list[Tensor]
    moments: list[list[Tensor]]
    num_elements: int = 0

    def add(self, master: Tensor, gradient: Tensor, moments: Sequence[Tensor]) -> None:
        self.masters.append(master)
        self.gradients.append(gradient)
        for tensors, moment in zip(self.moments, moments, strict=True):
            tensors.append(moment)
        self.num_elements += master.numel()


def _pieces(tensor: Tensor, size: int) -> list[Tensor]:
    """Return the tensor, or flat views of parts of a large one."""
    return [tensor] if tensor.numel() <= size else list(torch.split(tensor.view(-1), size))


def _chunks(tensors: list[Tensor]) -> list[Tensor]:
    return [chunk for tensor in tensors for chunk in torch.split(tensor.view(-1), CPU_CHUNK)]
