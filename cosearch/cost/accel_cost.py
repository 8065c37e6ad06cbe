"""Expected and exact cost of architectures on the accelerator of a co-search, on whatever design it has now.

E[cost] = base + sum_l sum_o p_lo cost_lo + sum_F <F, prod p_l>, as for ``TableCost``, linear in the weights p of each point:
between two searches of the accelerator the design is frozen, so gradients with respect to p are those of a table's cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from accel_models.cost import machine_of
from cosearch.cost.accelerator import METRICS, Accelerator, unknown_energy
from cosearch.space.factors import Factor, merged
from cosearch.space.space import Architecture
from latency_tables.errors import RequestError, ShapeError


class AccelCost:
    """Cost of one metric over a space, on whatever design the accelerator has now. Same use as ``TableCost``.

    Args:
        accelerator: the shared accelerator.
        metric: ``latency_s`` or ``energy_j``.

    Raises:
        RequestError: unknown metric, or an energy on a platform without energy constants.
    """

    def __init__(self, accelerator: Accelerator, metric: str = "latency_s") -> None:
        if metric not in METRICS:
            raise RequestError(f"unknown metric {metric!r}: expected one of {', '.join(METRICS)}")
        if metric == "energy_j" and machine_of(accelerator.base).energy is None:
            raise unknown_energy(accelerator.device.name)
        self.accelerator, self.space, self.metric = accelerator, accelerator.space, metric

    @property
    def base(self) -> float:
        """Cost of what is not chosen (stem, head, sums), seconds or joules."""
        costs, nodes = self.accelerator.costs(self.metric), self.space.nodes
        ends = sum(costs[place][0] for place in (0, -1) if not nodes[place].points)
        return ends + sum(row[0] for row, node in zip(costs[1:-1], nodes[1:-1]) if not node.points)

    def candidate_costs(self) -> list[list[float]]:
        """For each point the cost that each candidate adds by itself, seconds or joules."""
        costs = [[0.0] * len(point.candidates) for point in self.space.points]
        for row, node in zip(self.accelerator.costs(self.metric), self.space.nodes):
            if len(node.points) == 1:
                costs[node.points[0]] = [a + b for a, b in zip(costs[node.points[0]], row)]
        return costs

    def joint_costs(self) -> tuple[Factor, ...]:
        """The costs that several points decide together, seconds or joules."""
        rows = zip(self.accelerator.costs(self.metric), self.space.nodes)
        return merged([Factor(node.points, node.sizes, tuple(row)) for row, node in rows if len(node.points) > 1])

    def expected(self, weights: Sequence[Tensor]) -> Tensor:
        """Expected cost under path weights, of one architecture distribution or of many at once.

        Args:
            weights: for each point ``[num_candidates]`` or ``[many, num_candidates]``, on the simplex.

        Returns:
            ``[]`` or ``[many]``, seconds or joules, in the weights' dtype.

        Raises:
            ShapeError: the weights do not match the points.
        """
        rows = self.candidate_costs()
        if [w.shape[-1] for w in weights] != [len(row) for row in rows]:
            raise ShapeError(f"expected weights of lengths {[len(r) for r in rows]}, got {[w.shape[-1] for w in weights]}")
        total = self.base + torch.stack([(w * torch.tensor(row, dtype=w.dtype)).sum(-1) for w, row in zip(weights, rows)]).sum(0)
        for factor in self.joint_costs():
            total = total + factor.expected(weights)
        return total

    def exact(self, architecture: Architecture) -> float:
        """Cost of one architecture, seconds or joules: the sum over its blocks, each on its point's chunk."""
        alone = self.base + sum(row[c] for row, c in zip(self.candidate_costs(), architecture.choices))
        return alone + sum(factor.at(architecture.choices) for factor in self.joint_costs())
