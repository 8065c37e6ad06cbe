"""The one-sided penalty that brings an expected cost under its target.

L = lambda relu(E/T' - 1) + (mu/2) relu(E/T' - 1)^2,   lambda <- max(0, lambda + eta (E/T' - 1)),   T' = T (1 - margin)
(augmented Lagrangian; `LightNAS`' dual ascent made one-sided). Free of units, finite for any latency, zero under the target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latency_tables.errors import RequestError


@dataclass(frozen=True)
class Target:
    """One constraint.

    Attributes:
        metric: ``latency_s`` or ``energy_j``.
        value: upper bound, seconds or joules.
        margin: fraction of the bound that is kept free, at least 0 and below 1.

    Raises:
        RequestError: a bound or margin out of range.
    """

    metric: str
    value: float
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.value < math.inf:
            raise RequestError(f"a target must be above 0 and finite, got {self.metric} {self.value}")
        if not 0.0 <= self.margin < 1.0:
            raise RequestError(f"the margin of {self.metric} must be at least 0 and below 1, got {self.margin}")

    @property
    def bound(self) -> float:
        """The bound with its margin, seconds or joules."""
        return self.value * (1.0 - self.margin)


class DualPenalty:
    """Penalty with its dual variable.

    Args:
        target: the constraint.
        dual_lr: eta, step of the dual variable, at least 0.
        quadratic: mu, at least 0.
    """

    def __init__(self, target: Target, *, dual_lr: float, quadratic: float) -> None:
        self.target, self.dual_lr, self.quadratic = target, dual_lr, quadratic
        self.multiplier = 0.0

    def loss(self, expected: Tensor) -> Tensor:
        """The penalty ``[]`` of an expected cost ``[]``; zero with zero gradient under the target."""
        excess = torch.relu(expected / self.target.bound - 1.0)
        return self.multiplier * excess + 0.5 * self.quadratic * excess.square()

    def update(self, expected: float) -> None:
        """Dual ascent, one-sided: the multiplier never gets negative."""
        self.multiplier = max(0.0, self.multiplier + self.dual_lr * (expected / self.target.bound - 1.0))
