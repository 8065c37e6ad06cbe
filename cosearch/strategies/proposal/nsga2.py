"""NSGA-II: a population that moves towards all good trade-offs between score and latency at once.

Paper: Deb, Pratap, Agarwal, Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE Transactions on
Evolutionary Computation 6(2), 2002, pp. 182-197. Objectives, both minimised: minus the score, and the latency.
Equations:
  p dominates q     : no objective of p is worse than q's, and one is better
  front 1, 2, ...   : what nothing dominates; what nothing dominates once the fronts before are taken away; ...
  distance of i     : sum over objectives m of (f_m(next of i) - f_m(previous of i)) / (max f_m - min f_m) within its front sorted
                      by f_m; infinite at both ends
  i beats j         : front(i) < front(j), or equal and distance(i) > distance(j)
  next parents      : the N first of parents and offspring together, by that order (the best ones are never lost)
  offspring         : two binary tournaments choose the parents, crossover, mutation
The agent that is handed on is the one with the highest score, which is on the first front.
Differs from the paper in:
1. Architectures are discrete: uniform crossover (each point from either parent, with probability 0.9, else a copy of the first)
   and mutations to neighbours, as many as n trials of probability 1/n for n points give; the paper's real-valued operators
   (simulated binary crossover, polynomial mutation) have no meaning here.
2. The constraint is the target: what does not meet it is never proposed, so that constrained domination is not needed.
3. A child that was proposed before is drawn again, up to ``ATTEMPTS`` times: a space of few choices would fill with copies.
4. Sizes for tens of candidates: N is half of the candidates and at most 8 unless ``strategy.values.population`` says otherwise.
5. A candidate without a finished episode counts as worse in score than any other; for its distance as equal to the worst.
   One whose training failed is never a parent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from cosearch.config.ranges import Count, Fraction, Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read_list
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, StrategyInfo, always_feasible, own_options, refuse_without_effect
from cosearch.strategies.proposal.evolution import default_population
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws, read_choices
from latency_tables.errors import ShapeError

ATTEMPTS = 200
Point = tuple[float, ...]


@dataclass(frozen=True)
class Nsga2Options:
    """Options of NSGA-II.

    Attributes:
        draws: attempts to draw one architecture that meets the target before giving up.
        population: N, parents and offspring of a generation; 0: half of the candidates, at most 8.
        crossover: probability that a child has two parents, 0..1.
    """

    draws: Positive = DRAWS
    population: Count = 0
    crossover: Fraction = 0.9


def nsga2_options(config: StrategyConfig) -> Nsga2Options:
    """The options from the section ``strategy`` of the configuration; a size of 0 becomes what it stands for."""
    options = own_options(Nsga2Options, config)
    population = options.population or default_population(config.candidates)
    if population >= config.candidates:
        refuse_without_effect(config, ["crossover"], f"strategy.candidates={config.candidates}, which are all first parents")
    return replace(options, population=population)


def dominates(one: Point, other: Point) -> bool:
    """Whether no objective of ``one`` is worse (greater) than that of ``other``, and one is better."""
    return all(a <= b for a, b in zip(one, other)) and one != other


def fronts(points: Sequence[Point]) -> list[list[int]]:
    """The fast non-dominated sort: indices by front, each front in ascending order; M N^2 comparisons at most.

    Args:
        points: objectives, smaller is better; equal points share a front.
    """
    beats = [[j for j, other in enumerate(points) if dominates(point, other)] for point in points]
    beaten = [0] * len(points)
    for losers in beats:
        for j in losers:
            beaten[j] += 1
    peeled, front = [], [i for i, count in enumerate(beaten) if count == 0]
    while front:
        peeled.append(front)
        following = []
        for i in front:
            for j in beats[i]:
                beaten[j] -= 1
                if beaten[j] == 0:
                    following.append(j)
        front = sorted(following)
    return peeled


def crowding(points: Sequence[Point]) -> list[float]:
    """Crowding distance of each point of one front; infinite at the ends of each objective.

    Args:
        points: finite objectives. One that is the same for all adds nothing, not even at its ends.
    """
    distance = [0.0] * len(points)
    for values in zip(*points):
        order = sorted(range(len(points)), key=lambda i: values[i])
        spread = values[order[-1]] - values[order[0]]
        if spread == 0:
            continue
        distance[order[0]] = distance[order[-1]] = float("inf")
        for before, i, after in zip(order, order[1:], order[2:]):
            distance[i] += (values[after] - values[before]) / spread
    return distance


def ranked(points: Sequence[Point]) -> list[int]:
    """Indices in the crowded-comparison order, best first; the earlier of equal ones first.

    Args:
        points: objectives, smaller is better, finite.
    """
    order = []
    for front in fronts(points):
        distance = dict(zip(front, crowding([points[i] for i in front])))
        order += sorted(front, key=lambda i: -distance[i])
    return order


class Nsga2:
    """NSGA-II on score and latency.

    Args:
        space: the search space.
        options: see :class:`Nsga2Options`, with the population above 0.
        generator: CPU generator of all draws.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: Nsga2Options,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()
        self.space, self.options, self.generator = space, options, generator
        self.proposed: list[tuple[int, ...]] = []
        self.parents: list[int] = []  # indices of results, best first
        self.offspring: list[int] = []

    def ask(self) -> Architecture:
        """One of the first N, or a child of two tournaments' winners.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        first = len(self.proposed) < self.options.population or not self.parents
        proposed = self.uniform.draw() if first else self._child()
        self.proposed.append(proposed.choices)
        return proposed

    def tell(self, result: Evaluation) -> None:
        """Record a result; the N-th of a generation brings the selection."""
        self.results.add(result)
        self.offspring.append(len(self.results) - 1)
        if len(self.offspring) == self.options.population:
            both = [i for i in self.parents + self.offspring if not self.results[i].failed]
            order = ranked(self.objectives(both))
            self.parents = [both[i] for i in order[: self.options.population]]
            self.offspring = []

    def objectives(self, indices: Sequence[int]) -> list[Point]:
        """Minus the score, and the latency in seconds, of these results; no score is just worse than the worst one there is."""
        worst = min((result.score for result in self.results.all if result.score is not None), default=0.0)
        missing = worst - max(1e-9, 1e-9 * abs(worst))
        scores = {i: missing if (score := self.results[i].score) is None else score for i in indices}
        return [(-scores[i], self.results[i].cost_s) for i in indices]

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def _child(self) -> Architecture:
        last = None
        for _ in range(ATTEMPTS):
            try:
                child = self._mutated(self._crossed(self._winner(), self._winner()))
            except ShapeError:  # a space with conditions between its points: this mixture of two parents breaks one
                continue
            if self.uniform.is_feasible(child):
                last = child
                if child.choices not in self.proposed:
                    break
        return last or self.uniform.draw()

    def _winner(self) -> Architecture:
        """The better of two parents: they are kept in the crowded-comparison order."""
        drawn = torch.randint(len(self.parents), (2,), generator=self.generator)
        return self.space.architecture(self.results[self.parents[int(drawn.min())]].choices)

    def _crossed(self, one: Architecture, other: Architecture) -> Architecture:
        if float(torch.rand((), generator=self.generator)) >= self.options.crossover:
            return one
        units = self.space.units
        from_other = torch.rand(len(units), generator=self.generator) < 0.5
        swapped = {p for unit, swap in zip(units, from_other) if swap for p in unit}
        return self.space.architecture([b if p in swapped else a for p, (a, b) in enumerate(zip(one.choices, other.choices))])

    def _mutated(self, child: Architecture) -> Architecture:
        points = len(child.choices)
        for _ in range(int((torch.rand(points, generator=self.generator) < 1.0 / points).sum())):
            near = child.neighbours()
            child = near[int(torch.randint(len(near), (), generator=self.generator))] if near else child
        return child

    def state(self) -> State:
        """All results, what was proposed, and the generation."""
        return {
            **self.results.state(),
            "proposed": [list(choices) for choices in self.proposed],
            "parents": list(self.parents),
            "offspring": list(self.offspring),
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        self.proposed = [read_choices(choices) for choices in read_list(state, "proposed", list)]
        self.parents, self.offspring = read_list(state, "parents", int), read_list(state, "offspring", int)


STRATEGIES.register(
    StrategyInfo(
        "nsga2",
        "NSGA-II on score and latency: non-dominated sorting, crowding, crossover, mutation",
        "Deb et al., IEEE Trans. Evol. Comput. 6(2), 2002",
        "proposal",
        False,
        True,
        Nsga2,
        nsga2_options,
    )
)
