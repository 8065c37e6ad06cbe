"""Reversible blocks, and a run of them whose activations are computed again in the backward pass instead of being kept.

Papers: Zhao et al., DARTSformer: Memory-Efficient Differentiable Transformer Architecture Search (Findings of ACL 2021, arXiv
2105.14669); Gomez et al., The Reversible Residual Network (NeurIPS 2017, arXiv 1707.04585).
Equations, with the channels of x in n parts:
  forward  k = 1..n : y_k = x_k + G_k(y_1 .. y_{k-1}, x_{k+1} .. x_n)
  inverse  k = n..1 : x_k = y_k - G_k(y_1 .. y_{k-1}, x_{k+1} .. x_n)
  mixture           : G_k = sum over the active candidates c of w_c G_k^c, with the supernet's weights or gates; skip has G = 0
  backward k = n..1 : G_k is computed once more, from what is there already; it gives x_k back, and the gradients of G_k
A run keeps the output of its last block: memory does not grow with its depth, and a step computes each block once more. It is
used wherever consecutive points of a supernet have no candidate but reversible ones and ``skip``, whatever the strategy.
Differs from the paper in (of which we know the abstract; its equations are those of reversible networks):
1. The blocks are those of an agent, for vectors (``revmlp``: linear, activation, linear) and images (``revconv``: ReLU,
   convolution). The paper's are attention, convolutions and feed-forward layers of encoder and decoder, with normalisation and
   dropout, whose state a reconstruction must restore; here there is none.
2. One choice of a point decides all n functions of its block; the paper searches each.
3. n is 2 for the operations that are registered; ``OpSpec.groups`` takes any other.
4. Candidates are mixed inside the parts, which keeps the mixture reversible; the gradient of a gate is that of w_c G_k^c, without
   the input that all candidates of a point share.
5. Under autocast the parts stay float32, so that bfloat16 does not round what is reconstructed; G itself is bfloat16.
6. Any gradient strategy searches with them; the paper has DARTS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from latency_tables.kinds.reversible import REVERSIBLE_KINDS, part_sizes
from latency_tables.opspec import OpSpec

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "tanh": torch.tanh}


class Reversible(nn.Module):
    """``revmlp`` or ``revconv``: to each part of the channels in turn is added a function of all the others."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.sizes, self.activation = part_sizes(spec), spec.activation
        c, k, p = spec.in_channels, spec.kernel, spec.padding
        if spec.kind == "revmlp":
            self.hidden = nn.ModuleList(nn.Linear(c - size, spec.hidden) for size in self.sizes)
            self.outputs = nn.ModuleList(nn.Linear(spec.hidden, size) for size in self.sizes)
        else:
            self.outputs = nn.ModuleList(nn.Conv2d(c - size, size, k, 1, p) for size in self.sizes)
        self.is_flat = spec.kind == "revmlp"

    def added(self, part: int, others: Tensor) -> Tensor:
        """G of one part.

        Args:
            part: index of the part.
            others: ``[batch, channels of all other parts, ...]``.

        Returns:
            ``[batch, channels of the part, ...]``.
        """
        if self.is_flat:
            return self.outputs[part](_ACTIVATIONS[self.activation](self.hidden[part](others)))
        return self.outputs[part](F.relu(others))

    def of_part(self, part: int) -> list[nn.Parameter]:
        """The parameters of G of one part."""
        inside = [self.hidden[part], self.outputs[part]] if self.is_flat else [self.outputs[part]]
        return [parameter for module in inside for parameter in module.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, ...]``, shape kept."""
        return Coupling((self,), (None,)).forward(x)

    def inverse(self, y: Tensor) -> Tensor:
        """The input that an output ``[batch, channels, ...]`` came from."""
        return Coupling((self,), (None,)).inverse(y)


@dataclass(frozen=True)
class Coupling:
    """The active candidates of a point, mixed inside the parts.

    Attributes:
        blocks: of the candidates but ``skip``; none: the input is passed on.
        weights: of each block, a number as a tensor ``[]``; None: 1.
    """

    blocks: tuple[Reversible, ...]
    weights: tuple[Tensor | None, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Channels of each part."""
        return self.blocks[0].sizes if self.blocks else ()

    def added(self, part: int, others: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
        """The mixture of G of one part.

        Args:
            part: index of the part.
            others: ``[batch, channels of all other parts, ...]``.
            weights: of each block, ``[]``; None: 1.
        """
        total: Tensor | None = None
        for block, weight in zip(self.blocks, weights):
            value = block.added(part, others)
            value = value if weight is None else value * weight.to(value.dtype)
            total = value if total is None else total + value
        assert total is not None  # there is no part without a block
        return total

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, ...]``, shape kept."""
        if not self.blocks:
            return x
        parts = list(_precise(x).split(self.sizes, 1))
        for part in range(len(parts)):
            parts[part] = parts[part] + self.added(part, _others(parts, part), self.weights)
        return torch.cat(parts, 1)

    def inverse(self, y: Tensor) -> Tensor:
        """The input that an output ``[batch, channels, ...]`` came from."""
        if not self.blocks:
            return y
        parts = list(y.split(self.sizes, 1))
        for part in reversed(range(len(parts))):
            parts[part] = parts[part] - self.added(part, _others(parts, part), self.weights)
        return torch.cat(parts, 1)

    def backward(self, y: Tensor, gradient: Tensor, found: dict[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Go back through the coupling.

        Args:
            y: its output ``[batch, channels, ...]``.
            gradient: of the loss at it, ``[batch, channels, ...]``.
            found: gets the gradients of parameters and weights, added to what is there.

        Returns:
            Its input, reconstructed, and the gradient there.
        """
        if not self.blocks:
            return y, gradient
        parts, gradients = list(y.split(self.sizes, 1)), list(gradient.split(self.sizes, 1))
        for part in reversed(range(len(parts))):
            read = _others(parts, part).detach().requires_grad_()
            tensors = [w for w in self.weights if w is not None]
            tensors += [p for block in self.blocks for p in block.of_part(part)]
            inputs = [read, *(tensor for tensor in tensors if tensor.requires_grad)]
            with torch.enable_grad():
                added = self.added(part, read, self.weights)
                at = torch.autograd.grad(added, inputs, gradients[part].to(added.dtype), allow_unused=True)
            parts[part] = parts[part] - added.detach()
            for tensor, value in zip(inputs[1:], at[1:]):
                if value is not None:
                    found[tensor] = found[tensor] + value if tensor in found else value
            others = [number for number in range(len(parts)) if number != part]
            at_read = at[0]
            assert at_read is not None  # G reads all the others
            for number, piece in zip(others, at_read.split([self.sizes[i] for i in others], 1)):
                gradients[number] = gradients[number] + piece
        return torch.cat(parts, 1), torch.cat(gradients, 1)


def _others(parts: Sequence[Tensor], part: int) -> Tensor:
    left = [*parts[:part], *parts[part + 1 :]]
    return left[0] if len(left) == 1 else torch.cat(left, 1)


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def is_reversible(specs: Sequence[OpSpec | None]) -> bool:
    """Whether candidates can be a point of a run: reversible blocks of equal parts, and ``skip``.

    Args:
        specs: of a point; None for ``skip``.
    """
    present = [spec for spec in specs if spec is not None]
    return bool(present) and all(s.kind in REVERSIBLE_KINDS and part_sizes(s) == part_sizes(present[0]) for s in present)


def through(couplings: Sequence[Coupling], x: Tensor) -> Tensor:
    """The output of a run; with gradients, its inner activations are not kept.

    Args:
        couplings: one a point.
        x: ``[batch, channels, ...]``.
    """
    if not torch.is_grad_enabled():
        for coupling in couplings:
            x = coupling.forward(x)
        return x
    x = _precise(x)
    learned: dict[Tensor, None] = {}  # in a stable order, each once
    for coupling in couplings:
        learned |= dict.fromkeys(w for w in coupling.weights if w is not None and w.requires_grad)
        learned |= dict.fromkeys(p for block in coupling.blocks for p in block.parameters() if p.requires_grad)
    return _Run.apply(tuple(couplings), x, *learned)


class _Context(FunctionCtx):
    """What a forward pass leaves for the backward pass."""

    couplings: tuple[Coupling, ...]
    learned: tuple[Tensor, ...]
    autocast: tuple[str, torch.dtype, bool]
    saved_tensors: tuple[Tensor, ...]


class _Run(torch.autograd.Function):
    """A run of couplings; only its output, and what learns, is kept for the backward pass."""

    @staticmethod
    def forward(ctx: _Context, couplings: tuple[Coupling, ...], x: Tensor, *learned: Tensor) -> Tensor:
        for coupling in couplings:
            x = coupling.forward(x)
        kind = x.device.type
        ctx.couplings, ctx.autocast = couplings, (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.learned = learned
        ctx.save_for_backward(x, *learned)  # which says when a weight was changed in between
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y = ctx.saved_tensors[0]
        kind, dtype, enabled = ctx.autocast
        found: dict[Tensor, Tensor] = {}
        with torch.autocast(kind, dtype=dtype, enabled=enabled):
            for coupling in reversed(ctx.couplings):
                y, gradient = coupling.backward(y, gradient, found)
        return None, gradient, *(found.get(tensor) for tensor in ctx.learned)
