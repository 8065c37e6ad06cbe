"""From architecture scores to a network: constrained discretisation, and the derived network with its weights.

max_a sum_l score[l, a_l]  subject to  base + sum_l cost[l, a_l] <= target for each limit   (a multiple-choice knapsack)
is solved as an integer program (HiGHS through scipy). What it returns meets every target; it is the best one up to the solver's
gap, 1e-6 of the range of the scores. A space with nodes that several points decide has few enough architectures to enumerate:
there the sums of all of them are made at once, and the best is exact, the first of equal ones.
A group of the space, exactly k of whose points are not zero, is one more row: the sum of their zeros is the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp

from cosearch.space.blocks.quantile_head import head_like
from cosearch.space.blocks.squashed_head import squashed_like
from cosearch.space.factors import Factor, every_sum
from cosearch.space.network import AgentNetwork
from cosearch.space.space import Architecture, SearchSpace
from cosearch.space.supernet import SuperNet
from latency_tables.errors import InfeasibleTargetError, NonFiniteError, ShapeError

SLACK = 1e-12  # of a bound: the rounding of the sum that is compared with it
TOLERANCE = 1e-6  # the solver's, of a row: beside entries that are smaller it has given a worse architecture than the best
MAX_CUTS = 100  # solutions above a target by less than the solver's tolerance that are excluded before it is given up


@dataclass(frozen=True)
class Limit:
    """One bound that an architecture must meet: base + sum of the chosen candidates' costs and factors is at most ``target``.

    Attributes:
        costs: for each point what each candidate costs by itself, any unit.
        base: cost of what is not chosen (stem, head, overhead), same unit.
        target: upper bound of the total, same unit. See :func:`within`.
        factors: costs that several points decide together, same unit.
    """

    costs: Sequence[Sequence[float]]
    base: float
    target: float
    factors: tuple[Factor, ...] = ()

    def total(self, choices: Sequence[int]) -> float:
        """Cost of an architecture."""
        alone = self.base + sum(row[c] for row, c in zip(self.costs, choices))
        return alone + sum(factor.at(choices) for factor in self.factors) if self.factors else alone

    def meets(self, choices: Sequence[int]) -> bool:
        """Whether an architecture is within the bound."""
        return within(self.total(choices), self.target)


def discretise(
    space: SearchSpace,
    scores: Sequence[Sequence[float]],
    *limits: Limit,
    joint: Sequence[Factor] = (),
    without: Sequence[Architecture] = (),
) -> Architecture:
    """The architecture with the highest total score that meets every limit.

    Args:
        space: the search space.
        scores: for each point one score a candidate, e.g. log-probabilities.
        *limits: bounds that hold together; none for no bound.
        joint: scores of several points together; only for a space with nodes of several points.
        without: architectures that it must not be.

    Raises:
        InfeasibleTargetError: no other architecture meets the limits, or the solver cannot tell which of very many on their
            very edge do; the message names the cheapest.
        NonFiniteError: a score or cost is NaN.
        ShapeError: scores or costs do not match the points.
    """
    _flat(space, scores, "scores")
    if space.joint:
        return _enumerated(space, scores, limits, joint, without)
    if joint or any(limit.factors for limit in limits):
        raise ShapeError(f"no block of space {space.name!r} is decided by several points, so nothing has factors there")
    if not limits and not without:
        return space.best(scores)
    sizes = [len(point.candidates) for point in space.points]
    starts = np.cumsum([0, *sizes])
    choose_one = np.zeros((len(sizes), int(starts[-1])))
    for row, start, end in zip(choose_one, starts, starts[1:]):
        row[start:end] = 1.0
    constraints = [LinearConstraint(choose_one, 1, 1), *(_within_reach(space, limit) for limit in limits)]
    for group in space.groups:
        zeros = np.zeros(int(starts[-1]))
        zeros[[starts[p] + space.points[p].zero for p in group.points]] = 1.0
        dropped = len(group.points) - group.keep
        constraints.append(LinearConstraint(zeros[None], dropped, dropped))
    constraints += [_not_this(sizes, architecture) for architecture in without]
    goal = _scaled(scores)
    for _ in range(MAX_CUTS):
        solution = milp(
            -goal,
            constraints=constraints,
            integrality=np.ones(goal.size, dtype=int),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
        if solution.x is None:
            break
        best = space.architecture([int(np.argmax(part)) for part in np.split(solution.x, starts[1:-1])])
        if all(limit.meets(best.choices) for limit in limits):
            return best
        constraints.append(_not_this(sizes, best))  # over by the solver's tolerance
    if without:
        raise InfeasibleTargetError(f"no other architecture of space {space.name!r} than {len(without)} meets the targets")
    if len(limits) > 1:
        raise InfeasibleTargetError(_not_together(space, limits))
    least = cheapest(space, limits[0])
    raise InfeasibleTargetError(
        f"the solver found no architecture of space {space.name!r} within the target {limits[0].target:.6g} in {MAX_CUTS} "
        f"attempts, although {'/'.join(least.choice_names)} meets it with {limits[0].total(least.choices):.6g}: too many "
        "lie a rounding above it. Ask for a slightly different target"
    )


def _not_this(sizes: Sequence[int], architecture: Architecture) -> LinearConstraint:
    """The row of the program that one architecture alone does not meet."""
    taken = np.concatenate([np.eye(size)[c] for size, c in zip(sizes, architecture.choices)])
    return LinearConstraint(taken[None], -np.inf, len(sizes) - 1)


def feasible_mask(space: SearchSpace, limits: Sequence[Limit]) -> np.ndarray:
    """Whether each architecture of a small space meets every limit: one axis a point, ``[*sizes]``, bool."""
    sizes = [len(point.candidates) for point in space.points]
    fits = np.ones(sizes, dtype=bool)
    for limit in limits:
        _flat(space, limit.costs, "costs")
        costs = every_sum(sizes, limit.costs, limit.factors, limit.base)
        if not np.isfinite(costs).all():
            raise NonFiniteError("costs of the architecture hold NaN or infinity")
        fits &= costs <= limit.target * (1.0 + SLACK)
    return fits


def _enumerated(
    space: SearchSpace,
    scores: Sequence[Sequence[float]],
    limits: Sequence[Limit],
    joint: Sequence[Factor],
    without: Sequence[Architecture],
) -> Architecture:
    sizes = [len(point.candidates) for point in space.points]
    total = every_sum(sizes, scores, joint)
    if not np.isfinite(total).all():
        raise NonFiniteError("scores of the architecture hold NaN or infinity")
    if limits:
        total[~feasible_mask(space, limits)] = -np.inf
    for architecture in without:
        total[tuple(architecture.choices)] = -np.inf
    if not np.isfinite(total).any() and without:
        raise InfeasibleTargetError(f"no other architecture of space {space.name!r} than {len(without)} meets the targets")
    if not np.isfinite(total).any():
        raise _none_meets(space, limits)
    return space.architecture([int(c) for c in np.unravel_index(int(np.argmax(total)), sizes)])


def _none_meets(space: SearchSpace, limits: Sequence[Limit]) -> InfeasibleTargetError:
    """Which of the limits nothing meets, or that they are met by none together."""
    for limit in limits:
        least = cheapest(space, limit)
        if not limit.meets(least.choices):
            return _out_of_reach(space, limit, least)
    return InfeasibleTargetError(_not_together(space, limits))


def _not_together(space: SearchSpace, limits: Sequence[Limit]) -> str:
    return (
        f"each of the {len(limits)} targets is met by some architecture of space {space.name!r}, but none was found that "
        "meets them together; ask for more of one of them"
    )


def _out_of_reach(space: SearchSpace, limit: Limit, found: Architecture) -> InfeasibleTargetError:
    least = limit.total(found.choices)
    return InfeasibleTargetError(
        f"no architecture of space {space.name!r} meets the target {limit.target:.6g}: the cheapest, "
        f"{'/'.join(found.choice_names)}, costs {least:.6g}. Ask for {least * (1 + 1e-5):.6g} "
        "or more, or for a smaller space",
        least,
    )


def cheapest(space: SearchSpace, limit: Limit) -> Architecture:
    """The architecture that costs least by a limit's costs, whatever its target.

    Args:
        space: the search space.
        limit: gives the costs.

    Raises:
        NonFiniteError: a cost is NaN or infinite.
        ShapeError: costs do not match the points.
    """
    _flat(space, limit.costs, "costs")
    rows = [[-cost for cost in row] for row in limit.costs]
    return discretise(space, rows, joint=tuple(factor.scaled(-1.0) for factor in limit.factors))


def _within_reach(space: SearchSpace, limit: Limit) -> LinearConstraint:
    """The limit as a row of the program, scaled to about 1: the solver's tolerances are absolute. Raises if nothing meets it."""
    flat = _flat(space, limit.costs, "costs")
    least = cheapest(space, limit)
    if not limit.meets(least.choices):
        raise _out_of_reach(space, limit, least)
    extra = flat - np.concatenate([np.full(len(row), min(row)) for row in limit.costs])
    room = limit.target * (1.0 + SLACK) - (limit.base + sum(min(row) for row in limit.costs))
    unit = max(room, float(extra.max()) * TOLERANCE) or 1.0
    extra[extra < TOLERANCE * unit] = 0.0  # lets more pass, never less; what is over then is cut off
    return LinearConstraint(extra[None] / unit, -np.inf, room / unit)


def within(cost: float, bound: float) -> bool:
    """Whether a cost is at most its bound, up to the rounding of the sum that it is: 1e-12 of the bound."""
    return cost <= bound * (1.0 + SLACK)


def derive(architecture: Architecture, generator: torch.Generator, supernet: SuperNet | None = None) -> AgentNetwork:
    """The network of an architecture on its own, outside the supernet.

    Args:
        architecture: what to build.
        generator: CPU generator of the weights.
        supernet: copy the weights of its path; None for fresh weights.

    Returns:
        The network; with a supernet its output equals the supernet's along the same path, and its head has the form
        of the supernet's, which may be one that learns.
    """
    space = architecture.space
    network = AgentNetwork(architecture.ops(), generator, architecture.wiring(), space.policy, space.parts)
    if supernet is not None:
        head_like(network, supernet)
        squashed_like(network, supernet)
        supernet.copy_into(architecture, network.blocks, network.ends)
    return network


def _scaled(scores: Sequence[Sequence[float]]) -> np.ndarray:
    """Scores minus the best of their point, over the widest gap: 0 for the best, at least -1."""
    flat = np.concatenate([np.asarray(row, dtype=np.float64) - max(row) for row in scores])
    return flat / (float(-flat.min()) or 1.0)


def _flat(space: SearchSpace, rows: Sequence[Sequence[float]], name: str) -> np.ndarray:
    if [len(row) for row in rows] != [len(point.candidates) for point in space.points]:
        raise ShapeError(
            f"{name} need one entry a candidate of each of the {len(space.points)} points, got {[len(row) for row in rows]}"
        )
    flat = np.concatenate([np.asarray(row, dtype=np.float64) for row in rows])
    if not np.isfinite(flat).all():
        raise NonFiniteError(f"{name} of the architecture hold NaN or infinity")
    return flat
