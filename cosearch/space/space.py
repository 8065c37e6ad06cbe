"""The search-space record. Network, sampler, cost and derivation are four readers of this one structure.

A space is a stem, a chain of choice points with their candidate blocks, and a head. An architecture is one choice for each
point. Neither knows how it is trained or costed.
"""
from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cosearch.registry import Registry
from latency_tables.errors import ConfigError, RequestError, ShapeError
from latency_tables.opspec import OpSpec

FORMAT = "cosearch-architecture-1"


@dataclass(frozen=True)
class ChoicePoint:
    """One place where the search chooses.

    Attributes:
        name: unique in its space, e.g. ``stage1.cell0``.
        candidates: operation names, in registry vocabulary.
        specs: the block of each candidate; None is the identity, which is absent from the network.
    """

    name: str
    candidates: tuple[str, ...]
    specs: tuple[OpSpec | None, ...]

    def __post_init__(self) -> None:
        if not self.candidates or len(self.candidates) != len(self.specs) or len(set(self.candidates)) != len(self.candidates):
            raise ShapeError(f"choice point {self.name!r} needs one block for each of its differently named candidates, "
                             f"got {self.candidates!r} and {len(self.specs)} blocks")


@dataclass(frozen=True)
class SearchSpace:
    """Stem, choice points in order of execution, head.

    Attributes:
        name: registry name of the kind of space.
        config: the values that made it, as plain JSON: enough to build it again.
        frame_shape: ``(height, width, channels)`` of the uint8 frames.
        num_actions: discrete actions.
        stem, points, head: the blocks.
    """

    name: str
    config: dict[str, Any] = field(hash=False)
    frame_shape: tuple[int, int, int]
    num_actions: int
    stem: OpSpec
    points: tuple[ChoicePoint, ...]
    head: OpSpec

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(point.candidates) for point in self.points)

    def architecture(self, choices: Sequence[int]) -> Architecture:
        """The architecture with these candidate indices.

        Raises:
            ShapeError: a wrong number of choices, an index out of range or no whole number.
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
        return Architecture(self, choices)

    def sample(self, generator: torch.Generator) -> Architecture:
        """An architecture drawn uniformly with ``generator``."""
        return self.architecture([int(torch.randint(len(p.candidates), (), generator=generator)) for p in self.points])

    def all_ops(self) -> list[OpSpec]:
        """Every different block that a table of this space must hold, in order of first appearance."""
        specs = [self.stem, *(s for p in self.points for s in p.specs if s is not None), self.head]
        return list(dict.fromkeys(specs))


@dataclass(frozen=True)
class Architecture:
    """One choice for each point of a space."""

    space: SearchSpace = field(repr=False)
    choices: tuple[int, ...]

    @property
    def choice_names(self) -> tuple[str, ...]:
        """The chosen operation of each point."""
        return tuple(point.candidates[c] for point, c in zip(self.space.points, self.choices))

    def ops(self) -> list[OpSpec]:
        """The blocks of the network in order of execution; identities are absent."""
        chosen = [point.specs[c] for point, c in zip(self.space.points, self.choices)]
        return [self.space.stem, *(spec for spec in chosen if spec is not None), self.space.head]

    def one_hot(self) -> list[torch.Tensor]:
        """For each point ``[num_candidates]``, float64, 1 at the choice."""
        return [torch.eye(len(p.candidates), dtype=torch.float64)[c] for p, c in zip(self.space.points, self.choices)]

    def neighbours(self) -> list[Architecture]:
        """All architectures that differ in exactly one choice."""
        return [self.space.architecture([*self.choices[:i], other, *self.choices[i + 1:]])
                for i, point in enumerate(self.space.points)
                for other in range(len(point.candidates)) if other != self.choices[i]]

    def distance(self, other: Architecture) -> int:
        """Number of points that differ (Hamming distance)."""
        if len(other.choices) != len(self.choices):
            raise ShapeError(f"architectures of {len(self.choices)} and {len(other.choices)} choices have no distance")
        return sum(a != b for a, b in zip(self.choices, other.choices))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON object, readable without the space's code; :func:`architecture_from_dict` reads it back."""
        return {
            "format": FORMAT, "space": self.space.name, "space_config": self.space.config,
            "frame_shape": list(self.space.frame_shape), "num_actions": self.space.num_actions,
            "choices": list(self.choices), "choice_names": list(self.choice_names),
            "operations": [op.to_dict() for op in self.ops()],
        }


@dataclass(frozen=True)
class SpaceEntry:
    """Registry record of a kind of space.

    Attributes:
        name, description: for lists.
        make: (config as plain JSON, frame_shape, num_actions) -> the space.
    """

    name: str
    description: str
    make: Callable[[dict[str, Any], tuple[int, int, int], int], SearchSpace]


SPACES: Registry[SpaceEntry] = Registry("space", entry_point_group="cosearch.spaces")


def architecture_from_dict(values: Any, source: str = "architecture") -> Architecture:
    """The architecture that :meth:`Architecture.to_dict` wrote.

    Args:
        values: the JSON object.
        source: where it came from, for the message.

    Raises:
        ConfigError: not such an object, or its blocks are not those of its choices.
    """
    needed = {"format", "space", "space_config", "frame_shape", "num_actions", "choices"}
    if not isinstance(values, dict) or values.get("format") != FORMAT or not needed <= set(values):
        raise ConfigError(f"{source}: expected an architecture written by cosearch (format {FORMAT!r} with the keys "
                          f"{', '.join(sorted(needed))}). `cosearch sample --n 1 --out DIR` writes an example")
    try:
        space = SPACES.get(values["space"]).make(values["space_config"], tuple(values["frame_shape"]), values["num_actions"])
        found = space.architecture(values["choices"])
    except (TypeError, ValueError, KeyError, AttributeError, RequestError) as error:
        raise ConfigError(f"{source}: not a valid architecture: {error}") from error
    if "operations" in values and values["operations"] != [op.to_dict() for op in found.ops()]:
        raise ConfigError(f"{source}: its list of operations is not the one that its choices make; "
                          "the file was edited or damaged")
    return found


def load_architecture(path: Path) -> Architecture:
    """Read an architecture file.

    Raises:
        ConfigError: missing, not JSON, or not an architecture.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as an architecture: {error}") from error
    return architecture_from_dict(values, str(path))
