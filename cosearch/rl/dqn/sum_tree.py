"""A sum tree in numpy: draw positions in proportion to their priorities, in batches.

Prioritised experience replay (Schaul et al. 2016, arXiv 1511.05952). Node ``k`` holds the sum of its children ``2k`` and
``2k + 1``; the leaves are the priorities. A parent is always computed anew from its children, so no rounding piles up and the
whole tree follows from its leaves: they are all that a checkpoint needs.
"""

from __future__ import annotations

import numpy as np

from latency_tables.errors import NonFiniteError


class SumTree:
    """Priorities of ``size`` positions, all 0 at first.

    Args:
        size: at least 1.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._leaves = 1 << max(0, size - 1).bit_length()
        self._nodes = np.zeros(2 * self._leaves)

    @property
    def total(self) -> float:
        """Sum of all priorities."""
        return float(self._nodes[1])

    @property
    def priorities(self) -> np.ndarray:
        """``[size]``, float64: a view of the leaves."""
        return self._nodes[self._leaves : self._leaves + self.size]

    def set(self, positions: np.ndarray, priorities: np.ndarray | float) -> None:
        """Replace priorities.

        Args:
            positions: ``[count]``, whole numbers in ``[0, size)``; of a position that comes twice the last priority stays.
            priorities: ``[count]`` or one for all, at least 0.

        Raises:
            NonFiniteError: a priority is NaN, infinite or below 0; nothing was changed.
        """
        values = np.asarray(priorities, dtype=np.float64)
        if not (np.isfinite(values) & (values >= 0)).all():
            raise NonFiniteError("priorities must be finite and at least 0; the loss has diverged: try a smaller dqn.lr")
        nodes, at = self._nodes, np.asarray(positions) + self._leaves
        nodes[at] = values
        while at.size and at[0] > 1:  # all leaves have the same depth
            at = at >> 1
            if at.size > 64:
                at = np.unique(at)  # neighbours share parents: a ring is filled in order
            nodes[at] = nodes[2 * at] + nodes[2 * at + 1]

    def draw(self, points: np.ndarray) -> np.ndarray:
        """The positions in whose share of the total the points lie.

        Args:
            points: ``[count]``, each in ``[0, 1)`` of the total.

        Returns:
            ``[count]``, int64; never a position with priority 0.
        """
        rest, at = np.asarray(points) * self._nodes[1], np.ones(len(points), dtype=np.int64)
        for _ in range(self._leaves.bit_length() - 1):
            at = 2 * at
            left = self._nodes[at]
            right = (rest >= left) & (self._nodes[at + 1] > 0)  # rounding must not lead into an empty branch
            rest = rest - left * right
            at = at + right
        return at - self._leaves

    def restore(self, priorities: np.ndarray) -> None:
        """Set all priorities ``[size]`` at once, e.g. those of a checkpoint; the tree is that which had them, bit for bit."""
        self._nodes[:] = 0.0
        self.priorities[:] = priorities
        at = self._leaves
        while at > 1:
            self._nodes[at // 2 : at] = self._nodes[at : 2 * at : 2] + self._nodes[at + 1 : 2 * at : 2]
            at //= 2
