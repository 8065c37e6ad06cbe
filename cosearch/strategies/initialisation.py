"""Where the architecture distribution starts: the one of largest entropy whose expected cost is the target.

Among all distributions with expected cost T the entropy is largest for p_lo proportional to exp(-beta cost_lo)
(Jaynes 1957), with one beta for all points. Starting there keeps the search open, and the sampled paths about as fast as
the agent that is wanted, so a step of the search costs about what a step of training that agent does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from latency_tables.errors import InfeasibleTargetError


def expected_cost(logits: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], base: float) -> float:
    """base + sum over points of softmax(logits) . costs, in the unit of ``costs``."""
    return base + sum(float(softmax(np.asarray(row)) @ np.asarray(cost)) for row, cost in zip(logits, costs))


def max_entropy_logits(costs: Sequence[Sequence[float]], base: float, target: float) -> list[list[float]]:
    """Logits of the distribution of largest entropy with expected cost at most ``target``.

    Args:
        costs: for each point one cost a candidate, any unit.
        base: cost of what is not chosen, same unit.
        target: bound of the expected cost, same unit.

    Returns:
        For each point one logit a candidate, the largest of them 0; all 0 where the uniform distribution meets the target.

    Raises:
        InfeasibleTargetError: even the cheapest architecture costs more.
    """

    def logits(beta: float) -> list[list[float]]:
        return [[-beta * (value - min(row)) for value in row] for row in costs]

    def excess(beta: float) -> float:
        return expected_cost(logits(beta), costs, base) - target

    if excess(0.0) <= 0.0:
        return logits(0.0)
    cheapest = base + sum(min(row) for row in costs)
    if cheapest > target:
        raise InfeasibleTargetError(f"the cheapest architecture costs {cheapest:.6g}, the target is {target:.6g}")
    spread = max(max(row) - min(row) for row in costs)
    high = 1.0 / spread
    while excess(high) > 0.0 and high * spread < 700.0:
        high *= 2.0
    return logits(brentq(excess, 0.0, high) if excess(high) <= 0.0 else high)
