"""How large an agent is: the file that is deployed, and the peak memory of the process that runs it.

Bytes are sums over blocks, as seconds are: E = base + sum_l sum_o p_lo row_lo + sum_F <F, prod_{l of F} p_l>. A row of the file
is the block's weights in the table's dtype; of memory, its weights and what it reads and writes. Runtimes reuse the memory of
activations, and a file has its graph beside the weights, so that a sum is a prediction that the measurement corrects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cosearch.space.factors import Factor
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.errors import RequestError
from latency_tables.opspec import DTYPE_BYTES, OpSpec
from latency_tables.table import Table

FILE, MEMORY = "file_bytes", "memory_bytes"
PROCESS_BYTES = 64 * 2**20  # interpreter, numpy and runtime with a network of a few blocks, on an x86 server


class SizeCost:
    """Size of the architectures of a space. Same use as ``TableCost``.

    Args:
        space: the search space.
        table: of the device: its dtype and batch count.
        metric: ``file_bytes`` or ``memory_bytes``.

    Raises:
        RequestError: unknown metric.
    """

    def __init__(self, space: SearchSpace, table: Table, metric: str) -> None:
        if metric not in (FILE, MEMORY):
            raise RequestError(f"unknown metric {metric!r}: expected {FILE} or {MEMORY}")
        self.space, self.metric = space, metric
        self._row = _row(table, metric)
        self._rows, self._factors = space.rows(self._row), space.factors(self._row)
        self.base = sum(self._row(op) for op in space.fixed()) + (PROCESS_BYTES if metric == MEMORY else 0.0)

    def candidate_costs(self) -> list[list[float]]:
        """For each point the bytes that each candidate adds by itself."""
        return [list(rows) for rows in self._rows]

    def joint_costs(self) -> tuple[Factor, ...]:
        """The bytes that several points decide together."""
        return self._factors

    def expected(self, weights: Sequence[Tensor]) -> Tensor:
        """Expected bytes ``[]`` under path weights: for each point ``[num_candidates]``, on the simplex."""
        chosen = torch.stack([(w * torch.tensor(rows, dtype=w.dtype)).sum(-1) for w, rows in zip(weights, self._rows)]).sum(0)
        for factor in self._factors:
            chosen = chosen + factor.expected(weights)
        return self.base + chosen

    def exact(self, architecture: Architecture) -> float:
        """Bytes of one architecture, from its list of operations."""
        return sum(self._row(op) for op in architecture.ops()) + (PROCESS_BYTES if self.metric == MEMORY else 0.0)


def _row(table: Table, metric: str) -> Callable[[OpSpec], float]:
    def bytes_of(op: OpSpec) -> float:
        (cast,) = table.cast([op])
        return float(DTYPE_BYTES[cast.dtype] * cast.params if metric == FILE else cast.bytes_moved)

    return bytes_of
