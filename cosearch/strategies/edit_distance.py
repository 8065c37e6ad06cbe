"""How far apart two networks are: the edit distance of Auto-Keras, and coordinates that carry it into a Euclidean space.

Jin, Song and Hu, Auto-Keras, KDD 2019, arXiv 1806.10282, section 3.1, with the constants of its released code (0.2.19):
  d(a, b)  = D_l + lambda D_s,   lambda = 0.1
  D_l      = least cost of turning one sequence of blocks into the other: an inserted or deleted block costs 1, a changed one
             |w - w'| / max(w, w') of its widths
  D_s      = least sum over pairs of skip connections (a Hungarian matching) of (|s - s'| + |l - l'|) / (max(s, s') + max(l, l')),
             1 for two of different kinds, plus the difference of their numbers; s where one starts, l its length
  phi_S(x) = min over y in S of d(x, y),  S random sets of 1, 2, 4, ... of the trained networks: Bourgain's embedding (Israel
             Journal of Mathematics 52, 1985); distances between coordinates are at most the distances, and not much less
A changed block here also has a kernel, an expansion and hidden units: the largest of the relative differences counts, and 1 for
blocks of different kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from cosearch.space.space import Architecture, SearchSpace
from latency_tables.opspec import OpSpec

LAMBDA = 0.1
Skip = tuple[int, int, str]  # where it starts, its length, the kind of the block that joins it


class EditDistance:
    """Distances between the networks of a space.

    Args:
        space: the search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        blocks = space.all_ops()
        self._code = {spec: code for code, spec in enumerate(blocks)}
        self._costs = change_costs(blocks)
        self._known: dict[tuple[int, ...], tuple[np.ndarray, tuple[Skip, ...]]] = {}

    def __call__(self, ones: Sequence[Architecture], others: Sequence[Architecture]) -> np.ndarray:
        """``[ones, others]``: the distance of each pair."""
        left, right = [self._parts(each) for each in ones], [self._parts(each) for each in others]
        layers = layer_distances([codes for codes, _ in left], [codes for codes, _ in right], self._costs)
        if not any(skips for _, skips in left + right):
            return layers
        return layers + LAMBDA * np.array([[skip_distance(a, b) for _, b in right] for _, a in left])

    def _parts(self, architecture: Architecture) -> tuple[np.ndarray, tuple[Skip, ...]]:
        if architecture.choices not in self._known:
            placed = architecture.placed()
            codes = np.array([self._code[block.spec] for block in placed])
            skips = tuple(
                (source, place - source, block.spec.kind)
                for place, block in enumerate(placed)
                for source in block.inputs
                if place - source > 1
            )
            self._known[architecture.choices] = codes, skips
        return self._known[architecture.choices]


def change_costs(blocks: Sequence[OpSpec]) -> np.ndarray:
    """``[blocks, blocks]``: what it costs to change one block into another, 0..1."""
    sizes = np.array([(op.out_channels, op.kernel, op.expansion, op.hidden + 1) for op in blocks], dtype=np.float64)
    kinds = np.array([op.kind for op in blocks])
    relative = np.abs(sizes[:, None] - sizes[None]) / np.maximum(sizes[:, None], sizes[None])
    return np.where(kinds[:, None] == kinds[None], relative.max(2), 1.0)


def layer_distances(ones: Sequence[np.ndarray], others: Sequence[np.ndarray], costs: np.ndarray) -> np.ndarray:
    """D_l of each pair ``[ones, others]``; all pairs go through the table of the dynamic programme at once.

    Args:
        ones, others: the blocks of each network, as rows of ``costs``.
        costs: ``[blocks, blocks]``, see :func:`change_costs`.
    """
    (left, left_ends), (right, right_ends) = _padded(ones), _padded(others)
    pairs = (len(ones), len(others))
    row = [np.full(pairs, float(j)) for j in range(right.shape[1] + 1)]
    found = np.zeros(pairs)
    for i in range(left.shape[1] + 1):
        if i:
            before, row = row, [np.full(pairs, float(i))]
            for j in range(1, right.shape[1] + 1):
                changed = before[j - 1] + costs[left[:, i - 1][:, None], right[:, j - 1][None]]
                row.append(np.minimum(np.minimum(before[j], row[j - 1]) + 1.0, changed))
        here = left_ends == i
        if here.any():
            found[here] = np.stack(row)[right_ends[None], np.flatnonzero(here)[:, None], np.arange(pairs[1])[None]]
    return found


def skip_distance(one: Sequence[Skip], other: Sequence[Skip]) -> float:
    """D_s of two sets of skip connections."""
    if not one or not other:
        return float(len(one) + len(other))
    costs = np.array([[_skip_cost(a, b) for b in other] for a in one])
    return float(costs[linear_sum_assignment(costs)].sum()) + abs(len(one) - len(other))


def landmarks(count: int) -> list[np.ndarray]:
    """Bourgain's random sets: for each size 1, 2, 4, ... as many as the logarithm of the count; always the same for a count.

    Args:
        count: of the networks that they are drawn from, at least 1.
    """
    draws, each = np.random.default_rng(count), max(1, math.ceil(math.log(count + 1)))
    sizes = [2**k for k in range(max(1, math.ceil(math.log2(count))))]
    return [draws.choice(count, size, replace=False) for size in sizes for _ in range(each)]


def coordinates(distances: np.ndarray, sets: Sequence[np.ndarray]) -> np.ndarray:
    """``[networks, sets]``: phi, over the root of the number of sets, so that no two are farther apart than their distance.

    Args:
        distances: ``[networks, trained networks]``.
        sets: see :func:`landmarks`.
    """
    return np.stack([distances[:, members].min(1) for members in sets], 1) / math.sqrt(len(sets))


def _padded(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one length, and how long each was."""
    ends = np.array([len(row) for row in rows])
    filled = np.zeros((len(rows), int(ends.max())), dtype=np.int64)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row
    return filled, ends


def _skip_cost(one: Skip, other: Skip) -> float:
    (start, length, kind), (begin, extent, sort) = one, other
    if kind != sort:
        return 1.0
    return (abs(start - begin) + abs(length - extent)) / (max(start, begin) + max(length, extent))
