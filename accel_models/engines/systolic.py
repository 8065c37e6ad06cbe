"""Exact cycles and buffer accesses of a systolic array: weight-, output- and input-stationary.

The convolution is a matrix product over the unrolled window ``W = R S C`` and the pixels ``X = P Q``. One operand (or the
result) stays in the array, the fold streams ``T`` values through it. The closed form equals SCALE-Sim 3.0.0 on every row of
``data/oracle_scalesim.csv`` (cycles counted from 1). What it is not: a model of stalls, which ``cost`` adds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from accel_models.engines.rounding import folds
from accel_models.layers import LayerTensors
from latency_tables.errors import ConfigError

DATAFLOWS = ("ws", "os", "is")
DEPTHWISE_MODES = ("channels", "columns")


@dataclass(frozen=True)
class Product:
    """The matrix product on the array: rows and columns to cover, streamed length, repetitions; ``[..., L, 3]``.

    The last axis runs over :data:`DATAFLOWS`. Where ``apart`` (a mask) each column streams inputs of its own channel; elsewhere
    all columns of a fold share what is streamed.
    """

    rows: Tensor
    cols: Tensor
    length: Tensor
    repeats: Tensor
    apart: Tensor = field(default_factory=lambda: torch.tensor(False))


@dataclass(frozen=True)
class SystolicCounts:
    """Cycles and words read from or written to the buffers, each ``[..., L, 3]`` over :data:`DATAFLOWS`."""

    cycles: Tensor
    input_reads: Tensor
    weight_reads: Tensor
    output_writes: Tensor
    folds: Tensor


def product_view(layers: LayerTensors, depthwise_mode: str = "columns") -> Product:
    """Layers as matrix products for all three dataflows.

    Args:
        layers: tensors ``[L]``.
        depthwise_mode: ``channels`` runs one product for each channel (SCALE-Sim's way: one column is busy); ``columns`` lays
            channels across the columns, each with a stream of its own inputs, which input-stationary cannot, because another
            input is stationary for each channel.

    Returns:
        ``[L, 3]`` each.

    Raises:
        ConfigError: the mode is not known.
    """
    if depthwise_mode not in DEPTHWISE_MODES:
        raise ConfigError(f"depthwise_mode must be one of {', '.join(DEPTHWISE_MODES)}, got {depthwise_mode!r}")
    window, pixels = layers.R * layers.S * layers.C, layers.P * layers.Q
    spread = layers.depthwise & (depthwise_mode == "columns")
    width = torch.where(spread, layers.G, layers.K)
    repeats = torch.where(spread, torch.ones_like(layers.G), layers.G)
    return Product(
        rows=torch.stack([window, pixels, window], -1),
        cols=torch.stack([width, width, pixels], -1),
        length=torch.stack([pixels, window, layers.K], -1),
        repeats=torch.stack([repeats, repeats, layers.G], -1),
        apart=torch.stack([spread, spread, torch.zeros_like(spread)], -1),
    )


def systolic_counts(
    product: Product, rows: Tensor, cols: Tensor, *, rounding: str = "exact", overlap_fill: bool = False
) -> SystolicCounts:
    """Cycles and buffer accesses of products on an array.

    Args:
        product: ``[L, 3]`` or anything that broadcasts; last axis over :data:`DATAFLOWS`.
        rows, cols: array sides, ``[..., 1, 1]``, broadcast against the product.
        rounding: see ``rounding``; ``exact`` for results.
        overlap_fill: the stationary operand, or sums, are double-buffered in the array (Gemmini, TPU). While a fold streams,
            the next one's operand is loaded, or the last one's sums leave: it lasts as long as the longer of the two. The first
            load and the passage through rows and columns are paid once for the layer, not in every fold.

    Returns:
        ``[..., L, 3]`` each.
    """
    over_rows, over_cols = folds(product.rows, rows, rounding), folds(product.cols, cols, rounding)
    stationary = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    count = over_rows * over_cols
    filling = rows * (1.0 + stationary) + cols - 2.0
    if overlap_fill:
        longer = torch.maximum(product.length, rows * torch.ones_like(product.length))
        cycles = (product.repeats * count - 1.0) * longer + product.length + filling
    else:
        cycles = product.repeats * count * (filling + product.length)
    along = product.repeats * product.length * product.rows  # streamed along the rows, once a fold of columns
    across, inputs = along * over_cols, along * torch.where(product.apart, product.cols, over_cols)
    down = product.repeats * product.length * product.cols * over_rows  # streamed along the columns
    still = product.repeats * product.rows * product.cols * torch.ones_like(count)  # held by the array
    return SystolicCounts(
        cycles=cycles,
        input_reads=torch.cat([inputs[..., :2], still[..., 2:]], -1),
        weight_reads=torch.cat([still[..., :1], down[..., 1:2], across[..., 2:]], -1),
        output_writes=torch.cat([down[..., :1], still[..., 1:2], down[..., 2:]], -1),
        folds=count,
    )
