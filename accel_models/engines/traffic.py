"""DRAM traffic of tiled layers in closed form, batched and differentiable: three loop orders around one buffer tile.

The tile keeps whole kernels and ``tile_k`` output channels, ``tile_c`` input channels, ``tile_p`` output rows, ``tile_q`` output
columns (groups of a depthwise layer take the place of output channels). The loops around it run, inner to outer:
``ws`` P Q C K, ``os`` C K P Q, ``is`` K P Q C, groups outermost. The rules are those of ``loopnest`` (a test holds the two
together); ragged edges are averaged, which leaves sums exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from accel_models.engines.rounding import active, folds, whole
from accel_models.layers import LayerTensors

ORDERS = ("ws", "os", "is")
NEST = {"ws": "PQCKG", "os": "CKPQG", "is": "KPQCG"}


@dataclass(frozen=True)
class Tiles:
    """Buffer tile of each layer, each ``[..., L]``: loop counts around the tile, its average and its largest sizes.

    Traffic adds up over all tiles, so the average gives it exactly; a buffer has to hold the largest.
    """

    count: dict[str, Tensor]
    inside: dict[str, Tensor]
    largest: dict[str, Tensor]


@dataclass(frozen=True)
class Traffic:
    """Elements between DRAM and buffers, each ``[..., L, 3]`` over :data:`ORDERS`.

    Attributes:
        weights, inputs: elements read.
        partial_writes, partial_reads: partial sums that leave and come back.
        outputs: final values written.
    """

    weights: Tensor
    inputs: Tensor
    partial_writes: Tensor
    partial_reads: Tensor
    outputs: Tensor

    def ways(self, weight_bytes: float, activation_bytes: float, partial_bytes: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bytes into the weight, input and output buffer, and out of the output buffer, each ``[..., L, 3]``."""
        return (
            self.weights * weight_bytes,
            self.inputs * activation_bytes,
            self.partial_reads * partial_bytes,
            self.outputs * activation_bytes + self.partial_writes * partial_bytes,
        )

    def bytes(self, weight_bytes: float, activation_bytes: float, partial_bytes: float) -> Tensor:
        """``[..., L, 3]`` bytes through the DRAM port, both directions."""
        weights, inputs, restored, stored = self.ways(weight_bytes, activation_bytes, partial_bytes)
        return weights + inputs + restored + stored


def tiles(layers: LayerTensors, tile_k: Tensor, tile_c: Tensor, tile_p: Tensor, tile_q: Tensor, rounding: str = "exact") -> Tiles:
    """Clip a chunk's tile to each layer.

    Args:
        layers: tensors ``[L]``.
        tile_k, tile_c, tile_p, tile_q: ``[..., 1]``, largest tile along each dimension.
        rounding: see ``rounding``.
    """
    steps = {"K": tile_k, "C": tile_c, "P": tile_p, "Q": tile_q, "G": torch.where(layers.depthwise, tile_k, 1.0)}
    count = {n: folds(getattr(layers, n), step, rounding) for n, step in steps.items()}
    inside = {n: getattr(layers, n) / count[n] for n in steps}
    return Tiles(count, inside, {n: whole(size, rounding) for n, size in inside.items()})


def dram_traffic(layers: LayerTensors, tile: Tiles) -> Traffic:
    """Traffic of all three loop orders.

    Args:
        layers: tensors ``[L]``.
        tile: of the same layers.
    """
    per_order = [_one_order(layers, tile, NEST[order]) for order in ORDERS]
    return Traffic(*(torch.stack(parts, -1) for parts in zip(*per_order, strict=True)))


def _one_order(layers: LayerTensors, tile: Tiles, nest: str) -> tuple[Tensor, ...]:
    n, size = tile.count, tile.inside
    run = {d: active(n[d]) for d in nest}
    none = torch.zeros_like(n["G"] * n["P"])

    def began(dimension: str, relevant: str) -> Tensor:
        """Whether a relevant loop runs inside the loop over this dimension: only then does it cost anything."""
        inner = [run[d] for d in nest[: nest.index(dimension)] if d in relevant]
        out = none
        for item in inner:
            out = torch.maximum(out, item + none)
        return out

    weight = layers.weights * (1 + began("P", "GKC") * (n["P"] - 1)) * (1 + began("Q", "GKC") * (n["Q"] - 1))
    rows = _extent(layers, n["P"], size["P"], layers.P, layers.window_rows)
    cols = _extent(layers, n["Q"], size["Q"], layers.Q, layers.window_cols)
    high = rows[0] + began("P", "GCPQ") * (rows[1] - rows[0])
    wide = cols[0] + began("Q", "GCPQ") * (cols[1] - cols[0])
    inputs = layers.G * layers.C * high * wide * (1 + began("K", "GCPQ") * (n["K"] - 1))
    again = layers.outputs * began("C", "GKPQ") * (n["C"] - 1)
    return weight, inputs, again, again, layers.outputs + none


def _extent(layers: LayerTensors, count: Tensor, size: Tensor, whole: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Input rows (or columns) fetched over all tiles: with the overlap kept, and with every tile fetched in full."""
    apart = count * ((size - 1) * layers.stride + window)
    union = (whole - 1) * layers.stride + window + torch.zeros_like(apart)
    return torch.where(window >= layers.stride, union, apart), apart


def buffer_elements(layers: LayerTensors, size: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Elements of one weight, input and output tile, each ``[..., L]``.

    Args:
        layers: tensors ``[L]``.
        size: of the tile along G, K, C, P and Q, each ``[..., L]``.
    """
    s = size
    weight = s["G"] * s["K"] * s["C"] * layers.R * layers.S
    high, wide = (s["P"] - 1) * layers.stride + layers.window_rows, (s["Q"] - 1) * layers.stride + layers.window_cols
    return weight, s["G"] * s["C"] * high * wide, s["G"] * s["K"] * s["P"] * s["Q"]
