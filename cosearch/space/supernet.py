"""The weight-sharing network: every candidate of every point, one active path forward, K paths backward.

A3C-S and Auto-NBA (arXiv 2106.06577, 2106.06575): forward A^{l+1} = O_active(A^l); backward
dL/dgate_k = <dL/dA^{l+1}, O_k(A^l)> for the K sampled candidates. The value of a gate is exactly 1 for the active path and 0
for the others, so that the forward pass is the derived network's, bit for bit; only gradients flow through the gates.
Time and memory grow with K, not with the number of candidates.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosearch.space.operations import build_block
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.errors import ShapeError


@dataclass(frozen=True)
class Path:
    """A sampled path.

    Attributes:
        active: for each point the candidate indices that are computed; the first one gives the forward value.
        weights: for each point ``[len(active)]``, differentiable in the architecture logits; None outside training.
    """

    active: tuple[tuple[int, ...], ...]
    weights: tuple[Tensor, ...] | None = None

    @property
    def choices(self) -> tuple[int, ...]:
        """The candidate of each point that gives the forward value."""
        return tuple(indices[0] for indices in self.active)


class SuperNet(nn.Module):
    """All candidate blocks of a space, shared by its architectures.

    Args:
        space: the search space.
        generator: CPU generator of the first weights.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        super().__init__()
        self.space = space
        self.stem = build_block(space.stem, generator)
        self.points = nn.ModuleList(
            nn.ModuleList(nn.Identity() if spec is None else build_block(spec, generator) for spec in point.specs)
            for point in space.points
        )
        self.head = build_block(space.head, generator)

    def forward(self, frames: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        """Action logits and value along a path.

        Args:
            frames: ``[batch, height, width, channels]``, uint8.
            path: which candidates are computed.

        Returns:
            Logits ``[batch, actions]`` and value ``[batch]``, equal to the derived network's.

        Raises:
            ShapeError: the path has another number of points than the space.
        """
        if len(path.active) != len(self.points):
            raise ShapeError(f"the space has {len(self.points)} points, the path {len(path.active)}")
        x = self.stem(frames)
        for i, (blocks, active) in enumerate(zip(self.points, path.active)):
            weights = None if path.weights is None else path.weights[i]
            x = _gated(blocks, active, weights, x)
        x = self.head(x)
        return x[:, :-1], x[:, -1]

    def used_parameters(self, path: Path) -> list[nn.Parameter]:
        """The parameters that a path touches, in a stable order."""
        parts = [self.stem, self.head, *(blocks[k] for blocks, active in zip(self.points, path.active) for k in active)]
        return [p for part in parts for p in part.parameters()]

    def copy_into(self, architecture: Architecture, blocks: Sequence[nn.Module]) -> None:
        """Copy the shared weights of an architecture's path into the blocks of its derived network.

        Args:
            architecture: of this net's space.
            blocks: modules in the order of ``architecture.ops()``.
        """
        chosen = [self.points[i][c] for i, c in enumerate(architecture.choices)]
        mine = [self.stem, *(block for block in chosen if not isinstance(block, nn.Identity)), self.head]
        if len(mine) != len(blocks):
            raise ShapeError(f"the architecture has {len(mine)} blocks, the network {len(blocks)}")
        for source, target in zip(mine, blocks):
            target.load_state_dict(source.state_dict())


def _gated(blocks: nn.ModuleList, active: Sequence[int], weights: Tensor | None, x: Tensor) -> Tensor:
    out = blocks[active[0]](x)
    if weights is None or not torch.is_grad_enabled():
        return out
    gates = weights - weights.detach()  # exactly 0 forward, identity backward
    total = out * (1.0 + gates[0]).to(out.dtype)
    for k, index in enumerate(active[1:], 1):
        total = total + blocks[index](x) * gates[k].to(out.dtype)
    return total
