"""Which chunk of a pipelined accelerator runs which layer: the best contiguous cuts of a network, and the time of each chunk.

With J chunks, J frames are in flight and a new one enters every *interval* (the slowest chunk). An agent that acts in one
environment has one frame in flight: then the *latency* (the sum over all chunks) decides, and more chunks cost reaction time.
Frames per second of a busy pipeline are ``1 / interval``, of a single agent at most ``1 / latency``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latency_tables.errors import ConfigError

OBJECTIVES = ("latency", "interval", "energy")


@dataclass(frozen=True)
class Assignment:
    """The best contiguous assignment for each of B designs.

    Attributes:
        value: ``[B]`` the objective: largest chunk for ``interval``, sum otherwise.
        chunk: ``[B, L]`` chunk of each layer, never decreasing.
        option: ``[B, J]`` best dataflow of each chunk for its layers.
    """

    value: np.ndarray
    chunk: np.ndarray
    option: np.ndarray


def best_assignment(costs: np.ndarray, objective: str) -> Assignment:
    """Cuts and dataflows that minimise the objective exactly, by dynamic programming over segments.

    Args:
        costs: ``[B, J, L, D]`` cost of each layer on each chunk with each dataflow, finite.
        objective: ``interval`` minimises the largest chunk; ``latency`` and ``energy`` minimise the sum.

    Raises:
        ConfigError: the objective is not known.
    """
    if objective not in OBJECTIVES:
        raise ConfigError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    batch, chunks, layers, options = costs.shape
    prefix = np.zeros((options, batch, chunks, layers + 1))
    np.cumsum(np.moveaxis(costs, 3, 0), axis=3, out=prefix[..., 1:])
    segment = prefix[0][:, :, None, :] - prefix[0][:, :, :, None]  # [B, J, begin, end]
    for other in prefix[1:]:
        np.minimum(segment, other[:, :, None, :] - other[:, :, :, None], out=segment)
    join = np.maximum if objective == "interval" else np.add
    backwards = np.tril(np.ones((layers + 1, layers + 1), dtype=bool), -1)
    segment[:, :, backwards] = np.inf
    best = segment[:, 0, 0, :]
    came = np.zeros((batch, chunks, layers + 1), dtype=int)
    for j in range(1, chunks):
        joined = join(best[:, :, None], segment[:, j])
        came[:, j] = joined.argmin(1)
        best = np.take_along_axis(joined, came[:, j, None, :], 1)[:, 0]
    chunk, option = np.zeros((batch, layers), dtype=int), np.zeros((batch, chunks), dtype=int)
    end, rows = np.full(batch, layers), np.arange(batch)
    for j in reversed(range(chunks)):
        begin = came[rows, j, end] if j else np.zeros(batch, dtype=int)
        option[:, j] = (prefix[:, rows, j, end] - prefix[:, rows, j, begin]).argmin(0)
        places = np.arange(layers)[None, :]
        chunk = np.where((places >= begin[:, None]) & (places < end[:, None]), j, chunk)
        end = begin
    return Assignment(best[:, layers], chunk, option)


def chunk_times(layer_cycles: np.ndarray, chunk: np.ndarray, chunks: int) -> np.ndarray:
    """Cycles of each chunk.

    Args:
        layer_cycles: ``[B, L]`` cycles of each layer on its own chunk.
        chunk: ``[B, L]``.
        chunks: J.

    Returns:
        ``[B, J]``.
    """
    return np.stack([np.where(chunk == j, layer_cycles, 0.0).sum(-1) for j in range(chunks)], -1)
