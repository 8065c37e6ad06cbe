"""How a fraction of a fold counts: exactly, with a straight-through gradient, or smoothly.

Hardware rounds up. A search needs a gradient: ``straight`` keeps the exact value and lets the gradient of the plain ratio
through; ``smooth`` leaves the rounding out, which is the better surrogate for designs (and equals the exact value wherever
the ratio is an integer).
"""

from __future__ import annotations

import torch
from torch import Tensor

from latency_tables.errors import ConfigError

ROUNDINGS = ("exact", "straight", "smooth")


def folds(size: Tensor, step: Tensor, rounding: str = "exact") -> Tensor:
    """How often ``step`` is needed to cover ``size``, at least 1; broadcasts.

    Args:
        size: ``[...]``, elements to cover.
        step: ``[...]``, elements covered at once.
        rounding: one of :data:`ROUNDINGS`.

    Raises:
        ConfigError: the rounding is not known.
    """
    return whole((size / step).clamp(min=1.0), rounding)


def whole(value: Tensor, rounding: str = "exact") -> Tensor:
    """The next whole number from ``value``, ``[...]``; ``smooth`` leaves it as it is.

    Args:
        value: ``[...]``, above 0.
        rounding: one of :data:`ROUNDINGS`.

    Raises:
        ConfigError: the rounding is not known.
    """
    if rounding == "smooth":
        return value
    if rounding == "straight":
        return value + (torch.ceil(value) - value).detach()
    if rounding == "exact":
        return torch.ceil(value)
    raise ConfigError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")


def active(loop: Tensor) -> Tensor:
    """1 where a loop ``[...]`` runs more than once, 0 where it runs once; linear between, so that it stays continuous."""
    return (loop - 1.0).clamp(0.0, 1.0)
