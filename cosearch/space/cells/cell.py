"""The ``cell`` space of RL-DARTS and DARTS: directed acyclic cells of N nodes, repeated in a scaffold.

Miao et al., RL-DARTS (arXiv 2106.02229), ``rl_darts/policies`` of google/brain_autorl; Liu et al., DARTS (arXiv 1806.09055).
  cell     : node i = sum over all earlier nodes j (the cell's input is node 0) of edge_ij(node j); every edge is a choice; of the
             edges into a node ``keep`` are kept in an architecture; output = 1x1 convolution of the concatenated nodes
  impala   : for each depth d: 3x3 convolution(d), 3x3 max pooling with stride 2, normal cell, normal cell
  standard : 3x3 convolution, then for each depth d: reduction cell (stride 2), normal cell, normal cell
  head     : ReLU, flatten, linear(hidden), ReLU, linear
Cells of a type share their choices, or each has its own. A 1x1 convolution comes before a cell whose channels change.
Differs from the papers in:
1. A cell has one input, as in RL-DARTS; DARTS' cells have two.
2. The edges into a node that has no more than ``keep`` predecessors all stay, so its ``none`` is never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cosearch.space.cells.graph import Group, Node
from cosearch.space.cells.operations import OPERATION_SETS
from cosearch.space.kinds.values import plain_values, read_values
from cosearch.space.operations import OPERATIONS
from cosearch.space.space import SPACES, ChoicePoint, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec


@dataclass(frozen=True)
class CellConfig:
    """Shape of a cell space.

    Attributes:
        scaffold: ``impala`` or ``standard``.
        depths: channels of each section; each halves the frame's side.
        normal_cells: normal cells of a section.
        nodes: nodes of a cell, its input not counted.
        keep: edges that a node keeps.
        operations: ``micro``, ``classic``, ``darts``, or names of operations.
        share: cells with the same choices: all of a ``type`` (normal, reduction), those at the same ``place`` of a section, or
            none: each ``cell`` has its own.
        output: the nodes are concatenated and convolved (``concat``), or summed (``sum``).
        hidden: width of the head's hidden layer.
    """

    scaffold: Literal["impala", "standard"] = "impala"
    depths: tuple[int, ...] = (16, 32, 32)
    normal_cells: int = 2
    nodes: int = 4
    keep: int = 2
    operations: str | tuple[str, ...] = "micro"
    share: Literal["type", "place", "cell"] = "type"
    output: Literal["concat", "sum"] = "concat"
    hidden: int = 256


@dataclass
class _Builder:
    """A space in the making; ``c``, ``h``, ``w`` is the shape of the last node's output."""

    config: CellConfig
    names: tuple[str, ...]
    c: int
    h: int
    w: int
    body: list[Node] = field(default_factory=list)
    points: list[ChoicePoint] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    known: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)

    def add(self, name: str, spec: OpSpec | None, inputs: Sequence[int] | None = None) -> int:
        """A fixed node that reads the last one; returns its place."""
        self.body.append(Node(name, (len(self.body),) if inputs is None else tuple(inputs), (spec,)))
        if spec is not None:
            self.c, self.h, self.w = spec.out_channels, spec.out_height, spec.out_width
        return len(self.body)

    def edges_of(self, kind: str) -> dict[tuple[int, int], int]:
        """The point of each edge of a kind of cell, made when it is asked for first."""
        zero = next((k for k, name in enumerate(self.names) if OPERATIONS.get(name).zero), None)
        if kind not in self.known:
            self.known[kind] = {}
            for node in range(1, self.config.nodes + 1):
                for source in range(node):
                    self.known[kind][source, node] = len(self.points)
                    self.points.append(ChoicePoint(f"{kind}.{source}to{node}", self.names, zero=zero))
                if zero is not None:
                    into = tuple(self.known[kind][source, node] for source in range(node))
                    self.groups.append(Group(into, min(self.config.keep, node)))
        return self.known[kind]

    def cell(self, name: str, kind: str, out: int, stride: int) -> None:
        """A cell behind the last node."""
        if self.c != out:
            self.add(f"{name}.in", OpSpec("conv", self.c, self.h, self.w, out, activation="none"))
        edges, places = self.edges_of(kind), [len(self.body)]
        inside, after = (self.h, self.w), ((self.h - 1) // stride + 1, (self.w - 1) // stride + 1)
        for node in range(1, self.config.nodes + 1):
            into = []
            for source, place in enumerate(places):
                (height, width), step = (after, 1) if source else (inside, stride)
                specs = tuple(OPERATIONS.get(op).make_spec(out, height, width, out, step) for op in self.names)
                self.body.append(Node(f"{name}.{source}to{node}", (place,), specs, (edges[source, node],)))
                into.append(len(self.body))
            kept = min(self.config.keep, node) if self.groups else node
            joined = OpSpec("add", out, *after, out, groups=kept, activation="none") if kept > 1 else None
            places.append(self.add(f"{name}.node{node}", joined, into))
        self.c, (self.h, self.w) = out, after
        count = self.config.nodes
        if count > 1 and self.config.output == "sum":
            self.add(f"{name}.out", OpSpec("add", out, *after, out, groups=count, activation="none"), places[1:])
        elif count > 1:
            self.add(f"{name}.out", OpSpec("merge", count * out, *after, out, groups=count, activation="none"), places[1:])


def cell_space(config: CellConfig, frame_shape: tuple[int, ...], num_actions: int) -> SearchSpace:
    """Build the space.

    Args:
        config: scaffold, cells, operations.
        frame_shape: ``(height, width, channels)`` of the uint8 frames.
        num_actions: discrete actions.

    Raises:
        ConfigError: no depth, node or kept edge.
        UnknownNameError: an unknown operation or set of operations.
    """
    if not config.depths or min(config.nodes, config.keep) < 1 or config.normal_cells < (config.scaffold == "impala"):
        raise ConfigError(
            "space.values.depths needs an entry a section; nodes, keep and (in the impala scaffold) normal_cells "
            f"must be at least 1, got {config.depths}, {config.nodes}, {config.keep}, {config.normal_cells}"
        )
    height, width, channels = frame_shape
    stem = OpSpec("stem", channels, height, width, config.depths[0], kernel=3, padding=1, activation="none")
    build = _Builder(config, _names(config.operations), stem.out_channels, stem.out_height, stem.out_width)
    for section, depth in enumerate(config.depths, 1):
        if config.scaffold == "impala":
            if section > 1:
                build.add(
                    f"conv{section}", OpSpec("conv", build.c, build.h, build.w, depth, kernel=3, padding=1, activation="none")
                )
            build.add(
                f"pool{section}",
                OpSpec("maxpool", build.c, build.h, build.w, depth, kernel=3, stride=2, padding=1, activation="none"),
            )
        else:
            build.cell(f"section{section}.reduction", _kind(config, "reduction", section, 0), depth, 2)
        for number in range(1, config.normal_cells + 1):
            build.cell(f"section{section}.cell{number}", _kind(config, "normal", section, number), depth, 1)
    head = OpSpec("head", build.c, build.h, build.w, num_actions + 1, hidden=config.hidden)
    points, body, groups = tuple(build.points), tuple(build.body), tuple(build.groups)
    return SearchSpace("cell", plain_values(config), tuple(frame_shape), num_actions, stem, points, head, body, groups)


def _names(operations: str | tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(operations, str):
        return tuple(operations)
    if operations not in OPERATION_SETS:
        raise ConfigError(
            f"space.values.operations: unknown set {operations!r}; expected one of {', '.join(OPERATION_SETS)}, or "
            "a list of names of `cosearch list ops`"
        )
    return OPERATION_SETS[operations]


def _kind(config: CellConfig, kind: str, section: int, number: int) -> str:
    """Cells of one kind share their choices."""
    if config.share == "type":
        return kind
    return kind + (f"{number or ''}" if config.share == "place" else f"{section}" + (f".{number}" if number else ""))


SPACES.register(
    SpaceEntry(
        "cell",
        "cells of N nodes in an IMPALA-CNN or standard scaffold (RL-DARTS, DARTS)",
        lambda values, frame_shape, num_actions: cell_space(read_values("cell", CellConfig, values), frame_shape, num_actions),
    )
)
