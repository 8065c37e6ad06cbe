"""A foreign policy with a memory: its state goes in and out of the file at each step, as of rsl_rl (``h_in``, ``h_out``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cosearch.record.results.agent import TensorRecord
from cosearch.rl.foreign.meanings import is_memory
from cosearch.rl.foreign.network import ForeignNetwork
from cosearch.rl.foreign.understood import StateFacts, Understood, tensor_text
from cosearch.rl.memory import RecurrentActor
from latency_tables.errors import ConfigError, ShapeError


def find_states(path: Path, inputs: Sequence[TensorRecord], outputs: Sequence[TensorRecord]) -> tuple[StateFacts, ...]:
    """The parts of a policy's memory, by the names of inputs and outputs; empty where no input has such a name.

    Args:
        path: for messages.
        inputs, outputs: as the file declares them.

    Raises:
        ConfigError: not every such input has an output of its shape, in the same order.
    """
    taken, given = ([entry for entry in part if is_memory(entry.name)] for part in (inputs, outputs))
    if taken and [_sizes(entry) for entry in taken] != [_sizes(entry) for entry in given]:
        raise ConfigError(
            f"{path}: it has a memory ({'; '.join(map(tensor_text, taken))} among its inputs), expected the next one among its "
            f"outputs, in the same order and shapes, got {'; '.join(map(tensor_text, given)) or 'none'}. Export both, e.g. h_in "
            "and h_out"
        )
    return tuple(
        StateFacts(taken=before.name, given=after.name, dtype=before.dtype, shape=before.shape)
        for before, after in zip(taken, given)
    )


def _sizes(entry: TensorRecord) -> list[object]:
    return [size if isinstance(size, int) else "free" for size in entry.shape]


def packed(states: Sequence[StateFacts], memory: np.ndarray, batch: str) -> dict[str, np.ndarray]:
    """The memory of several environments as the file takes it, see ``run_rows``.

    Args:
        states: its parts.
        memory: ``[envs, memory_size]``.
        batch: ``free``, ``one`` or ``none``.
    """
    found, start = {}, 0
    for state in states:
        size = math.prod(state.inner)
        part = memory[:, start : start + size].reshape(len(memory), *state.inner).astype(state.dtype)
        axis, start = state.batch_axis, start + size
        if batch == "free" and axis is not None:
            found[state.taken] = np.ascontiguousarray(np.moveaxis(part, 0, axis))
        else:
            found[state.taken] = part if axis is None else np.expand_dims(part, 1 + axis)
    return found


def unpacked(states: Sequence[StateFacts], outputs: dict[str, np.ndarray], envs: int, batch: str) -> np.ndarray:
    """The opposite of :func:`packed`, of the file's outputs: ``[envs, memory_size]``, float32."""
    parts = []
    for state in states:
        array, axis = outputs[state.given], state.batch_axis
        moved = np.moveaxis(array, axis, 0) if batch == "free" and axis is not None else array
        parts.append(moved.reshape(envs, -1))
    return np.concatenate(parts, 1).astype(np.float32)


class RememberingNetwork:
    """A foreign policy with a memory as an actor, see ``Recurrent``.

    Args:
        path: for messages.
        content: its graph, a serialized ONNX model.
        understood: what the graph takes and gives.

    Raises:
        ConfigError: the runtime refuses it.
    """

    def __init__(self, path: Path, content: bytes, understood: Understood) -> None:
        self.understood, self._step = understood, ForeignNetwork(path, content, understood)
        self.memory_size = sum(math.prod(state.inner) for state in understood.states)
        self.plays = RecurrentActor(self.memory_size, self._playing)

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Refused: who calls a policy with a memory has to carry it.

        Raises:
            ShapeError: always.
        """
        raise ShapeError("a policy with a memory was called without it: call `unroll`")

    def unroll(self, frames: Tensor, memory: Tensor, begins: Tensor | None = None, /) -> tuple[Tensor, Tensor, Tensor]:
        """Observations in the order of time -> labels as of ``ForeignNetwork``, values, and the memory after them.

        Args:
            frames: ``[time * envs, *frame_shape]``.
            memory: ``[envs, memory_size]``.
            begins: ``[time, envs]``, bool: the memory is cleared before the step; None: nowhere.
        """
        known, envs = self.understood, len(memory)
        kept, labels, values = memory.numpy(), [], []
        for t, part in enumerate(frames.numpy().reshape(-1, envs, *frames.shape[1:])):
            if begins is not None:
                kept = np.where(begins[t].numpy()[:, None], np.float32(0), kept)
            found = self._step.outputs(part, packed(known.states, kept, known.batch))
            kept = unpacked(known.states, found, envs, known.batch)
            label, value = self._step.labels(found, envs)
            labels.append(label)
            values.append(value)
        return torch.cat(labels), torch.cat(values), torch.from_numpy(kept.astype(np.float32))

    def _playing(self, frames: Tensor, memory: Tensor, begins: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        labels, value, memory = self.unroll(frames, memory, begins)
        return self._step.as_policy(labels), value, memory
