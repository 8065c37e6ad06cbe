"""Local search: neighbours of the best architecture so far, one after the other; where none is better, a new start.

Paper: White et al., Exploring the Loss Landscape in NAS, UAI 2021, arXiv 2005.02960; den Ottelander et al.,
Local Search is a Remarkably Strong Baseline for Neural Architecture Search, EMO 2021, arXiv 2004.08996.
Equations, with N(a) the architectures that differ from a in one choice and f the score of a trained candidate:
  centre = argmax f over the candidates of this climb;  the first candidate of a climb is drawn uniformly
  next   = uniform over N(centre) without those that were ever proposed;  where that is empty, a new climb begins
  result = argmax f over all candidates that were ever told
It has no parameters, and a benchmark whose landscape is smooth falls to it: whatever is to count as a search should beat it.
Differs from the papers in:
1. The first better neighbour becomes the centre at once; White et al. also look at all of them and take the best.
2. Only neighbours that meet the target count. There the papers have no target.
3. A score is trusted although it is noisy: no neighbour is trained twice. A new start may be one that was trained before.
4. Candidates that are trained at once (``strategy.workers``) are asked for together: those that are asked for before the first
   one of a climb is told are all drawn uniformly, and the best of them is its centre.
5. A candidate whose training failed is no centre; a climb whose candidates all failed goes on with uniform draws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from cosearch.record.state import State, read, read_list
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, StrategyInfo, always_feasible, own_options
from cosearch.strategies.proposal.random_search import RandomOptions
from cosearch.strategies.proposals import Results, UniformDraws, read_choices


class LocalSearch:
    """Hill climbing with restarts.

    Args:
        space: the search space.
        options: see :class:`RandomOptions`.
        generator: CPU generator of all draws.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: RandomOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results, self.space = UniformDraws(space, generator, is_feasible, options.draws), Results(), space
        self.asked: list[tuple[int, ...]] = []
        self.begun = 0  # the first proposal of this climb

    def ask(self) -> Architecture:
        """A neighbour of the climb's centre, or a new start.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        near = self.open_neighbours()
        if not near and self.results.trained(self.begun):
            self.begun = len(self.asked)
        proposed = self.uniform.one_of(near)
        self.asked.append(proposed.choices)
        return proposed

    def tell(self, result: Evaluation) -> None:
        """Record a result."""
        self.results.add(result)

    def open_neighbours(self) -> list[Architecture]:
        """Those of the centre that meet the target and were never proposed; none before a climb's first trained candidate."""
        climb = self.results.trained(self.begun)
        if not climb:
            return []
        centre = self.results[max(climb, key=lambda index: self.results[index].worth)]
        known = set(self.asked)
        return [near for near in self.uniform.neighbours(self.space.architecture(centre.choices)) if near.choices not in known]

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results, all proposals, and where the climb began."""
        return {**self.results.state(), "asked": [list(choices) for choices in self.asked], "begun": self.begun}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        self.asked, self.begun = [read_choices(choices) for choices in read_list(state, "asked", list)], read(state, "begun", int)


STRATEGIES.register(
    StrategyInfo(
        "local-search",
        "hill climbing: neighbours of the best so far, a new start where none is better",
        "White et al., UAI 2021, arXiv 2005.02960",
        "proposal",
        False,
        True,
        LocalSearch,
        partial(own_options, RandomOptions),
    )
)
