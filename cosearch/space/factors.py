"""Terms of a sum over an architecture that several choice points decide together, beside those that one point decides alone.

A cost, or a number of multiply-accumulates, is  base + sum_l row[l, a_l] + sum_F F[a_p for p of F's points].  Under independent
distributions p_l of the points its mean is the same sum with each factor contracted with the product of its points'
distributions: exact, as no factor knows more of an architecture than its own points. Where a space has factors it has few enough
architectures to enumerate (``space.MAX_ENUMERABLE``), so that maxima and counts are exact as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Rows = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Factor:
    """One number for each combination of the candidates of some points.

    Attributes:
        points: indices of the choice points, each once.
        sizes: number of candidates of each.
        values: the numbers, the last point's candidates in a row.
    """

    points: tuple[int, ...]
    sizes: tuple[int, ...]
    values: tuple[float, ...]

    def at(self, choices: Sequence[int]) -> float:
        """The number of an architecture."""
        index = 0
        for point, size in zip(self.points, self.sizes):
            index = index * size + choices[point]
        return self.values[index]

    def scaled(self, scale: float) -> Factor:
        """Every number times ``scale``."""
        return Factor(self.points, self.sizes, tuple(scale * value for value in self.values))

    def expected(self, weights: Sequence[Tensor]) -> Tensor:
        """Mean under independent distributions of its points.

        Args:
            weights: for each point of the space ``[num_candidates]`` or ``[many, num_candidates]``.

        Returns:
            ``[]`` or ``[many]``, in the weights' dtype, differentiable.
        """
        together = weights[self.points[0]]
        for point in self.points[1:]:
            together = (together[..., :, None] * weights[point][..., None, :]).flatten(-2)
        return (together * torch.tensor(self.values, dtype=together.dtype)).sum(-1)


def merged(factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """The same sum in fewer factors: one that knows no other point than another does is added to that one."""
    found: list[tuple[tuple[int, ...], np.ndarray]] = []
    for factor in sorted(factors, key=lambda each: -len(each.points)):
        values = np.asarray(factor.values, dtype=np.float64).reshape(factor.sizes)
        home = next((n for n, (points, _) in enumerate(found) if set(factor.points) <= set(points)), None)
        if home is None:
            found.append((factor.points, values))
        else:
            points, sums = found[home]
            found[home] = points, sums + spread(values, factor.points, points)
    return tuple(Factor(points, values.shape, tuple(values.ravel().tolist())) for points, values in found)


def every_sum(sizes: Sequence[int], rows: Rows, factors: Sequence[Factor], base: float = 0.0) -> np.ndarray:
    """The sum of every architecture.

    Args:
        sizes: number of candidates of each point.
        rows: for each point one number a candidate.
        factors: the terms of several points.
        base: what every architecture has.

    Returns:
        One axis a point, ``[*sizes]``, float64.
    """
    every = tuple(range(len(sizes)))
    total = np.full(tuple(sizes), float(base))
    for point, row in enumerate(rows):
        total += spread(np.asarray(row, dtype=np.float64), (point,), every)
    for factor in factors:
        total += spread(np.asarray(factor.values).reshape(factor.sizes), factor.points, every)
    return total


class MeanCosts:
    """For each point what each of its candidates costs on average, given it, under independent distributions of the others.

    Args:
        rows: for each point one number a candidate.
        factors: the terms of several points.
    """

    def __init__(self, rows: Rows, factors: Sequence[Factor]) -> None:
        self.rows = [np.asarray(row, dtype=np.float64) for row in rows]
        self._of: list[list[tuple[np.ndarray, tuple[int, ...]]]] = [[] for _ in rows]
        for factor in merged(factors):
            values = np.asarray(factor.values).reshape(factor.sizes)
            for axis, point in enumerate(factor.points):
                others = tuple(p for p in factor.points if p != point)
                self._of[point].append((np.ascontiguousarray(np.moveaxis(values, axis, 0)), others))

    def of(self, point: int, distributions: Sequence[np.ndarray]) -> np.ndarray:
        """E[cost that the point has a part in | candidate], ``[candidates]``.

        Args:
            point: index of the point.
            distributions: for each point ``[candidates]``; the point's own is not looked at.
        """
        total = self.rows[point].copy()
        for values, others in self._of[point]:
            mean = values
            for other in reversed(others):
                mean = mean @ distributions[other]
            total += mean
        return total


def spread(values: np.ndarray, points: Sequence[int], among: Sequence[int]) -> np.ndarray:
    """An array with one axis for each of ``points`` as one with an axis for each of ``among``, of size 1 where it has none."""
    order = sorted(range(len(points)), key=lambda axis: among.index(points[axis]))
    shape = [1] * len(among)
    for axis, point in enumerate(points):
        shape[among.index(point)] = values.shape[axis]
    return values.transpose(order).reshape(shape)
