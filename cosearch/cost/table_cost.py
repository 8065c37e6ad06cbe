"""Expected and exact cost of architectures from a device's table, for every metric the table has.

E[cost] = scale * (fixed + sum_l sum_o p_lo row_lo + sum_F <F, prod_{l of F} p_l>) + overhead, linear in the weights p of each
point, hence differentiable, equal to the exact cost at one-hot weights and to the mean under independent points. F are the
factors of blocks that several points decide together (``cosearch.space.factors``); fixed holds stem, head and the sums of a
graph's branches, whose number of inputs is the same in every architecture; row_lo is the sum over all blocks that candidate o
adds by itself: the branches run one after another. A row that the table lacks raises; it never counts as zero. Identity costs
zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cosearch.space.factors import Factor
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.errors import RequestError, ShapeError
from latency_tables.opspec import OpSpec
from latency_tables.table import Table

METRICS = ("latency_s", "energy_j")


class TableCost:
    """Cost of one metric over a space.

    Args:
        space: the search space.
        table: the device's table.
        metric: ``latency_s`` or ``energy_j``.

    Raises:
        MissingOpError: the table lacks a block of the space.
        RequestError: the table has no such metric.
    """

    def __init__(self, space: SearchSpace, table: Table, metric: str = "latency_s") -> None:
        if metric not in METRICS:
            raise RequestError(f"unknown metric {metric!r}: expected one of {', '.join(METRICS)}")
        self.space, self.table, self.metric = space, table, metric
        table.require(table.cast(space.all_ops()))  # all that it lacks in one message
        row = _row(table, metric)
        self._overhead, self._scale = _overhead(table, metric), table.scale
        first, *inner, last = space.nodes
        ends, rest = ([node.specs[0] for node in part if not node.points] for part in ((first, last), inner))
        self._fixed = sum(row(spec) for spec in ends if spec is not None) + sum(row(spec) for spec in rest if spec is not None)
        self._rows, self._factors = space.rows(row), space.factors(row)

    @property
    def base(self) -> float:
        """Cost of what is not chosen (overhead, stem, head, sums), seconds or joules."""
        return self._overhead + self._scale * self._fixed

    def candidate_costs(self) -> list[list[float]]:
        """For each point the cost that each candidate adds by itself, seconds or joules."""
        return [[self._scale * value for value in rows] for rows in self._rows]

    def joint_costs(self) -> tuple[Factor, ...]:
        """The costs that several points decide together, seconds or joules."""
        return tuple(factor.scaled(self._scale) for factor in self._factors)

    def expected(self, weights: Sequence[Tensor]) -> Tensor:
        """Expected cost under path weights, of one architecture distribution or of many at once.

        Args:
            weights: for each point ``[num_candidates]`` or ``[many, num_candidates]``, on the simplex.

        Returns:
            ``[]`` or ``[many]``, seconds or joules, in the weights' dtype.

        Raises:
            ShapeError: the weights do not match the points.
        """
        if [w.shape[-1] for w in weights] != [len(rows) for rows in self._rows]:
            raise ShapeError(f"expected weights of lengths {[len(r) for r in self._rows]}, got {[w.shape[-1] for w in weights]}")
        chosen = torch.stack([(w * torch.tensor(rows, dtype=w.dtype)).sum(-1) for w, rows in zip(weights, self._rows)]).sum(0)
        for factor in self._factors:
            chosen = chosen + factor.expected(weights)
        return self._overhead + self._scale * (self._fixed + chosen)

    def exact(self, architecture: Architecture) -> float:
        """Cost of one architecture, computed from its list of operations: seconds or joules."""
        row = _row(self.table, self.metric)
        return self._overhead + self._scale * sum(row(op) for op in architecture.ops())


def _overhead(table: Table, metric: str) -> float:
    value = table.overhead_s if metric == "latency_s" else table.overhead_j
    return _known(table, metric, value)


def _known(table: Table, metric: str, value: float | None) -> float:
    if value is None:
        raise RequestError(
            f"table {table.device.name!r} has no {metric}: its device could not measure energy. "
            "Search without an energy target, or measure on a board with a power sensor"
        )
    return float(value)


def _row(table: Table, metric: str) -> Callable[[OpSpec], float]:
    read = table.latency_s if metric == "latency_s" else table.energy_j

    return lambda op: _known(table, metric, read(op))
