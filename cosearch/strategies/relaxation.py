"""Architecture logits, and the ways from them to the weights of a path: what gradient strategies are put together from.

With alpha the logits of a point, G Gumbel(0, 1) noise and T the temperature:
  mixture  : softmax(alpha)                            every candidate, nothing drawn
  concrete : softmax((log p + G) / T), p = softmax(alpha)     drawn (Maddison et al. 2017, arXiv 1611.00712; Jang et al.)
  hard     : one-hot at the argmax of log p + G, which is a draw from p (Gumbel-max)
In a space with groups p are the marginals of the legal architectures, those that the cost is expected over. An architecture z is
drawn exactly from that distribution (``groups.draw``); then each point's noise is drawn on condition that its argmax is z, with E
exponential:  G_z = -log E_z - log p_z,   G_k = -log(E_k + p_k E_z) for k != z   (Maddison et al. 2014, A* sampling).
Over the draws of z the noise of a point is plain Gumbel noise, so its weights are concrete samples of p, whatever the others are.
A tilt that is subtracted from the logits lets a target act on what is drawn (``budgeted``) and not on what is learned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cosearch.record.state import State, read, read_list, read_state
from cosearch.space.groups import draw, marginals
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import Path
from cosearch.strategies.base import mean_entropy

TINY = 1e-30  # least probability whose logarithm is taken
LEARNED = 1e-9  # difference of scores from which a candidate is preferred

Schedule = Callable[[float], float]  # progress of the search, 0..1 -> temperature, above 0


def geometric(start: float, end: float) -> Schedule:
    """T = start * (end / start)^progress; held at both ends."""
    return lambda progress: start * (end / start) ** min(max(progress, 0.0), 1.0)


def linear(start: float, end: float) -> Schedule:
    """T = start + (end - start) * progress; held at both ends."""
    return lambda progress: start + (end - start) * min(max(progress, 0.0), 1.0)


class ArchitectureLogits:
    """The logits of all choice points and the Adam that moves them; zeros at first.

    Args:
        space: the search space.
        lr: Adam learning rate.
        schedule: of the temperature T of concrete weights; None: 1 throughout.
        weight_decay: L2, at least 0.
    """

    def __init__(self, space: SearchSpace, lr: float, *, schedule: Schedule | None = None, weight_decay: float = 0.0) -> None:
        schedule = linear(1.0, 1.0) if schedule is None else schedule
        self.space, self.schedule, self.temperature, self.progress = space, schedule, schedule(0.0), 0.0
        self.alpha = [torch.zeros(len(point.candidates), requires_grad=True) for point in space.points]
        self.optimiser = torch.optim.Adam(self.alpha, lr=lr, betas=(0.5, 0.999), weight_decay=weight_decay)
        self.tilt = [torch.zeros(len(point.candidates)) for point in space.points]

    def set_tilt(self, tilt: list[list[float]]) -> None:
        """Subtract this from the logits wherever paths are drawn and weighted: one value a candidate of each point."""
        self.tilt = [torch.tensor(row, dtype=torch.float32) for row in tilt]

    def tilted(self) -> list[Tensor]:
        """alpha - tilt: for each point ``[num_candidates]``, differentiable."""
        return [alpha - tilt for alpha, tilt in zip(self.alpha, self.tilt)]

    def probabilities(self) -> list[Tensor]:
        """softmax(alpha - tilt): for each point ``[num_candidates]``, on condition of the space's groups; differentiable."""
        return marginals(self.tilted(), self.space.groups, self.space.zeros)

    def log_probabilities(self) -> list[Tensor]:
        """Logarithms of :meth:`probabilities`, of at least ``TINY``; differentiable."""
        if not self.space.groups:
            return [torch.log_softmax(logits, 0) for logits in self.tilted()]
        return [row.clamp_min(TINY).log() for row in self.probabilities()]

    def scores(self) -> list[list[float]]:
        """log softmax(alpha), without the tilt: what the task thinks of each candidate, for the constrained discretisation."""
        return [torch.log_softmax(alpha.detach().double(), 0).tolist() for alpha in self.alpha]

    def anneal(self, progress: float) -> None:
        """Set the temperature for ``progress`` 0..1 of the search."""
        self.progress, self.temperature = progress, self.schedule(progress)

    def zero_grad(self) -> None:
        """Clear the gradients of the logits."""
        self.optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One step of Adam."""
        self.optimiser.step()

    def metrics(self) -> dict[str, object]:
        """Entropy and probabilities of the architecture distribution."""
        with torch.no_grad():
            probabilities = self.probabilities()
        return {
            "arch_entropy": mean_entropy(probabilities),
            "arch_probabilities": [[round(float(v), 6) for v in p] for p in probabilities],
        }

    def state(self) -> State:
        """Logits, optimiser, temperature; the tilt is set anew at the beginning of each rollout."""
        return {
            "logits": [alpha.detach().clone() for alpha in self.alpha],
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "temperature": self.temperature,
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        with torch.no_grad():
            for mine, saved in zip(self.alpha, read_list(state, "logits", Tensor)):
                mine.copy_(saved)
        self.optimiser.load_state_dict(copy.deepcopy(read_state(state, "optimiser")))
        self.temperature = read(state, "temperature", float)


def gumbel_path(arch: ArchitectureLogits, generator: torch.Generator, active_paths: int) -> Path:
    """Draw Gumbel noise for each point and keep its K candidates with the largest log p + G, the largest first.

    Args:
        arch: the logits.
        generator: CPU generator of the noise.
        active_paths: K; 0 for all candidates.

    Returns:
        A path without weights that keeps its noise; the first candidates are a draw of the legal architectures.
    """
    space, noise, active = arch.space, [], []
    with torch.no_grad():
        chosen = draw(arch.tilted(), space.groups, space.zeros, generator) if space.groups else None
        for point, log_p in enumerate(arch.log_probabilities()):
            uniform = torch.rand(log_p.shape, generator=generator).clamp_(1e-20, 1.0 - 1e-7)
            gumbel = _gumbel(-torch.log(uniform), log_p, None if chosen is None else chosen[point])
            ranked = (log_p + gumbel).argsort(descending=True).tolist()
            if chosen is not None:  # so it is already, but for rounding
                ranked.sort(key=chosen[point].__ne__)
            noise.append(gumbel)
            active.append(tuple(ranked[: active_paths or len(ranked)]))
    return Path(tuple(active), noise=tuple(noise))


def _gumbel(exponential: Tensor, log_p: Tensor, largest: int | None) -> Tensor:
    """Gumbel noise ``[candidates]`` from exponential noise; on condition that log p + G is largest at one of them, if given."""
    if largest is None:
        return -torch.log(exponential)
    noise = -torch.log(exponential + log_p.exp() * exponential[largest])
    noise[largest] = -torch.log(exponential[largest]) - log_p[largest]
    return noise


def concrete_weights(arch: ArchitectureLogits, path: Path) -> tuple[Tensor, ...]:
    """For each point the concrete weights ``[active]`` of a drawn path's candidates, differentiable in the logits."""
    weights = []
    for log_p, gumbel, active in zip(arch.log_probabilities(), path.noise, path.active):
        y = torch.softmax((log_p + gumbel) / arch.temperature, 0)
        weights.append(y[list(active)])
    return tuple(weights)


def constant(path: Path) -> Path:
    """The same path, its weights without gradient: to act along."""
    return replace(path, weights=None if path.weights is None else tuple(weight.detach() for weight in path.weights))


def mixture(arch: ArchitectureLogits) -> Path:
    """Every candidate with its softmax(alpha - tilt) as weight, differentiable."""
    active = tuple(tuple(range(len(alpha))) for alpha in arch.alpha)
    return Path(active, tuple(torch.softmax(logits, 0) for logits in arch.tilted()), soft=True)


def mixture_scores(arch: ArchitectureLogits) -> list[list[float]]:
    """The mixture's weights with 0 for the zero: the worth of an edge is the probability of its best operation."""
    rows = [torch.softmax(logits, 0).detach().double().tolist() for logits in arch.tilted()]
    return [[0.0 if c == zero else value for c, value in enumerate(row)] for row, zero in zip(rows, arch.space.zeros)]


def learned(scores: list[list[float]], zeros: Sequence[int | None]) -> bool:
    """Whether the scores prefer any candidate of any point; at the start of a search they are all alike.

    Args:
        scores: for each point one a candidate.
        zeros: of each point the candidate that is nothing, whose score is set and not learned; None: it has none.
    """
    rows = [[score for c, score in enumerate(row) if c != zero] for row, zero in zip(scores, zeros, strict=True)]
    return any(max(row) - min(row) > LEARNED for row in rows)
