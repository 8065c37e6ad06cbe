"""SNAS: each forward pass draws mixtures from concrete distributions, whose temperature falls towards single operations.

Paper: Xie et al., SNAS (ICLR 2019, arXiv 1812.09926); code: SNAS-Series.
Equations, with alpha the architecture logits of a point (an edge), G Gumbel(0, 1) noise and lambda the temperature:
  Z         = softmax((log softmax(alpha) + G) / lambda),   out = sum_k Z_k O_k(x)      forward value and gradient alike
  one level : weights and alpha step on  L + resource cost  of the same data; by reparametrisation through Z
  credit    : dL/dalpha flows through each edge's own <dL/dout, O_k(x)>: the paper's policy gradient with that reward
  lambda    : linear from 1 to 0.03 over the search
  resource  : the gradient of the expected cost, E = base + sum_l p_l . cost_l, credits every operation with its own cost
At small lambda most weights are nearly one-hot, and a one-hot mixture is a network of the space; that the gap to the discrete
network is then small is the claim. At lambda 0.03 a point whose two largest log p + G are no more than 0.03 apart is still mixed.
Every candidate is computed in each pass: time and memory grow with their number.
Differs from the paper in:
1. L is the reinforcement-learning loss, and mixtures act, several a rollout and a new one for each minibatch of the update.
2. The resource cost is the device's (seconds or joules), as a one-sided penalty with a dual variable on E, instead of
   eta (ln size + ln FLOPs + ln MAC) / 3 with a hand-set eta; p is the distribution over the legal architectures.
3. Discretisation: the most likely legal architecture within the target, an exact integer program. The paper takes the most
   likely operation of each edge, its zero included; here the space says how many edges a node keeps.
4. The logits' learning rate is ``strategy.lr`` (0.02) and they have no weight decay; the released code has 3e-4 and 1e-3.
5. With groups Z are concrete samples of the marginals of the legal architectures (``relaxation``), as p in the cost.
6. The first 30 % of the search train weights alone (``strategy.warmup_fraction``); the paper's logits learn from the start.
   Lambda falls over the whole search, so it is 0.71 when they begin.
7. The weights' optimiser is Adam, the paper's SGD with momentum. The agent goes on from the weights that the search trained
   (``budget.retrain_init=inherit``); the paper's results are of networks trained from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cosearch.config.ranges import PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, own_options
from cosearch.strategies.relaxation import ArchitectureLogits, concrete_weights, constant, gumbel_path, linear


@dataclass(frozen=True)
class SnasOptions:
    """Options of SNAS.

    Attributes:
        lr: Adam learning rate of the logits.
        hottest, coldest: lambda at the start and at the end of the search, above 0, linear in between.
    """

    lr: PositiveFloat = 0.02
    hottest: PositiveFloat = 1.0
    coldest: PositiveFloat = 0.03


class SnasStrategy:
    """Architecture logits with concrete samples as mixture weights.

    Args:
        space: the search space.
        options: see :class:`SnasOptions`.
        generator: CPU generator of the Gumbel noise.
    """

    def __init__(self, space: SearchSpace, options: SnasOptions, generator: torch.Generator) -> None:
        self.generator = generator
        self.arch = ArchitectureLogits(space, options.lr, schedule=linear(options.hottest, options.coldest))

    def sample(self) -> Path:
        """Draw Gumbel noise; the weights of its mixture ``Z`` are constant."""
        return constant(self.weighted(gumbel_path(self.arch, self.generator, active_paths=0)))

    def weighted(self, path: Path) -> Path:
        """``Z`` with the noise of the path, differentiable."""
        return Path(path.active, concrete_weights(self.arch, path), soft=True, noise=path.noise)

    def step(self, path: Path, loss: float) -> None:
        """See ``GradientStrategy``: the gradients that came through ``Z`` are used, the loss's value is not."""
        self.arch.step()

    def scores(self) -> list[list[float]]:
        """log softmax(alpha) of each candidate."""
        return self.arch.scores()

    def metrics(self) -> dict[str, object]:
        """Temperature, entropy and probabilities of the architecture distribution."""
        return {"temperature": self.arch.temperature, **self.arch.metrics()}

    def state(self) -> State:
        """Logits, optimiser, temperature."""
        return self.arch.state()

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.arch.restore(state)


def _options(config: StrategyConfig) -> SnasOptions:
    return own_options(SnasOptions, config, lr=config.lr)


STRATEGIES.register(
    StrategyInfo(
        "snas",
        "one level, mixtures drawn from concrete distributions with a falling temperature",
        "Xie et al., ICLR 2019, arXiv 1812.09926",
        "gradient",
        True,
        True,
        SnasStrategy,
        _options,
        ("active_paths", "temperature_start", "temperature_end", "target_form", "warmup_factor", "derive_by"),
    )
)
