"""How many architectures of a space meet the limits, and how many different networks they are. Both counts are exact.

Feasible architectures: dynamic programming over the sums of costs (the counting form of the multiple-choice knapsack in
``derive``). Costs become whole multiples of 2^-50 of the target, so equal sums merge, and the rounding of a sum stays far
below the 1e-12 that ``within`` allows.

Different networks: in a chain an identity leaves no trace, so many choices build one network (skip, conv and conv, skip).
A network is a word of blocks. The points are an automaton that reads it: from position i a candidate's block leads to i + 1,
an identity leads there without a block. Its subset construction reads each word once, and the same dynamic programming counts
words instead of choices.
Spaces with branches are enumerated instead while at most ``MAX_ENUMERATED`` architectures are feasible.

A space with nodes that several points decide is small: the costs of all its architectures are made at once. Its networks are
numbered node by node: a number stands for the blocks so far, a block leads from one number to another, an identity to the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cosearch.space.derivation.derive import Limit, feasible_mask, within
from cosearch.space.factors import spread
from cosearch.space.groups import kept_sets
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.opspec import OpSpec

MAX_ENUMERATED = 20_000
MAX_SUMS = 500_000  # different sums held at once
TARGET_UNITS = 1 << 50  # of each limit's target
FEW_NETWORKS = 500  # below this a comparison of searches can hardly tell them apart


@dataclass(frozen=True)
class Counts:
    """How much there is to find.

    Attributes:
        size: architectures of the space.
        feasible: those that meet every limit; None where the costs have more than ``MAX_SUMS`` different sums.
        distinct: different networks among the feasible ones; None where a space with branches has too many to enumerate, where
            one block has different costs at different points (an accelerator), or where there are too many sums.
    """

    size: int
    feasible: int | None
    distinct: int | None

    @property
    def few(self) -> bool:
        """Whether there are so few different networks that comparing searches on them tells little."""
        most = self.feasible if self.distinct is None else self.distinct
        return most is not None and most < FEW_NETWORKS

    def text(self) -> str:
        """One line for people, with a warning where there are few."""
        if self.feasible is None:
            return f"{self.size:.3g} architectures; those under the target were not counted"
        networks = "" if self.distinct is None else f", {self.distinct:,} different networks"
        warning = (
            f". WARNING: fewer than {FEW_NETWORKS}, so random search covers them and comparing searches tells little; "
            "a higher target or a larger space gives the search something to find"
        )
        return f"{self.size:.3g} architectures, {self.feasible:,} under the target{networks}{warning if self.few else ''}"


def count_networks(space: SearchSpace, limits: Sequence[Limit] = ()) -> Counts:
    """Count the architectures and the different networks of a space that meet every limit.

    Args:
        space: the search space.
        limits: bounds that hold together; none for no bound.
    """
    if space.joint:
        return _count_joint(space, feasible_mask(space, limits))
    binding = [limit for limit in limits if not limit.meets([int(np.argmax(row)) for row in limit.costs])]
    costs, bounds = _whole_costs(space, binding)
    kind: type = np.int64 if space.size < 2**62 else object  # whole numbers of Python where there are too many
    try:
        feasible = _count_choices([_costs_of(_options(space, unit), costs) for unit in space.units], bounds, kind)
    except _TooManySumsError:
        return Counts(space.size, None, None)
    if _is_row(space):
        try:
            distinct = _count_words(space, costs, bounds, kind)
        except _TooManySumsError:
            distinct = None
    elif feasible <= MAX_ENUMERATED:
        distinct = _enumerate(space, limits)
    else:
        distinct = None
    return Counts(space.size, feasible, distinct)


def _count_joint(space: SearchSpace, fits: np.ndarray) -> Counts:
    feasible = int(fits.sum())
    if any(node.inputs != ((place - 1,) if place else ()) for place, node in enumerate(space.nodes)):
        few = map(space.architecture, np.argwhere(fits)) if feasible <= MAX_ENUMERATED else None
        return Counts(space.size, feasible, None if few is None else _different(few))
    sizes, every = [len(point.candidates) for point in space.points], tuple(range(len(space.points)))
    numbers = np.zeros([1] * len(sizes), dtype=np.int64)  # of the blocks so far, one axis a point, of size 1 where it had no say
    known: dict[OpSpec | None, int] = {None: 0}
    after: dict[int, int] = {}  # (number, block) as one code -> the next number
    most = len(space.all_ops()) + 1
    for node in space.nodes:
        blocks = np.array([known.setdefault(spec, len(known)) for spec in node.specs], dtype=np.int64)
        codes = numbers * most + spread(blocks.reshape(node.sizes or ()), node.points, every)
        different, place = np.unique(codes, return_inverse=True)
        following = [c // most if c % most == 0 else after.setdefault(c, len(after) + 1) for c in different.tolist()]
        numbers = np.array(following, dtype=np.int64)[place].reshape(codes.shape)
    return Counts(space.size, feasible, len(np.unique(np.broadcast_to(numbers, sizes)[fits])))


class _TooManySumsError(Exception):
    """The dynamic programming would hold more than ``MAX_SUMS`` sums."""


Costs = list[list[np.ndarray]]  # for each point and candidate ``[limits]``, int64


def _whole_costs(space: SearchSpace, limits: Sequence[Limit]) -> tuple[Costs, np.ndarray]:
    """Costs in units of each limit, and what each limit leaves for the points, ``[limits]``."""
    far = 4 * TARGET_UNITS  # nothing that costs four targets is feasible, however much it costs

    def whole(cost: float, limit: Limit) -> int:
        return round(min(cost / limit.target * TARGET_UNITS, far))

    costs = [
        [np.array([whole(limit.costs[p][c], limit) for limit in limits], dtype=np.int64) for c in range(len(point.candidates))]
        for p, point in enumerate(space.points)
    ]
    # within() allows 1e-12 of the target; the rounding of all costs together is below 1e-13 of it
    slack = round(TARGET_UNITS * 1e-12)
    bounds = np.array([TARGET_UNITS + slack - whole(limit.base, limit) for limit in limits], dtype=np.int64)
    return costs, bounds


Option = tuple[tuple[int, int], ...]  # a candidate for each point of a unit: (point, candidate)


def _options(space: SearchSpace, unit: Sequence[int]) -> list[Option]:
    """Every legal choice of a unit of points; a group keeps some of its points, the others have their zeros."""
    group = next((group for group in space.groups if group.points == tuple(unit)), None)
    if group is None:
        (point,) = unit
        return [((point, c),) for c in range(len(space.points[point].candidates))]
    options: list[Option] = []
    for kept in kept_sets(group):
        choices = [
            [(p, c) for c in range(len(space.points[p].candidates)) if (c == space.zeros[p]) != (p in kept)] for p in group.points
        ]
        options += itertools.product(*choices)
    return options


def _costs_of(options: Sequence[Option], costs: Costs) -> np.ndarray:
    """``[options, limits]``."""
    return np.stack([sum(costs[p][c] for p, c in option) for option in options])


def _merged(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal rows of ``sums [n, limits]`` as one, their ``counts [n]`` added."""
    if not sums.shape[1]:
        return sums[:1], counts.sum(keepdims=True)[: len(sums)]
    if sums.shape[1] == 1:
        flat, place = np.unique(sums[:, 0], return_inverse=True)
        different = flat[:, None]
    else:
        different, place = np.unique(sums, axis=0, return_inverse=True)
    total = np.zeros(len(different), dtype=counts.dtype)
    np.add.at(total, place.ravel(), counts)
    if len(different) > MAX_SUMS:
        raise _TooManySumsError
    return different, total


def _count_choices(options: Sequence[np.ndarray], bounds: np.ndarray, kind: type) -> int:
    """In how many ways one option of each ``[options, limits]`` keeps their sum within ``bounds [limits]``."""
    least = [np.min(rows, axis=0) for rows in options]
    rest = sum(least, start=np.zeros_like(bounds))
    sums = np.zeros((1, len(bounds)), dtype=np.int64)
    counts: np.ndarray = np.ones(1, dtype=kind)
    for rows, cheapest in zip(options, least):
        rest = rest - cheapest
        kinds, how_many = _merged(rows, np.ones(len(rows), dtype=kind))
        if len(sums) * len(kinds) > 8 * MAX_SUMS:
            raise _TooManySumsError
        every = (sums[:, None] + kinds[None]).reshape(len(sums) * len(kinds), len(bounds))
        times = (counts[:, None] * how_many[None]).ravel()
        fits = (every + rest <= bounds).all(1)
        sums, counts = _merged(every[fits], times[fits])
    return int(counts.sum())


def _is_row(space: SearchSpace) -> bool:
    """Whether the points form a chain between a fixed stem and head: each has one node, which reads the one before it."""
    fixed = space.ends is None and not space.groups and len(space.body) == len(space.points)
    return fixed and all(node.points == (place,) and node.inputs == (place,) for place, node in enumerate(space.body))


def _count_words(space: SearchSpace, costs: Costs, bounds: np.ndarray, kind: type) -> int | None:
    """Different words of blocks within the bounds; None where one block has different costs at different points."""
    count = len(space.points)
    cost_of: dict[OpSpec, np.ndarray] = {}
    for point, rows in zip(space.points, costs):
        for spec, row in zip(point.specs, rows):
            if spec is not None and np.abs(cost_of.setdefault(spec, row) - row).max(initial=0) > 1:
                return None
    identity = [None in point.specs for point in space.points]
    least = [np.min(rows, axis=0) for rows in costs]
    rest = [sum(least[place:], start=np.zeros_like(bounds)) for place in range(count + 1)]

    def closure(places: set[int]) -> frozenset[int]:
        reached = set(places)
        for place in sorted(places):
            end = place
            while end < count and identity[end]:
                end += 1
                reached.add(end)
        return frozenset(reached)

    once: np.ndarray = np.ones(1, dtype=kind)
    start = (np.zeros((1, len(bounds)), dtype=np.int64), once)
    # where what is not chosen exceeds a bound by itself, not even the empty word fits
    states: dict[frozenset[int], tuple[np.ndarray, np.ndarray]] = {closure({0}): start} if (bounds >= 0).all() else {}
    words = 0
    while states:  # words of one more block in each round
        words += sum(int(counts.sum()) for places, (_, counts) in states.items() if count in places)
        following: dict[frozenset[int], list[tuple[np.ndarray, np.ndarray]]] = {}
        for places, (sums, counts) in states.items():
            readable = {spec for place in places if place < count for spec in space.points[place].specs if spec is not None}
            for spec in readable:
                ends = {place + 1 for place in places if place < count and spec in space.points[place].specs}
                reached = closure(ends)
                longer = sums + cost_of[spec]
                cheapest = np.min([rest[place] for place in reached], axis=0)
                fits = (longer + cheapest <= bounds).all(1)
                if fits.any():
                    following.setdefault(reached, []).append((longer[fits], counts[fits]))
        states = {
            places: _merged(np.concatenate([sums for sums, _ in parts]), np.concatenate([counts for _, counts in parts]))
            for places, parts in following.items()
        }
    return words


def _enumerate(space: SearchSpace, limits: Sequence[Limit]) -> int:
    """Different networks among the feasible architectures, each made once."""
    return _different(map(space.architecture, _feasible(space, limits)))


def _different(architectures: Iterable[Architecture]) -> int:
    return len({(tuple(found.ops()), found.wiring()) for found in architectures})


def _feasible(space: SearchSpace, limits: Sequence[Limit]) -> Iterator[list[int]]:
    """Choices of every feasible architecture, point by point, cut where nothing that follows fits."""
    choices = [_options(space, unit) for unit in space.units]

    def cost(option: Option, limit: Limit) -> float:
        return sum(limit.costs[p][c] for p, c in option)

    least = [[min(cost(option, limit) for option in options) for limit in limits] for options in choices]
    rests = [[sum(row[i] for row in least[depth:]) for i in range(len(limits))] for depth in range(len(least) + 1)]

    def descend(depth: int, chosen: dict[int, int], spent: list[float]) -> Iterator[list[int]]:
        if depth == len(choices):
            yield [chosen[p] for p in range(len(space.points))]
            return
        for option in choices[depth]:
            total = [part + cost(option, limit) for part, limit in zip(spent, limits)]
            if all(within(part + rest, limit.target) for part, rest, limit in zip(total, rests[depth + 1], limits)):
                yield from descend(depth + 1, {**chosen, **dict(option)}, total)

    yield from descend(0, {}, [limit.base for limit in limits])
