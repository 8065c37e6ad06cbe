"""RL-DARTS: the softmax mixture of all candidates acts, and learns its weights and logits from the same loss.

Paper: Miao et al., RL-DARTS (AutoML-Conf 2022, arXiv 2106.02229); code: google/brain_autorl, ``rl_darts/``.
Equations, with alpha the architecture logits of a point (an edge of a cell), started at zero, and O_o its candidates:
  p         = softmax(alpha),   MixedOp(x) = sum_o p_o O_o(x)      the network that acts, and that the RL loss trains
  one level : weights and alpha step on the same loss of the same rollout, without a held-out part
  discrete  : p(zero) := 0; each edge takes argmax_o p_o; a node keeps the two edges with the largest max_o p_o
Time and memory grow with the number of candidates, all of which are computed for every frame that is acted on or learned from.
Differs from the paper in:
1. The forward pass uses softmax(alpha); the released one uses softmax(T alpha), which is the same at its T = 1.
2. A target on the device's cost: a penalty on the expected cost of the legal architectures (``groups.marginals``) with a dual
   variable, and a discretisation that maximises the sum of the kept edges' max_o p_o under it (an exact integer program).
   Without a target in the way that is the rule above. The paper has no cost.
3. Which edges a node keeps is a constraint of the space (``Group``), so the same rule serves any space, chains included.
4. The logits' learning rate is an option of its own; the released code uses that of the weights.
5. The first 30 % of the search train weights alone (``strategy.warmup_fraction``); the paper's logits learn from the start.
6. The agent goes on from the weights that the search trained (``budget.retrain_init=inherit``); the paper trains what it found
   from scratch.
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
from cosearch.strategies.relaxation import ArchitectureLogits, constant, mixture, mixture_scores

IGNORES = (
    "paths_per_rollout",
    "update_path",
    "active_paths",
    "temperature_start",
    "temperature_end",
    "target_form",
    "derive_by",
    "warmup_factor",
)


@dataclass(frozen=True)
class RlDartsOptions:
    """Options of RL-DARTS.

    Attributes:
        lr: Adam learning rate of the logits.
    """

    lr: PositiveFloat = 0.02


class RlDartsStrategy:
    """Architecture logits whose softmax weighs all candidates.

    Args:
        space: the search space.
        options: see :class:`RlDartsOptions`.
        generator: not used; nothing is drawn.
    """

    def __init__(self, space: SearchSpace, options: RlDartsOptions, generator: torch.Generator) -> None:
        self.arch = ArchitectureLogits(space, options.lr)

    def sample(self) -> Path:
        """The mixture as it is now, its weights constant."""
        return constant(mixture(self.arch))

    def weighted(self, path: Path) -> Path:
        """The mixture, its weights differentiable."""
        return mixture(self.arch)

    def step(self, path: Path, loss: float) -> None:
        """See ``GradientStrategy``: the gradients that came through the mixture are used, the loss's value is not."""
        self.arch.step()

    def scores(self) -> list[list[float]]:
        """softmax(alpha) with p(zero) := 0."""
        return mixture_scores(self.arch)

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the distribution over legal architectures."""
        return self.arch.metrics()

    def state(self) -> State:
        """Logits and optimiser."""
        return self.arch.state()

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.arch.restore(state)


def _options(config: StrategyConfig) -> RlDartsOptions:
    return own_options(RlDartsOptions, config, lr=config.lr)


STRATEGIES.register(
    StrategyInfo(
        "rl-darts",
        "one level, the softmax mixture of all candidates acts and learns",
        "Miao et al., AutoML-Conf 2022, arXiv 2106.02229",
        "gradient",
        True,
        True,
        RlDartsStrategy,
        _options,
        IGNORES,
    )
)
