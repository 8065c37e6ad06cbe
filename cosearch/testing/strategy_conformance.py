"""What every registered strategy must hold: a toy whose best architecture is known, and a resume that equals going on.

A package that registers a strategy can call these in its tests. Each check raises ``AssertionError``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cosearch.config.search import StrategyConfig
from cosearch.space.space import Architecture, SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import BilevelStrategy, Evaluation, StrategyInfo
from cosearch.testing.conformance import require, seeded


def default_options(info: StrategyInfo) -> Any:
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


def optimise(strategy: Any, loss: Callable[[Any, Path], Tensor], steps: int) -> list[list[tuple[int, ...]]]:
    """Let a gradient strategy take steps on ``loss(path, its expected-cost probabilities)``.

    Args:
        strategy: a ``GradientStrategy``.
        loss: (strategy, weighted path) -> ``[]``.
        steps: how many.

    Returns:
        The active candidates of each step.
    """
    taken = []
    for n in range(steps):
        strategy.arch.anneal(n / steps)
        path = strategy.sample()

        def backward(path: Path = path) -> float:
            value = loss(strategy, strategy.weighted(path))
            if value.requires_grad:
                value.backward()
            return float(value.detach())

        if isinstance(strategy, BilevelStrategy):
            strategy.step_architecture(backward, backward, [], 0.1)
        else:
            strategy.arch.zero_grad()
            strategy.step(path, backward())
        taken.append(list(path.active))
    return taken


def best_choices(strategy: Any, space: SearchSpace) -> tuple[int, ...]:
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

    def loss(_: Any, path: Path) -> Tensor:
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
    found = best_choices(strategy, space)
    require(found == best, f"{info.name}: found {found}, the best is {best}")


def check_proposal_strategy(
    info: StrategyInfo, space: SearchSpace, value: Callable[[Architecture], float], *, asks: int = 8
) -> None:
    """A proposal strategy: members of the space that meet the target, the best of what it was told, exact resume.

    It is asked once for one candidate at a time and once for several before the first of them is told, as worker processes do.

    Args:
        info: the registry record.
        space: small.
        value: score of an architecture, higher is better.
        asks: proposals before and after the save; an even number.

    Raises:
        AssertionError: something does not hold.
    """
    banned = space.best([[float(-k) for k in range(len(point.candidates))] for point in space.points]).choices

    def turn(strategy: Any, together: int) -> list[tuple[int, ...]]:
        found = []
        for _ in range(asks // together):
            asked = [strategy.ask() for _ in range(together)]
            for architecture in asked:
                require(architecture == space.architecture(architecture.choices), f"{info.name}: proposed {architecture}")
                require(architecture.choices != banned, f"{info.name}: proposed what does not meet the target")
                strategy.tell(Evaluation(architecture, value(architecture), 1e-3))
            found += [architecture.choices for architecture in asked]
        return found

    for together in (1, 2):
        generator, fresh = seeded(3), seeded(0)
        strategy, resumed = (
            info.make(space, default_options(info), stream, lambda a: a.choices != banned) for stream in (generator, fresh)
        )
        told = turn(strategy, together)
        state, noise = copy.deepcopy(strategy.state()), generator.get_state()
        told += turn(strategy, together)
        resumed.restore(state)
        fresh.set_state(noise)
        require(turn(resumed, together) == told[asks:], f"{info.name}: resumed, it proposes other architectures")
        scores = [value(space.architecture(choices)) for choices in told]
        require(scores[strategy.best()] == max(scores), f"{info.name}: best() is {strategy.best()}, the scores are {scores}")
