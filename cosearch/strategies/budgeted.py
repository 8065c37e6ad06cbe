"""The target as an exact Lagrange multiplier: the distribution of largest entropy that respects learned utilities and a budget.

Maximise  sum_l ( p_l . u_l + H(p_l) )  subject to  base + sum_l p_l . c_l <= T.  The solution is p_lo proportional to
exp(u_lo - beta c_lo) with one beta >= 0 for all points, 0 where the budget is met without it (complementary slackness; Jaynes
1957). The expected cost falls in beta, so beta is found by bisection instead of being learned, at the beginning of each rollout.
Its updates then move u under the same beta, and the expected cost drifts with it until the next: in earlier searches it was over
T in 21 to 44 % of the updates, by 7 % of T at most. Paths drawn from p are about as fast as the agent that is wanted, so a step
of the search costs about what a step of training that agent does.
The utilities u are left to the task: an architecture that maximises sum_l u_l under the budget is then a fair knapsack, where
the mode of p would count the cost twice and collapse to the cheapest candidates.

Where several points decide the cost of a block together, the expected cost is no sum over points. Among independent points a
stationary distribution is  p_lo proportional to exp(u_lo - beta E[cost | o at l])  (mean field): each point's row is exact given
the others', and a sweep over the points never lowers the objective. The expected cost of p is exact and at most T; it equals T
unless p jumps there from one stationary point to another. That no other distribution of independent points has a higher
objective at that cost is not certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import softmax

from cosearch.space.cells.graph import Group
from cosearch.space.derivation.derive import Limit, cheapest, within
from cosearch.space.factors import MeanCosts
from cosearch.space.groups import best, marginals
from cosearch.space.space import SearchSpace
from latency_tables.errors import InfeasibleTargetError

Rows = Sequence[Sequence[float]]
MAX_SWEEPS, STILL = 500, 1e-9  # sweeps over the points at one multiplier; change of a probability below which they end
MAX_STEPS, CLOSE = 60, 1e-6  # steps to the multiplier; share of the target that the expected cost may stay below it


@dataclass(frozen=True)
class Tilt:
    """What a target takes off the logits.

    Attributes:
        beta: the multiplier, in one over the unit of the costs.
        rows: for each point what is subtracted from each candidate's logit.
    """

    beta: float
    rows: list[list[float]]


def tilt(space: SearchSpace, utilities: Rows, limit: Limit, target: float) -> Tilt:
    """The tilt under which the expected cost of the sampled architectures is at most ``target``.

    Args:
        space: the search space.
        utilities: for each point one value a candidate.
        limit: the costs, any unit; its own target is not looked at.
        target: bound of the expected cost, same unit.

    Raises:
        InfeasibleTargetError: even the cheapest architecture costs more.
    """
    if limit.factors:
        return _mean_field(space, utilities, limit, target)
    beta = multiplier(utilities, limit.costs, limit.base, target, space.groups, space.zeros)
    return Tilt(beta, [[beta * value for value in row] for row in limit.costs])


def _mean_field(space: SearchSpace, utilities: Rows, limit: Limit, target: float) -> Tilt:
    values, means = [np.asarray(row, dtype=np.float64) for row in utilities], MeanCosts(limit.costs, limit.factors)
    smallest = cheapest(space, limit)
    least = limit.total(smallest.choices)
    if not within(least, target):
        raise InfeasibleTargetError(f"the cheapest architecture costs {least:.6g}, the target is {target:.6g}")

    def settle(beta: float, start: list[np.ndarray]) -> tuple[list[np.ndarray], float]:
        """Sweep from ``start`` until the distributions stay as they are; they, and the expected cost under them."""
        shares = list(start)
        for _ in range(MAX_SWEEPS):
            moved = 0.0
            for point, row in enumerate(values):
                new = softmax(row - beta * means.of(point, shares))
                moved, shares[point] = max(moved, float(np.abs(new - shares[point]).max())), new
            if moved < STILL:
                break
        weights = [torch.from_numpy(share) for share in shares]
        alone = sum(float(share @ np.asarray(row)) for share, row in zip(shares, limit.costs))
        return shares, limit.base + alone + sum(float(factor.expected(weights)) for factor in limit.factors)

    low, (shares, cost) = 0.0, settle(0.0, [softmax(row) for row in values])
    if cost <= target:
        return Tilt(0.0, [[0.0] * len(row) for row in values])
    over = cost - target
    spread = max(float(np.ptp(means.of(point, shares))) for point in range(len(values)))
    if spread == 0.0:  # all cost the same, which is the target up to its rounding
        return Tilt(0.0, [[0.0] * len(row) for row in values])
    high, most = 1.0 / spread, 1e4 / spread
    shares, cost = settle(high, shares)
    while cost > target and high < most:
        low, over, high = high, cost - target, 2.0 * high
        shares, cost = settle(high, shares)
    if cost > target:  # settled elsewhere: the cheapest architecture is where a large beta stays
        shares, cost = settle(high, [row.numpy() for row in smallest.one_hot()])
    under = cost - target
    for _ in range(MAX_STEPS):
        if cost > target or target - cost <= CLOSE * target:
            break
        beta = high - under * (high - low) / (under - over)  # false position, the end that stays counted half (Illinois)
        beta = beta if low < beta < high else 0.5 * (low + high)
        near, new = settle(beta, shares)  # from the distribution that meets the target, so that it is followed continuously
        if new > target:
            low, over, under = beta, new - target, 0.5 * under
        else:
            high, shares, cost, under, over = beta, near, new, new - target, 0.5 * over
    return Tilt(high, [(high * means.of(point, shares)).tolist() for point in range(len(values))])


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
    if not within(cheapest, target):
        raise InfeasibleTargetError(f"the cheapest architecture costs {cheapest:.6g}, the target is {target:.6g}")
    spread = max(max(row) - min(row) for row in costs)
    if spread == 0.0:  # all cost the same, which is the target up to its rounding
        return 0.0
    high = 1.0 / spread
    while at(high) > target and high * spread < 1e4:
        high *= 2.0
    if at(high) > target:
        return high
    return float(brentq(lambda beta: at(beta) - target, 0.0, high))
