"""Distributions over the legal architectures of a space: independent points, and groups of which exactly k are not zero.

For a group of points P with zeros z and logits a, the distribution is the product of softmaxes on condition that k points are
not zero. Its sets S of kept points have the weights  log w(S) = sum_{p in S} log sum_{o != z_p} exp a_po + sum_{p not in S} a_pz,
so marginals, samples and probabilities are exact sums over the sets (a node of a cell has a handful). Without groups it is the
softmax of each point.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cosearch.space.cells.graph import Group
from latency_tables.errors import ShapeError

MAX_SETS = 10_000


@functools.lru_cache(maxsize=256)
def kept_sets(group: Group) -> tuple[tuple[int, ...], ...]:
    """Every set of points that a group may keep, in a fixed order."""
    return tuple(itertools.combinations(group.points, group.keep))


def check_groups(groups: Sequence[Group], sizes: Sequence[int], zeros: Sequence[int | None]) -> None:
    """Raise unless the groups fit their points.

    Raises:
        ShapeError: a point without a zero or without another candidate, in two groups, or an impossible ``keep``.
    """
    seen: set[int] = set()
    for group in groups:
        if not 1 <= group.keep <= len(set(group.points)) == len(group.points) or seen & set(group.points):
            raise ShapeError(f"a group keeps from 1 to all of its points, each in one group only; got {group}")
        if math.comb(len(group.points), group.keep) > MAX_SETS:
            raise ShapeError(f"a group that keeps {group.keep} of {len(group.points)} points has more than {MAX_SETS} sets")
        for p in group.points:
            if not 0 <= p < len(sizes) or zeros[p] is None or sizes[p] < 2:
                raise ShapeError(f"each point of a group needs a zero and another candidate; point {p} of {group} has not")
        seen |= set(group.points)


def zero_of(zeros: Sequence[int | None], point: int) -> int:
    """The zero of a point that stands in a group; :func:`check_groups` refuses one without."""
    zero = zeros[point]
    assert zero is not None, f"point {point} is in a group and has no zero"
    return zero


def grouped(groups: Sequence[Group]) -> set[int]:
    """The points that stand in some group."""
    return {p for group in groups for p in group.points}


def count(groups: Sequence[Group], sizes: Sequence[int]) -> int:
    """Number of legal architectures."""
    free = math.prod(size for p, size in enumerate(sizes) if p not in grouped(groups))
    return free * math.prod(sum(math.prod(sizes[p] - 1 for p in kept) for kept in kept_sets(group)) for group in groups)


def set_log_weights(group: Group, logits: Sequence[Tensor], zeros: Sequence[int | None]) -> Tensor:
    """log w(S) of each of :func:`kept_sets`, ``[sets]``, differentiable."""
    zero = {p: zero_of(zeros, p) for p in group.points}
    inside = {p: torch.logsumexp(_others(logits[p], zero[p]), 0) for p in group.points}
    return torch.stack(
        [torch.stack([inside[p] if p in kept else logits[p][zero[p]] for p in group.points]).sum() for kept in kept_sets(group)]
    )


def marginals(logits: Sequence[Tensor], groups: Sequence[Group], zeros: Sequence[int | None]) -> list[Tensor]:
    """For each point the probability of each candidate over the legal architectures.

    Args:
        logits: for each point ``[candidates]``.
        groups, zeros: of the space.

    Returns:
        For each point ``[candidates]``, summing to 1, differentiable; those of a group's kept candidates sum to its ``keep``.
    """
    shares = [torch.softmax(row, 0) for row in logits]
    for group in groups:
        of_sets = torch.softmax(set_log_weights(group, logits, zeros), 0)
        for p in group.points:
            inside = [p in points for points in kept_sets(group)]
            kept, left = (of_sets[[n for n, found in enumerate(inside) if found == wanted]].sum() for wanted in (True, False))
            zero = zero_of(zeros, p)
            others = torch.softmax(_others(logits[p], zero), 0) * kept
            shares[p] = torch.cat([others[:zero], left[None], others[zero:]])  # 1 - kept may be below 0 by rounding
    return shares


def log_probability(
    choices: Sequence[int], logits: Sequence[Tensor], groups: Sequence[Group], zeros: Sequence[int | None]
) -> Tensor:
    """log p of a legal architecture, ``[]``, differentiable; see :func:`marginals`."""
    inside = grouped(groups)
    terms = [torch.log_softmax(row, 0)[c] for p, (row, c) in enumerate(zip(logits, choices)) if p not in inside]
    terms += [
        torch.stack([logits[p][choices[p]] for p in group.points]).sum()
        - torch.logsumexp(set_log_weights(group, logits, zeros), 0)
        for group in groups
    ]
    return torch.stack(terms).sum()


def draw(logits: Sequence[Tensor], groups: Sequence[Group], zeros: Sequence[int | None], generator: torch.Generator) -> list[int]:
    """A legal architecture with the probabilities of :func:`marginals`.

    Args:
        logits: for each point ``[candidates]``; equal ones draw uniformly.
        groups, zeros: of the space.
        generator: CPU generator.
    """
    inside = grouped(groups)
    choices = [0 if p in inside else _pick(row, generator) for p, row in enumerate(logits)]
    for group in groups:
        kept = kept_sets(group)[_pick(set_log_weights(group, logits, zeros), generator)]
        for p in group.points:
            zero = choices[p] = zero_of(zeros, p)
            if p in kept:
                other = _pick(_others(logits[p], zero), generator)
                choices[p] = other + (other >= zero)
    return choices


def best(scores: Sequence[Sequence[float]], groups: Sequence[Group], zeros: Sequence[int | None]) -> list[int]:
    """The legal choices with the highest sum of scores; the first of equal ones.

    In a group, a point's worth is its best other candidate over its zero; the ``keep`` worthiest are kept.
    """
    choices = [max(range(len(row)), key=row.__getitem__) for row in scores]
    for group in groups:
        zero = {p: zero_of(zeros, p) for p in group.points}
        top = {p: max((c for c in range(len(scores[p])) if c != zero[p]), key=scores[p].__getitem__) for p in group.points}
        lost = {p: scores[p][zero[p]] - scores[p][top[p]] for p in group.points}
        for rank, p in enumerate(sorted(group.points, key=lost.__getitem__)):
            choices[p] = top[p] if rank < group.keep else zero[p]
    return choices


def _others(row: Tensor, zero: int) -> Tensor:
    return torch.cat([row[:zero], row[zero + 1 :]])


def _pick(log_weights: Tensor, generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.softmax(log_weights.detach().double(), 0), 1, generator=generator))
