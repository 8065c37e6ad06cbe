"""iDARTS: the hypergradient of two levels from the implicit function theorem, its inverse Hessian a truncated Neumann series.

Paper: Zhang et al., iDARTS (ICML 2021, arXiv 2106.10784); code: MiaoZhang0525/iDARTS.
Equations, with alpha the architecture logits, w the weights, T steps of training after the last step of alpha, and
H = d2 L_train / dw2 there; by the implicit function theorem, where grad_w L_train = 0:
  dL_val/dalpha = grad_alpha L_val - grad_w L_val . H^-1 . d2 L_train / (dw dalpha)
  H^-1          = eta sum_{k=0..inf} (I - eta H)^k,   cut after K products with H             (norm of I - eta H below 1)
With S(g) the step that training takes with gradients g, and J = dS/dg (the paper's SGD: S = -eta g, J = -eta I):
  r_0 = grad_w L_val,   r_k+1 = r_k + H J^T r_k,   s = sum_{k=0..K} J^T r_k               so that s tends to -H^-1 grad_w L_val
  gradient = grad_alpha L_val + (d2 L_train / (dalpha dw)) s
Each product with H is taken on another minibatch. Products with second derivatives are central differences of gradients
(``displaced``), so a step of alpha costs 2 K + 4 backward passes, in float32, and comes once in T steps of the weights. With
K = 0 and T = 1 it is second-order ``darts`` without its virtual step: L_val is taken at w itself. On a quadratic the error falls
as the largest abs(1 - eta lambda)^(K + 1) over the eigenvalues lambda of H.
Differs from the paper in:
1. L is the reinforcement-learning loss (with distillation, where a teacher is given), on the two halves of the frames of a
   rollout, as in ``darts``; the minibatches of the products are drawn from the training half.
2. S is the step of the optimiser that trains the weights here: clipped, then Adam. J is its exact derivative, taken once with
   the gradients of the present minibatch; Adam's averages are held, so that what a gradient adds to later steps through them is
   not counted. Adam scales each weight: I + H J^T stands for the paper's I - eta H, and no eta is chosen.
3. Products with H are finite differences; the paper takes them by differentiating twice. The mixed derivative is a finite
   difference in both. Weights are put back from a copy: the released code adds another vector than it had subtracted.
4. The diagonal approximation of H is left out.
5. K = 2 and T = 4, those of the released run on NAS-Bench-201; the paper varies both. The steps between are ordinary steps of
   training, on the minibatches that come.
6. Logits start at 0, their learning rate is ``strategy.lr`` (the paper's 3e-4 moves them little in as many steps as there are
   here), and weight decay is the paper's.
7. Targets, discretisation, the agent's first weights and the constraint on a node's edges as in ``rl_darts``; the penalty stands
   on the held-out loss.
8. The first 30 % of the search train weights alone (``strategy.warmup_fraction``); in the equations logits learn from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosearch.config.ranges import Count, NonNegative, Positive, PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, own_options
from cosearch.strategies.displaced import Displaced, gradients, norm_of
from cosearch.strategies.gradient.rl_darts import IGNORES
from cosearch.strategies.minibatch import Minibatch, WeightStep
from cosearch.strategies.relaxation import ArchitectureLogits, constant, mixture, mixture_scores


@dataclass(frozen=True)
class IdartsOptions:
    """Options of iDARTS.

    Attributes:
        lr: Adam learning rate of the logits.
        terms: K, products with the Hessian, at least 0.
        inner_steps: T, steps of the weights for each step of the logits, at least 1.
        weight_decay: of the logits, L2.
    """

    lr: PositiveFloat = 0.02
    terms: Count = 2
    inner_steps: Positive = 4
    weight_decay: NonNegative = 1e-3


class IdartsStrategy:
    """Architecture logits whose softmax weighs all candidates, and which learn by the implicit gradient of the held-out loss.

    Args:
        space: the search space.
        options: see :class:`IdartsOptions`.
        generator: not used; nothing is drawn.
    """

    def __init__(self, space: SearchSpace, options: IdartsOptions, generator: torch.Generator) -> None:
        self.options, self.waited = options, 0
        self.arch = ArchitectureLogits(space, options.lr, weight_decay=options.weight_decay)

    def sample(self) -> Path:
        """The mixture as it is now, its weights constant."""
        return constant(mixture(self.arch))

    def weighted(self, path: Path) -> Path:
        """The mixture, its weights differentiable."""
        return mixture(self.arch)

    def step_architecture(self, train: Minibatch, held_out: Minibatch, weights: Sequence[nn.Parameter], step: WeightStep) -> None:
        """See ``BilevelStrategy``: every T-th time."""
        self.waited += 1
        if self.waited < self.options.inner_steps:
            return
        self.waited = 0
        for alpha, gradient in zip(self.arch.alpha, self.hypergradient(train, held_out, weights, step)):
            alpha.grad = gradient
        self.arch.step()

    def hypergradient(
        self, train: Minibatch, held_out: Minibatch, weights: Sequence[nn.Parameter], step: WeightStep
    ) -> list[Tensor]:
        """The gradient of the held-out loss in the logits, for each point ``[num_candidates]``; arguments as above."""
        alpha, count = self.arch.alpha, len(weights)
        found = gradients(held_out, [*weights, *alpha])
        total, rest = found[count:], found[:count]
        if norm_of(rest) == 0.0:  # the held-out loss does not depend on the weights: there is no implicit term
            return total
        train_gradients = [gradient.requires_grad_() for gradient in gradients(train, [*weights, *alpha])[:count]]
        changes = step(train_gradients)

        def moved(row: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(changes, train_gradients, row, retain_graph=True)

        series = terms = moved(rest)
        with Displaced(weights) as displaced:
            for _ in range(self.options.terms):
                if norm_of(terms) == 0.0:
                    break
                product = displaced.derivative(train.another(), weights, terms)
                rest = [row + change for row, change in zip(rest, product)]
                terms = moved(rest)
                series = tuple(so_far + term for so_far, term in zip(series, terms))
            if norm_of(series) == 0.0:
                return total
            implicit = displaced.derivative(train, alpha, series)
        return [direct + change for direct, change in zip(total, implicit)]

    def scores(self) -> list[list[float]]:
        """softmax(alpha) with 0 for the zero."""
        return mixture_scores(self.arch)

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the distribution over legal architectures."""
        return self.arch.metrics()

    def state(self) -> State:
        """Logits, optimiser, and the steps of the weights since the last one of the logits."""
        return {**self.arch.state(), "waited": self.waited}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.arch.restore(state)
        self.waited = read(state, "waited", int)


def _options(config: StrategyConfig) -> IdartsOptions:
    return own_options(IdartsOptions, config, lr=config.lr)


STRATEGIES.register(
    StrategyInfo(
        "idarts",
        "two levels, the implicit gradient by a Neumann series after several steps of the weights",
        "Zhang et al., ICML 2021, arXiv 2106.10784",
        "gradient",
        True,
        True,
        IdartsStrategy,
        _options,
        IGNORES,
    )
)
