"""The graph of a search space: nodes that read earlier nodes, and the network that a set of choices makes of them.

A chain is the special case in which each node reads the one before it. A node is a fixed block, or a slot whose block the
choices at its points decide; several slots may follow one point, and one slot several points (the width that it reads and its
own). A candidate that is the point's zero takes its slot out of the network: whatever reads it goes without. Nothing here knows
weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec

ENTRIES = ("stem", "linear")  # kinds of blocks that read observations: images, vectors


@dataclass(frozen=True)
class Node:
    """One place of the network.

    Attributes:
        name: unique in its space.
        inputs: places of the earlier nodes that it reads: 0 is the stem, ``i`` the ``i``-th node of the body (from 1). A slot
            reads one; a sum, merge or join reads several, less those that are absent. None: it reads a part of the observation.
        specs: the block of each candidate; of several points of each combination, the last point's candidates in a row. One block
            where there are no points. None is an identity.
        points: indices of the choice points that decide; none for a fixed block.
        sizes: number of candidates of each of its points; left out, those of its only point.
    """

    name: str
    inputs: tuple[int, ...]
    specs: tuple[OpSpec | None, ...]
    points: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.sizes and len(self.points) == 1:
            object.__setattr__(self, "sizes", (len(self.specs),))
        if len(self.sizes) != len(self.points) or math.prod(self.sizes) != len(self.specs):
            raise ShapeError(
                f"node {self.name!r} needs one block for each combination of the candidates of its {len(self.points)} points, "
                f"{self.sizes}, got {len(self.specs)}"
            )

    def candidate(self, choices: Sequence[int] | Mapping[int, int]) -> int:
        """Index in ``specs`` that the choices of an architecture, or of the node's own points, decide."""
        index = 0
        for point, size in zip(self.points, self.sizes):
            index = index * size + choices[point]
        return index


class Placed(NamedTuple):
    """One block of a network.

    Attributes:
        spec: the block.
        inputs: indices of the blocks that it reads, in the network's list; none for one that reads an observation.
        node: index in ``(stem, *body, head)``.
        candidate: which of the node's blocks it is.
    """

    spec: OpSpec
    inputs: tuple[int, ...]
    node: int
    candidate: int


@dataclass(frozen=True)
class Group:
    """Exactly ``keep`` of these choice points have another candidate than their zero.

    Attributes:
        points: indices of choice points, each in one group at most.
        keep: from 1 to the number of points.
    """

    points: tuple[int, ...]
    keep: int


def place_blocks(nodes: Sequence[Node], choices: Sequence[int], zeros: Sequence[int | None]) -> list[Placed]:
    """The network of an architecture: its blocks in order of execution, with what each reads.

    Args:
        nodes: stem, body, head.
        choices: the candidate of each point.
        zeros: for each point the candidate that stands for no connection, or None.

    Raises:
        ShapeError: a node is left without any input that it needs.
    """
    placed: list[Placed] = []
    value: list[int | None] = []  # of each node, the block whose output it is; None: absent
    for index, node in enumerate(nodes):
        candidate = node.candidate(choices)
        sources = tuple(source for source in (value[i] for i in node.inputs) if source is not None)
        if (node.inputs and not sources) or any(choices[p] == zeros[p] for p in node.points):
            value.append(None)
            continue
        spec = node.specs[candidate]
        wanted = 0 if not node.inputs else 1 if spec is None else spec.inputs
        if len(sources) != wanted:
            raise ShapeError(f"{node.name} reads {wanted} blocks, the choices leave {len(sources)}")
        if spec is None:
            value.append(sources[0])
            continue
        value.append(len(placed))
        placed.append(Placed(spec, sources, index, candidate))
    if value[-1] is None:
        raise ShapeError("the choices leave no way from the stem to the head")
    return placed


def is_chain(wiring: Sequence[Sequence[int]]) -> bool:
    """Whether each block reads the one before it, and the first none."""
    return all(tuple(inputs) == ((i - 1,) if i else ()) for i, inputs in enumerate(wiring))


def chain_wiring(count: int) -> tuple[tuple[int, ...], ...]:
    """The wiring of that many blocks in a row."""
    return tuple((i - 1,) if i else () for i in range(count))


def check_wiring(ops: Sequence[OpSpec], wiring: Sequence[Sequence[int]]) -> None:
    """Raise unless the blocks form a network.

    Args:
        ops: stem first, head last.
        wiring: for each block the indices of the earlier blocks that it reads.

    Raises:
        ShapeError: no stem, no head, a block that reads a later one, or two that do not fit.
    """
    if len(ops) < 2 or ops[0].kind not in ENTRIES or ops[-1].kind != "head":
        raise ShapeError(
            "a network starts with a stem (or with a linear block, for vectors) and ends with a head, "
            f"got {[op.kind for op in ops]}"
        )
    if len(wiring) != len(ops) or len(wiring[0]):
        raise ShapeError(f"a network of {len(ops)} blocks needs the inputs of each, none for the stem; got {list(wiring)}")
    for index, (op, inputs) in enumerate(zip(ops, wiring)):
        if index == 0 or (not inputs and op.kind in ENTRIES):
            continue
        if any(type(i) is not int or not 0 <= i < index for i in inputs):
            raise ShapeError(f"block {index} ({op.key}) must read earlier blocks, got {list(inputs)}")
        if len(inputs) != op.inputs:
            raise ShapeError(f"{op.key} reads {op.inputs} blocks, got {len(inputs)}")
        if op.kind == "join":
            total = sum(ops[i].out_channels * ops[i].out_height * ops[i].out_width for i in inputs)
            if total != op.in_channels:
                raise ShapeError(f"the blocks that {op.key} reads make {total} numbers")
            continue
        share = op.in_channels // op.groups if op.kind == "merge" else op.in_channels
        for i in inputs:
            before = ops[i]
            made = (before.out_channels, before.out_height, before.out_width)
            if made != (share, op.in_height, op.in_width):
                raise ShapeError(f"{before.key} makes {made} but {op.key} takes {(share, op.in_height, op.in_width)}")


def check_nodes(nodes: Sequence[Node], sizes: Sequence[int], zeros: Sequence[int | None]) -> None:
    """Raise unless the nodes read earlier ones and fit their points.

    Args:
        nodes: stem, body, head.
        sizes: number of candidates of each point.
        zeros: for each point the candidate that stands for no connection, or None.

    Raises:
        ShapeError: they do not, a point decides nothing, or one with a zero decides a node together with others.
    """
    used: set[int] = set()
    for place, node in enumerate(nodes):
        entry = not node.points and node.specs[0] is not None and node.specs[0].kind in ENTRIES
        if (place > 0 and not node.inputs and not entry) or any(not 0 <= i < place for i in node.inputs):
            raise ShapeError(f"node {node.name!r} at place {place} must read earlier places, got {node.inputs}")
        known = all(0 <= p < len(sizes) and sizes[p] == size for p, size in zip(node.points, node.sizes))
        if not known or len(set(node.points)) != len(node.points) or (node.points and len(node.inputs) > 1):
            raise ShapeError(f"slot {node.name!r} needs one input and one block for each candidate of its points")
        if len(node.points) > 1 and any(zeros[p] is not None for p in node.points):
            raise ShapeError(f"a point of slot {node.name!r} has a zero, so it must be the only one")
        used.update(node.points)
    if used != set(range(len(sizes))):
        raise ShapeError(f"points {sorted(set(range(len(sizes))) - used)} decide no node of the space")
