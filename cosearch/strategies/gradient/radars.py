"""RADARS: an agent prunes candidates until the rest fits into memory, and a differentiable search runs on that subspace.

Paper: Yan, Jiang, Hu & Shi, RADARS: Memory Efficient Reinforcement Learning Aided Differentiable Neural Architecture Search
(2021, arXiv 2109.05691); the agent learns by REINFORCE (Williams 1992).
Equations, with S the candidates that are left, B(S) the bytes that their mixture keeps for a frame, and alpha the logits of S:
  MixedOp(x) = sum_{o in S} softmax(alpha)_o O_o(x)              weights and alpha step on the same loss, as in ``rl_darts``
  drop       ~ softmax(-theta) over what may be dropped, one candidate after the other, until B(S) <= memory_share B(all)
  L(S)       = mean of what the minibatches of a short search on S (``episode``) are credited with, alpha begun anew
  theta      : d/dtheta E[L] = E[ (L - b) / s * dlog p(drops)/dtheta ],   b, s: running mean and deviation of L
After ``prune_fraction`` of the search the candidates with the lowest theta are dropped, alpha begins anew and the rest of the
search is on that subspace. The bound holds at every step: nothing is computed before S fits. With ``pruning=random`` the drops
are uniform, once and for all: the control. B counts what each primitive of a block reads and writes, and the block's output
once more for its weight in the sum: at least what autograd keeps.
Differs from the paper in (of which we know the abstract; no code of it is public):
1. The agent is a table of one number a candidate, trained by REINFORCE; what network the paper's agent has we do not know.
2. L is what minibatches of reinforcement learning are credited with during the short search, not accuracy after it; weights of
   the supernet go on from one short search to the next.
3. The bound is a share of the mixture of all candidates and counts their activations: the paper bounds a GPU's whole memory.
4. The candidate of a point that keeps the least is never dropped, and neither is ``none``: so every order of drops ends under
   the bound, and the networks of a space with branches stay legal. What keeps nothing (``skip``) stays, too.
5. While only weights learn (``strategy.warmup_fraction``), each minibatch is learned on a subspace drawn for it.
6. Targets, discretisation, penalties and the agent's first weights are those of ``rl_darts``. What was pruned scores 0, and is
   taken where a target cannot be met without it.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from cosearch.config.ranges import Positive, PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read, read_list, read_state
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, own_options, refuse_without_effect
from cosearch.strategies.gradient.rl_darts import IGNORES
from cosearch.strategies.relaxation import ArchitectureLogits, constant, mixture_scores
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

FLOAT_BYTES = 4
PRUNED = 1e4  # taken off a logit: its softmax is exactly 0
DECAY, CLIP = 0.9, 3.0  # of the running mean and variance of L; largest advantage, in deviations
Active = tuple[tuple[int, ...], ...]  # for each point the candidates that are left


@dataclass(frozen=True)
class RadarsOptions:
    """Options of RADARS.

    Attributes:
        lr: Adam learning rate of the architecture logits.
        memory_share: the bound, as a share of what the mixture of all candidates keeps, above 0 and at most 1.
        pruning: ``agent``, or ``random`` for uniform drops to the same bound.
        agent_lr: Adam learning rate of the agent (``agent``).
        episode: minibatches of a short search, more where those of a rollout learn along the path that acted (``agent``).
        prune_fraction: share of the search after which the subspace is settled, above the warm-up's and below 1 (``agent``).
    """

    lr: PositiveFloat = 0.02
    memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    pruning: Literal["agent", "random"] = "agent"
    agent_lr: PositiveFloat = 0.2
    episode: Positive = 4
    prune_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.6


def kept_bytes(space: SearchSpace, active: Sequence[Sequence[int]]) -> int:
    """Bytes that the mixture of some candidates keeps of one frame for the backward pass, at most; float32.

    Args:
        space: the search space.
        active: for each point the candidates that are computed.
    """
    total = 0
    for node in space.nodes:
        for choices in product(*(active[point] for point in node.points)):
            spec = node.specs[node.candidate(dict(zip(node.points, choices)))]
            total += _block_bytes(spec) if node.points else 0
    return total


@functools.cache
def _block_bytes(spec: OpSpec | None) -> int:
    if spec is None:
        return 0
    layers = spec.layers()
    return FLOAT_BYTES * (sum(layer.elements_in + layer.elements_out for layer in layers) + layers[-1].elements_out)


class Pruning:
    """What may be dropped from a space until it fits a bound.

    Args:
        space: the search space.
        share: of the bytes of all candidates.

    Raises:
        ConfigError: not even the least candidate of each point fits.
    """

    def __init__(self, space: SearchSpace, share: float) -> None:
        self.space, self.sizes = space, [len(point.candidates) for point in space.points]
        self.all: Active = tuple(tuple(range(size)) for size in self.sizes)
        self.bound = share * kept_bytes(space, self.all)
        alone = [
            [kept_bytes(space, (*self.all[:p], (c,), *self.all[p + 1 :])) for c in range(size)]
            for p, size in enumerate(self.sizes)
        ]  # with one candidate of a point, and all of the others
        kept = [min((c for c in range(size) if c != zero), key=alone[p].__getitem__) for p, (size, zero) in self._points()]
        self.never = [{kept[p], *([] if zero is None else [zero])} for p, (_, zero) in self._points()]
        for p, row in enumerate(alone):
            self.never[p] |= {c for c, value in enumerate(row) if value == min(row)}  # which would save nothing
        least = kept_bytes(space, tuple(tuple(sorted(each)) for each in self.never))
        if least > self.bound:
            raise ConfigError(
                f"strategy.values.memory_share={share:g} is too little: the least candidate of each point needs "
                f"{math.ceil(1000 * least / kept_bytes(space, self.all)) / 1000:g} of what all keep; ask for that, or more"
            )

    def _points(self) -> list[tuple[int, tuple[int, int | None]]]:
        return list(enumerate(zip(self.sizes, self.space.zeros)))

    def may_drop(self, active: Active) -> list[tuple[int, int]]:
        """Points and candidates that may be dropped next; none where it fits already."""
        if kept_bytes(self.space, active) <= self.bound:
            return []
        return [(p, c) for p, row in enumerate(active) for c in row if c not in self.never[p]]

    def without(self, active: Active, drop: tuple[int, int]) -> Active:
        """What is left after a drop."""
        point, candidate = drop
        return tuple(tuple(c for c in row if p != point or c != candidate) for p, row in enumerate(active))


class RadarsStrategy:
    """A softmax mixture of the candidates that an agent left.

    Args:
        space: the search space.
        options: see :class:`RadarsOptions`.
        generator: CPU generator of the drops.

    Raises:
        ConfigError: nothing fits the bound.
    """

    def __init__(self, space: SearchSpace, options: RadarsOptions, generator: torch.Generator) -> None:
        self.space, self.options, self.generator = space, options, generator
        self.pruning = Pruning(space, options.memory_share)
        self.theta = [torch.zeros(size, requires_grad=True) for size in self.pruning.sizes]
        self.optimiser = torch.optim.Adam(self.theta, lr=options.agent_lr)
        self.arch = ArchitectureLogits(space, options.lr)
        self._fresh = self.arch.state()
        self.learns, self.settled = False, options.pruning == "random"
        self.losses: list[float] = []
        self.count, self.mean, self.variance = 0, 0.0, 0.0
        self._begin(self._drawn())

    def _drawn(self) -> list[tuple[int, int]]:
        """The drops of a new subspace, drawn from the agent."""
        active, drops = self.pruning.all, []
        while left := self.pruning.may_drop(active):
            with torch.no_grad():
                chances = torch.softmax(torch.stack([-self.theta[p][c] for p, c in left]), 0)
            drops.append(left[int(torch.multinomial(chances, 1, generator=self.generator))])
            active = self.pruning.without(active, drops[-1])
        return drops

    def _lowest(self) -> list[tuple[int, int]]:
        """The drops that the agent is surest of."""
        active, drops = self.pruning.all, []
        while left := self.pruning.may_drop(active):
            drops.append(min(left, key=lambda drop: float(self.theta[drop[0]][drop[1]].detach())))
            active = self.pruning.without(active, drops[-1])
        return drops

    def _begin(self, drops: list[tuple[int, int]]) -> None:
        """Begin a search on a subspace, its logits anew."""
        self.drops, self.active, self.losses = drops, self.pruning.all, []
        for drop in drops:
            self.active = self.pruning.without(self.active, drop)
        self.arch.restore(self._fresh)
        self.arch.set_tilt([[0.0 if c in row else PRUNED for c in range(n)] for row, n in zip(self.active, self.pruning.sizes)])

    def sample(self) -> Path:
        """The mixture of the subspace, its weights constant; of a new one where the last one has had its search."""
        if not self.settled:
            self._next()
        return constant(self.weighted(Path(self.active)))

    def weighted(self, path: Path) -> Path:
        """The mixture of a path's candidates, its weights differentiable."""
        weights = tuple(torch.softmax(logits[list(row)], 0) for logits, row in zip(self.arch.alpha, path.active))
        return Path(path.active, weights, soft=True)

    def step(self, path: Path, loss: float) -> None:
        """See ``GradientStrategy``: the gradients of the mixture move the logits; the losses tell the agent of its drops."""
        self.arch.step()
        self.learns = True
        if self.settled:
            return
        self.losses.append(loss)

    def _next(self) -> None:
        """Go to the next subspace where that is due; minibatches of one rollout that learn along one path stay on theirs."""
        if self.learns and self.losses and self.arch.progress >= self.options.prune_fraction:
            self.settled = True
            self._begin(self._lowest())
        elif not self.learns:
            self._begin(self._drawn())
        elif len(self.losses) >= self.options.episode:
            self._learn(sum(self.losses) / len(self.losses))
            self._begin(self._drawn())

    def _learn(self, loss: float) -> None:
        """One step of the agent on a subspace's loss; none where everything fits and nothing was dropped."""
        if not self.drops:
            return
        mean, variance = (v / (1.0 - DECAY**self.count) if self.count else 0.0 for v in (self.mean, self.variance))
        advantage = max(-CLIP, min(CLIP, (loss - mean) / variance**0.5)) if variance > 0 else 0.0
        if self.count:
            self.variance = DECAY * self.variance + (1.0 - DECAY) * (loss - mean) ** 2
        self.mean, self.count = DECAY * self.mean + (1.0 - DECAY) * loss, self.count + 1
        self.optimiser.zero_grad(set_to_none=True)
        (advantage * self._log_probability()).backward()
        self.optimiser.step()

    def _log_probability(self) -> Tensor:
        """``[]``: of the drops of the present subspace, differentiable in theta."""
        active, total = self.pruning.all, torch.zeros(())
        for drop in self.drops:
            left = self.pruning.may_drop(active)
            total = total + torch.log_softmax(torch.stack([-self.theta[p][c] for p, c in left]), 0)[left.index(drop)]
            active = self.pruning.without(active, drop)
        return total

    def scores(self) -> list[list[float]]:
        """softmax(alpha) with p(zero) := 0, and 0 for what was pruned; all alike before a step of the logits."""
        return mixture_scores(self.arch) if self.learns else [[0.0] * size for size in self.pruning.sizes]

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the distribution over legal architectures."""
        return self.arch.metrics()

    def state(self) -> State:
        """Logits, drops, and the agent with its optimiser and its running mean and variance."""
        return {
            "arch": self.arch.state(),
            "drops": [list(drop) for drop in self.drops],
            "losses": list(self.losses),
            "theta": [theta.detach().clone() for theta in self.theta],
            "agent": copy.deepcopy(self.optimiser.state_dict()),
            "settled": self.settled,
            "learns": self.learns,
            "count": self.count,
            "mean": self.mean,
            "variance": self.variance,
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        drops = [tuple(read_list({"drop": drop}, "drop", int)) for drop in read_list(state, "drops", list)]
        self._begin([(point, candidate) for point, candidate in drops])
        self.arch.restore(read_state(state, "arch"))
        self.losses = read_list(state, "losses", float)
        with torch.no_grad():
            for mine, saved in zip(self.theta, read_list(state, "theta", Tensor)):
                mine.copy_(saved)
        self.optimiser.load_state_dict(copy.deepcopy(read_state(state, "agent")))
        self.settled, self.learns = read(state, "settled", bool), read(state, "learns", bool)
        self.count, self.mean, self.variance = (
            read(state, "count", int),
            read(state, "mean", float),
            read(state, "variance", float),
        )


def _options(config: StrategyConfig) -> RadarsOptions:
    options = own_options(RadarsOptions, config, lr=config.lr)
    if options.memory_share == 1.0:
        unused = ["pruning", "agent_lr", "episode", "prune_fraction"]
        refuse_without_effect(config, unused, "strategy.values.memory_share=1, which drops nothing")
    if options.pruning == "random":
        refuse_without_effect(config, ["agent_lr", "episode", "prune_fraction"], "strategy.values.pruning=random")
    elif config.warmup_fraction < 1.0 and options.prune_fraction <= config.warmup_fraction:
        raise ConfigError(
            f"strategy.values.prune_fraction={options.prune_fraction:g} ends the pruning before the agent has learned anything: "
            f"set it above strategy.warmup_fraction={config.warmup_fraction:g} and below 1"
        )
    return options


STRATEGIES.register(
    StrategyInfo(
        "radars",
        "an agent prunes candidates until their mixture fits a memory bound; a differentiable search on the rest",
        "Yan et al., ICCAD 2022, arXiv 2109.05691",
        "gradient",
        True,
        True,
        RadarsStrategy,
        _options,
        IGNORES,
    )
)
