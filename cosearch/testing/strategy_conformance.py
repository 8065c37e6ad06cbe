"""What every registered strategy must hold: a toy whose best architecture is known, and a resume that equals going on.

A package that registers a strategy can call these in its tests. Each check raises ``AssertionError``.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosearch.config.search import StrategyConfig
from cosearch.space.derivation.derive import Limit
from cosearch.space.space import Architecture, SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import BilevelStrategy, Evaluation, Feasible, GradientStrategy, ProposalStrategy, StrategyInfo
from cosearch.strategies.minibatch import AsksForCosts, BlackBoxCost, WatchesGradients
from cosearch.testing.conformance import require, seeded

Told = tuple[tuple[int, ...], float | None]  # choices and score


def default_options(info: StrategyInfo) -> object:
    """The options of a strategy with their defaults."""
    return info.options(StrategyConfig(name=info.name))


def toy_loss(path: Path, table: Sequence[Sequence[float]]) -> Tensor:
    """A loss ``[]`` whose gradient at the weights is what a supernet would hand back: one known number a candidate.

    Args:
        path: with weights, or without: then the numbers of what was chosen are summed.
        table: for each point one number a candidate.
    """
    if path.weights is None:
        return torch.tensor([row[choice] for choice, row in zip(path.choices, table)]).sum()
    return torch.stack(
        [(w * torch.tensor([row[k] for k in active])).sum() for w, active, row in zip(path.weights, path.active, table)]
    ).sum()


Learning = GradientStrategy | BilevelStrategy
ToyLoss = Callable[[Learning, Path], Tensor]  # (strategy, path with its weights) -> ``[]``


@dataclass(frozen=True)
class ToyMinibatch:
    """A minibatch of a toy, all of which are alike; see ``cosearch.strategies.minibatch.Minibatch``."""

    strategy: Learning
    of: ToyLoss
    drawn: Path

    def __call__(self, path: Path | None = None) -> float:
        """Add the gradients of the loss; returns it."""
        value = self.of(self.strategy, self.strategy.weighted(self.drawn if path is None else path))
        if value.requires_grad:
            value.backward()
        return float(value.detach())

    def loss(self, path: Path) -> float:
        """The loss along a path as it is."""
        return float(self.of(self.strategy, path).detach())

    def another(self) -> ToyMinibatch:
        """The same one."""
        return self


def optimise(strategy: Learning, loss: ToyLoss, steps: int) -> list[list[tuple[int, ...]]]:
    """Let a gradient strategy take steps on ``loss(path, its expected-cost probabilities)``.

    Args:
        strategy: of either level.
        loss: (strategy, weighted path) -> ``[]``.
        steps: how many.

    Returns:
        The active candidates of each step.
    """
    taken = []
    for n in range(steps):
        strategy.arch.anneal(n / steps)
        path = strategy.sample()

        minibatch = ToyMinibatch(strategy, loss, path)
        if isinstance(strategy, BilevelStrategy):
            strategy.step_architecture(minibatch, minibatch, [], list)
        else:
            strategy.arch.zero_grad()
            strategy.step(path, minibatch())
        if isinstance(strategy, WatchesGradients):
            strategy.weights_learned(1.0)
        taken.append(list(path.active))
    return taken


def best_choices(strategy: Learning, space: SearchSpace) -> tuple[int, ...]:
    """The choices of the legal architecture with the highest score."""
    return space.best(strategy.scores()).choices


def check_gradient_strategy(
    info: StrategyInfo, space: SearchSpace, table: Sequence[Sequence[float]], *, steps: int = 300
) -> None:
    """A gradient strategy: valid paths, the toy's best architecture, and a resume that equals going on.

    Args:
        info: the registry record.
        space: small, two candidates or more at each point.
        table: see :func:`toy_loss`; its smallest numbers mark the best architecture.
        steps: steps on the toy.

    Raises:
        AssertionError: something does not hold.
    """

    def loss(_: object, path: Path) -> Tensor:
        return toy_loss(path, table)

    generator = seeded(3)
    strategy = info.make(space, default_options(info), generator)
    for point, probability in zip(space.points, strategy.arch.probabilities()):
        require(
            probability.shape == (len(point.candidates),) and abs(float(probability.detach().sum()) - 1) < 1e-5,
            f"{info.name}: probabilities of {point.name} are {probability}",
        )
    for active in optimise(strategy, loss, steps // 2):
        require(
            all(len(set(a)) == len(a) and max(a) < len(p.candidates) for a, p in zip(active, space.points)),
            f"{info.name}: not a path: {active}",
        )
    path = strategy.sample()
    require(path.soft or space.architecture(path.choices).choices == path.choices, f"{info.name}: not an architecture: {path}")
    state, noise = copy.deepcopy(strategy.state()), generator.get_state()
    went_on = optimise(strategy, loss, steps - steps // 2), strategy.scores()
    fresh = seeded(0)
    resumed = info.make(space, default_options(info), fresh)
    resumed.restore(state)
    fresh.set_state(noise)
    again = optimise(resumed, loss, steps - steps // 2), resumed.scores()
    require(again == went_on, f"{info.name}: resumed, it goes another way")
    best = space.best([[-value for value in row] for row in table]).choices
    chosen = best_choices(strategy, space)
    require(chosen == best, f"{info.name}: chose {chosen}, the best is {best}")


@dataclass(frozen=True)
class Within:
    """A target on a sum over the choices.

    Attributes:
        costs: for each point one cost a candidate.
        most: the largest sum that meets it.
    """

    costs: Sequence[Sequence[float]]
    most: float

    @property
    def limit(self) -> Limit:
        """The costs and the bound."""
        return Limit([list(row) for row in self.costs], 0.0, self.most)

    def met_by(self, architecture: Architecture) -> bool:
        """Whether the sum is within the bound, up to rounding."""
        return sum(row[c] for row, c in zip(self.costs, architecture.choices)) <= self.most * (1.0 + 1e-9)


def check_follows_cost(info: StrategyInfo, space: SearchSpace, costs: Sequence[Sequence[float]], *, steps: int = 300) -> None:
    """Where the cost outweighs everything, the cheapest architecture is found, though the task likes the dearest.

    A gradient strategy has the cost as a penalty of a weight of a million; a proposal strategy a target that nothing but the
    cheapest meets.

    Args:
        info: the registry record.
        space: small, with one cheapest architecture.
        costs: for each point one cost a candidate, above 0.
        steps: steps of a gradient strategy.

    Raises:
        AssertionError: it is another one.
    """
    cheapest = space.best([[-cost for cost in row] for row in costs])
    if info.kind != "gradient":
        least = sum(row[c] for row, c in zip(costs, cheapest.choices))
        proposing: ProposalStrategy = info.make(space, default_options(info), seeded(3), Feasible((Within(costs, least),)))
        for count in range(3):
            asked = proposing.ask()
            require(asked == cheapest, f"{info.name}: proposed {asked.choices}, only {cheapest.choices} meets the target")
            proposing.tell(Evaluation(asked, float(count), 1e-3))
        return
    strategy: Learning = info.make(space, default_options(info), seeded(3))
    liked, price = [[-cost for cost in row] for row in costs], 1e6

    def relative(architecture: Architecture) -> list[float]:
        return [sum(row[c] for row, c in zip(costs, architecture.choices))]

    def loss(learning: Learning, path: Path) -> Tensor:
        if isinstance(learning, AsksForCosts):
            return toy_loss(path, liked)
        expected = [(p * torch.tensor(row)).sum() for p, row in zip(learning.arch.probabilities(), costs)]
        return toy_loss(path, liked) + price * torch.stack(expected).sum()

    if isinstance(strategy, AsksForCosts):
        strategy.set_cost(BlackBoxCost(relative, lambda values: price * values.sum()))
    optimise(strategy, loss, steps)
    chosen = best_choices(strategy, space)
    require(chosen == cheapest.choices, f"{info.name}: chose {chosen}, the cheapest is {cheapest.choices}")


@dataclass(frozen=True)
class AllBut:
    """A target that every architecture but one meets: not all of its choices together."""

    banned: Architecture

    @property
    def limit(self) -> Limit:
        """The choices that are shared with it, at most all but one."""
        return Limit([row.tolist() for row in self.banned.one_hot()], 0.0, len(self.banned.choices) - 1.0)

    def met_by(self, architecture: Architecture) -> bool:
        """Whether it is another one."""
        return architecture != self.banned


def check_proposal_strategy(
    info: StrategyInfo, space: SearchSpace, value: Callable[[Architecture], float], *, asks: int = 8
) -> None:
    """A proposal strategy: members of the space that meet the target, the best of what it was told, exact resume.

    It is asked once for one candidate at a time and once for several before the first of them is told, as worker processes do;
    and both again with candidates without a score, the first one always among them: of some the training failed, of others no
    episode ended.

    Args:
        info: the registry record.
        space: small.
        value: score of an architecture, higher is better.
        asks: proposals before and after the save; an even number.

    Raises:
        AssertionError: something does not hold.
    """
    banned = space.best([[float(-k) for k in range(len(point.candidates))] for point in space.points])

    def turn(strategy: ProposalStrategy, together: int, unscored: Callable[[int], bool], told: list[Told]) -> None:
        for _ in range(asks // together):
            asked = [strategy.ask() for _ in range(together)]
            for architecture in asked:
                require(architecture == space.architecture(architecture.choices), f"{info.name}: proposed {architecture}")
                require(architecture != banned, f"{info.name}: proposed what does not meet the target")
                score = None if unscored(len(told)) else value(architecture)
                strategy.tell(Evaluation(architecture, score, 1e-3, failed=score is None and len(told) % 2 == 0))
                told.append((architecture.choices, score))

    for together, unscored in (
        (1, lambda index: False),
        (2, lambda index: False),
        (1, lambda index: index % 3 == 0),
        (2, lambda index: index < asks),
    ):
        generator, fresh = seeded(3), seeded(0)
        strategy, resumed = (
            info.make(space, default_options(info), stream, Feasible((AllBut(banned),))) for stream in (generator, fresh)
        )
        told: list[Told] = []
        turn(strategy, together, unscored, told)
        state, noise, before = copy.deepcopy(strategy.state()), generator.get_state(), list(told)
        turn(strategy, together, unscored, told)
        resumed.restore(state)
        fresh.set_state(noise)
        turn(resumed, together, unscored, before)
        require(before == told, f"{info.name}: resumed, it proposes other architectures")
        require(resumed.best() == strategy.best(), f"{info.name}: resumed, best() is {resumed.best()}, not {strategy.best()}")
        scores = [float("-inf") if score is None else score for _, score in told]
        require(scores[strategy.best()] == max(scores), f"{info.name}: best() is {strategy.best()}, the scores are {scores}")


def check_finds_best(
    info: StrategyInfo, space: SearchSpace, value: Callable[[Architecture], float], *, asks: int, options: object | None = None
) -> None:
    """A proposal strategy that is asked often enough has proposed the best architecture that there is.

    Args:
        info: the registry record.
        space: small enough to enumerate, without groups.
        value: score of an architecture, higher is better.
        asks: proposals.
        options: of the strategy; None: its defaults.

    Raises:
        AssertionError: it has not.
    """
    sizes = [range(len(point.candidates)) for point in space.points]
    most = max(value(space.architecture(choices)) for choices in itertools.product(*sizes))
    strategy: ProposalStrategy = info.make(space, options or default_options(info), seeded(3), Feasible())
    scores = []
    for _ in range(asks):
        architecture = strategy.ask()
        scores.append(value(architecture))
        strategy.tell(Evaluation(architecture, scores[-1], 1e-3))
    found = scores[strategy.best()]
    require(found == most, f"{info.name}: its best of {asks} is {found}, the best there is {most}")
