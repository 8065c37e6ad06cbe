"""The largest network that fits: the control that needs no search.

Its one candidate is the largest architecture that meets the targets, by what ``strategy.values.by`` says,
  argmax_a size(a)  subject to every limit  (``cosearch.space.derivation.largest``: multiply-accumulates, weights, or both),
and it has all environment steps of the search.
No score is looked at: a search that finds no better agent has found nothing that this rule does not. No random number is drawn.
A rule and no paper's method. Why a search must stand beside simple baselines: Yang, Esperança and Carlucci, NAS Evaluation is
Frustratingly Hard, ICLR 2020, arXiv 1912.12522; that both sizes rank networks about as well as the estimates made to replace
training: Krishnakumar et al., NAS-Bench-Suite-Zero, NeurIPS 2022, arXiv 2210.03230.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from cosearch.record.state import State
from cosearch.space.derivation.largest import Size, largest
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import PROPOSAL_ONLY, STRATEGIES, Evaluation, Feasible, StrategyInfo, own_options
from cosearch.strategies.proposals import Results


@dataclass(frozen=True)
class LargestOptions:
    """Options of the rule.

    Attributes:
        by: what counts as large: ``macs``, ``weights`` or ``both``.
    """

    by: Size = "macs"


class Largest:
    """Proposes the largest architecture within the limits, whenever it is asked.

    Args:
        space: the search space.
        options: see :class:`LargestOptions`.
        generator: not drawn from.
        is_feasible: gives the limits.
    """

    def __init__(self, space: SearchSpace, options: LargestOptions, generator: torch.Generator, is_feasible: Feasible) -> None:
        self.space, self.by, self.is_feasible, self.results = space, options.by, is_feasible, Results()

    def ask(self) -> Architecture:
        """The architecture.

        Raises:
            InfeasibleTargetError: none meets the limits.
        """
        return largest(self.space, *self.is_feasible.limits, by=self.by)

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
        "the largest network that meets the target, with the whole budget: the control without a search",
        "a rule; why it is needed: Yang et al., ICLR 2020, arXiv 1912.12522",
        "proposal",
        False,
        True,
        Largest,
        partial(own_options, LargestOptions),
        tuple(key for key in PROPOSAL_ONLY if key != "frames"),
        learns_from_results=lambda config: False,
    )
)
