"""DARTS: the softmax mixture with two levels, weights on one half of the experience and logits on the held-out other half.

Paper: Liu et al., DARTS (ICLR 2019, arXiv 1806.09055); code: quark0/darts.
Equations, with alpha the architecture logits, w the weights and xi the weights' learning rate:
  MixedOp(x) = sum_o softmax(alpha)_o O_o(x)
  min_alpha L_val(w*(alpha), alpha)   s.t.   w*(alpha) = argmin_w L_train(w, alpha)
  w'         = w + S(g),   g = grad_w L_train(w, alpha)      S: the step that training takes with these gradients
  gradient   = grad_alpha L_val(w', alpha) + [grad_alpha L_train(w+, alpha) - grad_alpha L_train(w-, alpha)] / (2 eps)
  w+-        = w +- eps d,   d = (dS/dg)^T grad_w' L_val(w', alpha),   eps = 0.01 / ||d||_2
  order 1    : S = 0, so w' = w and the second term is absent
Each step of the weights follows one of the logits. Order 2 costs four backward passes instead of one, in float32: finite
differences of a bfloat16 network would be rounding noise.
Differs from the paper in:
1. L is the reinforcement-learning loss (with distillation, where a teacher is given). The two halves are frames of the same
   rollout, drawn anew for each rollout and kept apart over all its epochs; the policy makes its own data, so there is no fixed
   split. A rollout's halves share episodes, so the held-out half is less independent than images are.
2. S is the step of the optimiser that trains the weights here: gradients clipped to the same norm, then Adam with its present
   averages, and d holds its exact derivative (of the clipping, too). The paper unrolls S(g) = -xi g, its SGD; a step of that kind
   with Adam's learning rate and unclipped gradients leaves the region where the losses mean anything.
3. Targets, discretisation, the agent's first weights and the constraint on a node's edges as in ``rl_darts``; the penalty stands
   on the held-out loss.
4. Logits start at 0 instead of 0.001 times normal noise: with Adam the first step is larger than that. Their learning rate is
   ``strategy.lr`` (0.02), the paper's 3e-4.
5. The first 30 % of the search train weights alone (``strategy.warmup_fraction``); the paper's logits learn from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cosearch.config.ranges import NonNegative, PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, own_options
from cosearch.strategies.displaced import Displaced, gradients, gradients_of_logits, norm_of
from cosearch.strategies.gradient.rl_darts import IGNORES
from cosearch.strategies.minibatch import Minibatch, WeightStep
from cosearch.strategies.relaxation import ArchitectureLogits, constant, mixture, mixture_scores


@dataclass(frozen=True)
class DartsOptions:
    """Options of DARTS.

    Attributes:
        lr: Adam learning rate of the logits.
        order: 1, or 2 with the second-order term.
        weight_decay: of the logits, L2.
    """

    lr: PositiveFloat = 0.02
    order: Literal[1, 2] = 1
    weight_decay: NonNegative = 1e-3


class DartsStrategy:
    """Architecture logits whose softmax weighs all candidates, and which learn from held-out experience.

    Args:
        space: the search space.
        options: see :class:`DartsOptions`.
        generator: not used; nothing is drawn.
    """

    def __init__(self, space: SearchSpace, options: DartsOptions, generator: torch.Generator) -> None:
        self.order = options.order
        self.arch = ArchitectureLogits(space, options.lr, weight_decay=options.weight_decay)

    def sample(self) -> Path:
        """MixedOp as it is now, its weights constant."""
        return constant(mixture(self.arch))

    def weighted(self, path: Path) -> Path:
        """MixedOp, its weights differentiable."""
        return mixture(self.arch)

    def step_architecture(self, train: Minibatch, held_out: Minibatch, weights: Sequence[nn.Parameter], step: WeightStep) -> None:
        """See ``BilevelStrategy``."""
        if self.order == 1:
            gradients_of_logits(held_out, weights, self.arch.alpha)
        else:
            for alpha, gradient in zip(self.arch.alpha, self._second_order(train, held_out, weights, step)):
                alpha.grad = gradient
        self.arch.step()

    def _second_order(
        self, train: Minibatch, held_out: Minibatch, weights: Sequence[nn.Parameter], step: WeightStep
    ) -> list[Tensor]:
        parameters, count = [*weights, *self.arch.alpha], len(weights)
        with Displaced(weights) as displaced:
            train_gradients = [gradient.requires_grad_() for gradient in gradients(train, parameters)[:count]]
            changes = step(train_gradients)
            displaced.move([change.detach() for change in changes], 1.0)
            found = gradients(held_out, parameters)
            total = found[count:]
            directions = torch.autograd.grad(changes, train_gradients, found[:count]) if count else ()
            if norm_of(directions) == 0.0:  # the held-out loss does not depend on the step of the weights: no second term
                return total
            second = displaced.derivative(train, self.arch.alpha, directions)
            return [value + term for value, term in zip(total, second)]

    def scores(self) -> list[list[float]]:
        """softmax(alpha) with 0 for the zero."""
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


def _options(config: StrategyConfig) -> DartsOptions:
    return own_options(DartsOptions, config, lr=config.lr)


STRATEGIES.register(
    StrategyInfo(
        "darts",
        "two levels: the mixture's weights on half of each rollout, its logits on the other",
        "Liu et al., ICLR 2019, arXiv 1806.09055",
        "gradient",
        True,
        True,
        DartsStrategy,
        _options,
        IGNORES,
    )
)
