"""A space with fewer candidates: some of each point, and the same blocks, costs and groups as far as they are left.

An architecture of the smaller space is one of the whole space: :meth:`Pools.whole` gives it. What searches a space searches the
smaller one unchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cosearch.space.cells.graph import Group, Node
from cosearch.space.derivation.derive import Limit
from cosearch.space.derivation.largest import mean_macs
from cosearch.space.factors import Factor
from cosearch.space.space import Architecture, ChoicePoint, SearchSpace
from latency_tables.errors import ShapeError


@dataclass(frozen=True)
class Pools:
    """The candidates that are left.

    Attributes:
        space: the whole space.
        kept: for each point the indices of its candidates, each once, at least one. In a group a point keeps its zero and
            another candidate, or each of the group's points keeps one candidate.

    Raises:
        ShapeError: a wrong number of points, an index out of range, none or a repeated one, or a group that is half left.
    """

    space: SearchSpace
    kept: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.kept) != len(self.space.points):
            raise ShapeError(f"space {self.space.name!r} has {len(self.space.points)} points, got pools for {len(self.kept)}")
        for point, kept in zip(self.space.points, self.kept):
            if not kept or len(set(kept)) != len(kept) or not all(0 <= c < len(point.candidates) for c in kept):
                raise ShapeError(f"the pool of {point.name} must name some of its {len(point.candidates)} candidates, got {kept}")
        for group in self.space.groups:
            if self._is_fixed(group):
                left = sum(self.kept[p][0] != self.space.points[p].zero for p in group.points)
                if left != group.keep:
                    raise ShapeError(
                        f"exactly {group.keep} of a group's points must be another candidate than their zero, got {left}"
                    )

    @cached_property
    def smaller(self) -> SearchSpace:
        """The space of these candidates."""
        whole = self.space
        points = tuple(self._point(p) for p in range(len(whole.points)))
        ends = None if whole.ends is None else (self._node(whole.ends[0]), self._node(whole.ends[1]))
        stem, head = (whole.stem, whole.head) if ends is None else (ends[0].specs[0], ends[1].specs[0])
        if stem is None or head is None:
            raise ShapeError("stem and head of a space are blocks, not identities")
        return replace(
            whole,
            points=points,
            body=tuple(self._node(node) for node in whole.body),
            groups=tuple(group for group in whole.groups if not self._is_fixed(group)),
            ends=ends,
            stem=stem,
            head=head,
        )

    def whole(self, architecture: Architecture) -> Architecture:
        """An architecture of the smaller space as one of the whole space."""
        return self.space.architecture([kept[c] for kept, c in zip(self.kept, architecture.choices)])

    def limit(self, limit: Limit) -> Limit:
        """A bound on architectures of the whole space as one on those of the smaller space."""
        costs = [[row[c] for c in kept] for row, kept in zip(limit.costs, self.kept)]
        return Limit(costs, limit.base, limit.target, tuple(self._factor(factor) for factor in limit.factors))

    def _is_fixed(self, group: Group) -> bool:
        return all(len(self.kept[p]) == 1 for p in group.points)

    def _point(self, index: int) -> ChoicePoint:
        point, kept = self.space.points[index], self.kept[index]
        specs = tuple(point.specs[c] for c in kept) if point.specs else ()
        zero = kept.index(point.zero) if point.zero in kept else None
        return ChoicePoint(point.name, tuple(point.candidates[c] for c in kept), specs, zero)

    def _places(self, points: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Where the combinations of kept candidates lie among all combinations of these points' candidates."""
        places = []
        for choices in itertools.product(*(self.kept[p] for p in points)):
            place = 0
            for choice, size in zip(choices, sizes):
                place = place * size + choice
            places.append(place)
        return places

    def _node(self, node: Node) -> Node:
        specs = tuple(node.specs[place] for place in self._places(node.points, node.sizes))
        return Node(node.name, node.inputs, specs, node.points, tuple(len(self.kept[p]) for p in node.points))

    def _factor(self, factor: Factor) -> Factor:
        values = tuple(factor.values[place] for place in self._places(factor.points, factor.sizes))
        return Factor(factor.points, tuple(len(self.kept[p]) for p in factor.points), values)


def fronts(space: SearchSpace, costs: Sequence[Sequence[float]]) -> tuple[tuple[int, ...], ...]:
    """For each point the candidates on its Pareto front: no other one is as cheap and computes as much, and is better in one.

    Args:
        space: the search space.
        costs: for each point one cost a candidate, any unit; of blocks that several points decide the mean, see ``mean_macs``.

    Returns:
        Indices in ascending order; of candidates that are alike in both the first. A zero is always among them.
    """
    macs, kept = mean_macs(space), []
    for point, cost, size in zip(space.points, costs, macs, strict=True):
        every = range(len(point.candidates))
        kept.append(
            tuple(c for c in every if c == point.zero or not any(_beats(o, c, cost, size) for o in every if o != point.zero))
        )
    return tuple(kept)


def _beats(other: int, one: int, cost: Sequence[float], size: Sequence[float]) -> bool:
    """Whether another candidate is at least as cheap and as large, and is cheaper, larger, or earlier."""
    as_good = cost[other] <= cost[one] and size[other] >= size[one]
    return as_good and (cost[other] < cost[one] or size[other] > size[one] or other < one)
