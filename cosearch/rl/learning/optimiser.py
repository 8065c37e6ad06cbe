"""The optimiser of network weights: Adam (Kingma & Ba 2015) in one kernel for all tensors.

Small networks have few numbers in many tensors, so the time of torch's ordinary Adam is that of its calls: the network of
MinAtar takes 390 us a step with it and 170 us fused (one core, torch 2.13). The fused kernel of the CPU walks weight and
gradient in memory order and does not look whether that is the same: a gradient in another layout would reach other weights,
without an error. So it is brought into its weight's layout first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

TINY = 1e-30
EPS = 1e-5  # as in PPO since Dhariwal et al. 2017 (baselines)


class WeightAdam(torch.optim.Adam):
    """Adam, fused; gradients may be in any layout.

    Args:
        parameters: float32, on one device.
        lr: learning rate, above 0.
        eps: added to the root of the second moment, above 0.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, eps: float = EPS) -> None:
        super().__init__(parameters, lr=lr, eps=eps, fused=True)

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next steps."""
        for group in self.param_groups:
            group["lr"] = lr

    def set_eps(self, eps: float) -> None:
        """The ``eps`` of the next steps."""
        for group in self.param_groups:
            group["eps"] = eps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; parameters without gradient stay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is not None and grad.stride() != parameter.stride():
                    parameter.grad = torch.empty_like(parameter).copy_(grad)
        return super().step(closure)

    def changes(self, gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
        """What :meth:`step` would add to each parameter, after clipping as ``clip_and_check`` does; nothing is changed.

        Args:
            gradients: one for each parameter, in order, of its shape.
            max_norm: of all gradients together, above 0.

        Returns:
            One tensor for each parameter, differentiable in the gradients: through the clipping and both of Adam's averages.
        """
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # the 1e-6 is torch's
        found, rest = [], iter(gradients)
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter, gradient in zip(group["params"], rest):
                state = self.state.get(parameter, {})
                steps = float(state.get("step", 0.0)) + 1.0
                clipped = gradient * scale
                mean = first * state.get("exp_avg", 0.0) + (1.0 - first) * clipped
                square = second * state.get("exp_avg_sq", 0.0) + (1.0 - second) * clipped.square()
                deviation = (square / (1.0 - second**steps)).clamp_min(TINY).sqrt()  # a root has no derivative at 0
                found.append(-group["lr"] / (1.0 - first**steps) * mean / (deviation + group["eps"]))
        return found
