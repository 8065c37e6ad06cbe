"""Random search: the control that stands beside every search result.

Draws architectures uniformly among those that meet the target, gives each an equal share of the search's environment steps
and keeps the one with the best training score. No weights are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from cosearch.config.ranges import Positive
from cosearch.record.state import State
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, StrategyInfo, always_feasible, own_options
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws


@dataclass(frozen=True)
class RandomOptions:
    """Options of random search.

    Attributes:
        draws: attempts to draw one architecture that meets the target before giving up.
    """

    draws: Positive = DRAWS


class RandomSearch:
    """Uniform proposals that meet the target.

    Args:
        space: the search space.
        options: see :class:`RandomOptions`.
        generator: CPU generator of the draws.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: RandomOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()

    def ask(self) -> Architecture:
        """A uniformly drawn architecture that meets the target.

        Raises:
            InfeasibleTargetError: none was found in ``options.draws`` attempts.
        """
        return self.uniform.draw()

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
        "random",
        "uniform architectures that meet the target, equal shares of the budget: the control",
        "Li & Talwalkar, UAI 2019, arXiv 1902.07638",
        "proposal",
        False,
        True,
        RandomSearch,
        partial(own_options, RandomOptions),
        ("candidate_init",),
        any_order=True,
        learns_from_results=lambda config: False,
    )
)
