"""L2NAS: an actor proposes continuous architecture parameters, a critic learns a high quantile of their rewards.

Paper: Mills, Han, Salameh, Rezaei, Kong, Lu, Lian, Jui, Niu, L2NAS: Learning to Optimize Neural Architectures via
Continuous-Action Reinforcement Learning, CIKM 2021, arXiv 2109.12425.
Equations, with a in [0, 1]^n one number a candidate of each point, r the reward of a's architecture, u = r - Q(s, a):
  state    s = mean of the one-hot choices of the K best architectures so far
  critic   min  E rho_tau(u),   rho_tau(u) = u (tau - 1[u < 0]),   tau = 0.9:   Q is the tau-quantile of the reward (Koenker and
           Bassett, Econometrica 46, 1978);   one step, no bootstrapping
  actor    max  Q(s, actor(s))
  next     a = actor(s) + noise, its architecture the best candidate of each point;  with probability epsilon a uniform draw
A critic of the mean learns from all architectures alike; what a search is after is the best that a neighbourhood of s holds.
``critic=squared``, the mean, is the comparison: min E u^2.
Differs from the paper in:
1. Its abstract is what was read: state, quantile critic, noise and epsilon-greedy exploration are from it; sizes of networks and
   batches, learning rates, K and the schedules of exploration are this package's, for tens of proposals instead of hundreds.
2. The architecture of a is the one with the largest sum of a's numbers among those that meet the targets (exactly, see
   ``cosearch.space.derivation.derive``), where the paper has no target. Where the check gives no limits, it is the best by that
   sum of the argmax, if it meets them, and ``POOL`` uniform draws that do.
3. The reward is the score, standardised over all scores so far; the quantile is of the same architectures.
4. Before the first result s is the mean of all candidates, 1 / m in each of a point's m.
5. epsilon falls linearly from 1 to ``EPSILON`` over the first half of the proposals. A uniform draw is remembered by its one-hot
   choices, an action of the actor as it was before it became an architecture.
6. Candidates that are trained at once (``strategy.workers``) are asked for together, of the same state.
7. A candidate without a score, or whose training failed, is neither remembered nor among the K best.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cosearch.config.ranges import Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read_list, read_state
from cosearch.space.derivation.derive import discretise
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import (
    STRATEGIES,
    Evaluation,
    Feasible,
    StrategyInfo,
    TargetsInTurn,
    always_feasible,
    own_options,
    refuse_without_effect,
)
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws

HIDDEN, BATCH, UPDATES, LR = 64, 64, 32, 3e-3
NOISE, EPSILON = 0.1, 0.05  # standard deviation of the noise; smallest probability of a uniform draw
POOL = 64


@dataclass(frozen=True)
class L2nasOptions:
    """Options of L2NAS.

    Attributes:
        candidates: proposals of the whole search.
        critic: ``quantile`` or ``squared``.
        tau: the quantile, 0..1.
        top: K.
    """

    candidates: Positive
    critic: Literal["quantile", "squared"] = "quantile"
    tau: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    top: Positive = 4


def l2nas_options(config: StrategyConfig) -> L2nasOptions:
    """The options from the section ``strategy`` of the configuration.

    Raises:
        ConfigError: a quantile beside a critic that has none; see also ``own_options``.
    """
    options = own_options(L2nasOptions, config, candidates=config.candidates)
    if options.critic == "squared":
        refuse_without_effect(config, ["tau"], "strategy.values.critic=squared, which learns the mean")
    return options


def quantile_loss(error: Tensor, tau: float) -> Tensor:
    """rho_tau, the mean over ``[batch]``; least where a share ``tau`` of the errors is negative or 0.

    Args:
        error: ``[batch]``, target minus prediction.
        tau: 0..1.
    """
    return (error * (tau - (error < 0.0).to(error.dtype))).mean()


class L2nas:
    """Proposals by an actor that a quantile critic teaches.

    Args:
        space: the search space.
        options: see :class:`L2nasOptions`.
        generator: CPU generator of all draws, the first weights among them.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: L2nasOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, DRAWS), Results()
        self.space, self.options, self.generator, self.is_feasible = space, options, generator, is_feasible
        self.sizes = [len(point.candidates) for point in space.points]
        size = sum(self.sizes)
        self.actor = nn.Sequential(*_layers(size, size, generator), nn.Sigmoid())
        self.critic = nn.Sequential(*_layers(2 * size, 1, generator))
        self.optimisers = {name: torch.optim.Adam(net.parameters(), lr=LR) for name, net in self._networks.items()}
        self.asked: list[tuple[Tensor, Tensor]] = []  # state and action of each proposal

    @property
    def _networks(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic}

    @property
    def epsilon(self) -> float:
        """Probability that the next proposal is a uniform draw."""
        return max(EPSILON, 1.0 - (1.0 - EPSILON) * len(self.asked) / (0.5 * self.options.candidates))

    def mean_of_best(self) -> Tensor:
        """s, ``[n]``, float32."""
        scored = [i for i in self.results.trained() if self.results[i].score is not None]
        best = sorted(scored, key=lambda i: -self.results[i].worth)[: self.options.top]
        if not best:
            return torch.cat([torch.full((size,), 1.0 / size) for size in self.sizes])
        return torch.stack([_one_hot(self.space.architecture(self.results[i].choices)) for i in best]).mean(0)

    def ask(self) -> Architecture:
        """The architecture of the actor's noisy action, or a uniform draw.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        state = self.mean_of_best()
        if float(torch.rand((), generator=self.generator)) < self.epsilon:
            proposed = self.uniform.draw()
            action = _one_hot(proposed)
        else:
            with torch.no_grad():
                noise = NOISE * torch.randn(len(state), generator=self.generator)
                action = (self.actor(state) + noise).clamp(0.0, 1.0)
            proposed = self.architecture_of(action)
        self.asked.append((state, action))
        return proposed

    def architecture_of(self, action: Tensor) -> Architecture:
        """The architecture with the largest sum of an action's numbers ``[n]`` that meets the targets."""
        rows = [row.tolist() for row in action.double().split(self.sizes)]
        if isinstance(self.is_feasible, Feasible | TargetsInTurn):
            return discretise(self.space, rows, *self.is_feasible.limits)
        best = self.space.best(rows)
        if self.is_feasible(best):
            return best
        drawn = [self.uniform.draw() for _ in range(POOL)]
        return max(drawn, key=lambda one: sum(row[c] for row, c in zip(rows, one.choices)))

    def tell(self, result: Evaluation) -> None:
        """Record a result, and learn from all so far."""
        self.results.add(result)
        self._learn()

    def _learn(self) -> None:
        told = [i for i in self.results.trained() if self.results[i].score is not None]
        rewards = torch.tensor([self.results[i].worth for i in told], dtype=torch.float64)
        if len(told) < 2 or float(rewards.std()) == 0.0:  # nothing tells them apart
            return
        reward = ((rewards - rewards.mean()) / rewards.std()).float()
        states, actions = (torch.stack([self.asked[i][part] for i in told]) for part in (0, 1))
        for _ in range(UPDATES):
            batch = torch.randperm(len(told), generator=self.generator)[:BATCH]
            error = reward[batch] - self.value(states[batch], actions[batch])
            loss = quantile_loss(error, self.options.tau) if self.options.critic == "quantile" else error.square().mean()
            self._step("critic", loss)
            self._step("actor", -self.value(states[batch], self.actor(states[batch])).mean())

    def value(self, states: Tensor, actions: Tensor) -> Tensor:
        """Q ``[batch]`` of states and actions ``[batch, n]``."""
        value: Tensor = self.critic(torch.cat([states, actions], 1))[:, 0]
        return value

    def _step(self, name: str, loss: Tensor) -> None:
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[name].step()

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results, what was asked, both networks and their optimisers."""
        networks = {name: network.state_dict() for name, network in self._networks.items()}
        optimisers = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        return {
            **self.results.state(),
            "states": [state.clone() for state, _ in self.asked],
            "actions": [action.clone() for _, action in self.asked],
            "networks": copy.deepcopy(networks),
            "optimisers": copy.deepcopy(optimisers),
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        self.asked = list(zip(read_list(state, "states", Tensor), read_list(state, "actions", Tensor), strict=True))
        networks, optimisers = read_state(state, "networks"), read_state(state, "optimisers")
        for name, network in self._networks.items():
            network.load_state_dict(read_state(networks, name))
            self.optimisers[name].load_state_dict(copy.deepcopy(read_state(optimisers, name)))


def _one_hot(architecture: Architecture) -> Tensor:
    return torch.cat(architecture.one_hot()).float()


def _layers(inputs: int, outputs: int, generator: torch.Generator) -> Sequence[nn.Module]:
    """One hidden layer; weights uniform within one over the root of a layer's inputs."""
    layers: list[nn.Module] = []
    for size, width in ((inputs, HIDDEN), (HIDDEN, outputs)):
        layer = nn.utils.skip_init(nn.Linear, size, width)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(-(size**-0.5), size**-0.5, generator=generator)
        layers += [layer, nn.ReLU()]
    return layers[:-1]


STRATEGIES.register(
    StrategyInfo(
        "l2nas",
        "a continuous actor taught by a critic that learns a high quantile of the scores, from the mean of the best so far",
        "Mills et al., CIKM 2021, arXiv 2109.12425",
        "proposal",
        False,
        True,
        L2nas,
        l2nas_options,
    )
)
