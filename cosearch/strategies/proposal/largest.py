"""The largest network that fits: the control that needs no search.

Its one candidate is the architecture with the most multiply-accumulates that meets the targets,
  argmax_a macs(a)  subject to every limit  (the knapsack of ``cosearch.space.derive``, solved exactly),
and it has all environment steps of the search. No score is looked at: a search that finds no better agent has found nothing that
this rule does not. Of architectures with equally many the derivation's first is taken; no random number is drawn.
A rule and no paper's method; why a search must stand beside simple baselines: Yang, Esperança and Carlucci, NAS Evaluation is
Frustratingly Hard, ICLR 2020, arXiv 1912.12522.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from cosearch.record.state import State
from cosearch.space.derive import discretise
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import PROPOSAL_ONLY, STRATEGIES, Evaluation, Feasible, StrategyInfo, own_options
from cosearch.strategies.proposals import Results


@dataclass(frozen=True)
class LargestOptions:
    """It has none."""


class Largest:
    """Proposes the architecture with the most multiply-accumulates within the limits, whenever it is asked.

    Args:
        space: the search space.
        options: none.
        generator: not drawn from.
        is_feasible: gives the limits.
    """

    def __init__(self, space: SearchSpace, options: LargestOptions, generator: torch.Generator, is_feasible: Feasible) -> None:
        self.space, self.is_feasible, self.results = space, is_feasible, Results()

    def ask(self) -> Architecture:
        """The architecture.

        Raises:
            InfeasibleTargetError: none meets the limits.
        """
        return discretise(self.space, self.space.macs(), *self.is_feasible.limits, joint=self.space.joint_macs())

    def tell(self, result: Evaluation) -> None:
        """Record a result."""
        self.results.add(result)

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results."""
        return self.results.state()

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)


STRATEGIES.register(
    StrategyInfo(
        "largest",
        "the most multiply-accumulates that meet the target, with the whole budget: the control without a search",
        "a rule; why it is needed: Yang et al., ICLR 2020, arXiv 1912.12522",
        "proposal",
        False,
        True,
        Largest,
        partial(own_options, LargestOptions),
        PROPOSAL_ONLY,
    )
)
