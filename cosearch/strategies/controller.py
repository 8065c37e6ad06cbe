"""A recurrent controller: an LSTM that chooses the candidates of an architecture one point after the other.

Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv 1611.01578, section 3:
  h_l, c_l = LSTM(e(a_{l-1}), h_{l-1}, c_{l-1}),   pi(a_l | a_<l) = softmax(W_l h_l),   log pi(a) = sum_l log pi(a_l | a_<l)
In a group of points, exactly k of which are not zero, what can no longer lead to k is left out of the softmax. A context, one
vector for the whole architecture, stands beside each e.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cosearch.space.groups import zero_of
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.proposals import UniformDraws

SCALE = 0.1  # first weights are uniform within this of 0, as in Zoph and Le (0.08): the first architectures are nearly uniform
CLIP = 0.2  # eps of PPO
TOGETHER, TRIES = 8, 25  # drawn at once, and how often, for one that meets the target; then a uniform draw that does is taken


class Drawn(NamedTuple):
    """Architectures that a controller drew or was asked about.

    Attributes:
        choices: ``[batch, points]``, int64.
        log_p: ``[batch]``, log pi of each.
        entropy: ``[batch]``, sum over the points of the entropies of pi(. | a_<l), nats.
    """

    choices: Tensor
    log_p: Tensor
    entropy: Tensor


class Controller(nn.Module):
    """See the head of the file.

    Args:
        space: the search space.
        hidden: units of the LSTM, and length of e.
        generator: CPU generator of the first weights.
        context: length of the context; 0: none.
    """

    def __init__(self, space: SearchSpace, hidden: int, generator: torch.Generator, context: int = 0) -> None:
        super().__init__()
        self.space, self.hidden = space, hidden
        sizes = [len(point.candidates) for point in space.points]
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator: give it back untouched
            self.choices = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes)
            self.cell = nn.LSTMCell(hidden + context, hidden)
            self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)
        with torch.no_grad():
            for weight in self.parameters():
                weight.uniform_(-SCALE, SCALE, generator=generator)
        self._group_of = {p: group for group in space.groups for p in group.points}

    def draw(self, count: int, generator: torch.Generator, context: Tensor | None = None) -> Drawn:
        """Draw architectures of the space.

        Args:
            count: how many.
            generator: CPU generator.
            context: ``[count, context]``; None: there is none.
        """
        with torch.no_grad():
            return self._run(count, None, generator, context)

    def of(self, choices: Tensor, context: Tensor | None = None) -> Drawn:
        """Log-probabilities and entropies of given architectures, differentiable.

        Args:
            choices: ``[batch, points]``, int64.
            context: ``[batch, context]``; None: there is none.
        """
        return self._run(len(choices), choices, None, context)

    def _run(self, count: int, given: Tensor | None, generator: torch.Generator | None, context: Tensor | None) -> Drawn:
        h = c = before = torch.zeros(count, self.hidden)
        chosen: list[Tensor] = []
        log_p, entropy = torch.zeros(count), torch.zeros(count)
        for point, (head, embedding) in enumerate(zip(self.heads, self.choices)):
            h, c = self.cell(before if context is None else torch.cat([before, context], 1), (h, c))
            logits = head(h)
            if point in self._group_of:
                logits = logits.masked_fill(self._closed(point, chosen), float("-inf"))
            log_probabilities = torch.log_softmax(logits, 1)
            probabilities = log_probabilities.exp()
            taken = torch.multinomial(probabilities, 1, generator=generator)[:, 0] if given is None else given[:, point]
            chosen.append(taken)
            log_p = log_p + log_probabilities.gather(1, taken[:, None])[:, 0]
            entropy = entropy - (probabilities * log_probabilities.masked_fill(probabilities == 0, 0.0)).sum(1)
            before = embedding(taken)
        return Drawn(torch.stack(chosen, 1), log_p, entropy)

    def _closed(self, point: int, chosen: Sequence[Tensor]) -> Tensor:
        """``[batch, candidates]``, bool: what a point of a group cannot be any more, after the choices before it."""
        group, zeros = self._group_of[point], self.space.zeros
        zero, earlier = zero_of(zeros, point), [p for p in group.points if p < point]
        kept = torch.zeros(len(chosen[0]) if chosen else 1, dtype=torch.int64)  # of 1 before the first choice: it broadcasts
        for p in earlier:
            kept = kept + (chosen[p] != zero_of(zeros, p)).long()
        later = sum(p > point for p in group.points)
        closed = (kept == group.keep)[:, None].repeat(1, len(self.space.points[point].candidates))
        closed[:, zero] = kept + later < group.keep
        return closed


def clipped_loss(log_p: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
    """Minus PPO's objective, ``[]``.

    Args:
        log_p: ``[batch]``, of the present controller.
        old: ``[batch]``, of the one that drew.
        advantage: ``[batch]``.
    """
    rho = (log_p - old).exp()
    return -torch.minimum(rho * advantage, rho.clamp(1.0 - CLIP, 1.0 + CLIP) * advantage).mean()


def draw_within(
    controller: Controller, uniform: UniformDraws, context: Tensor | None = None
) -> tuple[Architecture, list[tuple[int, ...]]]:
    """The first architecture of a controller that meets the target, and the choices of those before it that miss it.

    Args:
        controller: draws.
        uniform: knows the target; where the controller finds nothing within ``TOGETHER * TRIES`` draws, it draws.
        context: ``[context]``; None: there is none.

    Raises:
        InfeasibleTargetError: no architecture was found that meets the target.
    """
    missed: list[tuple[int, ...]] = []
    repeated = None if context is None else context.expand(TOGETHER, -1)
    for _ in range(TRIES):
        for row in controller.draw(TOGETHER, uniform.generator, repeated).choices.tolist():
            architecture = uniform.space.architecture(row)
            if uniform.is_feasible(architecture):
                return architecture, missed
            missed.append(architecture.choices)
    return uniform.draw(), missed
