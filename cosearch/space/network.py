"""Agent networks: a list of blocks made into one torch module, and the fixed reference agents of the field.

The same class is the derived agent, the teacher and the reference: they differ in their list of blocks only.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cosearch.space.operations import build_block
from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec


class AgentNetwork(nn.Module):
    """Actor and critic over a chain of blocks.

    Args:
        ops: stem first, head last; each block's input is the output of the one before.
        generator: CPU generator of the first weights.

    Raises:
        ShapeError: two neighbouring blocks do not fit.
    """

    def __init__(self, ops: Sequence[OpSpec], generator: torch.Generator) -> None:
        super().__init__()
        check_chain(ops)
        self.ops = tuple(ops)
        self.blocks = nn.ModuleList(build_block(op, generator) for op in ops)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Action logits and value.

        Args:
            frames: ``[batch, height, width, channels]``, uint8.

        Returns:
            Logits ``[batch, actions]`` and value ``[batch]``.
        """
        x = frames
        for block in self.blocks:
            x = block(x)
        return x[:, :-1], x[:, -1]


def check_chain(ops: Sequence[OpSpec]) -> None:
    """Raise unless the blocks form a network.

    Raises:
        ShapeError: no stem, no head, or two neighbours that do not fit.
    """
    if len(ops) < 2 or ops[0].kind != "stem" or ops[-1].kind != "head":
        raise ShapeError(f"a network starts with a stem and ends with a head, got {[op.kind for op in ops]}")
    for before, after in zip(ops, ops[1:]):
        made = (before.out_channels, before.out_height, before.out_width)
        wanted = (after.in_channels, after.in_height, after.in_width)
        if made != wanted:
            raise ShapeError(f"{before.key} makes {made} but {after.key} takes {wanted}")


def impala_cnn(frame_shape: tuple[int, int, int], num_actions: int, widths: Sequence[int] = (16, 32, 32)) -> list[OpSpec]:
    """Blocks of the IMPALA-CNN (Espeholt et al. 2018), the reference agent of Procgen.

    Args:
        frame_shape: ``(height, width, channels)``.
        num_actions: discrete actions.
        widths: channels of the three sections.
    """
    h, w, c = frame_shape
    ops: list[OpSpec] = []
    for i, width in enumerate(widths):
        ops.append(OpSpec("stem" if i == 0 else "conv", c, h, w, width, kernel=3, padding=1, activation="none"))
        ops.append(OpSpec("maxpool", width, h, w, width, kernel=3, stride=2, padding=1, activation="none"))
        c, h, w = width, ops[-1].out_height, ops[-1].out_width
        ops += [OpSpec("residual", c, h, w, c, kernel=3, padding=1)] * 2
    return [*ops, OpSpec("head", c, h, w, num_actions + 1, hidden=256)]


def nature_cnn(frame_shape: tuple[int, int, int], num_actions: int) -> list[OpSpec]:
    """Blocks of the Nature-CNN (Mnih et al. 2015), for frames of at least 36 x 36.

    Args:
        frame_shape: ``(height, width, channels)``.
        num_actions: discrete actions.

    Raises:
        ShapeError: the frames are too small.
    """
    h, w, c = frame_shape
    ops = [OpSpec("stem", c, h, w, 32, kernel=8, stride=4)]
    for width, kernel, stride in ((64, 4, 2), (64, 3, 1)):
        last = ops[-1]
        ops.append(OpSpec("conv", last.out_channels, last.out_height, last.out_width, width, kernel=kernel, stride=stride))
    last = ops[-1]
    return [*ops, OpSpec("head", last.out_channels, last.out_height, last.out_width, num_actions + 1, hidden=512,
                         activation="none")]


def reference_agents(frame_shape: tuple[int, int, int], num_actions: int) -> dict[str, list[OpSpec]]:
    """The fixed agents that fit these frames, by name."""
    agents = {"impala-cnn": impala_cnn(frame_shape, num_actions)}
    if min(frame_shape[:2]) >= 36:
        agents["nature-cnn"] = nature_cnn(frame_shape, num_actions)
    return agents
