"""Regularised (aging) evolution: the best of a small random sample has a mutated child, and the oldest member dies.

Paper: Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019, arXiv 1802.01548, algorithm 1.
Equations, with P the size of the population, S that of the tournament and f the score of a trained candidate:
  population = the last P candidates that were told; the first P are drawn uniformly
  parent     = argmax f over S members, drawn uniformly with replacement
  child      = parent with one choice changed;  trained, it is added, and the oldest member dies whatever its score
  result     = argmax f over all candidates that were ever told
A member must be found again to stay: a score that was only lucky dies of age, which matters in RL, whose scores are noisy.
Differs from the paper in:
1. A mutation is drawn uniformly among the neighbours (one other choice at one point) that meet the target, where the paper draws
   a kind of mutation, then a place. It has no target; here also the first P are drawn among what meets it.
2. A parent none of whose neighbours meets the target has no child; a random architecture that meets it is taken instead.
3. The budget is a number of environment steps in equal shares (``strategy.candidates`` of them), not a number of epochs each.
4. P and S suit tens of candidates, not 20,000 (P = 100, S = 25): P is half of the candidates and at most 8, S a quarter of P
   and at least 2, unless ``strategy.values.population`` and ``strategy.values.tournament`` say otherwise.
5. Candidates that are trained at once (``strategy.workers``) are few beside the paper's 450 workers; as there, each is asked for
   when a worker is free and joins the population when its training ends.
6. A candidate whose training failed is a member with the lowest score: it has a child only where its whole tournament failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from cosearch.config.ranges import Count, Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, StrategyInfo, always_feasible, own_options, refuse_without_effect
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws

POPULATION_MAX = 8


@dataclass(frozen=True)
class EvolutionOptions:
    """Options of the evolution.

    Attributes:
        draws: attempts to draw one architecture that meets the target before giving up.
        population: P, members; 0: see :func:`default_population`.
        tournament: S, members that compete to be the parent; 0: a quarter of P, at least 2.
    """

    draws: Positive = DRAWS
    population: Count = 0
    tournament: Count = 0


def default_population(candidates: int) -> int:
    """Half of the candidates, rounded up, at most :data:`POPULATION_MAX`."""
    return min(POPULATION_MAX, -(-candidates // 2))


def evolution_options(config: StrategyConfig) -> EvolutionOptions:
    """The options from the section ``strategy`` of the configuration; sizes of 0 become what they stand for."""
    options = own_options(EvolutionOptions, config)
    population = options.population or default_population(config.candidates)
    if population >= config.candidates:
        refuse_without_effect(config, ["tournament"], f"strategy.candidates={config.candidates}, which are all drawn uniformly")
    return replace(options, population=population, tournament=options.tournament or max(2, population // 4))


class Evolution:
    """Aging evolution.

    Args:
        space: the search space.
        options: see :class:`EvolutionOptions`, with both sizes above 0.
        generator: CPU generator of all draws.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: EvolutionOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()
        self.space, self.options, self.generator = space, options, generator
        self.asked = 0

    def ask(self) -> Architecture:
        """One of the first P, or a child of the tournament's winner.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        self.asked += 1
        if self.asked <= self.options.population or not self.results:
            return self.uniform.draw()
        return self.child_of(self.space.architecture(self.results[self.parent()].choices))

    def tell(self, result: Evaluation) -> None:
        """Record a result: it joins the population, and the oldest member dies."""
        self.results.add(result)

    def parent(self) -> int:
        """Index of the result that wins a tournament; the first drawn of equal ones."""
        oldest = max(0, len(self.results) - self.options.population)
        drawn = torch.randint(oldest, len(self.results), (self.options.tournament,), generator=self.generator)
        return max(drawn.tolist(), key=lambda index: (not self.results[index].failed, self.results[index].worth))

    def child_of(self, parent: Architecture) -> Architecture:
        """A neighbour that meets the target, drawn uniformly; a random architecture where there is none."""
        return self.uniform.one_of(self.uniform.neighbours(parent))

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results, and how many were asked for."""
        return {**self.results.state(), "asked": self.asked}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        self.asked = read(state, "asked", int)


STRATEGIES.register(
    StrategyInfo(
        "evolution",
        "aging evolution: tournament winners have mutated children, the oldest die",
        "Real et al., AAAI 2019, arXiv 1802.01548",
        "proposal",
        False,
        True,
        Evolution,
        evolution_options,
        any_order=True,
    )
)
