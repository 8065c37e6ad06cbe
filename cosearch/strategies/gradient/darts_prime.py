"""DARTS-PRIME: two levels whose logits step when the weights have settled, and are pulled towards what they are rounded to.

Paper: Maile et al., DARTS-PRIME (2021, arXiv 2106.11655); code: k8lion/DARTS-PRIME.
Equations, with alpha the architecture parameters of a point, w the weights, t/T the share of the search that is done:
  CRB       : act(alpha) = clamp(alpha, 0, 1), out = sum_k act(alpha)_k O_k(x)    candidates do not compete; started at 1/n
              alpha_k <= 0 leaves for good
  schedule  : F = ||grad_w L_train||^2 of each minibatch, F~ its moving average (weight 0.2 for the newest)
              alpha steps before a minibatch where 0 < F~ < theta;  theta *= 1.05^-10 after such a step, else theta *= 1.05
              so that alpha steps at one minibatch in eleven in the long run, taken where the gradients of w are small
  proximity : L_val + (t/T) (rho/2) ||act(alpha) - disc(alpha)||_2                              rho = 0.1
  ADMM      : L_val + (rho/2) ||act(alpha) - Z + U||_2^2;  after every ten steps of alpha
              Z = disc(act(alpha) + U),  U <- U + act(alpha) - Z                                (Boyd et al. 2011, section 3.1.1)
disc is the legal architecture with the largest sum of activations, as 0 and 1. It is the paper's rule: the two best edges of
a node, the best operation of an edge. With ``regulariser=proximity`` the distance to it weighs more and more.
Differs from the paper in:
1. L is the reinforcement-learning loss (with distillation, where a teacher is given), on the two halves of the frames of a
   rollout, as in ``darts``; the paper holds out 1 of 11 images, as many as its schedule needs. The rest of the held-out half here
   is not used.
2. There is no batch normalisation behind each node, which the paper has for sums of activations of any size.
3. A candidate that no weight goes through any more is not computed, as in the released code; but the last one of a point stays,
   at ``FLOOR``: the paper may lose all operations of an edge.
4. Zero is no candidate with CRB where a node keeps so many edges, as in the paper; elsewhere it is one.
5. The expected cost is that of the activations divided by their sum; the paper has no cost. Targets, discretisation
   and the agent's first weights as in ``rl_darts``; the penalty stands on the held-out loss.
6. The distance to disc is one norm over all points, the paper's one for each kind of cell. That of ADMM is squared, as in Boyd et
   al.; the released code takes the norm there, too, rounds alpha where its activation is meant (with softmax they differ), and
   begins U's step from -0.2 U.
7. The weights' optimiser is Adam, so its steps are not small because F is.
8. The threshold starts at 1 as in the paper; it moves only from the end of the warm-up on, the average from the start.
9. w steps on every minibatch, so it takes eleven steps for one of alpha: those ten whose factors make up for it, and the one
   behind it. The paper means ten. With ``schedule=constant`` there are ten.
10. Logits (with softmax) start at 0, not at 0.001 times normal noise; their learning rate is ``strategy.lr``.
11. The further regulariser of the released code (``proxadj``) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cosearch.config.ranges import NonNegative, PositiveFloat
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read, read_list, read_state
from cosearch.space.groups import grouped, marginals, zero_of
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES, StrategyInfo, mean_entropy, own_options
from cosearch.strategies.displaced import gradients_of_logits
from cosearch.strategies.gradient.rl_darts import IGNORES
from cosearch.strategies.minibatch import Minibatch, WeightStep
from cosearch.strategies.relaxation import TINY, ArchitectureLogits, constant

GROWTH, BETWEEN, NEWEST = 1.05, 10, 0.2  # of the threshold; steps of it that one of alpha undoes; weight in the moving average
RHO, ROUNDED_EVERY = 0.1, 10  # weight of the distance; steps of alpha between two updates of Z and U
NOISE, FLOOR = 1e-4, 0.01  # of the first activations; of the last candidate of a point

Rows = list[Tensor]  # for each point ``[num_candidates]``


@dataclass(frozen=True)
class DartsPrimeOptions:
    """Options of DARTS-PRIME.

    Attributes:
        lr: Adam learning rate of the logits.
        activation: ``crb`` or ``softmax``.
        schedule: ``dynamic``, by the gradients of the weights, or ``constant``, every tenth minibatch.
        regulariser: ``proximity``, ``admm`` or ``none``.
        weight_decay: of the logits, L2.
    """

    lr: PositiveFloat = 0.02
    activation: Literal["crb", "softmax"] = "crb"
    schedule: Literal["dynamic", "constant"] = "dynamic"
    regulariser: Literal["proximity", "admm", "none"] = "proximity"
    weight_decay: NonNegative = 1e-3


class Activations:
    """Architecture parameters and what they weigh candidates with; clamped ones that reach 0 have left for good.

    Args:
        space: the search space.
        options: see :class:`DartsPrimeOptions`.
        generator: CPU generator of the first values.
    """

    def __init__(self, space: SearchSpace, options: DartsPrimeOptions, generator: torch.Generator) -> None:
        self.space, self.clamped, self.progress = space, options.activation == "crb", 0.0
        self.logits = ArchitectureLogits(space, options.lr, weight_decay=options.weight_decay)
        self.alpha = self.logits.alpha
        self.candidates = [torch.ones(len(alpha), dtype=torch.bool) for alpha in self.alpha]  # all but zeros that stand for none
        for point in grouped(space.groups) if self.clamped else ():
            self.candidates[point][zero_of(space.zeros, point)] = False
        self.alive = [row.clone() for row in self.candidates]
        if not self.clamped:
            return
        with torch.no_grad():
            for alpha, alive in zip(self.alpha, self.alive):
                alpha.copy_(alive * (1.0 / float(alive.sum()) + NOISE * torch.randn(alpha.shape, generator=generator)))

    def activations(self) -> Rows:
        """act(alpha), 0 for what has left; differentiable."""
        if not self.clamped:
            return [torch.softmax(logits, 0) for logits in self.logits.tilted()]
        return [alpha.clamp(0.0, 1.0) * alive for alpha, alive in zip(self.alpha, self.alive)]

    def set_tilt(self, tilt: list[list[float]]) -> None:
        """See ``Architectures``; not used, targets are penalties."""
        self.logits.set_tilt(tilt)

    def probabilities(self) -> Rows:
        """Activations divided by their sum, on condition of the space's groups; differentiable."""
        if not self.clamped:
            return self.logits.probabilities()
        return marginals([row.clamp_min(TINY).log() for row in self.activations()], self.space.groups, self.space.zeros)

    def anneal(self, progress: float) -> None:
        """There is no temperature; the progress weighs the proximity."""
        self.progress = progress

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.logits.zero_grad()

    def step(self) -> None:
        """One step of Adam; then what is clamped at 0 leaves, but for the last of a point."""
        self.logits.step()
        if not self.clamped:
            return
        with torch.no_grad():
            for alpha, alive in zip(self.alpha, self.alive):
                last = int(torch.where(alive, alpha, -math.inf).argmax())
                alive.logical_and_(alpha > 0.0)
                if not alive.any():
                    alive[last], alpha[last] = True, FLOOR
                alpha.mul_(alive)

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the architecture distribution."""
        with torch.no_grad():
            probabilities = self.probabilities()
        rows = [[round(float(v), 6) for v in p] for p in probabilities]
        return {"arch_entropy": mean_entropy(probabilities), "arch_probabilities": rows}

    def state(self) -> State:
        """Parameters, optimiser, and who is left."""
        return {**self.logits.state(), "alive": [alive.clone() for alive in self.alive]}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.logits.restore(state)
        self.alive = [alive.clone() for alive in read_list(state, "alive", Tensor)]


class Schedule:
    """When the logits step: at times when the gradients of the weights are small, once in ``BETWEEN`` + 1 in the long run."""

    def __init__(self) -> None:
        self.threshold, self.average = 1.0, 0.0

    def saw(self, gradient_norm: float) -> None:
        """A minibatch of the weights had gradients of this norm, at least 0."""
        squared = gradient_norm**2
        self.average = NEWEST * squared + (1.0 - NEWEST) * self.average if self.average > 0.0 else squared

    def is_due(self) -> bool:
        """Whether the logits step before the next minibatch; asked once for each."""
        due = 0.0 < self.average < self.threshold
        self.threshold *= GROWTH**-BETWEEN if due else GROWTH
        return due


class Admm:
    """The split of the activations x into x and a rounded copy Z, held together by U: scaled form of Boyd et al. (2011), 3.1.1.

    Args:
        start: the activations at first.
    """

    def __init__(self, start: Sequence[Tensor]) -> None:
        self.z = [row.detach().clone() for row in start]
        self.u = [torch.zeros_like(row) for row in self.z]

    def penalty(self, x: Sequence[Tensor]) -> Tensor:
        """(rho / 2) ||x - Z + U||^2, ``[]``."""
        return 0.5 * RHO * torch.stack([(a - z + u).square().sum() for a, z, u in zip(x, self.z, self.u)]).sum()

    def update(self, x: Sequence[Tensor], project: Callable[[Rows], Rows]) -> None:
        """Z = project(x + U), then U <- U + x - Z."""
        now = [row.detach() for row in x]
        self.z = project([a + u for a, u in zip(now, self.u)])
        self.u = [u + a - z for u, a, z in zip(self.u, now, self.z)]

    def residual(self, x: Sequence[Tensor]) -> float:
        """||x - Z||_2: 0 where the split is closed."""
        return float(torch.stack([(a.detach() - z).square().sum() for a, z in zip(x, self.z)]).sum().sqrt())


class DartsPrimeStrategy:
    """Architecture parameters that learn on a schedule from held-out experience, and from the distance to their rounding.

    Args:
        space: the search space.
        options: see :class:`DartsPrimeOptions`.
        generator: CPU generator of the first activations.
    """

    def __init__(self, space: SearchSpace, options: DartsPrimeOptions, generator: torch.Generator) -> None:
        self.space, self.options, self.schedule = space, options, Schedule()
        self.arch = Activations(space, options, generator)
        self.asked = self.steps = 0
        self.admm = Admm(self.arch.activations())

    def sample(self) -> Path:
        """The sum of the candidates that are left, weighted by their activations; constant."""
        return constant(self._mixture())

    def weighted(self, path: Path) -> Path:
        """The same sum, its weights differentiable."""
        return self._mixture()

    def _mixture(self) -> Path:
        active = tuple(tuple(alive.nonzero().flatten().tolist()) for alive in self.arch.alive)
        rows = self.arch.activations()
        return Path(active, tuple(row[list(indices)] for row, indices in zip(rows, active)), soft=True)

    def rounded(self, rows: Sequence[Tensor]) -> Rows:
        """disc: the legal architecture with the largest sum of these values, as 0 and 1; 0 for zeros that are no candidates."""
        best = [row.float() for row in self.space.best(self._without_zeros(rows)).one_hot()]
        return [row * candidates for row, candidates in zip(best, self.arch.candidates)]

    def _without_zeros(self, rows: Sequence[Tensor]) -> list[list[float]]:
        values = [row.detach().double().tolist() for row in rows]
        return [[0.0 if c == zero else v for c, v in enumerate(row)] for row, zero in zip(values, self.space.zeros)]

    def weights_learned(self, gradient_norm: float) -> None:
        """See ``WatchesGradients``."""
        self.schedule.saw(gradient_norm)

    def step_architecture(self, train: Minibatch, held_out: Minibatch, weights: Sequence[nn.Parameter], step: WeightStep) -> None:
        """See ``BilevelStrategy``: where the schedule says so."""
        self.asked += 1
        due = self.schedule.is_due() if self.options.schedule == "dynamic" else self.asked % BETWEEN == 0
        if not due:
            return
        gradients_of_logits(held_out, weights, self.arch.alpha)
        distance = self.distance()
        if distance is not None:
            distance.backward()
        self.arch.step()
        self.steps += 1
        if self.options.regulariser == "admm" and self.steps % ROUNDED_EVERY == 0:
            self.admm.update(self.arch.activations(), self.rounded)

    def distance(self) -> Tensor | None:
        """What pulls the activations to their rounding, ``[]``; None without a regulariser."""
        rows = self.arch.activations()
        if self.options.regulariser == "admm":
            return self.admm.penalty(rows)
        if self.options.regulariser == "none":
            return None
        apart = torch.cat(rows) - torch.cat(self.rounded(rows))
        return self.arch.progress * 0.5 * RHO * torch.linalg.vector_norm(apart)

    def scores(self) -> list[list[float]]:
        """The activations with 0 for the zero."""
        return self._without_zeros(self.arch.activations())

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the distribution over legal architectures."""
        return self.arch.metrics()

    def state(self) -> State:
        """Parameters, optimiser, schedule, Z and U."""
        return {
            "arch": self.arch.state(),
            "threshold": self.schedule.threshold,
            "average": self.schedule.average,
            "asked": self.asked,
            "steps": self.steps,
            "z": [row.clone() for row in self.admm.z],
            "u": [row.clone() for row in self.admm.u],
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.arch.restore(read_state(state, "arch"))
        self.schedule.threshold, self.schedule.average = read(state, "threshold", float), read(state, "average", float)
        self.asked, self.steps = read(state, "asked", int), read(state, "steps", int)
        self.admm.z, self.admm.u = read_list(state, "z", Tensor), read_list(state, "u", Tensor)


def _options(config: StrategyConfig) -> DartsPrimeOptions:
    return own_options(DartsPrimeOptions, config, lr=config.lr)


STRATEGIES.register(
    StrategyInfo(
        "darts-prime",
        "two levels on a schedule of the gradients of the weights, pulled towards single operations",
        "Maile et al., 2021, arXiv 2106.11655",
        "gradient",
        True,
        True,
        DartsPrimeStrategy,
        _options,
        IGNORES,
    )
)
