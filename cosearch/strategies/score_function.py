"""One-level search with the score function: the unbiased gradient of the same loss, from one path at the price of one path.

Papers: the estimator is REINFORCE (Williams 1992, Machine Learning 8), used for a network's choices by ENAS (Pham et al. 2018,
arXiv 1802.03268); one level, distillation and latency cost are those of A3C-S and A2D (arXiv 2106.06577, 2012.13091).
Equations, with alpha the architecture logits, c the costs, beta the target's multiplier and L a minibatch's whole loss:
  p_l      = softmax(alpha_l - beta c_l),   a ~ prod_l p_l,   forward and backward along a alone
  dE[L]/dalpha = E_a[ (L(a) - b) / s * dlog p(a)/dalpha ]
  b, s^2   = running mean and variance of the losses of earlier minibatches
Gates (``one_level``) credit a candidate with <dL/dA, O_k(A)>: what would happen if its output were scaled. That is cheap, but
a convolution that the network needs and a skip look alike to it. Here a candidate is credited with the loss that was had with
it. b does not depend on the path of its minibatch, so it adds no bias; s only scales the learning rate.
Differs from the papers in:
1. No controller network (ENAS): the logits are learned directly, one Adam step a minibatch.
2. One level on the training loss, where ENAS rewards accuracy on held-out data: in RL every rollout is new data.
3. A new path for each minibatch (``strategy.update_path``), so that a search of a few ten thousand frames draws thousands.
4. The advantage is held within ``CLIP`` standard deviations: one odd minibatch must not decide.
5. The target acts through the exact multiplier of ``budgeted``, not through a term in the reward.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from cosearch.space.groups import draw, log_probability
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo
from cosearch.strategies.one_level import OneLevelOptions, OneLevelStrategy, SampledPath, one_level_options

DECAY = 0.98  # of the running mean and variance: about the last fifty minibatches
CLIP = 3.0


class ScoreFunctionStrategy(OneLevelStrategy):
    """Architecture logits that learn from the losses of sampled paths. Sampling, tilt and scores are the one-level strategy's.

    Args:
        space: the search space.
        options: see ``OneLevelOptions``; ``lr`` alone is used, one candidate is computed at each point.
        generator: CPU generator of the paths.
    """

    def __init__(self, space: SearchSpace, options: OneLevelOptions, generator: torch.Generator) -> None:
        super().__init__(space, replace(options, active_paths=1), generator)
        self.count, self.mean, self.variance = 0, 0.0, 0.0

    def sample(self) -> SampledPath:
        """One architecture of the distribution; exactly on condition of the space's groups where it has any."""
        if not self.space.groups:
            return super().sample()
        chosen = draw([logits.detach() for logits in self._tilted()], self.space.groups, self.space.zeros, self.generator)
        return SampledPath(tuple((c,) for c in chosen))

    def weighted(self, path: SampledPath) -> Path:
        """The path as it is: no gradient flows through gates."""
        return path

    def advantage(self, loss: float) -> float:
        """(loss - b) / s from the losses seen before this one, within ``CLIP``; 0 until two were seen. Then learns this one."""
        mean, variance = (v / (1.0 - DECAY**self.count) if self.count else 0.0 for v in (self.mean, self.variance))
        value = max(-CLIP, min(CLIP, (loss - mean) / variance**0.5)) if variance > 0 else 0.0
        if self.count:
            self.variance = DECAY * self.variance + (1.0 - DECAY) * (loss - mean) ** 2
        self.mean = DECAY * self.mean + (1.0 - DECAY) * loss
        self.count += 1
        return value

    def step(self, path: Path, loss: float) -> None:
        """Add the score-function gradient of the minibatch to the logits' gradients (of the penalties, if any), and step."""
        log_p = log_probability(path.choices, self._tilted(), self.space.groups, self.space.zeros)
        (self.advantage(loss) * log_p).backward()
        super().step(path, loss)

    def metrics(self) -> dict[str, Any]:
        """Entropy and probabilities of the architecture distribution; there is no temperature."""
        values = super().metrics()
        del values["temperature"]
        return values

    def state(self) -> dict[str, Any]:
        """As the one-level strategy's, and the running mean and variance."""
        return {**super().state(), "count": self.count, "mean": self.mean, "variance": self.variance}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        super().restore(state)
        self.count, self.mean, self.variance = state["count"], state["mean"], state["variance"]


STRATEGIES.register(
    StrategyInfo(
        "reinforce",
        "one-level as a3cs, with the unbiased score-function gradient of the same loss",
        "Williams 1992; Pham et al. 2018, arXiv 1802.03268; on A3C-S, arXiv 2106.06577",
        "gradient",
        True,
        True,
        ScoreFunctionStrategy,
        one_level_options,
        ("active_paths", "temperature_start", "temperature_end"),
    )
)
