"""The graph of a search space: nodes that read earlier nodes, and the network that a set of choices makes of them.

A chain is the special case in which each node reads the one before it. A node is a fixed block, or a slot whose block the
choice at a point decides; several slots may follow one point. A candidate that is the point's zero takes its slot out of the
network: whatever reads it goes without. Nothing here knows weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec


@dataclass(frozen=True)
class Node:
    """One place of the network.

    Attributes:
        name: unique in its space.
        inputs: places of the earlier nodes that it reads: 0 is the stem, ``i`` the ``i``-th node of the body (from 1). A slot
            reads one; a sum or merge reads several, less those that are absent.
        specs: the block of each candidate; one block where ``point`` is None. None is an identity.
        point: index of the choice point that decides; None for a fixed block.
    """

    name: str
    inputs: tuple[int, ...]
    specs: tuple[OpSpec | None, ...]
    point: int | None = None


class Placed(NamedTuple):
    """One block of a network.

    Attributes:
        spec: the block.
        inputs: indices of the blocks that it reads, in the network's list; none for the stem.
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
        candidate = 0 if node.point is None else choices[node.point]
        sources = tuple(source for source in (value[i] for i in node.inputs) if source is not None)
        if (node.inputs and not sources) or (node.point is not None and candidate == zeros[node.point]):
            value.append(None)
            continue
        spec = node.specs[candidate]
        wanted = 0 if index == 0 else 1 if spec is None else spec.inputs
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
    if len(ops) < 2 or ops[0].kind not in ("stem", "linear") or ops[-1].kind != "head":
        raise ShapeError(
            "a network starts with a stem (or with a linear block, for vectors) and ends with a head, "
            f"got {[op.kind for op in ops]}"
        )
    if len(wiring) != len(ops) or len(wiring[0]):
        raise ShapeError(f"a network of {len(ops)} blocks needs the inputs of each, none for the stem; got {list(wiring)}")
    for index, (op, inputs) in enumerate(zip(ops, wiring)):
        if index == 0:
            continue
        if any(type(i) is not int or not 0 <= i < index for i in inputs):
            raise ShapeError(f"block {index} ({op.key}) must read earlier blocks, got {list(inputs)}")
        if len(inputs) != op.inputs:
            raise ShapeError(f"{op.key} reads {op.inputs} blocks, got {len(inputs)}")
        share = op.in_channels // op.groups if op.kind == "merge" else op.in_channels
        for i in inputs:
            before = ops[i]
            made = (before.out_channels, before.out_height, before.out_width)
            if made != (share, op.in_height, op.in_width):
                raise ShapeError(f"{before.key} makes {made} but {op.key} takes {(share, op.in_height, op.in_width)}")


def check_body(body: Sequence[Node], sizes: Sequence[int]) -> None:
    """Raise unless the nodes between stem and head read earlier ones and fit their points.

    Args:
        body: the nodes.
        sizes: number of candidates of each point.

    Raises:
        ShapeError: they do not, or a point decides nothing.
    """
    used = set()
    for place, node in enumerate(body, 1):
        if not node.inputs or any(not 0 <= i < place for i in node.inputs):
            raise ShapeError(f"node {node.name!r} at place {place} must read earlier places, got {node.inputs}")
        if node.point is not None:
            if not 0 <= node.point < len(sizes) or len(node.specs) != sizes[node.point] or len(node.inputs) != 1:
                raise ShapeError(f"slot {node.name!r} needs one input and one block for each candidate of its point")
            used.add(node.point)
        elif len(node.specs) != 1:
            raise ShapeError(f"node {node.name!r} has no point and needs one block, got {len(node.specs)}")
    if used != set(range(len(sizes))):
        raise ShapeError(f"points {sorted(set(range(len(sizes))) - used)} decide no node of the space")
