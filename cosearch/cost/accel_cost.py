"""Expected and exact cost of architectures on the accelerator of a co-search, on whatever design it has now.

E[cost] = base + sum_l sum_o p_lo cost_lo, linear in the path weights p: between two searches of the accelerator the design is
frozen, so gradients with respect to p are those of a table's cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from accel_models.cost import machine_of
from cosearch.cost.accelerator import METRICS, Accelerator, unknown_energy
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
        rows = self.accelerator.costs(self.metric)
        return rows[0][0] + rows[-1][0] + sum(r[0] for r, n in zip(rows[1:-1], self.space.body) if not n.points)

    def candidate_costs(self) -> list[list[float]]:
        """For each point the cost that each candidate adds, seconds or joules."""
        costs = [[0.0] * len(point.candidates) for point in self.space.points]
        for row, node in zip(self.accelerator.costs(self.metric)[1:-1], self.space.body):
            for point in node.points:
                costs[point] = [a + b for a, b in zip(costs[point], row)]
        return costs

    def expected(self, weights: Sequence[Tensor]) -> Tensor:
        """Expected cost under path weights.

        Args:
            weights: for each point ``[num_candidates]``, on the simplex.

        Returns:
            ``[]``, seconds or joules, in the weights' dtype.

        Raises:
            ShapeError: the weights do not match the points.
        """
        rows = self.candidate_costs()
        if [len(w) for w in weights] != [len(row) for row in rows]:
            raise ShapeError(f"expected weights of lengths {[len(r) for r in rows]}, got {[len(w) for w in weights]}")
        return self.base + torch.stack([(w * torch.tensor(row, dtype=w.dtype)).sum() for w, row in zip(weights, rows)]).sum()

    def exact(self, architecture: Architecture) -> float:
        """Cost of one architecture, seconds or joules: the sum over its blocks, each on its point's chunk."""
        return self.base + sum(row[c] for row, c in zip(self.candidate_costs(), architecture.choices))
