"""The update: float32 master weights and optimizer states behind compute weights of the model's dtype.

A bfloat16 weight of size 1 cannot move by less than 2^-8, so updates of 1e-6 would be lost; they add up in the
masters, and the compute weights are their roundings. Gradients of micro-batches are summed in float32 too: a sum of
many small bfloat16 parts loses them for the same reason. That is 4 bytes a parameter for the sum, while the bfloat16
gradients live only from one layer's backward pass to the next.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop

from core.training.plan import SftPlan
from core.training.ranks import ALONE, Ranks
from core.training.sharding import cut_rows, join_rows, own_part

CPU_CHUNK = 2**18
"""Elements updated at a time: temporaries stay in the cache, which makes updates several times as fast."""


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
        self._sums = {name: torch.empty_like(self.masters[name]) for name in self._rounded}
        self._has_sum = dict.fromkeys(self._rounded, False)
        for name in self._rounded:
            self._parameters[name].register_post_accumulate_grad_hook(self._collector(name))  # type: ignore[no-untyped-call]

    def clear_gradients(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None
        self._has_sum = dict.fromkeys(self._rounded, False)

    def grad_norm(self) -> Tensor:
        """Scalar float32 on the device: the global norm of the gradients summed since they were cleared."""
        norm = nn.utils.get_total_norm(self._gradients())
        return norm if self._ranks.size == 1 else self._ranks.add(norm.square()).sqrt()

    @torch.no_grad()
    def update(self, learning_rate: float, grad_norm: float) -> None:
        """One step, with the gradients scaled down to `max_grad_norm`; then they are cleared."""
        gradients = self._gradients()
        scale = self._plan.max_grad_norm / (grad_norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_
        if scale < 1:
            torch._foreach_mul_(gradients, scale)
        self.num_updates += 1
        for decays in (True, False):
            group = [i for i, master in enumerate(self.masters.values()) if (master.dim() > 1) == decays]
            if group:
                self._update_group(group, gradients, learning_rate, self._plan.weight_decay if decays else 0.0)
        self.refresh()
        self.clear_gradients()

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute weights from the masters."""
        if self._rounded:
            torch._foreach_copy_(
                [self._parameters[name] for name in self._rounded], [self.masters[name] for name in self._rounded]
            )

    def state(self) -> dict[str, Tensor]:
        """The moments, named `<moment>/<parameter>`; they are the optimizer's own, not copies."""
        return {
            f"{moment}/{name}": tensor for moment, tensors in self._moments.items() for name, tensor in tensors.items()
        }

    def whole(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`masters` or `state()` put together from all ranks, for checkpoints."""
        if self._ranks.size == 1:
            return tensors
        rows = {name: len(parameter) for name, parameter in self._parameters.items()}
        return {name: join_rows(part, rows[name.split("/")[-1]], self._ranks) for name, part in tensors.items()}

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What of whole tensors this rank keeps."""
        return {name: cut_rows(tensor, self._ranks) for name, tensor in tensors.items()}

    def bytes_to_come(self) -> int:
        """What the first step takes besides: gradients; on a CPU also states, whose zeros take none until written."""
        coming = [self.masters[name] for name in self.masters if name not in self._sums]
        if not next(iter(self.masters.values())).is_cuda:
            coming += [*self._sums.values(), *self.state().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in coming)

    def _update_group(self, group: list[int], gradients: list[Tensor], learning_rate: float, decay: float) -> None:
        def members(tensors: Mapping[str, Tensor]) -> list[Tensor]:
            values = list(tensors.values())
            return [values[i] for i in group]

        masters, moments = members(self.masters), [members(tensors) for tensors in self._moments.values()]
        grads = [gradients[i] for i in group]
        is_cuda = masters[0].is_cuda
        if self._plan.optimizer == "adamw":
            beta1, beta2 = self._plan.betas
            adamw(
                masters, grads, moments[0], moments[1], [], self._steps_before(masters),
                foreach=False, fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=learning_rate,
                weight_decay=decay, eps=self._plan.epsilon, maximize=False,
            )  # fmt: skip
            return
        if decay:
            torch._foreach_mul_(masters, 1 - learning_rate * decay)
        if not is_cuda:
            masters, grads, squares = _chunks(masters), _chunks(grads), _chunks(moments[0])
        else:
            squares = moments[0]
        rmsprop(
            masters, grads, squares, [], [], self._steps_before(masters),
            foreach=is_cuda, lr=learning_rate, alpha=self._plan.alpha, eps=self._plan.epsilon,
            weight_decay=0.0, momentum=0.0, centered=False,
        )  # fmt: skip

    def _steps_before(self, tensors: list[Tensor]) -> list[Tensor]:
        """One step counter a tensor, as the functional updates want them; they count up themselves."""
        counters = torch.full((len(tensors),), float(self.num_updates - 1), device=tensors[0].device)
        return list(counters.unbind())

    def _gradients(self) -> list[Tensor]:
        """In the order of the masters; zeros where nothing flowed."""
        gradients = []
        for name, parameter in self._parameters.items():
            if name in self._sums:
                if not self._has_sum[name]:
                    self._sums[name].zero_()
                    self._has_sum[name] = True
                gradients.append(self._sums[name])
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(own_part(parameter.grad))
        return gradients

    def _collector(self, name: str) -> Callable[[Tensor], None]:
        def collect(parameter: Tensor) -> None:
            assert parameter.grad is not None
            if self._has_sum[name]:
                self._sums[name].add_(parameter.grad)
            else:
                self._sums[name].copy_(parameter.grad)
                self._has_sum[name] = True
            parameter.grad = None

        return collect


def _chunks(tensors: list[Tensor]) -> list[Tensor]:
    return [chunk for tensor in tensors for chunk in torch.split(tensor.view(-1), CPU_CHUNK)]
