"""Predictor-guided search: a regression on the candidates trained so far says which to train next.

Papers: Wen et al., Neural Predictor for Neural Architecture Search, ECCV 2020, arXiv 1912.00848; fitted again after each
result as in sequential model-based search: Hutter et al., LION 2011.
Equations, with f(a) the score of a trained candidate and g its ridge regression on one-hot choices (``regression``):
  the first ``initial`` candidates are drawn uniformly, or each is the largest of ``largest_of`` uniform draws, by
             MACs times weights; with ``rules`` the largest within the limits by MACs and by both sizes are the first two
  next   = argmax g over a pool without those that were ever proposed;  pool = ``pool`` uniform draws and N(best so far)
  result = argmax f over all candidates that were ever told
Differs from the papers in:
1. The predictor is linear in the choices; Wen et al. train a graph network, Hutter et al. a random forest. A few dozen noisy
   scores support no more, and its scores can be read.
2. It is fitted again after every result; Wen et al. fit it once and train the K best by it.
3. The pool is drawn anew each time and holds the neighbours (one other choice) of the best candidate; Wen et al. draw one pool.
4. No uncertainty enters: there is no acquisition function, and a score is trusted although it is noisy.
5. Only what meets the target is in the pool. There the papers have no target.
6. Candidates that are trained at once (``strategy.workers``) are asked for with what is known by then, each the best that was not
   proposed.
7. A candidate without a score, or whose training failed, tells the regression nothing.
8. While nothing tells the scores apart, and where all of the pool was proposed, the next is drawn uniformly.
9. With ``largest_of`` above 1 the first candidates are no uniform sample but large ones, as good networks mostly are (see
   ``largest``); with 1, the default, they are as in the papers.
10. With ``rules`` the networks that two free rules name are among the first candidates, so what is found was compared with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field

from cosearch.config.ranges import Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read_list
from cosearch.space.derivation.largest import Size, largest
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, Feasible, StrategyInfo, own_options, refuse_without_effect
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws, read_choices
from cosearch.strategies.regression import DrawnPaths, fit_scores

WITHOUT_TARGET = Feasible()
RULES: tuple[Size, ...] = ("macs", "both")


@dataclass(frozen=True)
class PredictorOptions:
    """Options of the predictor-guided search.

    Attributes:
        initial: candidates before the first regression; where it is not given and there are fewer than eight candidates, half.
        rules: the first two of them are the largest networks within the limits, by multiply-accumulates and by both sizes.
        largest_of: each of these is the largest of so many draws, by multiply-accumulates times weights; 1: a uniform draw.
        pool: uniform draws that the regression ranks, each time.
        draws: attempts to draw one architecture that meets the target before giving up.
    """

    initial: Annotated[int, Field(ge=2)] = 4
    rules: bool = False
    largest_of: Positive = 1
    pool: Positive = 256
    draws: Positive = DRAWS


class PredictorSearch:
    """Proposals by a regression on the results.

    Args:
        space: the search space.
        options: see :class:`PredictorOptions`.
        generator: CPU generator of all draws.
        is_feasible: whether an architecture meets the targets; gives the limits.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: PredictorOptions,
        generator: torch.Generator,
        is_feasible: Feasible = WITHOUT_TARGET,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()
        self.space, self.options, self.is_feasible = space, options, is_feasible
        self.asked: list[tuple[int, ...]] = []

    def ask(self) -> Architecture:
        """One of the first ones, then the best of the pool by the regression, or a uniform draw where there is none.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        proposed = self._first() if len(self.asked) < self.options.initial else self._predicted() or self.uniform.draw()
        self.asked.append(proposed.choices)
        return proposed

    def tell(self, result: Evaluation) -> None:
        """Record a result."""
        self.results.add(result)

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results and all proposals."""
        return {**self.results.state(), "asked": [list(choices) for choices in self.asked]}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        self.asked = [read_choices(choices) for choices in read_list(state, "asked", list)]

    def _first(self) -> Architecture:
        if self.options.rules and len(self.asked) < len(RULES):
            ruled = largest(self.space, *self.is_feasible.limits, by=RULES[len(self.asked)])
            if ruled.choices not in self.asked:  # both rules may name one network
                return ruled
        return self.uniform.largest_of(self.options.largest_of)

    def _predicted(self) -> Architecture | None:
        drawn = DrawnPaths(len(self.space.points))
        for result in map(self.results.__getitem__, self.results.trained()):
            if result.score is not None:
                drawn.add(result.choices, -result.score, 0.0)
        fit = fit_scores([len(point.candidates) for point in self.space.points], drawn)
        if fit is None:
            return None
        centre = self.space.architecture(self.results[self.results.best()].choices)
        pool = [self.uniform.draw() for _ in range(self.options.pool)] + self.uniform.neighbours(centre)
        known = set(self.asked)
        fresh = [one for one in pool if one.choices not in known]
        return max(fresh, key=lambda one: sum(row[c] for row, c in zip(fit.scores, one.choices)), default=None)


def predictor_options(config: StrategyConfig) -> PredictorOptions:
    """The options from the section ``strategy`` of the configuration; of few candidates at most half are first ones."""
    options = own_options(PredictorOptions, config)
    if "initial" not in config.values:
        options = replace(options, initial=min(options.initial, max(2, config.candidates // 2)))
    if options.initial >= config.candidates:
        refuse_without_effect(config, ["pool"], f"strategy.candidates={config.candidates}, which are all first ones")
    return options


STRATEGIES.register(
    StrategyInfo(
        "predictor",
        "a regression on the trained candidates says which to train next",
        "Wen et al., ECCV 2020, arXiv 1912.00848",
        "proposal",
        False,
        True,
        PredictorSearch,
        predictor_options,
        any_order=True,
        learns_from_results=lambda config: predictor_options(config).initial < config.candidates,
    )
)
