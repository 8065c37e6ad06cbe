"""The search-space record. Network, sampler, cost and derivation are four readers of this one structure.

A space is a stem, a graph of nodes whose blocks its choice points decide (by default their chain), and a head. Choices may also
decide stem and head, and several points one block together: the width of what it reads, and its own. An architecture
is one choice for each point. Neither knows how it is trained or costed.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from cosearch.registry import Registry
from cosearch.space import groups as group_of_points
from cosearch.space.cells.graph import Group, Node, Placed, check_nodes, is_chain, place_blocks
from cosearch.space.ends import POLICIES, observations_of
from cosearch.space.factors import Factor, merged
from cosearch.space.parts import Part, parts_from, single_shape
from latency_tables.errors import ConfigError, RequestError, ShapeError
from latency_tables.opspec import OpSpec
from latency_tables.text.reading import shown
from latency_tables.worklists import Network

FORMAT = "cosearch-architecture-1"
MAX_ENUMERABLE = 10_000_000  # architectures of a space with joint nodes: what is exact there is enumerated
MAX_TASK_SIZE = 2**20  # sides and channels of a frame, features, actions


@dataclass(frozen=True)
class ChoicePoint:
    """One place where the search chooses.

    Attributes:
        name: unique in its space, e.g. ``stage1.cell0``.
        candidates: operation names, in registry vocabulary.
        specs: in a chain the block of each candidate, None for the identity; empty where the space's body holds the blocks.
        zero: index of the candidate that takes its nodes out of the network; None where there is none.
    """

    name: str
    candidates: tuple[str, ...]
    specs: tuple[OpSpec | None, ...] = ()
    zero: int | None = None

    def __post_init__(self) -> None:
        count = len(self.candidates)
        if not count or len(self.specs) not in (0, count) or len(set(self.candidates)) != count:
            raise ShapeError(
                f"choice point {self.name!r} needs one block for each of its differently named candidates, "
                f"got {self.candidates!r} and {len(self.specs)} blocks"
            )
        if self.zero is not None and not 0 <= self.zero < count:
            raise ShapeError(f"the zero of choice point {self.name!r} must be one of its {count} candidates, got {self.zero}")


@dataclass(frozen=True)
class SearchSpace:
    """Stem, body, head, and the choice points that decide the body's blocks.

    Attributes:
        name: registry name of the kind of space.
        config: the values that made it, as plain JSON: enough to build it again.
        frame_shape: ``(height, width, channels)`` of uint8 images, ``(features,)`` of float32 vectors, or ``(1, bytes)`` of
            observations of several parts.
        num_actions: discrete actions, of several factors all together; or length of an action vector.
        stem, head: first and last block (first a ``linear`` one for vectors); the head reads the last node of the body. Where
            choices decide them, those of the first candidates.
        points: the choices.
        body: the nodes between stem and head in order of execution; left out, the points in a row.
        groups: sets of points of which exactly so many are not zero.
        policy: what the head's outputs mean, ``categorical``, ``multi_categorical`` or ``gaussian``.
        parts: of an observation; empty: it is an image or a vector itself.
        action_sizes: of each factor of ``multi_categorical`` actions; else empty.
        ends: the nodes of stem and head where choices decide them; left out, they are fixed.
    """

    name: str
    config: dict[str, object] = field(hash=False)
    frame_shape: tuple[int, ...]
    num_actions: int
    stem: OpSpec
    points: tuple[ChoicePoint, ...]
    head: OpSpec
    body: tuple[Node, ...] = ()
    groups: tuple[Group, ...] = ()
    policy: str = "categorical"
    parts: tuple[Part, ...] = ()
    action_sizes: tuple[int, ...] = ()
    ends: tuple[Node, Node] | None = None

    def __post_init__(self) -> None:
        if not self.body and self.ends is None:
            row = tuple(Node(point.name, (place,), point.specs, (place,)) for place, point in enumerate(self.points))
            object.__setattr__(self, "body", row)
        sizes = [len(point.candidates) for point in self.points]
        check_nodes(self.nodes, sizes, self.zeros)
        if (self.nodes[0].specs[0], self.nodes[-1].specs[0]) != (self.stem, self.head):
            raise ShapeError("stem and head of a space must be the first blocks of their nodes")
        if self.joint and (self.groups or self.size > MAX_ENUMERABLE):
            raise ShapeError(
                f"space {self.name!r} has nodes that several points decide: then it has no groups and at most {MAX_ENUMERABLE:,} "
                f"architectures, got {len(self.groups)} and {self.size:,}"
            )
        group_of_points.check_groups(self.groups, sizes, self.zeros)

    @property
    def size(self) -> int:
        """Number of architectures."""
        return group_of_points.count(self.groups, [len(point.candidates) for point in self.points])

    @functools.cached_property
    def zeros(self) -> tuple[int | None, ...]:
        """The zero of each point."""
        return tuple(point.zero for point in self.points)

    @functools.cached_property
    def units(self) -> tuple[tuple[int, ...], ...]:
        """Sets of points that may be exchanged between architectures: each group whole, every other point alone."""
        inside = group_of_points.grouped(self.groups)
        return (*((p,) for p in range(len(self.points)) if p not in inside), *(group.points for group in self.groups))

    @functools.cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Stem, body and head; the inputs of a node are indices in this."""
        if self.ends is not None:
            return (self.ends[0], *self.body, self.ends[1])
        return (Node("stem", (), (self.stem,)), *self.body, Node("head", (len(self.body),), (self.head,)))

    @functools.cached_property
    def joint(self) -> tuple[Node, ...]:
        """The nodes that several points decide together."""
        return tuple(node for node in self.nodes if len(node.points) > 1)

    @functools.cached_property
    def shares_widths(self) -> bool:
        """Whether choices decide stem or head, or several points one block: then blocks that differ in width share weights."""
        return self.ends is not None or bool(self.joint)

    @functools.cached_property
    def remembers(self) -> bool:
        """Whether a network of the space may keep something from one observation to the next."""
        return any(spec.memory > 0 for node in self.nodes for spec in node.specs if spec is not None)

    def blocks(self, point: int, candidate: int) -> list[OpSpec]:
        """The blocks that a candidate of a point adds by itself: one for each node that the point alone decides, none for an
        identity or zero. Those that it decides together with others are in :attr:`joint`."""
        specs = [node.specs[candidate] for node in self.nodes if node.points == (point,)]
        return [spec for spec in specs if spec is not None]

    def rows(self, value: Callable[[OpSpec], float]) -> list[list[float]]:
        """For each point the sum of a value of a block over the blocks that each candidate adds by itself."""
        return [
            [float(sum(value(op) for op in self.blocks(i, c))) for c in range(len(point.candidates))]
            for i, point in enumerate(self.points)
        ]

    def factors(self, value: Callable[[OpSpec], float]) -> tuple[Factor, ...]:
        """What :meth:`rows` leaves: the sums of a value over the blocks that several points decide together."""
        known: dict[OpSpec | None, float] = {None: 0.0}
        for node in self.joint:
            known.update((spec, float(value(spec))) for spec in node.specs if spec is not None and spec not in known)
        return merged([Factor(node.points, node.sizes, tuple(known[spec] for spec in node.specs)) for node in self.joint])

    def macs(self) -> list[list[float]]:
        """For each point the multiply-accumulates that each candidate adds by itself."""
        return self.rows(lambda op: op.macs)

    def joint_macs(self) -> tuple[Factor, ...]:
        """The multiply-accumulates that several points decide together."""
        return self.factors(lambda op: op.macs)

    def fixed(self) -> list[OpSpec]:
        """The blocks that every network of the space has, in order."""
        specs = [node.specs[0] for node in self.nodes if not node.points]
        return [spec for spec in specs if spec is not None]

    def architecture(self, choices: Sequence[int]) -> Architecture:
        """The architecture with these candidate indices.

        Raises:
            ShapeError: a wrong number of choices, an index out of range or no whole number, or a group that keeps too many or
                too few.
        """
        try:
            choices = tuple(operator.index(c) for c in choices)
        except TypeError as error:
            raise ShapeError(f"choices must be whole numbers, one a choice point, got {choices!r}") from error
        if len(choices) != len(self.points):
            raise ShapeError(f"space {self.name!r} has {len(self.points)} choice points, got {len(choices)} choices")
        for point, choice in zip(self.points, choices):
            if not 0 <= choice < len(point.candidates):
                raise ShapeError(f"{point.name} has candidates 0..{len(point.candidates) - 1}, got {choice}")
        for group in self.groups:
            kept = sum(choices[p] != self.points[p].zero for p in group.points)
            if kept != group.keep:
                names = ", ".join(self.points[p].name for p in group.points)
                raise ShapeError(f"exactly {group.keep} of {names} must be another candidate than their zero, got {kept}")
        return Architecture(self, choices)

    def sample(self, generator: torch.Generator) -> Architecture:
        """An architecture drawn uniformly with ``generator``."""
        if self.groups:
            rows = [torch.zeros(len(p.candidates)) for p in self.points]
            return self.architecture(group_of_points.draw(rows, self.groups, self.zeros, generator))
        return self.architecture([int(torch.randint(len(p.candidates), (), generator=generator)) for p in self.points])

    def best(self, scores: Sequence[Sequence[float]]) -> Architecture:
        """The architecture with the highest total score, the first of equal ones.

        Args:
            scores: for each point one score a candidate.
        """
        return self.architecture(group_of_points.best(scores, self.groups, self.zeros))

    def all_ops(self) -> list[OpSpec]:
        """Every different block that a table of this space must hold, in order of first appearance."""
        return list(dict.fromkeys(spec for node in self.nodes for spec in node.specs if spec is not None))


@dataclass(frozen=True)
class Architecture:
    """One choice for each point of a space."""

    space: SearchSpace = field(repr=False)
    choices: tuple[int, ...]

    @property
    def choice_names(self) -> tuple[str, ...]:
        """The chosen operation of each point."""
        return tuple(point.candidates[c] for point, c in zip(self.space.points, self.choices))

    def placed(self) -> list[Placed]:
        """The blocks of the network in order of execution, with what each reads; identities and zeros are absent."""
        return place_blocks(self.space.nodes, self.choices, self.space.zeros)

    def ops(self) -> list[OpSpec]:
        """The blocks of the network in order of execution; identities and zeros are absent."""
        return [block.spec for block in self.placed()]

    def wiring(self) -> tuple[tuple[int, ...], ...]:
        """For each block of :meth:`ops` the indices of the blocks that it reads."""
        return tuple(block.inputs for block in self.placed())

    def network(self) -> Network:
        """Blocks and wiring as the tables know them; no wiring for a chain."""
        placed = self.placed()
        wiring = tuple(block.inputs for block in placed)
        return Network.of((block.spec for block in placed), None if is_chain(wiring) else wiring)

    def one_hot(self) -> list[torch.Tensor]:
        """For each point ``[num_candidates]``, float64, 1 at the choice."""
        return [torch.eye(len(p.candidates), dtype=torch.float64)[c] for p, c in zip(self.space.points, self.choices)]

    def neighbours(self) -> list[Architecture]:
        """All architectures that differ in exactly one choice; in a group also those that keep one other point instead."""
        inside, zeros = group_of_points.grouped(self.space.groups), self.space.zeros
        changes = [
            {i: other}
            for i, point in enumerate(self.space.points)
            for other in range(len(point.candidates))
            if other != self.choices[i] and not (i in inside and zeros[i] in (other, self.choices[i]))
        ]
        for group in self.space.groups:
            kept = [p for p in group.points if self.choices[p] != zeros[p]]
            changes += [
                {old: group_of_points.zero_of(zeros, old), new: other}
                for old in kept
                for new in group.points
                if new not in kept
                for other in range(len(self.space.points[new].candidates))
                if other != zeros[new]
            ]
        return [self.space.architecture([change.get(i, c) for i, c in enumerate(self.choices)]) for change in changes]

    def distance(self, other: Architecture) -> int:
        """Number of points that differ (Hamming distance)."""
        if len(other.choices) != len(self.choices):
            raise ShapeError(f"architectures of {len(self.choices)} and {len(other.choices)} choices have no distance")
        return sum(a != b for a, b in zip(self.choices, other.choices))

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object, readable without the space's code; :func:`architecture_from_dict` reads it back."""
        network = self.network()
        return {
            "format": FORMAT,
            "space": self.space.name,
            "space_config": self.space.config,
            "frame_shape": list(self.space.frame_shape),
            "num_actions": self.space.num_actions,
            "policy": self.space.policy,
            "choices": list(self.choices),
            "choice_names": list(self.choice_names),
            "operations": [op.to_dict() for op in network],
            **({} if network.wiring is None else {"wiring": [list(inputs) for inputs in network.wiring]}),
            **({"parts": [part.to_dict() for part in self.space.parts]} if self.space.parts else {}),
            **({"action_sizes": list(self.space.action_sizes)} if self.space.action_sizes else {}),
        }


@dataclass(frozen=True)
class SpaceEntry:
    """Registry record of a kind of space.

    Attributes:
        name, description: for lists.
        make: (config as plain JSON, frame_shape, num_actions) -> the space; it need not know of policies.
        takes: observations it is made for, ``frames`` (images), ``vectors``, or ``parts`` (several encoders).
        is_default: the one that is chosen for such observations where none is named.
        suited: frame_shape -> configuration values that suit such observations better than the defaults do.
        join: (config as plain JSON, parts, num_actions) -> the space, instead of ``make`` where it takes parts.
        for_students: the one for a policy's smaller student where none is named: its networks go down to the smallest.
        with_memory: configuration values that give its networks a memory; None: it has none.
    """

    name: str
    description: str
    make: Callable[[Mapping[str, object], tuple[int, ...], int], SearchSpace]
    takes: str = "frames"
    is_default: bool = False
    suited: Callable[[tuple[int, ...]], dict[str, object]] = lambda frame_shape: {}
    join: Callable[[Mapping[str, object], tuple[Part, ...], int], SearchSpace] | None = None
    for_students: bool = False
    with_memory: Mapping[str, object] | None = None

    def build(
        self,
        values: Mapping[str, object],
        frame_shape: tuple[int, ...],
        num_actions: int,
        policy: str,
        parts: tuple[Part, ...] = (),
        action_sizes: tuple[int, ...] = (),
    ) -> SearchSpace:
        """The space for a task.

        Args:
            values: configuration values, plain JSON.
            frame_shape, num_actions, policy, parts, action_sizes: as in :class:`SearchSpace`.

        Raises:
            ConfigError: it takes other observations, or the values do not fit.
        """
        shape = single_shape(frame_shape, parts)
        given = "parts" if shape is None else observations_of(shape)
        if given != self.takes or (shape is None) != (self.join is not None):
            others = [entry.name for entry in SPACES.entries() if entry.takes == given]
            raise ConfigError(
                f"space {self.name!r} takes {self.takes}, the task gives {given} of shape "
                f"{tuple(frame_shape)}; leave space.name out, or choose {' or '.join(others)}"
            )
        if shape is None and self.join is not None:
            space = self.join(values, parts, num_actions)
        else:
            space = self.make(values, shape or frame_shape, num_actions)
        return replace(space, policy=policy, frame_shape=tuple(frame_shape), parts=parts, action_sizes=action_sizes)


SPACES: Registry[SpaceEntry] = Registry("space", entry_point_group="cosearch.spaces")


def architecture_from_dict(values: object, source: str = "architecture") -> Architecture:
    """The architecture that :meth:`Architecture.to_dict` wrote.

    Args:
        values: the JSON object.
        source: where it came from, for the message.

    Raises:
        ConfigError: not such an object, or its blocks are not those of its choices.
    """
    needed = {"format", "space", "space_config", "frame_shape", "num_actions", "choices"}
    if not isinstance(values, dict) or values.get("format") != FORMAT or not needed <= set(values):
        raise ConfigError(
            f"{source}: expected an architecture written by cosearch (format {FORMAT!r} with the keys "
            f"{', '.join(sorted(needed))}). `cosearch sample --n 1 --out DIR` writes an example"
        )
    name, frame_shape, num_actions = values["space"], values["frame_shape"], values["num_actions"]
    policy = values.get("policy", "categorical")
    sizes = [*frame_shape, num_actions] if isinstance(frame_shape, (list, tuple)) else [None]
    if not all(type(size) is int and 1 <= size <= MAX_TASK_SIZE for size in sizes) or policy not in POLICIES:
        raise ConfigError(
            f"{source}: not a valid architecture: frame_shape and num_actions must be whole numbers from 1 to {MAX_TASK_SIZE}, "
            f"and policy one of {', '.join(POLICIES)}; got {shown(frame_shape)}, {shown(num_actions)} and {shown(policy)}"
        )
    if not isinstance(name, str):
        raise ConfigError(f"{source}: not a valid architecture: space must be the name of a space, got {shown(name)}")
    try:
        parts, factors = parts_from(values.get("parts", [])), tuple(values.get("action_sizes", ()))
        space = SPACES.get(name).build(values["space_config"], tuple(frame_shape), num_actions, policy, parts, factors)
        architecture = space.architecture(values["choices"])
    except (TypeError, ValueError, KeyError, AttributeError, RequestError) as error:
        raise ConfigError(f"{source}: not a valid architecture: {str(error)[:400]}") from error
    again = architecture.to_dict()
    if any(key in values and values[key] != again.get(key) for key in ("operations", "wiring")):
        raise ConfigError(f"{source}: its list of operations is not that of its choices; the file was edited or damaged")
    return architecture
