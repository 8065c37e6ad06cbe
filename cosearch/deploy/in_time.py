"""An agent with a memory, run over whole episodes: in torch as one segment, in ONNX Runtime step by step as a board runs it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from cosearch.deploy.onnx_agent import with_spread
from cosearch.space.network import AgentNetwork
from latency_tables.board.runners import OnnxRunner, runtime_reason
from latency_tables.errors import MeasurementError, ParityError, ShapeError

GROUPS = (1, 2)  # environments that are run together, the rest after them: several batch sizes


def in_torch(network: nn.Module, frames: np.ndarray, begins: np.ndarray) -> list[np.ndarray]:
    """Policy outputs, values and memory after each step; the memory is zero before the first one.

    Args:
        network: with a memory, on the CPU; in float64 the memory is, too.
        frames: ``[time * envs, *frame_shape]``, in the order of time.
        begins: ``[time, envs]``, bool: the step is the first of an episode.

    Returns:
        ``[time * envs, outputs]``, ``[time * envs]``, ``[time * envs, memory_size]``.

    Raises:
        ShapeError: the network has no memory, or frames and begins do not fit.
    """
    steps, envs = begins.shape
    if not isinstance(network, AgentNetwork) or not network.memory_size or len(frames) != steps * envs:
        raise ShapeError(
            f"episodes are run with a network with a memory and one observation a step, got {len(frames)} observations for "
            f"{steps} steps of {envs} environments"
        )
    flags, given = torch.from_numpy(begins), torch.from_numpy(np.ascontiguousarray(frames))
    memory = torch.zeros(envs, network.memory_size, dtype=next(network.parameters()).dtype)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        outputs, value, _ = network.unroll(given, memory, flags)
        after = []
        for step in range(steps):
            part = given[step * envs : (step + 1) * envs]
            memory = network.unroll(part, memory, flags[step : step + 1])[2]
            after.append(memory)
    return [outputs.numpy(), value.numpy(), torch.cat(after).numpy()]


def in_onnxruntime(model: bytes, frames: np.ndarray, begins: np.ndarray, size: int) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """As :func:`in_torch`, of a file, step by step: some environments alone, others together.

    Args:
        model: serialized, with the inputs observations and memory.
        frames, begins: see :func:`in_torch`.
        size: numbers that the agent keeps.

    Returns:
        Policy outputs, values and memory after each step as there; and the batch sizes that were run.

    Raises:
        ParityError: the file does not load, has other inputs, or cannot run such observations.
    """
    try:
        session = OnnxRunner(model).session
    except MeasurementError as error:
        raise ParityError(f"the exported file does not load: {error}") from error
    names = [entry.name for entry in session.get_inputs()]
    if len(names) != 2:
        raise ParityError(f"the exported file takes {names}, expected the observations and the memory")
    steps, envs = begins.shape
    seen = frames.reshape(steps, envs, *frames.shape[1:])
    bounds = sorted({0, *(min(int(bound), envs) for bound in np.cumsum(GROUPS)), envs})
    groups = []
    for first, last in pairwise(bounds):
        memory, rows = np.zeros((last - first, size), np.float32), []
        for step in range(steps):
            memory = np.where(begins[step, first:last, None], np.float32(0), memory)
            feed = {names[0]: np.ascontiguousarray(seen[step, first:last]), names[1]: memory}
            try:
                *chosen, value, memory = session.run(None, feed)
            except Exception as error:  # the runtime raises a dozen classes of its own without a common root
                raise ParityError(
                    f"the exported file cannot run a batch of {last - first} observations: {runtime_reason(error)}"
                ) from error
            rows.append((with_spread(*chosen) if len(chosen) == 2 else chosen[0], value, memory))
        groups.append([np.stack(part) for part in zip(*rows)])
    found = [np.concatenate(parts, axis=1) for parts in zip(*groups)]
    sizes = tuple(sorted({last - first for first, last in pairwise(bounds)}))
    return [part.reshape(steps * envs, *part.shape[2:]) for part in found], sizes
