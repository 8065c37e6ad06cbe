"""Exact cycles of a tile engine: loops unrolled over multipliers, every ragged edge costs a whole step.

The engine class of A3C-S, Auto-NBA and MCCM: ``t_g t_k t_c t_p t_q`` multipliers, cycles the product of rounded-up tile
counts. An unrolled input channel is idle in a depthwise layer and unrolled pixels are idle in a fully-connected one; that
idleness is the reason for giving depthwise layers their own chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from accel_models.engines.rounding import folds
from accel_models.layers import LayerTensors

UNROLLED = ("G", "K", "C", "P", "Q")


def tile_engine_cycles(layers: LayerTensors, unroll: Sequence[Tensor | float], rounding: str = "exact") -> Tensor:
    """Cycles of each layer.

    Args:
        layers: tensors ``[L]``.
        unroll: multipliers along G, K, C, P and Q; each broadcasts against ``[L]``.
        rounding: see ``rounding``.

    Returns:
        ``[..., L]`` cycles.
    """
    cycles = layers.R * layers.S
    for name, step in zip(UNROLLED, unroll, strict=True):
        size = getattr(layers, name)
        cycles = cycles * folds(size, torch.as_tensor(step, dtype=torch.float64), rounding)
    return cycles
