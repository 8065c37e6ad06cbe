"""S3NAS: at each point a chain of gates over the candidates from small to large, a threshold each; one architecture is trained.

Paper: Lee et al., S3NAS (2020, arXiv 2009.02009); code: cap-lab/S3NAS, after Single-Path NAS (Stamoulis et al. 2019).
Equations, with the candidates 0..n of a point ordered by size and a_1..a_n how far each step to the next is over its threshold:
  use_i    = 1[a_i >= 0],   its derivative that of sigmoid(a_i)                    in the paper a_i = ||w_i|| - t_i
  g_k      = use_1 .. use_k (1 - use_k+1)                                          1 for one candidate, 0 for the others
             the paper's kernel = use_1 (w_1 + use_2 (w_2 + ...)), whose part w_i is the outer ring of a larger kernel
  L        = task loss + lambda log(1 + mu relu(E / T - 1))                        lambda = 15, mu = 100
             E the latency of the architecture that is chosen now, T its target: one-sided, zero where it is met
  warm-up  : each candidate with equal probability, without L's second term; then the chosen architecture alone
  scaling  : the search keeps E within a share of T; then one coefficient phi raises all points, each from its candidate k_l of
             n_l by size to k_l + phi (n_l - k_l), rounded: the largest phi in 0..1 with which every target is met
A loss' derivative in use_i, i <= k, is <dL/dA, O_k - O_i-1>: the chosen candidate is compared with every smaller one, and with
what opening the next gate would choose. Only these are computed in a step of the weights. Paths that act compute one candidate.
Differs from the paper in:
1. L is the reinforcement-learning loss (with distillation, where a teacher is given); one level, as in the paper.
2. a_i is one learned number: candidates of the spaces here have weights of their own, so there is no ring whose norm could be
   compared; the part of the paper's gradient that moves norms is left out. Where widths share weights they are sliced as before.
3. Candidates are ordered by the multiply-accumulates that they add, in blocks that several points decide by the mean over the
   other points' candidates; the zero of a point first, equal ones as they are listed.
4. a_i starts at ``START``, so that the largest is chosen; the paper's norms are above thresholds of zero in the same way.
5. Thresholds learn after the warm-up alone (``strategy.warmup_fraction``; the paper: also in it, 8 of 10 epochs).
6. E / T - 1 has no unit; the paper subtracts milliseconds. With further targets there is a term for each.
7. Where a node keeps so many edges, the legal architecture nearest to the gates is chosen. The score of a candidate, for this and
   for the derivation under the target, is minus how far its gates would have to move to choose it.
8. Squeeze-and-excitation, h-swish and mixed kernels in one block are left out: a space says its blocks and widths. The
   thresholds' optimiser is Adam at ``strategy.lr``.
9. Without a step of the thresholds (``strategy.warmup_fraction=1``) the largest legal architecture is what they choose.
10. Scaling is off unless ``strategy.values.scale_from`` names a share below 1. The paper multiplies depth, width and resolution
    of the found network by constants to the power of phi (EfficientNet); here what the space has of them is a choice, so sizes
    stay among its candidates. A point that takes the zero of its group keeps it. Where phi = 0 misses a target nothing is scaled.
11. The agent goes on from the weights that the search trained (``budget.retrain_init=inherit``); the paper trains what it found
    from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from cosearch.config.ranges import Fraction, PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State
from cosearch.space.derivation.derive import within
from cosearch.space.derivation.largest import mean_macs
from cosearch.space.space import Architecture, SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, mean_entropy, own_options
from cosearch.strategies.relaxation import ArchitectureLogits

START = 0.5
WEIGHT, STEEPNESS = 15.0, 100.0  # lambda and mu
ROUNDING = 1e-9  # of a coefficient at which a size changes

Rows = list[Tensor]  # for each point ``[num_candidates]``


@dataclass(frozen=True)
class S3nasOptions:
    """Options of S3NAS.

    Attributes:
        lr: Adam learning rate of the thresholds.
        warmup: share of the search in which candidates are drawn with equal probability, 0..1.
        scale_from: share of each target that the search itself keeps, above 0; what is left the scaling spends. 1: no scaling.
    """

    lr: PositiveFloat = 0.02
    warmup: Fraction = 0.3
    scale_from: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class Gates:
    """Chains of gates, one for each point; the first entry of a point's row is not used.

    Args:
        space: the search space.
        lr: Adam learning rate.
    """

    def __init__(self, space: SearchSpace, lr: float) -> None:
        self.space, self.progress, self.logits = space, 0.0, ArchitectureLogits(space, lr)
        self.alpha = self.logits.alpha
        self.order = [
            [candidate for *_, candidate in sorted((c != zero, macs, c) for c, macs in enumerate(row))]
            for row, zero in zip(mean_macs(space), space.zeros)
        ]
        with torch.no_grad():
            for alpha in self.alpha:
                alpha[1:] = START

    def chosen(self) -> list[int]:
        """For each point the candidate of the legal architecture that is nearest to the gates."""
        return list(self.space.best(self.scores()).choices)

    def scores(self) -> list[list[float]]:
        """For each point minus how far gates would have to move for each candidate; 0 for the one that they choose."""
        rows = []
        for alpha, order in zip(self.alpha, self.order):
            over = alpha.detach().double()
            closed = torch.relu(-over[1:]).cumsum(0)  # below 0 on the way to a candidate
            far = torch.cat([closed.new_zeros(1), closed]) + torch.relu(torch.cat([over[1:], over.new_zeros(1)]))
            row = [0.0] * len(order)
            for place, candidate in enumerate(order):
                row[candidate] = -float(far[place])
            rows.append(row)
        return rows

    def weights(self) -> Rows:
        """g: for each point ``[num_candidates]``, 1 for what the gates choose, differentiable."""
        rows = []
        for alpha, order in zip(self.alpha, self.order):
            soft = torch.sigmoid(alpha[1:])
            use = (alpha[1:] >= 0.0).float() + soft - soft.detach()
            one = use.new_ones(1)
            reached = torch.stack([use[:k].prod() for k in range(len(order))])
            by_size = reached * torch.cat([1.0 - use, one])
            rows.append(by_size[torch.tensor(order).argsort()])
        return rows

    def set_tilt(self, tilt: list[list[float]]) -> None:
        """See ``Architectures``; not used, targets are penalties."""
        self.logits.set_tilt(tilt)

    def probabilities(self) -> Rows:
        """1 for the chosen candidates, with the derivative of the gates: an expected cost is that of one architecture."""
        rows = zip(self.chosen(), self.weights())
        return [torch.eye(len(row))[choice] + row - row.detach() for choice, row in rows]

    def anneal(self, progress: float) -> None:
        """There is no temperature; the progress ends the warm-up."""
        self.progress = progress

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.logits.zero_grad()

    def step(self) -> None:
        """One step of Adam."""
        self.logits.step()

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the architecture distribution, which is one architecture."""
        with torch.no_grad():
            rows = self.probabilities()
        return {"arch_entropy": mean_entropy(rows), "arch_probabilities": [row.tolist() for row in rows]}

    def state(self) -> State:
        """Thresholds and optimiser."""
        return self.logits.state()

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.logits.restore(state)


class S3nasStrategy:
    """Chains of gates that choose one architecture, after a warm-up that draws all alike.

    Args:
        space: the search space.
        options: see :class:`S3nasOptions`.
        generator: CPU generator of the warm-up.
    """

    def __init__(self, space: SearchSpace, options: S3nasOptions, generator: torch.Generator) -> None:
        self.space, self.options, self.generator = space, options, generator
        self.arch = Gates(space, options.lr)
        self.relative: Callable[[Architecture], Sequence[float]] | None = None

    def set_relative_costs(self, relative: Callable[[Architecture], Sequence[float]]) -> None:
        """See ``SeesCosts``: what the scaling goes by."""
        self.relative = relative

    def sample(self) -> Path:
        """The chosen candidates, and behind them those that the gates compare them with; in the warm-up any architecture."""
        if self.arch.progress < self.options.warmup:
            return Path(tuple((c,) for c in self.space.sample(self.generator).choices))
        rows = zip(self.arch.chosen(), self.arch.alpha, self.arch.order)
        return Path(tuple((choice, *_compared(choice, alpha, order)) for choice, alpha, order in rows))

    def weighted(self, path: Path) -> Path:
        """The same path with g as weights; the value stays that of the chosen candidates."""
        rows = zip(self.arch.weights(), path.active)
        return Path(path.active, tuple(row[list(active)] for row, active in rows))

    def penalty(self, relative: Tensor) -> Tensor:
        """lambda log(1 + mu relu(E / T - 1)) ``[]`` of E / T ``[]``, T the search's share of the target; see ``HasPenalty``."""
        return WEIGHT * torch.log1p(STEEPNESS * torch.relu(relative / self.options.scale_from - 1.0))

    def step(self, path: Path, loss: float) -> None:
        """See ``GradientStrategy``: the gradients that came through the gates are used, the loss's value is not."""
        self.arch.step()

    def scores(self) -> list[list[float]]:
        """Minus how far the gates are from choosing each candidate; with scaling, how many sizes it is from the scaled one."""
        scaled = self._scaled() if self.options.scale_from < 1.0 else None
        if scaled is None:
            return self.arch.scores()
        rows = zip(scaled, self.arch.order)
        return [[-float(abs(order.index(c) - order.index(choice))) for c in range(len(order))] for choice, order in rows]

    def _scaled(self) -> tuple[int, ...] | None:
        """The choices of the largest coefficient that meets every target; None where none does."""
        if self.relative is None:
            return None
        found = self.arch.chosen()
        places = [order.index(choice) for choice, order in zip(found, self.arch.order)]
        above = [0 if c == zero else len(o) - 1 - k for c, zero, o, k in zip(found, self.space.zeros, self.arch.order, places)]
        steps = {(j - 0.5) / m for m in above for j in range(1, m + 1)}  # where a point's rounded size changes
        for phi in sorted({0.0, *steps}, reverse=True):
            raised = [k + int(phi * m + 0.5 + ROUNDING) for k, m in zip(places, above)]
            scaled = self.space.architecture([order[k] for k, order in zip(raised, self.arch.order)])
            if all(within(cost, 1.0) for cost in self.relative(scaled)):
                return tuple(scaled.choices)
        return None

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the architecture distribution, which is one architecture."""
        return self.arch.metrics()

    def state(self) -> State:
        """Thresholds and optimiser."""
        return self.arch.state()

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.arch.restore(state)


def _compared(choice: int, alpha: Tensor, order: list[int]) -> list[int]:
    """The candidates beside a choice whose weights have a derivative in the gates of their point."""
    closed = [i for i, value in enumerate(alpha.tolist()) if i and value < 0.0]
    first, second, *_ = [*closed, len(order), len(order)]  # opening the first leads to just before the second
    return [candidate for candidate in dict.fromkeys([*order[:first], order[second - 1]]) if candidate != choice]


def _options(config: StrategyConfig) -> S3nasOptions:
    return own_options(S3nasOptions, config, lr=config.lr, warmup=config.warmup_fraction)


STRATEGIES.register(
    StrategyInfo(
        "s3nas",
        "one level, thresholds choose the size at each point, a one-sided logarithmic latency penalty",
        "Lee et al., 2020, arXiv 2009.02009",
        "gradient",
        True,
        True,
        S3nasStrategy,
        _options,
        (
            "paths_per_rollout",
            "update_path",
            "active_paths",
            "temperature_start",
            "temperature_end",
            "target_form",
            "warmup_factor",
            "derive_by",
        ),
        own_penalty=True,
    )
)
