"""The target as an exact Lagrange multiplier: the distribution of largest entropy that respects learned utilities and a budget.

Maximise  sum_l ( p_l . u_l + H(p_l) )  subject to  base + sum_l p_l . c_l <= T.  The solution is p_lo proportional to
exp(u_lo - beta c_lo) with one beta >= 0 for all points, 0 where the budget is met without it (complementary slackness; Jaynes
1957). The expected cost falls in beta, so beta is found by bisection at every step instead of being learned. Paths drawn from p
are about as fast as the agent that is wanted, so a step of the search costs about what a step of training that agent does.
The utilities u are left to the task: an architecture that maximises sum_l u_l under the budget is then a fair knapsack, where
the mode of p would count the cost twice and collapse to the cheapest candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import softmax

from cosearch.space.cells.graph import Group
from cosearch.space.groups import best, marginals
from latency_tables.errors import InfeasibleTargetError

Rows = Sequence[Sequence[float]]


def expected_cost(
    utilities: Rows, costs: Rows, base: float, beta: float, groups: Sequence[Group] = (), zeros: Sequence[int | None] = ()
) -> float:
    """base + sum over points of softmax(u - beta c) . c, in the unit of ``costs``; ``beta`` in one over that unit.

    With ``groups`` the softmax is on condition that exactly so many of their points are not zero.
    """
    if groups:
        rows = [torch.tensor(cost, dtype=torch.float64) for cost in costs]
        logits = [torch.tensor(row, dtype=torch.float64) - beta * cost for row, cost in zip(utilities, rows)]
        return base + sum(float(p @ cost) for p, cost in zip(marginals(logits, groups, zeros), rows))
    total = base
    for row, cost in zip(utilities, costs):
        values = np.asarray(cost, dtype=np.float64)
        total += float(softmax(np.asarray(row, dtype=np.float64) - beta * values) @ values)
    return total


def multiplier(
    utilities: Rows, costs: Rows, base: float, target: float, groups: Sequence[Group] = (), zeros: Sequence[int | None] = ()
) -> float:
    """The smallest beta >= 0 whose expected cost is at most ``target``.

    Args:
        utilities: for each point one value a candidate.
        costs: for each point one cost a candidate, any unit.
        base: cost of what is not chosen, same unit.
        target: bound of the expected cost, same unit.
        groups, zeros: of the space, see ``cosearch.space.groups``.

    Returns:
        beta, in one over the unit of ``costs``; finite. Where even a distribution on the cheapest candidates alone meets the
        target only just, the largest beta that still tells candidates apart.

    Raises:
        InfeasibleTargetError: even the cheapest architecture costs more.
    """

    def at(beta: float) -> float:
        return expected_cost(utilities, costs, base, beta, groups, zeros)

    if at(0.0) <= target:
        return 0.0
    least = best([[-cost for cost in row] for row in costs], groups, zeros)
    cheapest = base + sum(row[c] for row, c in zip(costs, least))
    if cheapest > target:
        raise InfeasibleTargetError(f"the cheapest architecture costs {cheapest:.6g}, the target is {target:.6g}")
    spread = max(max(row) - min(row) for row in costs)
    high = 1.0 / spread
    while at(high) > target and high * spread < 1e4:
        high *= 2.0
    if at(high) > target:
        return high
    return float(brentq(lambda beta: at(beta) - target, 0.0, high))
