"""One constraint of a search: a cost, and the upper bound that the architecture must keep on it.

The bound is on what the device measures. The cost is predicted; where measurements on the device say how the two go together
(``cosearch.cost.residual``), the bound on the prediction follows from that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cosearch.cost.residual import TABLE, Line
from cosearch.space.derivation.derive import Limit, within
from cosearch.space.factors import Factor
from cosearch.space.space import Architecture
from latency_tables.errors import RequestError


class Cost(Protocol):
    """What architectures of a space cost in one metric, seconds or joules."""

    @property
    def metric(self) -> str:
        """``latency_s`` or ``energy_j``."""

    @property
    def base(self) -> float:
        """Cost of what is not chosen, seconds or joules."""

    def candidate_costs(self) -> list[list[float]]:
        """For each point the cost that each candidate adds by itself, seconds or joules."""

    def joint_costs(self) -> tuple[Factor, ...]:
        """The costs that several points decide together, seconds or joules."""

    def expected(self, weights: Sequence[Tensor]) -> Tensor:
        """Expected cost ``[]``, seconds or joules, under path weights: for each point ``[num_candidates]``."""

    def exact(self, architecture: Architecture) -> float:
        """Cost of one architecture, seconds or joules."""


@dataclass(frozen=True)
class Constraint:
    """A cost with its upper bound.

    Attributes:
        cost: what is bounded; its metric is the constraint's.
        value: upper bound on the measured figure, seconds, joules or bytes.
        margin: fraction of the bound that is kept free, at least 0 and below 1.
        line: from predicted to measured figures; the table's own until something was measured.
        known: whether that predicts the figure that is bounded. False: nobody measured the like of it (a 99th percentile, calls
            once a period), and the search goes by the nearest that is predicted, the median back to back.

    Raises:
        RequestError: a bound or margin out of range.
    """

    cost: Cost
    value: float
    margin: float = 0.0
    line: Line = TABLE
    known: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.value < math.inf:
            raise RequestError(f"a target must be above 0 and finite, got {self.metric} {self.value}")
        if not 0.0 <= self.margin < 1.0:
            raise RequestError(f"the margin of {self.metric} must be at least 0 and below 1, got {self.margin}")

    @property
    def metric(self) -> str:
        """``latency_s`` or ``energy_j``."""
        return self.cost.metric

    @property
    def bound(self) -> float:
        """The bound on the predicted cost, with its margin: seconds, joules or bytes. Below 0 where nothing can keep it."""
        return self.line.predicted(self.value * (1.0 - self.margin))

    @property
    def limit(self) -> Limit:
        """The constraint as a row of the discretisation, at the present costs of the candidates."""
        return Limit(self.cost.candidate_costs(), self.cost.base, self.bound, self.cost.joint_costs())

    def expected(self, architecture: Architecture) -> float | None:
        """What an architecture is predicted to measure, seconds, joules or bytes; None where that is not :attr:`known`."""
        return self.line.measured(self.cost.exact(architecture)) if self.known else None

    def met_by(self, architecture: Architecture) -> bool:
        """Whether an architecture's cost is within the bound."""
        return within(self.cost.exact(architecture), self.bound)
