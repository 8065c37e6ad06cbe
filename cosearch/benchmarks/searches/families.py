"""What a search should go by that several agents are made from: ``python -m cosearch.benchmarks.searches.families``.

An additive toy with saturating returns on the real costs of a device: a network's score is  4 sqrt(2 + sum_l u_l),  where u is
a random part and a random multiple of the root of a candidate's cost; a path tells it with noise of standard deviation 1. The
default strategy draws paths under the targets of a schedule, and the regression on all of them derives a network for each of
three targets. Regret: how far that is below the best network within the target. Nothing is trained, so that shared weights play
no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
import typer

from cosearch.benchmarks.results import program
from cosearch.config.run import resolve
from cosearch.config.search import StrategyConfig
from cosearch.cost.table_cost import TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import make_space
from cosearch.space.derivation.derive import Limit, discretise
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.budgeted import tilt
from cosearch.strategies.regression import DrawnPaths, fit_scores
from latency_tables.devices import find_table
from latency_tables.text.terminal import say

SHARES = (0.15, 0.35, 0.7)  # of the way from the cheapest to the dearest network: the targets
ROLLOUT = 16  # paths under one target
WARM_UP = 0.3
Schedule = Callable[[int, np.random.Generator], int]  # (rollout, randomness) -> index of the target
SCHEDULES: dict[str, Schedule] = {
    "each in turn": lambda rollout, random: rollout % len(SHARES),
    "drawn for each rollout": lambda rollout, random: int(random.integers(len(SHARES))),
    "the middle one": lambda rollout, random: 1,
    "the loosest one": lambda rollout, random: 2,
    "the tightest one": lambda rollout, random: 0,
}


class Toy:
    """Scores of the networks of one draw.

    Args:
        device: whose table has the costs.
        seed: of the draw.
    """

    def __init__(self, device: str, seed: int) -> None:
        self.space = make_space(resolve(overrides=["env.name=minatar:breakout"]))
        cost = TableCost(self.space, find_table(device), "latency_s")
        self.rows, self.base = cost.candidate_costs(), cost.base
        least, most = (self.base + sum(pick(row) for row in self.rows) for pick in (min, max))
        self.targets_s = [least + share * (most - least) for share in SHARES]
        random = np.random.default_rng(seed)
        self.worth = []
        for row in self.rows:
            size = (np.array(row) - min(row)) / max(1e-12, max(row) - min(row))
            worth = np.sqrt(size) * random.uniform(0.5, 1.5) + 0.35 * random.normal(size=len(row))
            self.worth.append([float(value) for value in worth])

    def limit(self, target: int) -> Limit:
        """One of the targets, as a row of the derivation."""
        return Limit(self.rows, self.base, self.targets_s[target])

    def score(self, choices: Sequence[int]) -> float:
        """Of a network, without noise."""
        return 4.0 * float(np.sqrt(max(0.05, 2.0 + sum(row[choice] for row, choice in zip(self.worth, choices)))))

    def regret(self, scores: Sequence[Sequence[float]], target: int) -> float:
        """Of the network that these scores derive, beside the best one within the target."""
        best, found = (discretise(self.space, rows, self.limit(target)) for rows in (self.worth, scores))
        return self.score(best.choices) - self.score(found.choices)


def searched(toy: Toy, schedule: Schedule, paths: int, seed: int) -> list[list[float]]:
    """Scores of the candidates after one search.

    Args:
        toy: gives the losses.
        schedule: of the targets.
        paths: drawn in all.
        seed: of the draws and the noise.
    """
    info = STRATEGIES.get("reinforce")
    strategy = info.make(toy.space, info.options(StrategyConfig()), torch.Generator().manual_seed(seed))
    random, drawn = np.random.default_rng(seed), DrawnPaths(len(toy.rows))
    for number in range(paths):
        if number % ROLLOUT == 0:
            target = schedule(number // ROLLOUT, random)
            strategy.arch.set_tilt(tilt(toy.space, strategy.scores(), toy.limit(target), toy.targets_s[target]).rows)
        path = strategy.sample()
        loss = -toy.score(path.choices) + float(random.normal())
        strategy.arch.zero_grad()
        if number >= WARM_UP * paths:
            strategy.step(path, loss)
        drawn.add(path.choices, loss, number / paths)
    fit = fit_scores([len(row) for row in toy.rows], drawn)
    return strategy.scores() if fit is None else fit.scores


def regrets(device: str, paths: int, seeds: int) -> dict[str, np.ndarray]:
    """Regret ``[seeds, targets]`` of each schedule, of a search for each target, and of the largest network.

    Args:
        device, paths: see :class:`Toy` and :func:`searched`.
        seeds: draws of the toy.
    """
    rows: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        toy, targets = Toy(device, seed), range(len(SHARES))
        found = {name: searched(toy, schedule, paths, seed) for name, schedule in SCHEDULES.items()}
        for name, scores in found.items():
            rows.setdefault(name, []).append([toy.regret(scores, target) for target in targets])
        own = [found[name] for name in ("the tightest one", "the middle one", "the loosest one")]
        rows.setdefault("its own, a search for each", []).append([toy.regret(own[target], target) for target in targets])
        macs = [[float(value) for value in row] for row in toy.space.macs()]
        rows.setdefault("none: the largest network", []).append([toy.regret(macs, target) for target in targets])
    return {name: np.array(values) for name, values in rows.items()}


def main(
    device: Annotated[str, typer.Option(help="Whose costs.")] = "raspberry-pi-4",
    paths: Annotated[int, typer.Option(min=16, help="Of one search.")] = 200,
    seeds: Annotated[int, typer.Option(min=2, help="Draws of the toy.")] = 12,
) -> None:
    """Print the table; see the module."""
    load_builtins()
    say("| the search went by | regret | at the tight, middle and loose target |\n| --- | --- | --- |")
    for name, values in regrets(device, paths, seeds).items():
        error = values.mean(1).std(ddof=1) / len(values) ** 0.5
        each = ", ".join(f"{value:.2f}" for value in values.mean(0))
        say(f"| {name} | {values.mean():.2f} ± {error:.2f} | {each} |")


if __name__ == "__main__":
    program(main)
