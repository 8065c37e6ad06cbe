"""The best buffer tile of a layer that fits given buffers: an exhaustive search over powers of two, even
splits and whole dimensions.

A larger buffer only adds candidates, so it never costs DRAM bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from accel_models.engines.traffic import buffer_elements, dram_traffic, tiles
from accel_models.layers import LayerShape, LayerTensors, stack
from latency_tables.errors import InfeasibleCandidateError

Tile = tuple[int, int, int, int]


def _steps(size: int) -> list[int]:
    """Powers of two below ``size``, and ``size``, and for each of them the even tile with as many folds (20 in 16s: 10)."""
    steps = [2**e for e in range(size.bit_length()) if 2**e < size] + [size]
    return sorted({*steps, *(-(-size // -(-size // step)) for step in steps)})


def candidate_tiles(layer: LayerShape) -> list[Tile]:
    """All tiles ``(k, c, p, q)`` that are tried for a layer; columns are halved only when rows are down to one."""
    channels = layer.G if layer.kind == "dw" else layer.K
    high = [(p, layer.Q) for p in _steps(layer.P)] + [(1, q) for q in _steps(layer.Q) if q < layer.Q]
    return [(k, c, p, q) for k, c, (p, q) in product(_steps(channels), _steps(layer.C), high)]


def best_tile(layer: LayerShape, room: tuple[int, int, int], element_bytes: tuple[float, float, float]) -> Tile:
    """The tile with the least DRAM traffic, then the smallest.

    Args:
        layer: with weights.
        room: weight, input and output buffer, bytes.
        element_bytes: bytes of a weight, an activation and a partial sum.

    Raises:
        InfeasibleCandidateError: not even one kernel fits.
    """
    tile = _least_traffic(replace(layer, name=""), room, element_bytes)  # layers of one shape share their tile
    if tile is None:
        raise InfeasibleCandidateError(
            f"layer {layer.name!r} does not fit buffers of {room[0]}, {room[1]}, {room[2]} bytes (weights, inputs, outputs) "
            f"even with one channel and one row a tile; make the buffers larger"
        )
    return tile


@lru_cache(maxsize=65536)
def _least_traffic(layer: LayerShape, room: tuple[int, int, int], element_bytes: tuple[float, float, float]) -> Tile | None:
    """:func:`best_tile`, None where no tile fits."""
    options = candidate_tiles(layer)
    k, c, p, q = (torch.tensor([float(o[i]) for o in options], dtype=torch.float64).unsqueeze(-1) for i in range(4))
    shapes = stack([layer])
    tile = tiles(shapes, k, c, p, q)
    held = [e[:, 0] * size for e, size in zip(tile_limits(shapes, (k, c, p, q)), element_bytes, strict=True)]
    fits = torch.ones(len(options), dtype=torch.bool)
    for used, limit in zip(held, room, strict=True):
        fits &= used <= limit
    if not bool(fits.any()):
        return None
    moved = dram_traffic(shapes, tile).bytes(*element_bytes).amin(-1)[:, 0]
    weights, inputs, outputs = held
    footprint = weights + inputs + outputs
    scored = torch.where(fits, moved + footprint / (footprint.max() * 1e6), torch.inf)
    return options[int(scored.argmin())]


def tile_limits(shapes: LayerTensors, columns: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Largest elements of a weight, input and output tile, ``[options, L]``: the clipped tile itself, not its average."""
    sizes = dict(zip("KCPQ", columns, strict=True))
    inside = {n: torch.minimum(sizes[n], getattr(shapes, n)) for n in "KCPQ"}
    inside["G"] = torch.where(shapes.depthwise, torch.minimum(sizes["K"], shapes.G), torch.ones_like(shapes.G))
    return buffer_elements(shapes, inside)
