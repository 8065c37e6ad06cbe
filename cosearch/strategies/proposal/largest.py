"""The largest network that fits: the control that needs no search.

Its one candidate is the largest architecture that meets the targets, by what ``strategy.values.by`` says,
  argmax_a size(a)  subject to every limit  (the knapsack of ``cosearch.space.derive``, solved exactly),
and it has all environment steps of the search. Sizes: the multiply-accumulates (``macs``), the ``weights``, and for ``both``
  the largest product  macs(a) weights(a)  among  argmax_a s macs(a) / M + (1 - s) weights(a) / W,  s = 0, 1/32, ..., 1,
with M and W the largest of each. Either size can be high where the other is low: a pooled head leaves time for
multiply-accumulates and has few weights, a flat one on a large map the other way round.
No score is looked at: a search that finds no better agent has found nothing that this rule does not. Of architectures with
equally many the derivation's first is taken; no random number is drawn.
A rule and no paper's method. Why a search must stand beside simple baselines: Yang, Esperança and Carlucci, NAS Evaluation is
Frustratingly Hard, ICLR 2020, arXiv 1912.12522; that both sizes rank networks about as well as the estimates made to replace
training: Krishnakumar et al., NAS-Bench-Suite-Zero, NeurIPS 2022, arXiv 2210.03230.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from cosearch.record.state import State
from cosearch.space.derive import discretise
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import PROPOSAL_ONLY, STRATEGIES, Evaluation, Feasible, StrategyInfo, own_options
from cosearch.strategies.proposals import Results, size_of
from latency_tables.opspec import OpSpec

STEPS = 32  # between all weights and all multiply-accumulates


@dataclass(frozen=True)
class LargestOptions:
    """Options of the rule.

    Attributes:
        by: what counts as large: ``macs``, ``weights`` or ``both``.
    """

    by: Literal["macs", "weights", "both"] = "macs"


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
        if self.by == "macs":
            return self._most(lambda op: op.macs)
        weights = self._most(lambda op: op.params)
        if self.by == "weights":
            return weights
        most_macs = sum(op.macs for op in self._most(lambda op: op.macs).ops()) or 1
        most_weights = sum(op.params for op in weights.ops()) or 1

        def mixed(share: float) -> Architecture:
            return self._most(lambda op: share * op.macs / most_macs + (1.0 - share) * op.params / most_weights)

        return max((mixed(step / STEPS) for step in range(STEPS + 1)), key=size_of)

    def _most(self, value: Callable[[OpSpec], float]) -> Architecture:
        """The architecture within the limits whose blocks have the largest sum of a value."""
        return discretise(self.space, self.space.rows(value), *self.is_feasible.limits, joint=self.space.factors(value))

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
        PROPOSAL_ONLY,
    )
)
