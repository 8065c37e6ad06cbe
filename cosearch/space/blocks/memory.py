"""Blocks that keep numbers from one observation to the next, and what a network carries for them: one vector an environment.

A network with such blocks is a function of observation and memory; it has no state of its own, so that many environments, a
stored segment and a board use the same weights. At the first observation of an episode the memory is zero. Cells: GRU (Cho et al.
2014, arXiv 1406.1078) and LSTM (Hochreiter and Schmidhuber 1997), of torch. ``stack`` reads the features of the last steps, as
stacked frames do, each frame encoded once ("late fusion" of Karpathy et al. 2014).
Each block adds what it finds to its input: taken out, it leaves the network that has no memory. Cells compute in float32 also
under autocast: a rounded state would be rounded again at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec

_ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "tanh": torch.tanh}


class Remembering(nn.Module):
    """A block with a memory.

    Args:
        spec: of the kind ``gru``, ``lstm`` or ``stack``.
    """

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.size, self.kind, self.hidden, self.width = spec.memory, spec.kind, spec.hidden, spec.in_channels
        self.activation = spec.activation
        self.cell: nn.GRU | nn.LSTM | None = None
        if spec.kind != "stack":
            self.cell = (nn.GRU if spec.kind == "gru" else nn.LSTM)(spec.in_channels, spec.hidden)
        self.outputs = nn.Linear(spec.hidden or spec.groups * spec.in_channels, spec.out_channels)

    def forward(self, x: Tensor, memory: Tensor, begins: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step of each environment, or a segment of several steps.

        Args:
            x: ``[time * envs, width]``, in the order of time.
            memory: ``[envs, size]``, before the first step.
            begins: ``[time, envs]``, bool: the step is the first of an episode, so nothing before it is remembered. None: one
                step of each, none of them the first.

        Returns:
            ``[time * envs, width]``, and the memory ``[envs, size]`` after the last step.
        """
        if self.cell is None:
            stacked, memory = self._stacked(x, memory, begins)
            return x + _ACTIVATIONS[self.activation](self.outputs(stacked)), memory
        with torch.autocast(x.device.type, enabled=False):
            exact = x if x.dtype == memory.dtype else x.to(memory.dtype)
            if begins is None:
                state, memory = self._steps(exact.unsqueeze(0), memory)
                found = state.squeeze(0)
            else:
                steps, parts = exact.view(-1, len(memory), self.width), []
                for begin, end in _stretches(begins):
                    part, memory = self._steps(steps[begin:end], _forgotten(memory, begins[begin]))
                    parts.append(part)
                found = torch.cat(parts).flatten(0, 1)
        return x + self.outputs(found), memory

    def _steps(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Several steps of the cell without an end of an episode: ``[time, envs, hidden]`` and the memory after them."""
        if isinstance(self.cell, nn.LSTM):
            kept = memory[:, : self.hidden].unsqueeze(0), memory[:, self.hidden :].unsqueeze(0)
            found, (state, inner) = self.cell(x, (kept[0].contiguous(), kept[1].contiguous()))
            after = torch.cat([state.squeeze(0), inner.squeeze(0)], -1)
        else:
            assert self.cell is not None, "a stack has no cell"
            found, state = self.cell(x, memory.unsqueeze(0))
            after = state.squeeze(0)
        return (state if x.shape[0] == 1 else found), after  # of one step they are the same numbers

    def _stacked(self, x: Tensor, memory: Tensor, begins: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each row of ``x`` beside the rows of the steps before, ``[time * envs, groups * width]``, and the memory."""
        parts = []
        for step, now in enumerate(x.view(-1, len(memory), self.width) if begins is not None else [x]):
            if begins is not None:
                memory = _forgotten(memory, begins[step])
            stacked = torch.cat([now if now.dtype == memory.dtype else now.to(memory.dtype), memory], -1)
            memory = stacked[:, : self.size]
            parts.append(stacked)
        return (torch.cat(parts) if len(parts) > 1 else parts[0]), memory


def _forgotten(memory: Tensor, begins: Tensor) -> Tensor:
    """Zeros where an episode begins; neither a value nor a gradient goes through there."""
    return torch.where(begins[:, None], torch.zeros_like(memory), memory)


def _stretches(begins: Tensor) -> Iterator[tuple[int, int]]:
    """Spans of steps in which no environment begins an episode but at the first."""
    cuts = begins.any(1).nonzero().flatten().tolist()
    yield from pairwise([0, *(step for step in cuts if step), len(begins)])


class Memories:
    """The memories of the blocks of one network during one call: each has its place in one vector.

    Args:
        blocks: all blocks of the network that remember, in their order.
        vector: ``[envs, size]``, before the first step.
        begins: ``[time, envs]``, see :class:`Remembering`.
    """

    def __init__(self, blocks: Iterable[Remembering], vector: Tensor, begins: Tensor | None) -> None:
        self._blocks, self._begins = list(blocks), begins
        parts = vector.split([block.size for block in self._blocks], -1) if len(self._blocks) > 1 else [vector]
        self._parts = dict(zip(self._blocks, parts))

    def run(self, block: Remembering, x: Tensor) -> Tensor:
        """The output of a block for ``[time * envs, width]``; its memory moves on."""
        found, self._parts[block] = block(x, self._parts[block], self._begins)
        return found

    @property
    def vector(self) -> Tensor:
        """``[envs, size]`` after the call; blocks that did not run keep theirs."""
        parts = [self._parts[block] for block in self._blocks]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def remembering(network: nn.Module) -> list[Remembering]:
    """The blocks of a network that remember, in their order."""
    return [module for module in network.modules() if isinstance(module, Remembering)]


def run_block(block: nn.Module, x: Tensor, memories: Memories | None) -> Tensor:
    """The output of a block that reads one tensor ``[batch, ...]``, with its memory where it has one.

    Raises:
        ShapeError: it has one, and none is given.
    """
    if isinstance(block, Remembering):
        if memories is None:
            raise ShapeError("a network with a memory is run by `unroll`, which takes the memory and gives the next one")
        return memories.run(block, x)
    found: Tensor = block(x)
    return found
