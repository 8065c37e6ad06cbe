"""One-level search with the score function: the unbiased gradient of the expected loss of a path, at the price of one path.

Papers: the estimator is REINFORCE (Williams 1992, Machine Learning 8), used for a network's choices by ENAS (Pham et al. 2018,
arXiv 1802.03268); one level, distillation and latency cost are those of A3C-S and A2D (arXiv 2106.06577, 2012.13091).
Equations, with alpha the architecture logits, c the costs, beta the target's multiplier and L what a minibatch tells of its path:
  p_l      = softmax(alpha_l - beta c_l),   a ~ prod_l p_l,   forward and backward along a alone
  minimise   E_p[L] / s + h KL(p || q),   q_l = softmax(-beta c_l): the distribution of largest entropy that holds the target
  d/dalpha = E_a[ (L(a) - b) / s * dlog p(a)/dalpha ] + h Cov_p alpha
  b, s^2   = running mean and variance of L over earlier minibatches
  L        = - sum(r A) / sum(r), plus the weighted divergence from a teacher's actor and critic;   r = pi_a / pi_acting
Gates (``one_level``) credit a candidate with <dL/dA, O_k(A)>, a derivative. Here a candidate is credited with what was had with
it. b does not depend on the path of its minibatch, so it adds no bias; s gives L its own unit, so that h needs none. Without
the divergence (h = 0) p collapses: logits learn only where paths are drawn, and more steps make the ranking worse. With it they
have a fixed point: where L is a sum over the points, alpha = -L / (h s), what the discretisation wants. The policy's term is
not the one that the weights learn from: PPO's is clipped, and rewards a path for being like the one that acted. r is not
clipped but self-normalised, which bounds the term by the largest advantage A (``rl.losses.path_loss``). A path that acted
itself (``strategy.update_path=acting``, A2C) is credited with minus the returns of its environments, in standard deviations.
With DQN, L is the temporal-difference loss, which says how well values are fitted and not what they are: a search without a
teacher is blind.
Differs from the papers in:
1. No controller network (ENAS): the logits are learned directly, one Adam step a minibatch.
2. One level on the frames that the weights learn from, where ENAS rewards accuracy on held-out data: each rollout is new data.
3. A new path for each minibatch (``strategy.update_path``), so that a search of a few ten thousand frames draws thousands.
4. The advantage is held within ``CLIP`` standard deviations: one odd minibatch must not decide.
5. The divergence from q, which the papers do not have; ENAS adds the entropy of its controller to the reward.
6. The target acts through the multiplier of ``budgeted``, found anew at the beginning of each rollout, not through a term in the
   reward.
7. The first 30 % of the search train weights alone (``strategy.warmup_fraction``), along paths of logits that are still 0. ENAS
   takes turns from the start.
8. The agent goes on from the weights that the search trained (``budget.retrain_init=inherit``); ENAS trains what it found from
   scratch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cosearch.config.ranges import PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read
from cosearch.space.groups import draw, log_probability
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, own_options
from cosearch.strategies.relaxation import ArchitectureLogits, gumbel_path

DECAY = 0.98  # of the running mean and variance: about the last fifty minibatches
CLIP = 3.0
ENTROPY = 0.3  # h: 0.2 to 0.5 rank an additive toy with the default task's costs alike, after 672, 2,624 and 8,000 paths


@dataclass(frozen=True)
class ScoreFunctionOptions:
    """Options of the score function.

    Attributes:
        lr: Adam learning rate of the logits.
    """

    lr: PositiveFloat = 0.01


class ScoreFunctionStrategy:
    """Architecture logits that learn from the losses of sampled paths, one candidate at each point.

    Args:
        space: the search space.
        options: see :class:`ScoreFunctionOptions`.
        generator: CPU generator of the paths.
    """

    def __init__(self, space: SearchSpace, options: ScoreFunctionOptions, generator: torch.Generator) -> None:
        self.generator = generator
        self.arch = ArchitectureLogits(space, options.lr)
        self.count, self.mean, self.variance = 0, 0.0, 0.0

    def sample(self) -> Path:
        """One architecture of the distribution; exactly on condition of the space's groups where it has any."""
        space = self.arch.space
        if not space.groups:
            return gumbel_path(self.arch, self.generator, active_paths=1)
        chosen = draw([logits.detach() for logits in self.arch.tilted()], space.groups, space.zeros, self.generator)
        return Path(tuple((c,) for c in chosen))

    def weighted(self, path: Path) -> Path:
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
        """See ``GradientStrategy``: the score-function gradient is added to the logits' gradients (of penalties, if any)."""
        space = self.arch.space
        log_p = log_probability(path.choices, self.arch.tilted(), space.groups, space.zeros)
        means = [(p * alpha.detach()).sum() for p, alpha in zip(self.arch.probabilities(), self.arch.alpha)]
        pull = ENTROPY * torch.stack(means).sum()  # KL(p || q) has the same gradient as E_p[alpha]
        (self.advantage(loss) * log_p + pull).backward()
        self.arch.step()

    def scores(self) -> list[list[float]]:
        """log softmax(alpha) of each candidate."""
        return self.arch.scores()

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the architecture distribution; there is no temperature."""
        return self.arch.metrics()

    def state(self) -> State:
        """Logits, optimiser, and the running mean and variance."""
        return {**self.arch.state(), "count": self.count, "mean": self.mean, "variance": self.variance}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.arch.restore(state)
        self.count, self.mean, self.variance = (
            read(state, "count", int),
            read(state, "mean", float),
            read(state, "variance", float),
        )


def _options(config: StrategyConfig) -> ScoreFunctionOptions:
    return own_options(ScoreFunctionOptions, config, lr=config.lr)


STRATEGIES.register(
    StrategyInfo(
        "reinforce",
        "one-level, with the unbiased score-function gradient of what sampled paths are credited with",
        "Williams 1992; Pham et al. 2018, arXiv 1802.03268; on A3C-S, arXiv 2106.06577",
        "gradient",
        True,
        True,
        ScoreFunctionStrategy,
        _options,
        ("active_paths", "temperature_start", "temperature_end"),
        "regression",
    )
)
