"""What a two-level strategy is handed for each minibatch: losses along any path, further minibatches, the step of the weights.

What a strategy may ask for besides, it asks for by having the method of one of the protocols at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from cosearch.space.space import Architecture
from cosearch.space.supernet import Path

Backward = Callable[[], float]  # a backward pass; returns the loss
WeightStep = Callable[[Sequence[Tensor]], Sequence[Tensor]]  # gradients -> what training would add to each weight; differentiable


class Minibatch(Protocol):
    """The loss on one minibatch of one half of the experience."""

    def __call__(self, path: Path | None = None) -> float:
        """Add the gradients of the loss to those of weights and logits.

        Args:
            path: along which; the strategy's ``weighted`` gives its weights anew for each part of the minibatch. None: one that
                is drawn once for this minibatch and its other half.

        Returns:
            The loss; of the held-out half with the penalties of the targets.
        """

    def loss(self, path: Path) -> float:
        """The loss along a path as it is, without penalties; nothing gets a gradient."""

    def another(self) -> Minibatch:
        """Another minibatch of the same half, drawn at this call."""


@runtime_checkable
class WatchesGradients(Protocol):
    """Strategies that want to know how large the gradients of the weights are."""

    def weights_learned(self, gradient_norm: float) -> None:
        """Told after each step of the weights, also during the warm-up.

        Args:
            gradient_norm: of all weights together, before clipping.
        """


@dataclass(frozen=True)
class BlackBoxCost:
    """What whole architectures cost, measured or predicted, without a gradient.

    Attributes:
        relative: of an architecture: for each target its cost over the bound, 1 where it is met just so.
        penalty: ``[targets]`` relative costs -> the penalties of the targets ``[]``, differentiable; zero with one for each where
            all are met.
    """

    relative: Callable[[Architecture], Sequence[float]]
    penalty: Callable[[Tensor], Tensor]


@runtime_checkable
class AsksForCosts(Protocol):
    """Strategies that ask for the costs of whole architectures; their loss then has no penalty on an expected cost."""

    def set_cost(self, cost: BlackBoxCost) -> None:
        """Handed over once, before the search; called only in a search with a target."""


@runtime_checkable
class HasPenalty(Protocol):
    """Strategies whose penalty for a missed target has a form of their own, without a dual variable."""

    def penalty(self, relative: Tensor) -> Tensor:
        """The penalty ``[]`` of an expected cost over its bound ``[]``, 1 where it is met just so; zero up to there."""


@runtime_checkable
class SeesCosts(Protocol):
    """Strategies that look at the costs of whole architectures beside the penalty of the expected ones."""

    def set_relative_costs(self, relative: Callable[[Architecture], Sequence[float]]) -> None:
        """Handed over once, before the search; called only in a search with a target.

        Args:
            relative: of an architecture: for each target its cost over the bound, 1 where it is met just so.
        """


HeldOut = Literal["frames", "levels"]


@runtime_checkable
class ChoosesHeldOut(Protocol):
    """Two-level strategies, and their options, that say what their held-out half is."""

    @property
    def held_out(self) -> HeldOut:
        """``frames``: half of the frames of the training levels; ``levels``: of validation levels, which weights never see."""
