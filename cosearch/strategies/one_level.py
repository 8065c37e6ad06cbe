"""A3C-S and A2D: one-level search with single-path forward and K-path backward (hard Gumbel-softmax).

Papers: Fu et al., A3C-S, DAC 2021, arXiv 2106.06577; Fu et al., A2D, arXiv 2012.13091.
Equations, with alpha the architecture logits of a point, G Gumbel(0, 1) noise and T the temperature:
  y        = softmax((log softmax(alpha) + G) / T)
  forward  : A^{l+1} = O_argmax(y)(A^l)
  backward : dL/dalpha = sum over the K largest y_k of <dL/dA^{l+1}, O_k(A^l)> dy_k/dalpha
  one level: weights and alpha step on the same loss of the same rollout; the loss holds the task, the distillation from the
             teacher's actor and critic, and the expected cost sum_l softmax(alpha_l) . cost_l (added by the pipeline).
Differs from the papers in:
1. Several paths a rollout, each acting in its share of the environments, and a new path for each minibatch of the update
   (``strategy.update_path=acting`` learns along the one that acted, as the papers do): more samples of alpha per frame.
2. The target acts through an exact one-sided multiplier on the sampled distribution (``budgeted``), or through a penalty on the
   expected cost with a dual variable; not through raw logits with a hand-set weight.
3. The temperature falls geometrically over the search's own length instead of per 1e5 environment steps.
4. Discretisation is constrained by the target instead of an argmax.
5. PPO or A2C as the task loss, by configuration; the papers use A2C.
6. A2D's cost is FLOPs; here both use the device's cost, and ``a2d`` differs from ``a3cs`` by K = all candidates.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cosearch.config.search import StrategyConfig
from cosearch.space.groups import marginals
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, mean_entropy, own_options


@dataclass(frozen=True)
class OneLevelOptions:
    """Options of the one-level strategies.

    Attributes:
        active_paths: K, candidates computed for each point; 0 for all.
        temperature_start, temperature_end: Gumbel-softmax temperature, above 0, geometric in between.
        lr: Adam learning rate of the logits.
    """

    active_paths: int = 1
    temperature_start: float = 3.0
    temperature_end: float = 0.3
    lr: float = 0.01


@dataclass(frozen=True)
class SampledPath(Path):
    """A path with the Gumbel noise that chose it, so that its weights can be computed again after each step."""

    noise: tuple[Tensor, ...] = ()


class OneLevelStrategy:
    """Architecture logits with hard Gumbel-softmax sampling.

    Args:
        space: the search space.
        options: see :class:`OneLevelOptions`.
        generator: CPU generator of the Gumbel noise.
    """

    def __init__(self, space: SearchSpace, options: OneLevelOptions, generator: torch.Generator) -> None:
        self.space, self.options, self.generator = space, options, generator
        self.logits = [torch.zeros(len(point.candidates), requires_grad=True) for point in space.points]
        self.optimiser = torch.optim.Adam(self.logits, lr=options.lr, betas=(0.5, 0.999))
        self.temperature = options.temperature_start
        self.tilt = [torch.zeros(len(point.candidates)) for point in space.points]

    def set_tilt(self, tilt: list[list[float]]) -> None:
        """See ``GradientStrategy``."""
        self.tilt = [torch.tensor(row, dtype=torch.float32) for row in tilt]

    def _tilted(self) -> list[Tensor]:
        return [logits - tilt for logits, tilt in zip(self.logits, self.tilt)]

    def sample(self) -> SampledPath:
        """Draw Gumbel noise for each point and keep the K most likely candidates, best first.

        Where the space has groups, the first ones are the legal architecture with the highest sum of perturbed logits.
        """
        noise, active, perturbed = [], [], []
        for logits in self._tilted():
            uniform = torch.rand(logits.shape, generator=self.generator).clamp_(1e-20, 1.0 - 1e-7)
            gumbel = -torch.log(-torch.log(uniform))
            noise.append(gumbel)
            perturbed.append(torch.log_softmax(logits.detach(), 0) + gumbel)
            active.append(perturbed[-1].argsort(descending=True).tolist())
        if self.space.groups:
            chosen = self.space.best([row.tolist() for row in perturbed]).choices
            active = [[c, *(k for k in ranked if k != c)] for c, ranked in zip(chosen, active)]
        active = [tuple(ranked[: self.options.active_paths or len(ranked)]) for ranked in active]
        return SampledPath(tuple(active), noise=tuple(noise))

    def weighted(self, path: SampledPath) -> Path:
        """``y`` of the active candidates, differentiable in all logits of their point."""
        weights = []
        for logits, gumbel, active in zip(self._tilted(), path.noise, path.active):
            y = torch.softmax((torch.log_softmax(logits, 0) + gumbel) / self.temperature, 0)
            weights.append(y[list(active)])
        return Path(path.active, tuple(weights))

    def probabilities(self) -> list[Tensor]:
        """softmax(alpha - tilt) of each point, on condition of the space's groups where it has any."""
        return marginals(self._tilted(), self.space.groups, self.space.zeros)

    def zero_grad(self) -> None:
        """See ``GradientStrategy``."""
        self.optimiser.zero_grad(set_to_none=True)

    def step(self, path: Path, loss: float) -> None:
        """See ``GradientStrategy``: the gradients that came through the gates are used, the loss's value is not."""
        self.optimiser.step()

    def anneal(self, progress: float) -> None:
        """T = start * (end / start)^progress."""
        o = self.options
        self.temperature = o.temperature_start * (o.temperature_end / o.temperature_start) ** min(max(progress, 0.0), 1.0)

    def scores(self) -> list[list[float]]:
        """log softmax(alpha), without the tilt: what the task thinks of each candidate, for the constrained discretisation."""
        return [torch.log_softmax(logits.detach().double(), 0).tolist() for logits in self.logits]

    def metrics(self) -> dict[str, Any]:
        """Temperature, entropy and probabilities of the architecture distribution."""
        with torch.no_grad():
            probabilities = self.probabilities()
        return {
            "temperature": self.temperature,
            "arch_entropy": mean_entropy(probabilities),
            "arch_probabilities": [[round(float(v), 6) for v in p] for p in probabilities],
        }

    def state(self) -> dict[str, Any]:
        """Logits, optimiser, temperature."""
        return {
            "logits": [logits.detach().clone() for logits in self.logits],
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "temperature": self.temperature,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        with torch.no_grad():
            for mine, saved in zip(self.logits, state["logits"]):
                mine.copy_(saved)
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
        self.temperature = state["temperature"]


def one_level_options(config: StrategyConfig) -> OneLevelOptions:
    """The options from the section ``strategy`` of the configuration."""
    return own_options(
        OneLevelOptions,
        config,
        active_paths=config.active_paths,
        temperature_start=config.temperature_start,
        temperature_end=config.temperature_end,
        lr=config.lr,
    )


def _a2d(space: SearchSpace, options: OneLevelOptions, generator: torch.Generator) -> OneLevelStrategy:
    return OneLevelStrategy(space, replace(options, active_paths=0), generator)


STRATEGIES.register(
    StrategyInfo(
        "a3cs",
        "one-level, single path forward, K paths backward, teacher's actor and critic distilled",
        "Fu et al., DAC 2021, arXiv 2106.06577",
        "gradient",
        True,
        True,
        OneLevelStrategy,
        one_level_options,
    )
)
STRATEGIES.register(
    StrategyInfo(
        "a2d",
        "one-level as a3cs, with gradients through every candidate (K = all)",
        "Fu et al., 2020, arXiv 2012.13091",
        "gradient",
        True,
        True,
        _a2d,
        one_level_options,
        ("active_paths",),
    )
)
