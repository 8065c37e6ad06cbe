"""Policies with a memory: how a recurrent actor is called, and the memory that it carries while it plays.

A rollout keeps the memory that each of its environments began with and where episodes begin; learning runs the whole segment
again from there, with the memory cleared where an episode begins ("stored state" of Kapturowski et al., Recurrent Experience
Replay in Distributed Reinforcement Learning, ICLR 2019; on policy the state is as old as the rollout, so no steps are spent to
burn it in). Minibatches are of environments and not of steps (Huang et al. 2022, The 37 Implementation Details of Proximal Policy
Optimization, details of LSTM; Ni et al. 2022, arXiv 2110.05038).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from latency_tables.errors import ShapeError

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
Unroll = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Segments:
    """How the steps of a rollout follow each other.

    Attributes:
        begins: ``[time + 1, envs]``, bool: the step is the first of an episode; False at the first one, whose memory is
            known. The last row is that of the step after the rollout.
        memory: ``[envs, memory_size]``: of actors that have one, before the first step; None: they have none.
    """

    begins: Tensor
    memory: Tensor | None


@runtime_checkable
class Recurrent(Protocol):
    """An actor that may have a memory."""

    @property
    def memory_size(self) -> int:
        """How many numbers it keeps from one observation to the next; 0: none, then it is called as a plain function."""

    def unroll(self, frames: Tensor, memory: Tensor, begins: Tensor | None = None, /) -> tuple[Tensor, Tensor, Tensor]:
        """See ``AgentNetwork.unroll``: frames ``[time * envs, *frame_shape]``, memory ``[envs, memory_size]``, begins
        ``[time, envs]``."""


@dataclass(frozen=True)
class RecurrentActor:
    """A function of observations and memory as an actor.

    Attributes:
        memory_size: how many numbers it keeps.
        run: see :meth:`Recurrent.unroll`.
    """

    memory_size: int
    run: Unroll

    def unroll(self, frames: Tensor, memory: Tensor, begins: Tensor | None = None, /) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Recurrent`: frames ``[time * envs, *frame_shape]``, memory ``[envs, memory_size]``, begins
        ``[time, envs]``."""
        return self.run(frames, memory, begins)

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Refused: who calls an actor with a memory has to carry it.

        Raises:
            ShapeError: always.
        """
        raise ShapeError("an actor with a memory was called without it: play it with `Carried`, or call `unroll`")


def recurrent(forward: Forward) -> Recurrent | None:
    """The actor where it has a memory, else None."""
    return forward if isinstance(forward, Recurrent) and forward.memory_size else None


class Carried:
    """An actor that plays, with the memory of each of its environments; one without a memory plays as it is.

    Args:
        forward: frames ``[batch, *frame_shape]`` -> policy outputs ``[batch, outputs]``, values ``[batch]``, or recurrent.
        envs: environments.
        memory: ``[envs, memory_size]`` to go on from; None: all episodes begin.
    """

    def __init__(self, forward: Forward, envs: int, memory: Tensor | None = None) -> None:
        self._forward, self._recurrent = forward, recurrent(forward)
        size = self._recurrent.memory_size if self._recurrent is not None else 0
        fits = memory is not None and memory.shape == (envs, size)
        self.memory = memory if memory is not None and fits else torch.zeros(envs, size)

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Policy outputs ``[envs, outputs]`` and values ``[envs]`` of the next step; the memory moves on."""
        if self._recurrent is None:
            return self._forward(frames)
        outputs, value, self.memory = self._recurrent.unroll(frames, self.memory)
        return outputs, value

    def value(self, frames: Tensor, env: int | None = None) -> Tensor:
        """Values of observations that the actor does not act on; the memory stays.

        Args:
            frames: ``[envs, *frame_shape]``; of one environment ``[1, *frame_shape]``.
            env: that environment; None: all.
        """
        if self._recurrent is None:
            return self._forward(frames)[1]
        memory = self.memory if env is None else self.memory[env : env + 1]
        return self._recurrent.unroll(frames, memory)[1]

    def forget(self, ended: np.ndarray) -> None:
        """Clear the memory of the environments whose episode ended: ``[envs]``, bool."""
        if self._recurrent is not None and ended.any():
            self.memory = cleared(self.memory, ended)


def cleared(memory: Tensor, rows: np.ndarray | Sequence[int]) -> Tensor:
    """A copy of ``[envs, size]`` with zeros in some rows, given by a mask or by their indices."""
    memory = memory.clone()
    memory[torch.as_tensor(rows if isinstance(rows, np.ndarray) else list(rows), dtype=None if len(rows) else torch.int64)] = 0.0
    return memory
