"""Bayesian optimisation over network morphisms, as in Auto-Keras: a Gaussian process on edit distances, and a tree of changes.

Paper: Jin, Song and Hu, Auto-Keras: An Efficient Neural Architecture Search System, KDD 2019, arXiv 1806.10282.
Equations, with d, phi and lambda of ``edit_distance``, y the scores in standard deviations from their mean:
  k(a, b)     = exp(-rho(a, b)^2),   rho = |phi(a) - phi(b)|;   y ~ GP(0, k + noise)  (scikit-learn's)
  acquisition = mu(a) + beta sigma(a),   beta = 2.576
  tree search : the trained networks wait in a queue, the best acquisition first. The first one is taken out, T <- 0.9 T from 1
                to 1e-4; with probability min(1, exp((acquisition - best) / T)) all of its changes are looked at, and wait, too
  next        = the largest acquisition that was looked at;  it starts from the weights of the trained network that it grew from
  result      = argmax of the score over all candidates that were told
Differs from the paper in:
1. A change is another choice at one point, of those whose network meets the target. Wider, deeper and larger kernels are
   morphisms that keep the function and all weights (``cosearch.space.morphism``); the paper knows no other. Ours can also shrink
   a network: such a change keeps the weights that fit, and not the function. Without it no target could be met.
2. Skip connections are not added by a change: in our spaces they are parts of blocks or of the graph.
3. The first candidate is a uniform draw that meets the target; the paper begins with a fixed small network.
4. rho is the distance of Bourgain's coordinates for every pair. The released code has it for the trained ones alone, and
   exp(-d^2) with the edit distance itself between a trained and a new one: together these are no positive definite kernel.
5. The noise of the process is 0.1 of the scores' variance: returns are noisy. The paper has 1e-10 (``strategy.values.noise``).
6. Scores are standardised before the fit; the paper's accuracies lie in 0..1. T is in this unit.
7. A network that was proposed before is not proposed again; where the tree holds no other, a uniform draw is.
8. Candidates that are trained at once (``strategy.workers``) are asked for with what is known by then, each the best that is not
   yet proposed; until one has a score, they are uniform draws.
9. A candidate without a finished episode has the score of the worst one; one whose training failed tells the process nothing and
   is no beginning.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from cosearch.config.ranges import NonNegative, Positive, PositiveFloat
from cosearch.record.state import State, read_list
from cosearch.space.morphism import aligned
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, Inheritance, StrategyInfo, always_feasible, own_options
from cosearch.strategies.edit_distance import EditDistance, coordinates, landmarks
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws, read_choices
from latency_tables.errors import RunFolderError

COOLING, COLDEST = 0.9, 1e-4


@dataclass(frozen=True)
class MorphismOptions:
    """Options of the search over morphisms.

    Attributes:
        beta: standard deviations that the acquisition adds to the mean.
        noise: variance of the noise of a score, in units of the scores' variance.
        inherit: whether a candidate starts from the weights of the network that it grew from; else from its own.
        draws: attempts to draw one architecture that meets the target before giving up.
    """

    beta: NonNegative = 2.576
    noise: PositiveFloat = 0.1
    inherit: bool = True
    draws: Positive = DRAWS

    @property
    def inherits(self) -> bool:
        """Whether candidates start from weights of earlier ones."""
        return self.inherit


class MorphismSearch:
    """Proposals by a Gaussian process over a tree of changes.

    Args:
        space: the search space.
        options: see :class:`MorphismOptions`.
        generator: CPU generator of all draws.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: MorphismOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()
        self.space, self.options, self.generator = space, options, generator
        self.asked: list[tuple[int, ...]] = []
        self.parent: int | None = None  # index of the result that the last proposal grew from
        self._distance = EditDistance(space)
        self._rows: dict[tuple[int, ...], np.ndarray] = {}  # distances to the architectures that were told, in their order

    def ask(self) -> Architecture:
        """The best of the tree by the acquisition, or a uniform draw.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        grown = self._grown()
        proposed, self.parent = (self.uniform.draw(), None) if grown is None else grown
        self.asked.append(proposed.choices)
        return proposed

    def inherits(self) -> Inheritance | None:
        """The weights of the network that the last proposal grew from, block by block."""
        if self.parent is None or not self.options.inherit:
            return None
        before, after = (self.space.architecture(choices) for choices in (self.results[self.parent].choices, self.asked[-1]))
        sources = aligned(before, after)
        return Inheritance(self.parent, tuple(None if block is None else (self.parent, block) for block in sources))

    def tell(self, result: Evaluation) -> None:
        """Record a result."""
        self.results.add(result)

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results, all proposals, and what the last one grew from."""
        return {**self.results.state(), "asked": [list(choices) for choices in self.asked], "parent": self.parent}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        self.asked = [read_choices(choices) for choices in read_list(state, "asked", list)]
        parent = state.get("parent")
        if parent is not None and not isinstance(parent, int):
            raise RunFolderError(f"the saved state has the parent {parent!r}, a number or nothing was expected")
        self.parent, self._rows = parent, {}

    def _grown(self) -> tuple[Architecture, int] | None:
        """The next candidate and the index of the result that it grew from; None where nothing is known, or nothing is left."""
        trained = self.results.trained()
        scores = [self.results[i].score for i in trained]
        known = [score for score in scores if score is not None]
        if not known:
            return None
        acquisition = self._fitted(trained, np.array([min(known) if score is None else score for score in scores]))
        roots: dict[tuple[int, ...], int] = {}
        for i in sorted(trained, key=lambda i: self.results[i].worth):
            roots[self.results[i].choices] = i  # of several of one architecture the best
        return self._tree(roots, acquisition)

    def _fitted(self, trained: list[int], scores: np.ndarray) -> Callable[[list[Architecture]], np.ndarray]:
        """The acquisition, of a process fitted to trained results and their scores ``[trained]``."""
        from sklearn.gaussian_process import GaussianProcessRegressor  # a second to load: only who searches with it waits
        from sklearn.gaussian_process.kernels import RBF

        sets = landmarks(len(trained))
        columns = np.array(trained)

        def at(architectures: list[Architecture]) -> np.ndarray:
            return coordinates(self._distances(architectures)[:, columns], sets)

        spread = float(scores.std()) or 1.0
        kernel = RBF(math.sqrt(0.5), "fixed")  # exp(-rho^2 / (2 * 0.5))
        process = GaussianProcessRegressor(kernel, alpha=self.options.noise, optimizer=None)
        told = [self.space.architecture(self.results[i].choices) for i in trained]
        process.fit(at(told), (scores - scores.mean()) / spread)

        def acquisition(architectures: list[Architecture]) -> np.ndarray:
            mean, deviation = process.predict(at(architectures), return_std=True)
            return np.asarray(mean + self.options.beta * deviation)

        return acquisition

    def _tree(
        self, roots: dict[tuple[int, ...], int], acquisition: Callable[[list[Architecture]], np.ndarray]
    ) -> tuple[Architecture, int] | None:
        begin = [self.space.architecture(choices) for choices in roots]
        values = acquisition(begin)
        grew_from, asked = dict(roots), set(self.asked)
        queue = [(-float(value), place, one) for place, (value, one) in enumerate(zip(values, begin))]
        heapq.heapify(queue)
        found: tuple[Architecture, int] | None = None
        top, highest, temperature = -math.inf, float(values.max()), 1.0
        while queue and temperature > COLDEST:
            temperature *= COOLING
            least, _, one = heapq.heappop(queue)
            if float(torch.rand((), generator=self.generator)) > math.exp(min(0.0, (-least - highest) / temperature)):
                continue
            near = [other for other in self.uniform.neighbours(one) if other.choices not in grew_from]
            for value, other in zip(acquisition(near) if near else (), near):
                grew_from[other.choices] = grew_from[one.choices]
                heapq.heappush(queue, (-float(value), len(grew_from), other))
                highest = max(highest, float(value))
                if value > top and other.choices not in asked:
                    top, found = float(value), (other, grew_from[other.choices])
        return found

    def _distances(self, architectures: list[Architecture]) -> np.ndarray:
        """``[architectures, results]``: kept, because the tree meets the same networks again at each proposal."""
        count = len(self.results)
        behind: dict[int, dict[tuple[int, ...], Architecture]] = {}
        for one in architectures:
            have = len(self._rows.get(one.choices, ()))
            if have < count:
                behind.setdefault(have, {})[one.choices] = one
        for have, those in ((have, list(several.values())) for have, several in behind.items()):
            told = [self.space.architecture(result.choices) for result in self.results.all[have:]]
            for one, more in zip(those, self._distance(those, told)):
                self._rows[one.choices] = np.concatenate([self._rows.get(one.choices, np.zeros(0)), more])
        return np.stack([self._rows[one.choices] for one in architectures])


STRATEGIES.register(
    StrategyInfo(
        "morphism",
        "Bayesian optimisation over network morphisms: edit distances, a tree of changes, inherited weights",
        "Jin, Song and Hu, Auto-Keras, KDD 2019, arXiv 1806.10282",
        "proposal",
        False,
        True,
        MorphismSearch,
        partial(own_options, MorphismOptions),
        ("candidate_init",),
        any_order=True,
    )
)
