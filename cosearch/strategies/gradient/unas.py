"""UNAS: one gradient estimator for losses with a gradient and costs without one, on the gap between seen and held-out experience.

Paper: Vahdat et al., UNAS (CVPR 2020, arXiv 1912.07651); code: NVlabs/unas.
Equations, with alpha the architecture logits, z ~ q = prod_l softmax(alpha_l) an architecture, G Gumbel noise, tau a temperature:
  L(z)    = L_train(z) + lambda |L_val(z) - L_train(z)|                                 lambda = 0.5
  zeta    = softmax((log q + G) / tau),   z = argmax zeta                                tau = 0.4
  zeta~   = the same numbers, made from the noise that is left when z is given (``relaxation``; Tucker et al. 2017, REBAR)
  gradient = (L(z) - L(zeta)) dlog q(z)/dalpha + dL/dzeta . (dzeta/dalpha - dzeta~/dalpha)
  weights : a step on L_train(zeta)
The second term has the mean of L(zeta) dlog q(z)/dalpha, so the whole has the mean of the score function, dE[L(z)]/dalpha, and a
variance that is as small as zeta is like z. It takes two forward passes and two backward passes beyond the step of the weights.
  cost    : P(c(z)) with c measured on whole architectures and P the penalties of the targets: the same estimator, with
            c^(zeta) = b + sum_l zeta_l . theta_l in place of c(zeta), a ridge regression of c on random architectures' choices
Differs from the paper in:
1. L is the reinforcement-learning loss (with distillation, where a teacher is given) on the two halves of the frames of a
   rollout, as in ``darts``. With ``strategy.values.held_out=levels`` half of the environments play validation levels instead,
   which the weights never learn from: then the gap is that of generalisation, as the paper's between two sets of images is.
2. The gap is that of the means of two minibatches; the paper pairs their images one by one.
3. P is the penalty with a dual variable, raised by the costs of the drawn architectures, in place of relu(c - target) with a
   weight that rises linearly. c is divided by the target.
4. theta is fitted to ``FITTED`` architectures drawn uniformly, once, before the first step, the constant without penalty; the
   paper draws 10,000 from q. Where the costs of blocks change later, as with an accelerator, only the variance grows.
5. c is what the device is predicted to take, exact for an architecture and asked for as a whole, also where the cost has a
   gradient. The expected cost of the log, and the derivation's limit, are taken from the table.
6. A new zeta for each step of the weights; the paper uses that of the step of alpha before it. What acts is a zeta, too.
7. q is not softened (log(q + eps) in the released code on ImageNet), alpha has no loss for two equal inputs of a node, and its
   learning rate is constant, ``strategy.lr``.
8. Where a node keeps so many edges, zeta is a concrete sample of each point's marginal: exact for the score, but the second term
   takes points for independent, which leaves a bias. In spaces without such groups there is none.
9. The paper's other estimator, the score function with a moving average, is ``reinforce``.
10. The first 30 % of the search train weights alone (``strategy.warmup_fraction``), which the equations do not have.
11. The weights' optimiser is Adam, the paper's SGD with momentum. The agent goes on from the weights that the search trained
    (``budget.retrain_init=inherit``); the paper trains what it found from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosearch.config.ranges import NonNegative, PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read_list
from cosearch.space.groups import log_probability
from cosearch.space.space import Architecture, SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, own_options
from cosearch.strategies.minibatch import BlackBoxCost, HeldOut, Minibatch, WeightStep
from cosearch.strategies.relaxation import ArchitectureLogits, constant, gumbel_path

WEIGHT_DECAY = 1e-6  # of the logits
FITTED, RIDGE = 512, 1.0  # architectures of the regression of the cost; its penalty

Rows = list[Tensor]  # for each point ``[num_candidates]``


@dataclass(frozen=True)
class UnasOptions:
    """Options of UNAS.

    Attributes:
        lr: Adam learning rate of the logits.
        gap: lambda, weight of the distance of held-out and training loss, at least 0.
        temperature: tau, above 0.
        held_out: ``frames``: L_val is of the other half of the frames; ``levels``: of validation levels (tasks that have levels).
    """

    lr: PositiveFloat = 0.02
    gap: NonNegative = 0.5
    temperature: PositiveFloat = 0.4
    held_out: HeldOut = "frames"


def corrected(log_p: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """zeta with the derivative of zeta - zeta~: concrete samples whose gradient makes up for the loss that is taken at them.

    Given z, exponential noise E decides the rest (``relaxation``): log p_k + G_k = -log(E_k / p_k + E_z), that of z -log E_z.

    Args:
        log_p: ``[..., candidates]``, logarithms of probabilities.
        gumbel: ``[..., candidates]``, the noise.
        temperature: tau, above 0.

    Returns:
        ``[..., candidates]``: softmax((log p + G) / tau).
    """
    y = log_p + gumbel
    with torch.no_grad():
        least = (-y.max(-1, keepdim=True).values).exp()  # E_z
        rest = log_p.exp() * ((-y).exp() - least).clamp_min(0.0)
    given = -torch.log(rest / log_p.exp() + least)
    zeta, again = (torch.softmax(value / temperature, -1) for value in (y, given))
    return zeta - again + again.detach()


@dataclass(frozen=True)
class LinearCost:
    """Costs as a constant and one number a candidate.

    Attributes:
        slopes: ``[candidates of all points, targets]``.
        base: ``[targets]``.
    """

    slopes: Tensor
    base: Tensor

    @classmethod
    def fitted(cls, architectures: Sequence[Architecture], costs: Tensor) -> LinearCost:
        """The ridge regression of ``costs`` ``[architectures, targets]`` on the choices; the constant has no penalty."""
        ones = torch.stack([torch.cat(architecture.one_hot()) for architecture in architectures])
        middle, level = ones.mean(0), costs.double().mean(0)
        x, y = ones - middle, costs.double() - level
        slopes = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=torch.float64), x.T @ y)
        return cls(slopes.float(), (level - middle @ slopes).float())

    def __call__(self, rows: Sequence[Tensor]) -> Tensor:
        """``[targets]`` of weights, for each point ``[num_candidates]``; differentiable."""
        return self.base + torch.cat(list(rows)) @ self.slopes


class UnasStrategy:
    """Architecture logits that learn from the loss of an architecture and of the concrete sample that it is the argmax of.

    Args:
        space: the search space.
        options: see :class:`UnasOptions`.
        generator: CPU generator of the noise.
    """

    def __init__(self, space: SearchSpace, options: UnasOptions, generator: torch.Generator) -> None:
        self.space, self.options, self.generator = space, options, generator
        self.arch = ArchitectureLogits(space, options.lr, weight_decay=WEIGHT_DECAY)
        self.cost: BlackBoxCost | None = None
        self.linear: LinearCost | None = None

    @property
    def held_out(self) -> HeldOut:
        """See ``ChoosesHeldOut``."""
        return self.options.held_out

    def set_cost(self, cost: BlackBoxCost) -> None:
        """See ``AsksForCosts``."""
        self.cost = cost

    def sample(self) -> Path:
        """zeta, its weights constant; its first candidates are z."""
        return constant(self.weighted(gumbel_path(self.arch, self.generator, active_paths=0)))

    def weighted(self, path: Path) -> Path:
        """zeta with the noise of the path; see :func:`corrected` for its gradient."""
        weights = tuple(row[list(active)] for row, active in zip(self._zeta(path), path.active))
        return Path(path.active, weights, soft=True, noise=path.noise)

    def _zeta(self, path: Path) -> Rows:
        rows = zip(self.arch.log_probabilities(), path.noise)
        return [corrected(log_p, gumbel, self.options.temperature) for log_p, gumbel in rows]

    def step_architecture(self, train: Minibatch, held_out: Minibatch, weights: Sequence[nn.Parameter], step: WeightStep) -> None:
        """See ``BilevelStrategy``."""
        path = self.sample()
        hard = Path(tuple((choice,) for choice in path.choices))
        (seen, at_seen), (unseen, at_unseen) = self._along(path, train), self._along(path, held_out)
        above = self.options.gap * ((unseen > seen) - (unseen < seen))
        reward = self._general(train.loss(hard), held_out.loss(hard)) - self._general(seen, unseen)
        self.arch.zero_grad()
        score = reward * self._log_q(path)
        if self.cost is not None:
            score = score + self._cost_term(self.cost)
        score.backward()
        for alpha, a, b in zip(self.arch.alpha, at_seen, at_unseen):
            alpha.grad = (1.0 - above) * a + above * b + (0.0 if alpha.grad is None else alpha.grad)
        self.arch.step()

    def _general(self, seen: float, unseen: float) -> float:
        """L of a loss on training and one on held-out experience."""
        return seen + self.options.gap * abs(unseen - seen)

    def _along(self, path: Path, minibatch: Minibatch) -> tuple[float, Rows]:
        """The loss along a path and its gradient in the logits."""
        self.arch.zero_grad()
        loss = minibatch(path)
        return loss, [torch.zeros_like(a) if a.grad is None else a.grad.clone() for a in self.arch.alpha]

    def _log_q(self, path: Path) -> Tensor:
        return log_probability(path.choices, self.arch.tilted(), self.space.groups, self.space.zeros)

    def _cost_term(self, cost: BlackBoxCost) -> Tensor:
        """A term ``[]`` whose gradient estimates that of the expected penalty of a whole architecture's costs."""
        if self.linear is None:
            drawn = [self.space.sample(self.generator) for _ in range(FITTED)]
            self.linear = LinearCost.fitted(drawn, torch.tensor([list(cost.relative(each)) for each in drawn]))
        path = self.sample()
        relative = torch.tensor(list(cost.relative(self.space.architecture(path.choices))))
        smooth = cost.penalty(self.linear(self._zeta(path)))
        reward = float(cost.penalty(relative)) - float(smooth.detach())
        return reward * self._log_q(path) + smooth

    def scores(self) -> list[list[float]]:
        """log softmax(alpha) of each candidate."""
        return self.arch.scores()

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the architecture distribution."""
        return self.arch.metrics()

    def state(self) -> State:
        """Logits, optimiser, and the regression of the cost."""
        fit = [] if self.linear is None else [self.linear.slopes.clone(), self.linear.base.clone()]
        return {**self.arch.state(), "linear": fit}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.arch.restore(state)
        fit = read_list(state, "linear", Tensor)
        self.linear = LinearCost(*fit) if fit else None


def _options(config: StrategyConfig) -> UnasOptions:
    return own_options(UnasOptions, config, lr=config.lr)


STRATEGIES.register(
    StrategyInfo(
        "unas",
        "two levels, an unbiased estimator with a concrete control variate, costs asked for as a whole",
        "Vahdat et al., CVPR 2020, arXiv 1912.07651",
        "gradient",
        False,
        True,
        UnasStrategy,
        _options,
        ("active_paths", "temperature_start", "temperature_end", "target_form", "warmup_factor", "derive_by"),
    )
)
