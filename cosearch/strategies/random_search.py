"""Random search: the control that stands beside every search result.

Draws architectures uniformly among those that meet the target, gives each an equal share of the search's environment steps
and keeps the one with the best training score. No weights are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, StrategyInfo, anything, own_options
from latency_tables.errors import InfeasibleTargetError, RequestError


@dataclass(frozen=True)
class RandomOptions:
    """Options of random search.

    Attributes:
        draws: attempts to draw one architecture that meets the target before giving up.
    """

    draws: int = 200_000


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
        is_feasible: Callable[[Architecture], bool] = anything,
    ) -> None:
        self.space, self.options, self.generator, self.is_feasible = space, options, generator, is_feasible
        self.results: list[tuple[tuple[int, ...], float | None, float]] = []

    def ask(self) -> Architecture:
        """A uniformly drawn architecture that meets the target.

        Raises:
            InfeasibleTargetError: see :meth:`draw`.
        """
        return self.draw()

    def draw(self) -> Architecture:
        """The same, for the first proposals of other strategies.

        Raises:
            InfeasibleTargetError: none was found in ``options.draws`` attempts.
        """
        for _ in range(self.options.draws):
            found = self.space.sample(self.generator)
            if self.is_feasible(found):
                return found
        raise InfeasibleTargetError(
            f"{self.options.draws} random architectures of space {self.space.name!r} all miss the "
            "target; ask for a higher objective.latency_target_s"
        )

    def tell(self, result: Evaluation) -> None:
        """Record a result."""
        self.results.append((result.architecture.choices, result.score, result.cost_s))

    def best(self) -> int:
        """Index of the highest score, the first of equal ones; a candidate without a finished episode counts as the worst.

        Raises:
            RequestError: nothing was told.
        """
        if not self.results:
            raise RequestError("the search was told no result yet, so it has no best one")
        return max(range(len(self.results)), key=lambda index: worth(self.results[index][1]))

    def state(self) -> dict[str, Any]:
        """All results."""
        return {"results": [[list(choices), score, cost] for choices, score, cost in self.results]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.results = [(tuple(choices), score, cost) for choices, score, cost in state["results"]]


def worth(score: float | None) -> float:
    """A score for comparisons: none is worse than any."""
    return float("-inf") if score is None else score


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
    )
)
