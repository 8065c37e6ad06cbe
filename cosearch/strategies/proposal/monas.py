"""MONAS: an LSTM controller learns by policy gradient from a reward that joins the score with a cost, in one of three ways.

Paper: Hsu et al., MONAS: Multi-Objective Neural Architecture Search using Reinforcement Learning, arXiv 1806.10332, 2018.
Equations, with S the accuracy and E the energy of a trained candidate, both within 0..1, and P its peak power:
  mixed          : R = a S - (1 - a) E
  power-limit    : R = S      if P is within its limit,    else 0
  accuracy-limit : R = 1 - E  if S is above its limit,     else 0
  gradient       : (R - b) d log pi(a)/d theta,   b = running mean of the rewards;   pi is the LSTM of ``controller``
  result         = argmax of the score over all candidates that were told
Differs from the paper in:
1. A return has no natural 0..1: S is the score's place between the lowest and the highest that were told by then, 0.5 while
   they are equal. E is the cost over the highest that was told by then.
2. E is the predicted latency (``strategy.values.cost=latency``) or energy (``energy``), before the training; the paper measures
   energy and peak power during it. Limits of power are the run's own targets, whatever they bound.
3. So a draw that misses a target is known without a training: under ``power-limit`` it has its reward of 0 at once and another
   one is drawn; under the other rules it is drawn again, and teaches nothing.
4. Where 200 draws all miss the targets, a uniform draw that meets them is trained; the paper trains whatever is drawn.
5. The controller has 32 units and Adam's step is 0.01, one step a candidate; the paper's optimiser, its step and b are not known
   to us (its equations neither: rules and notation are as others cite them), and it trains some hundred networks.
6. MONAS-S, which shares weights between candidates, is ``strategy.candidate_init=shared``.
7. A candidate without a finished episode has the score of the worst one; one whose training failed has S = 0.
8. Candidates that are trained at once (``strategy.workers``) are drawn from one controller; it learns from each as it is told, in
   any order, by the gradient of its present probabilities.
9. The agent that is handed on has the highest score, as in every strategy here; the paper shows those with the highest reward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from cosearch.config.ranges import Finite, Fraction, Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read, read_state
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, StrategyInfo, always_feasible, own_options, refuse_without_effect
from cosearch.strategies.controller import Controller, draw_within
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws
from cosearch.strategies.surrogate import Learned
from latency_tables.errors import ConfigError, RequestError

Rule = Literal["mixed", "power-limit", "accuracy-limit"]
UNITS, LR, DECAY = 32, 0.01, 0.9


@dataclass(frozen=True)
class MonasOptions:
    """Options of MONAS.

    Attributes:
        rule: of the reward.
        weight: a of the rule ``mixed``, 0..1: 1 looks at the score alone, 0 at the cost alone.
        score_limit: of the rule ``accuracy-limit``, in the task's own unit; it is needed there and refused elsewhere.
        cost: ``latency`` or ``energy``, E of the rules ``mixed`` and ``accuracy-limit``.
        draws: attempts to draw one architecture that meets the target before giving up.
    """

    rule: Rule = "mixed"
    weight: Fraction = 0.8
    score_limit: Finite | None = None
    cost: Literal["latency", "energy"] = "latency"
    draws: Positive = DRAWS


def monas_options(config: StrategyConfig) -> MonasOptions:
    """The options from the section ``strategy`` of the configuration.

    Raises:
        UnknownNameError: an unknown option.
        ConfigError: an invalid value, or one that the rule does not use.
    """
    options = own_options(MonasOptions, config)
    if (options.score_limit is None) == (options.rule == "accuracy-limit"):
        raise ConfigError(
            f"strategy.values.score_limit is the limit of the rule accuracy-limit and of no other: rule is {options.rule!r}, "
            f"score_limit {options.score_limit}"
        )
    unused = {"weight": options.rule != "mixed", "cost": options.rule == "power-limit"}
    refuse_without_effect(config, (key for key, without in unused.items() if without), f"strategy.values.rule={options.rule}")
    return options


def reward(rule: Rule, accuracy: float, cost: float, *, weight: float = 1.0, within: bool = True, accurate: bool = True) -> float:
    """R of one candidate.

    Args:
        rule: which of the three.
        accuracy: S, 0..1.
        cost: E, 0..1.
        weight: a of the rule ``mixed``.
        within: whether the power is within its limit.
        accurate: whether the accuracy is above its limit.
    """
    if rule == "mixed":
        return weight * accuracy - (1.0 - weight) * cost
    if rule == "power-limit":
        return accuracy if within else 0.0
    return 1.0 - cost if accurate else 0.0


class Monas:
    """A controller with the rewards of MONAS.

    Args:
        space: the search space.
        options: see :class:`MonasOptions`.
        generator: CPU generator of the first weights and of all draws.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: MonasOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()
        self.options, self.controller = options, Controller(space, UNITS, generator)
        self.learned = Learned(self.controller, LR)
        self.baseline, self.steps = 0.0, 0
        self.highest_cost = 0.0

    def ask(self) -> Architecture:
        """A draw of the controller that meets the target; under ``power-limit`` it learns from those that miss it.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        proposed, missed = draw_within(self.controller, self.uniform)
        if self.options.rule == "power-limit" and missed:
            self._learn(missed, reward("power-limit", 0.0, 0.0, within=False))
        return proposed

    def tell(self, result: Evaluation) -> None:
        """Record a result, and one step of the controller.

        Raises:
            RequestError: the rule needs an energy, and the device has none.
        """
        self.results.add(result)
        cost = result.cost_s
        if self.options.cost == "energy" and self.options.rule != "power-limit":
            if result.energy_j is None:
                raise RequestError(
                    "strategy.values.cost=energy needs a device with energies; `cosearch list devices` shows them. Or leave it "
                    "out: the cost is the latency then"
                )
            cost = result.energy_j
        self.highest_cost = max(self.highest_cost, cost)
        limit = self.options.score_limit
        reached = reward(
            self.options.rule,
            self.accuracy(len(self.results) - 1),
            cost / self.highest_cost if self.highest_cost > 0 else 1.0,
            weight=self.options.weight,
            accurate=limit is not None and result.score is not None and result.score > limit,
        )
        self._learn([result.architecture.choices], reached)

    def accuracy(self, index: int) -> float:
        """S of a result, 0..1, among all results so far."""
        result, scores = self.results[index], [one.score for one in self.results.all if one.score is not None]
        if result.failed or not scores:
            return 0.0
        low, high = min(scores), max(scores)
        score = low if result.score is None else result.score
        return 0.5 if high == low else (score - low) / (high - low)

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results, the controller and its optimiser, the baseline and the highest cost."""
        return {
            **self.results.state(),
            "controller": self.learned.state(),
            "baseline": self.baseline,
            "steps": self.steps,
            "highest_cost": self.highest_cost,
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        self.learned.restore(read_state(state, "controller"))
        self.baseline, self.steps = read(state, "baseline", float), read(state, "steps", int)
        self.highest_cost = read(state, "highest_cost", float)

    def _learn(self, choices: list[tuple[int, ...]], reached: float) -> None:
        """One step on the gradient of architectures that have the same reward; the baseline is of those before."""
        advantage = reached - (self.baseline if self.steps else reached)
        self.learned.learn(lambda: -advantage * self.controller.of(torch.tensor(choices)).log_p.mean())
        self.baseline = DECAY * self.baseline + (1.0 - DECAY) * reached if self.steps else reached
        self.steps += 1


STRATEGIES.register(
    StrategyInfo(
        "monas",
        "an LSTM controller by policy gradient, rewarded for score and cost together",
        "Hsu et al., MONAS, 2018, arXiv 1806.10332",
        "proposal",
        False,
        True,
        Monas,
        monas_options,
        any_order=True,
    )
)
