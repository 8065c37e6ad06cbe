"""What a condition is: something that must hold for an option to have an effect, and the words where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cosearch.config.run import Config
from cosearch.planning.request import Request
from cosearch.space.parts import Part


@dataclass(frozen=True)
class Condition:
    """What must hold for an option to have an effect.

    Attributes:
        name: for the documentation: "has an effect where NAME".
        holds: (request, key) -> whether it does.
        without: (request, key) -> the words after "has no effect".
        instead: (request, key) -> what else could be set; empty: nothing.
    """

    name: str
    holds: Callable[[Request, str], bool]
    without: Callable[[Request, str], str]
    instead: Callable[[Request, str], str]


class Asked(Protocol):
    """What is known of any training, a teacher's too: see ``Request``."""

    @property
    def config(self) -> Config:
        """The configuration."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(height, width, channels)`` of images, or ``(features,)`` of vectors."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of the observations; none where they are one image or vector."""


@dataclass(frozen=True)
class Training:
    """A training without a search; see :class:`Asked`.

    Attributes:
        config, frame_shape, parts: of it.
    """

    config: Config
    frame_shape: tuple[int, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class TrainingCondition:
    """A condition on the algorithm and the environment alone, which holds for the training of a teacher as for a search's.

    Attributes:
        name, holds, without, instead: as of :class:`Condition`, of what is known of any training.
    """

    name: str
    holds: Callable[[Asked, str], bool]
    without: Callable[[Asked, str], str]
    instead: Callable[[Asked, str], str]
