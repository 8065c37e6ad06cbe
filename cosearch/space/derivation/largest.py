"""The largest network within limits, by multiply-accumulates, weights or both, and how large each candidate is.

  argmax_a size(a)  subject to every limit  (the knapsack of ``cosearch.space.derivation.derive``, solved exactly).
Sizes: the multiply-accumulates (``macs``), the ``weights``, and for ``both``
  the largest product  macs(a) weights(a)  among  argmax_a s macs(a) / M + (1 - s) weights(a) / W,  s = 0, 1/32, ..., 1,
with M and W the largest of each. Either size can be high where the other is low: a pooled head leaves time for
multiply-accumulates and has few weights, a flat one on a large map the other way round. Of architectures with equally many
the derivation's first is taken; no random number is drawn. A rule and no paper's method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from cosearch.space.derivation.derive import Limit, discretise
from cosearch.space.factors import MeanCosts
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.opspec import OpSpec

Size: TypeAlias = Literal["macs", "weights", "both"]
STEPS = 32  # between all weights and all multiply-accumulates


def mean_macs(space: SearchSpace) -> list[list[float]]:
    """For each point the multiply-accumulates of the blocks that it has a part in, with each of its candidates.

    Where points decide a block together (widths, stem, head) they are the mean over the other points' candidates, each alike.

    Args:
        space: the search space.
    """
    means = MeanCosts(space.macs(), space.joint_macs())
    alike = [np.full(len(point.candidates), 1.0 / len(point.candidates)) for point in space.points]
    return [means.of(point, alike).tolist() for point in range(len(space.points))]


def size_of(architecture: Architecture) -> int:
    """Multiply-accumulates times weights of an architecture's blocks."""
    ops = architecture.ops()
    return sum(op.macs for op in ops) * sum(op.params for op in ops)


def largest(space: SearchSpace, *limits: Limit, by: Size) -> Architecture:
    """The largest architecture that meets the limits.

    Args:
        space: the search space.
        *limits: bounds that hold together.
        by: what counts as large.

    Raises:
        InfeasibleTargetError: no architecture meets the limits.
    """

    def most(value: Callable[[OpSpec], float]) -> Architecture:
        """That whose blocks have the largest sum of a value."""
        return discretise(space, space.rows(value), *limits, joint=space.factors(value))

    if by == "macs":
        return most(lambda op: op.macs)
    weights = most(lambda op: op.params)
    if by == "weights":
        return weights
    most_macs = sum(op.macs for op in most(lambda op: op.macs).ops()) or 1
    most_weights = sum(op.params for op in weights.ops()) or 1

    def mixed(share: float) -> Architecture:
        return most(lambda op: share * op.macs / most_macs + (1.0 - share) * op.params / most_weights)

    return max((mixed(step / STEPS) for step in range(STEPS + 1)), key=size_of)
