"""From architecture scores to a network: constrained discretisation, and the derived network with its weights.

max_a sum_l score[l, a_l]  subject to  base + sum_l cost[l, a_l] <= target   (a multiple-choice knapsack)
is solved exactly as an integer program (HiGHS through scipy), so a target is met whenever any architecture meets it.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp

from cosearch.space.network import AgentNetwork
from cosearch.space.space import Architecture, SearchSpace
from cosearch.space.supernet import SuperNet
from latency_tables.errors import InfeasibleTargetError, NonFiniteError, ShapeError

MAX_CUTS = 100  # attempts that the solver may miss the target by a hair before the cheapest is taken


def discretise(space: SearchSpace, scores: Sequence[Sequence[float]], *, costs: Sequence[Sequence[float]] | None = None,
               base: float = 0.0, target: float | None = None) -> Architecture:
    """The architecture with the highest total score whose cost meets the target.

    Args:
        space: the search space.
        scores: for each point one score a candidate, e.g. log-probabilities.
        costs: for each point one cost a candidate, any unit; needed with a target.
        base: cost of what is not chosen (stem, head, overhead), same unit.
        target: upper bound of the total cost, same unit; None for no bound. See :func:`within`.

    Raises:
        InfeasibleTargetError: no architecture meets the target, or the solver cannot tell which of very many on its very edge
            do; the message names the cheapest.
        NonFiniteError: a score or cost is NaN.
        ShapeError: scores or costs do not match the points.
    """
    flat = _flat(space, scores, "scores")
    if target is None:
        return space.architecture([int(np.argmax(row)) for row in scores])
    if costs is None:
        raise ShapeError("a target needs the costs of the candidates")
    _flat(space, costs, "costs")
    cheapest = space.architecture([int(np.argmin(row)) for row in costs])
    least = base + sum(row[c] for row, c in zip(costs, cheapest.choices))
    if not within(least, target):
        raise InfeasibleTargetError(
            f"no architecture of space {space.name!r} meets the target {target:.6g}: the fastest, "
            f"{'/'.join(cheapest.choice_names)}, costs {least:.6g}. Ask for {least * (1 + 1e-5):.6g} "
            "or more, or for a smaller space")
    sizes = [len(point.candidates) for point in space.points]
    choose_one = np.zeros((len(sizes), flat.size))
    for row, (start, size) in enumerate(zip(np.cumsum([0, *sizes[:-1]]), sizes)):
        choose_one[row, start:start + size] = 1.0
    # the solver's tolerances are absolute: scores and costs are shifted and scaled to a range of about 1
    goal = _scaled(scores)
    extra = np.concatenate([np.asarray(row, dtype=np.float64) - min(row) for row in costs])
    unit = max(target - least, float(extra.max()) * 1e-6) or 1.0
    limits = [LinearConstraint(choose_one, 1, 1), LinearConstraint(extra[None] / unit, -np.inf, (target - least) / unit)]
    for _ in range(MAX_CUTS):
        found = milp(-goal, constraints=limits, integrality=np.ones(goal.size), bounds=Bounds(0, 1), options={"mip_rel_gap": 0.0})
        if found.x is None:
            break
        parts = np.split(found.x, np.cumsum(sizes)[:-1])
        best = space.architecture([int(np.argmax(part)) for part in parts])
        if within(base + sum(row[c] for row, c in zip(costs, best.choices)), target):
            return best
        taken = np.concatenate([np.eye(size)[c] for size, c in zip(sizes, best.choices)])
        limits.append(LinearConstraint(taken[None], -np.inf, len(sizes) - 1))  # a hair over, within its tolerance: not this one
    raise InfeasibleTargetError(
        f"the solver found no architecture of space {space.name!r} within the target {target:.6g} in {MAX_CUTS} attempts, "
        f"although {'/'.join(cheapest.choice_names)} meets it with {least:.6g}: too many lie a rounding above it. "
        "Ask for a slightly other target")


def within(cost: float, bound: float) -> bool:
    """Whether a cost is at most its bound, up to the rounding of the sum that it is: 1e-12 of the bound."""
    return cost <= bound * (1.0 + 1e-12)


def derive(architecture: Architecture, generator: torch.Generator, supernet: SuperNet | None = None) -> AgentNetwork:
    """The plain network of an architecture.

    Args:
        architecture: what to build.
        generator: CPU generator of the weights.
        supernet: copy the weights of its path; None for fresh weights.

    Returns:
        A network whose output equals the supernet's along the same path.
    """
    network = AgentNetwork(architecture.ops(), generator)
    if supernet is not None:
        supernet.copy_into(architecture, network.blocks)
    return network


def _scaled(scores: Sequence[Sequence[float]]) -> np.ndarray:
    """Scores minus the best of their point, over the widest gap: 0 for the best, at least -1."""
    flat = np.concatenate([np.asarray(row, dtype=np.float64) - max(row) for row in scores])
    return flat / (float(-flat.min()) or 1.0)


def _flat(space: SearchSpace, rows: Sequence[Sequence[float]], name: str) -> np.ndarray:
    if [len(row) for row in rows] != [len(point.candidates) for point in space.points]:
        raise ShapeError(f"{name} need one entry a candidate of each of the {len(space.points)} points, "
                         f"got {[len(row) for row in rows]}")
    flat = np.concatenate([np.asarray(row, dtype=np.float64) for row in rows])
    if not np.isfinite(flat).all():
        raise NonFiniteError(f"{name} of the architecture hold NaN or infinity")
    return flat
