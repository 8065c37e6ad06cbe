"""The third kind of strategy, ``one-shot``: a supernet's weights learn along drawn paths, then proposals are scored with them.

Its proposals come from a proposal strategy that it owns, so that any of them can search on shared weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from cosearch.config.search import StrategyConfig
from cosearch.space.space import Architecture
from cosearch.strategies.base import ProposalStrategy, StrategyInfo

ScoreBy = Literal["episodes", "frames"]


@dataclass(frozen=True)
class Scoring:
    """What is scored with the weights of the supernet, and at which cost.

    Attributes:
        proposals: architectures in all rounds together.
        share: of the search's environment steps that scoring takes, above 0 and below 1; the rest trains the supernet.
        by: ``episodes``: mean return on validation levels; ``frames``: minus the loss that a path is credited with, on held-out
            frames that paths of the supernet played there.
        rounds: how often training and scoring follow each other.
        one_agent: whether a search gives one agent only, not those of a family.
    """

    proposals: int
    share: float
    by: ScoreBy
    rounds: int = 1
    one_agent: bool = False


@runtime_checkable
class OneShotOptions(Protocol):
    """What the options of all one-shot strategies have."""

    @property
    def scoring(self) -> Scoring:
        """See :class:`Scoring`."""


class OneShotStrategy(ProposalStrategy, Protocol):
    """Strategies that draw the paths that a supernet learns along, and propose architectures that its weights then score."""

    @property
    def paths_a_step(self) -> int:
        """Minibatches whose gradients are added up before a step of the weights, each along a path of its own."""

    def playing_path(self) -> Architecture:
        """A path that steps environments during a rollout."""

    def learning_path(self) -> Architecture:
        """The path of the next minibatch of the weights."""


@runtime_checkable
class StagedStrategy(OneShotStrategy, Protocol):
    """One-shot strategies whose rounds differ."""

    def begin_round(self, index: int) -> None:
        """Called before the training of each round, in their order.

        Args:
            index: of the round, from 0.
        """


def scoring_of(info: StrategyInfo, config: StrategyConfig) -> Scoring:
    """What a one-shot strategy scores.

    Args:
        info: its record.
        config: the section ``strategy``.

    Raises:
        TypeError: its options do not say it.
    """
    options = info.options(config)
    if not isinstance(options, OneShotOptions):
        raise TypeError(f"the options of one-shot strategy {info.name!r} need an attribute 'scoring', got {options!r}")
    return options.scoring
