"""A3C-S and A2D: one-level search with single-path forward and K-path backward (hard Gumbel-softmax).

Papers: Fu et al., A3C-S, DAC 2021, arXiv 2106.06577; Fu et al., A2D, arXiv 2012.13091.
Equations, with alpha the architecture logits of a point, G Gumbel(0, 1) noise and T the temperature:
  y        = softmax((log softmax(alpha) + G) / T)
  forward  : A^{l+1} = O_argmax(y)(A^l)
  backward : dL/dalpha = sum over the K largest y_k of <dL/dA^{l+1}, O_k(A^l)> dy_k/dalpha
  one level: weights and alpha step on the same loss of the same rollout; the loss holds the task, the distillation from the
             teacher's actor and critic, and the expected cost sum_l softmax(alpha_l) . cost_l (added by the pipeline).
K is 2 by default, as in the released code of the authors (Auto-NBA, ``act_num``); we could check no number in the text of A3C-S.
With K = 1 the sum has one term, the gradient at the gate of the candidate that ran: what scaling its output would do. This is
zero for a candidate whose weights have converged, whatever its worth, and large where an output is too small: K = 1 credits skips
and ranks networks backwards. From K = 2 on a candidate is credited with how much of another's error it would take away.
A step computes K candidates forward and backward: on the default space it takes 2.06 times plain training with K = 2, 1.17 times
with K = 1 (``cosearch.benchmarks.speed.search_step``), and keeps K times the activations of the cells. Acting takes one path
always.
Differs from the papers in:
1. Several paths a rollout, each acting in its share of the environments, and a new path for each minibatch of the update
   (``strategy.update_path=acting`` learns along the one that acted, as the papers do): more samples of alpha per frame.
2. The target acts through a one-sided multiplier on the sampled distribution, found anew at the beginning of each rollout
   (``budgeted``), or through a penalty on the expected cost with a dual variable; not through raw logits with a hand-set weight.
3. The temperature falls geometrically over the search's own length instead of per 1e5 environment steps.
4. Discretisation is constrained by the target instead of an argmax.
5. PPO or A2C as the task loss, by configuration; the papers use A2C. With A2C a minibatch is learned along the path that acted.
6. A2D's cost is FLOPs; here both use the device's cost, and ``a2d`` differs from ``a3cs`` by K = all candidates.
7. In cells, where a node keeps so many of its edges, paths are drawn from the distribution over the legal architectures, and
   alpha stands for the logarithms of its marginals in the equations (``relaxation``). The papers have no such constraint.
8. Gates are the Gumbel-softmax sample, as in the equations; the released code takes the softmax of the raw logits of the K,
   and keeps the sum of exp(alpha) over the K as it was at each step.
9. Logits start at 0 and their Adam has a learning rate of ``strategy.lr`` (0.02); T goes from 3 to 0.3. The released code
   (Auto-NBA) starts at 0.001 with 3e-4 and has T = 5 * 0.975^epoch, its epochs of pretraining included.
10. The first 30 % of the search train weights alone (``strategy.warmup_fraction``), along paths of logits that are still 0.
    Auto-NBA, too, trains weights alone at first; of A3C-S and A2D we could check nothing of the kind.
11. A2C with normalised advantages of GAE, a clipped value, Adam, several minibatches a rollout (``cosearch.rl.learning.losses``).
12. The agent goes on from the weights that the search trained (``budget.retrain_init=inherit``); the papers train what they found
    from scratch.
13. On Procgen and MinAtar the teacher's policy is distilled at temperature 0.5 (``distill.temperature``); the papers distil it
    as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from cosearch.config.ranges import Count, PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, own_options
from cosearch.strategies.relaxation import ArchitectureLogits, concrete_weights, geometric, gumbel_path


@dataclass(frozen=True)
class OneLevelOptions:
    """Options of the one-level strategies.

    Attributes:
        active_paths: K, candidates computed for each point; 0 for all.
        temperature_start, temperature_end: Gumbel-softmax temperature, above 0, geometric in between.
        lr: Adam learning rate of the logits.
    """

    active_paths: Count = 2
    temperature_start: PositiveFloat = 3.0
    temperature_end: PositiveFloat = 0.3
    lr: PositiveFloat = 0.01


class OneLevelStrategy:
    """Hard Gumbel-softmax sampling: one candidate gives the value, K give gradients.

    Args:
        space: the search space.
        options: see :class:`OneLevelOptions`.
        generator: CPU generator of the Gumbel noise.
    """

    def __init__(self, space: SearchSpace, options: OneLevelOptions, generator: torch.Generator) -> None:
        self.active_paths, self.generator = options.active_paths, generator
        schedule = geometric(options.temperature_start, options.temperature_end)
        self.arch = ArchitectureLogits(space, options.lr, schedule=schedule)

    def sample(self) -> Path:
        """One architecture of the distribution and the K - 1 next candidates of each point."""
        return gumbel_path(self.arch, self.generator, self.active_paths)

    def weighted(self, path: Path) -> Path:
        """``y`` of the active candidates; the value stays that of the first one."""
        return Path(path.active, concrete_weights(self.arch, path))

    def step(self, path: Path, loss: float) -> None:
        """See ``GradientStrategy``: the gradients that came through the gates are used, the loss's value is not."""
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
