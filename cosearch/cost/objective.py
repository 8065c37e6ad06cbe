"""The one-sided penalty that brings an expected cost under its target.

L = lambda relu(E/T' - 1) + (mu/2) relu(E/T' - 1)^2,   lambda <- max(0, lambda + eta (E/T' - 1)),   T' = T (1 - margin)
(augmented Lagrangian; `LightNAS`' dual ascent made one-sided). Free of units, finite for any latency, zero under the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cosearch.cost.constraint import Constraint


class DualPenalty:
    """Penalty with its dual variable.

    Args:
        constraint: what is bounded.
        dual_lr: eta, step of the dual variable, at least 0.
        quadratic: mu, at least 0.
    """

    def __init__(self, constraint: Constraint, *, dual_lr: float, quadratic: float) -> None:
        self.constraint, self.dual_lr, self.quadratic = constraint, dual_lr, quadratic
        self.multiplier = 0.0

    def loss(self, expected: Tensor) -> Tensor:
        """The penalty ``[]`` of an expected cost ``[]``; zero with zero gradient under the target."""
        excess = torch.relu(expected / self.constraint.bound - 1.0)
        return self.multiplier * excess + 0.5 * self.quadratic * excess.square()

    def update(self, expected: float) -> None:
        """Dual ascent, one-sided: the multiplier never gets negative."""
        self.multiplier = max(0.0, self.multiplier + self.dual_lr * (expected / self.constraint.bound - 1.0))
