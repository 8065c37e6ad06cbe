"""MS-DARTS: DARTS whose weights learn at a mixture that was shifted to where the loss is low nearby, by mean shift.

Paper: Hsieh et al., MS-DARTS: Mean-Shift Based Differentiable Architecture Search (2021, arXiv 2108.09996); code:
aaron851113/MS-DARTS.
Equations, with alpha the architecture logits, p = softmax(alpha) the mixture's weights of all points together:
  alpha      : a step on the held-out loss at p, as in first-order ``darts``
  mean shift : before each step of the weights, twice from p on
               x_n = p + u_n, u_n uniform in (-eps, eps) for each candidate, n = 1..N;   c_n = x_n brought back to a distribution
               v_n = softmax_n(-L_train(c_n)),   K_n = exp(-||p - c_n||_2^2 / (2 h^2))
               p   <- sum_n v_n K_n x_n / sum_n v_n K_n
  weights    : a step on L_train at the shifted p, which is then forgotten
  eps        : linear in the progress of the search from a tenth of its largest value
So weights learn to be good around p, and the loss as a function of p is smoothed; an architecture is then less far from the
mixture that it is rounded from. It takes 2 N more forward passes for each step of the weights, and no backward pass.
Differs from the paper in:
1. v_n = softmax(-L): points with a lower loss weigh more, as the text has it. The released code takes softmax(+L), which weighs
   those with a higher loss more.
2. L is the reinforcement-learning loss (with distillation, where a teacher is given), on the two halves of the frames of a
   rollout, as in ``darts``; the mixture that acts is not shifted.
3. K_n is one number for all points together, where the paper has one for each kind of cell. Its constant factor cancels.
4. c_n: each point's weights are held within 0..1 and divided by their sum; all 0 becomes the largest one alone.
5. Losses are taken in float32 and with the network as it trains; it has no batch normalisation to be put in another mode.
6. The shift begins with the logits' first step, after the warm-up; the paper shifts from the start and its logits wait.
7. Logits start at 0, their learning rate is ``strategy.lr``.
8. Targets, discretisation, the agent's first weights and the constraint on a node's edges as in ``rl_darts``; the penalty stands
   on the held-out loss.
9. The weights' optimiser is Adam; the paper's is SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosearch.config.ranges import NonNegative, Positive, PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, own_options, refuse_without_effect
from cosearch.strategies.displaced import gradients_of_logits
from cosearch.strategies.gradient.rl_darts import IGNORES
from cosearch.strategies.minibatch import Minibatch, WeightStep
from cosearch.strategies.relaxation import ArchitectureLogits, constant, linear, mixture, mixture_scores

ITERATIONS = 2  # of the mean shift
FIRST = 0.1  # share of the largest radius at the start of the search

Rows = list[Tensor]  # for each point ``[num_candidates]``


@dataclass(frozen=True)
class MsDartsOptions:
    """Options of MS-DARTS.

    Attributes:
        lr: Adam learning rate of the logits.
        samples: N, points of one iteration of the mean shift, at least 1.
        radius: the largest eps, at least 0; 0 is first-order ``darts``.
        bandwidth: h of the kernel, above 0.
        weight_decay: of the logits, L2.
    """

    lr: PositiveFloat = 0.02
    samples: Positive = 3
    radius: NonNegative = 0.25
    bandwidth: PositiveFloat = 1.0
    weight_decay: NonNegative = 1e-3


def to_distributions(rows: Sequence[Tensor]) -> Rows:
    """Each row held within 0..1 and divided by its sum; one of zeros becomes its largest entry alone."""
    found = []
    for row in rows:
        held = row.clamp(0.0, 1.0)
        total = held.sum()
        found.append(held / total if total > 0.0 else torch.eye(len(row))[row.argmax()])
    return found


def mean_shift(
    rows: Sequence[Tensor],
    noise: Sequence[Sequence[Tensor]],
    loss: Callable[[Rows], float],
    bandwidth: float,
) -> Rows:
    """One iteration: the mean of the points ``rows + noise``, weighted by the kernel and by their losses.

    Args:
        rows: for each choice point ``[num_candidates]``.
        noise: for each of the points of the iteration rows to be added.
        loss: of a mixture with distributions as weights.
        bandwidth: of the kernel, above 0.

    Returns:
        Rows of the same shapes; not necessarily distributions.
    """
    points = [[row + u for row, u in zip(rows, each)] for each in noise]
    held = [to_distributions(point) for point in points]
    apart = torch.stack([(torch.cat(list(rows)) - torch.cat(point)).square().sum() for point in held])
    losses = torch.tensor([loss(point) for point in held])
    shares = torch.softmax(-losses - 0.5 * apart / bandwidth**2, 0)  # v_n K_n over their sum, also where each K_n is 0 as a float
    return [torch.stack([share * point[i] for share, point in zip(shares, points)]).sum(0) for i in range(len(rows))]


class MsDartsStrategy:
    """Architecture logits that learn from held-out experience, for weights that learn at a shifted mixture.

    Args:
        space: the search space.
        options: see :class:`MsDartsOptions`.
        generator: CPU generator of the perturbations.
    """

    def __init__(self, space: SearchSpace, options: MsDartsOptions, generator: torch.Generator) -> None:
        self.options, self.generator = options, generator
        schedule = linear(FIRST * options.radius, options.radius)  # it has no temperature; this is eps
        self.arch = ArchitectureLogits(space, options.lr, schedule=schedule, weight_decay=options.weight_decay)
        self.shifted: Rows | None = None

    def sample(self) -> Path:
        """The mixture as it is now, its weights constant."""
        return constant(mixture(self.arch))

    def weighted(self, path: Path) -> Path:
        """The shifted mixture for a step of the weights; before that, the mixture, its weights differentiable."""
        now = mixture(self.arch)
        return now if self.shifted is None else Path(now.active, tuple(self.shifted), soft=True)

    def step_architecture(self, train: Minibatch, held_out: Minibatch, weights: Sequence[nn.Parameter], step: WeightStep) -> None:
        """See ``BilevelStrategy``; then shifts the mixture for the step of the weights that follows."""
        self.shifted = None
        gradients_of_logits(held_out, weights, self.arch.alpha)
        self.arch.step()
        path = self.sample()
        rows = [torch.softmax(logits.detach(), 0) for logits in self.arch.tilted()]
        radius = self.arch.temperature
        for _ in range(ITERATIONS if radius > 0.0 else 0):
            noise = [
                [radius * (2.0 * torch.rand(row.shape, generator=self.generator) - 1.0) for row in rows]
                for _ in range(self.options.samples)
            ]
            rows = mean_shift(rows, noise, lambda r: train.loss(Path(path.active, tuple(r), soft=True)), self.options.bandwidth)
        self.shifted = rows

    def scores(self) -> list[list[float]]:
        """softmax(alpha) with 0 for the zero."""
        return mixture_scores(self.arch)

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the distribution over legal architectures."""
        return self.arch.metrics()

    def state(self) -> State:
        """Logits, optimiser and eps; a shift does not outlive its minibatch."""
        return self.arch.state()

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.arch.restore(state)
        self.shifted = None


def _options(config: StrategyConfig) -> MsDartsOptions:
    options = own_options(MsDartsOptions, config, lr=config.lr)
    if options.radius == 0.0:
        refuse_without_effect(config, ["samples", "bandwidth"], "strategy.values.radius=0")
    return options


STRATEGIES.register(
    StrategyInfo(
        "ms-darts",
        "first-order darts, its weights learn at a mixture shifted to low losses nearby",
        "Hsieh et al., 2021, arXiv 2108.09996",
        "gradient",
        True,
        True,
        MsDartsStrategy,
        _options,
        IGNORES,
    )
)
