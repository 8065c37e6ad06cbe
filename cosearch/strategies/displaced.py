"""Gradients at displaced weights: products with second derivatives of a loss by central differences of its gradients.

For a loss L(w, alpha) and a direction d in the space of the weights, with a radius r in the norm of the weights:
  d/dw (grad L . d) = [grad L(w + e d) - grad L(w - e d)] / (2 e),   e = r / ||d||_2          (Pearlmutter 1994, section 1)
The rows for the weights are the product of the Hessian with d, those for the logits of the mixed second derivative. It takes two
backward passes, no graph of a gradient; the error is of second order in e.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from cosearch.strategies.minibatch import Backward

RADIUS = 0.01  # of the finite difference, in the norm of the weights


class Displaced:
    """Weights that may be moved inside a ``with`` block; at its end they are what they were, bit for bit.

    Args:
        weights: of a supernet.
    """

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        self.weights = weights
        self._before = [weight.detach().clone() for weight in weights]

    def __enter__(self) -> Displaced:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.move(self._before, 0.0)

    def move(self, directions: Sequence[Tensor], by: float) -> None:
        """Move the weights from where they were at first: one direction for each, of its shape."""
        with torch.no_grad():
            for weight, start, direction in zip(self.weights, self._before, directions):
                weight.copy_(start + by * direction)

    def derivative(self, backward: Backward, of: Sequence[Tensor], directions: Sequence[Tensor]) -> list[Tensor]:
        """How the gradients of a loss change when the weights move along directions; leaves the weights displaced.

        Args:
            backward: of the loss.
            of: the parameters whose gradients are meant.
            directions: one for each weight, of its shape; not all zero.

        Returns:
            One tensor for each parameter, of its shape.
        """
        radius, sides = RADIUS / norm_of(directions), []
        for sign in (1.0, -1.0):
            self.move(directions, sign * radius)
            sides.append(gradients(backward, [*self.weights, *of])[len(self.weights) :])
        return [(plus - minus) / (2.0 * radius) for plus, minus in zip(*sides)]


def gradients(backward: Backward, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of one backward pass, zeros where there is none; they also stay in ``grad``."""
    for parameter in parameters:
        parameter.grad = None
    backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in parameters]


def gradients_of_logits(backward: Backward, weights: Sequence[nn.Parameter], logits: Sequence[Tensor]) -> list[Tensor]:
    """The same of the logits alone; those of the weights, up to a quarter of the work here, are not computed.

    Args:
        backward: of the loss.
        weights: of a supernet.
        logits: of the architectures.
    """
    learning = [weight for weight in weights if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        return gradients(backward, logits)
    finally:
        for weight in learning:
            weight.requires_grad_(True)


def norm_of(directions: Sequence[Tensor]) -> float:
    """Euclidean norm of all tensors together; 0 of none."""
    return float(torch.stack([d.square().sum() for d in directions]).sum().sqrt()) if directions else 0.0
