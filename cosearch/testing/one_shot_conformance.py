"""What every registered one-shot strategy must hold; see ``strategy_conformance`` for the other kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch

from cosearch.config.search import StrategyConfig
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import Evaluation, Feasible, StrategyInfo
from cosearch.strategies.weight_sharing import OneShotStrategy, StagedStrategy, scoring_of
from cosearch.testing.conformance import require, seeded
from cosearch.testing.strategy_conformance import AllBut, Told


def check_one_shot_strategy(
    info: StrategyInfo,
    space: SearchSpace,
    value: Callable[[Architecture], float],
    *,
    values: Mapping[str, object] | None = None,
    asks: int = 8,
) -> None:
    """A one-shot strategy: in each of its rounds paths of the space, then proposals that meet the target, and an exact resume.

    Args:
        info: the registry record.
        space: small.
        value: score of an architecture, higher is better.
        values: options of its own, as ``strategy.values`` has them.
        asks: proposals of each round, and paths before them; an even number.

    Raises:
        AssertionError: something does not hold.
    """
    banned = space.best([[float(-k) for k in range(len(point.candidates))] for point in space.points])
    config = StrategyConfig(name=info.name, values=dict(values or {}))
    rounds = scoring_of(info, config).rounds

    def made(generator: torch.Generator) -> OneShotStrategy:
        strategy: OneShotStrategy = info.make(space, info.options(config), generator, Feasible((AllBut(banned),)))
        return strategy

    def begin(strategy: OneShotStrategy, index: int) -> None:
        if isinstance(strategy, StagedStrategy):
            strategy.begin_round(index)

    def learn(strategy: OneShotStrategy) -> list[tuple[int, ...]]:
        drawn = [draw() for _ in range(asks) for draw in (strategy.playing_path, strategy.learning_path)]
        for path in drawn:
            require(path == space.architecture(path.choices), f"{info.name}: not a path of the space: {path}")
        require(strategy.paths_a_step >= 1, f"{info.name}: {strategy.paths_a_step} paths a step")
        return [path.choices for path in drawn]

    def score(strategy: OneShotStrategy, count: int, told: list[Told]) -> None:
        for _ in range(count):
            architecture = strategy.ask()
            require(architecture == space.architecture(architecture.choices), f"{info.name}: proposed {architecture}")
            require(architecture != banned, f"{info.name}: proposed what does not meet the target")
            failed = len(told) % 3 == 0
            score = None if failed else value(architecture)
            strategy.tell(Evaluation(architecture, score, 1e-3, failed=failed))
            told.append((architecture.choices, score))

    def rest(strategy: OneShotStrategy, index: int, told: list[Told]) -> list[list[tuple[int, ...]]]:
        score(strategy, asks // 2, told)
        drawn = []
        for later in range(index + 1, rounds):
            begin(strategy, later)
            drawn.append(learn(strategy))
            score(strategy, asks, told)
        return drawn

    for index in range(rounds):  # saved within the paths and within the proposals of each round
        generator, fresh = seeded(3), seeded(0)
        strategy, resumed, told = made(generator), made(fresh), list[Told]()
        for round_ in range(index + 1):
            begin(strategy, round_)
            learn(strategy)
            score(strategy, asks if round_ < index else asks // 2, told)
        state, noise, before = copy.deepcopy(strategy.state()), generator.get_state(), list(told)
        went_on = rest(strategy, index, told)
        resumed.restore(state)
        fresh.set_state(noise)
        require(rest(resumed, index, before) == went_on and before == told, f"{info.name}: resumed, it goes another way")
        require(resumed.best() == strategy.best(), f"{info.name}: resumed, best() is {resumed.best()}, not {strategy.best()}")
        last = [(n, told[n][1]) for n in range(len(told) - asks, len(told))]
        most = max(worth for _, worth in last if worth is not None)
        require(
            strategy.best() in dict(last) and told[strategy.best()][1] == most,
            f"{info.name}: best() is {strategy.best()}, the scores of the last round are {last}",
        )
