"""What layers cost on an array: compute cycles, DRAM bytes, latency and energy, batched over designs, layers and dataflows.

The same function serves results (``rounding="exact"``) and searches (``smooth`` or ``straight``, differentiable). Latency is the
larger of computing and moving (roofline), or their sum where buffers are single. Layers without weights stream: one output and
kernel position a cycle and column for ``pool`` and ``add``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from accel_models.design import AccelDesign
from accel_models.energy import ENERGY_TABLES, EnergyTable, energy_parts, sram_j, total
from accel_models.engines.systolic import SystolicCounts, product_view, systolic_counts
from accel_models.engines.traffic import Tiles, buffer_elements, dram_traffic, tiles
from accel_models.layers import LayerTensors


@dataclass(frozen=True)
class Machine:
    """What all chunks of a design share, in the form that the equations need.

    Attributes:
        dram_bytes_per_cycle: shared port.
        weight_bytes, activation_bytes, partial_bytes: of one element.
        multiplier_bits: width of the multipliers.
        depthwise_mode, overlap_fill, double_buffered: as in ``design.AccelDesign``.
        energy: constants, or None where unknown for this platform or width.
    """

    dram_bytes_per_cycle: float
    weight_bytes: float = 1.0
    activation_bytes: float = 1.0
    partial_bytes: float = 4.0
    multiplier_bits: int = 8
    depthwise_mode: str = "columns"
    overlap_fill: bool = False
    double_buffered: bool = True
    energy: EnergyTable | None = None


@dataclass(frozen=True)
class LayerCosts:
    """Costs of layers, each ``[..., L, 3]`` over dataflows; loop order around the buffer tile is the best of three.

    Attributes:
        compute_cycles: the array alone.
        latency_cycles: with DRAM.
        dram_bytes: both directions; None if only computing was asked for.
        energy_parts: joules by part, None where no constants are known.
        buffer_bytes: largest weight, input and output tile, each ``[..., L]``; None if only computing was asked for.
    """

    compute_cycles: Tensor
    latency_cycles: Tensor
    dram_bytes: Tensor | None = None
    energy_parts: dict[str, Tensor] | None = None
    buffer_bytes: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def energy_j(self) -> Tensor | None:
        """Joules, the sum of the parts; None where unknown."""
        return None if self.energy_parts is None else total(self.energy_parts)


def machine_of(design: AccelDesign) -> Machine:
    """The shared part of a design; energy constants only where the table knows the multiplier's width."""
    table = ENERGY_TABLES[design.platform.energy] if design.platform.energy else None
    if table is not None and design.multiplier_bits not in table.multiply_j:
        table = None
    return Machine(
        dram_bytes_per_cycle=design.platform.dram_bytes_per_cycle,
        weight_bytes=design.weight_bits / 8,
        activation_bytes=design.activation_bits / 8,
        partial_bytes=design.partial_bits / 8,
        multiplier_bits=design.multiplier_bits,
        depthwise_mode=design.depthwise_mode,
        overlap_fill=design.overlap_fill,
        double_buffered=design.double_buffered,
        energy=table,
    )


def compute_counts(layers: LayerTensors, machine: Machine, rows: Tensor, cols: Tensor, rounding: str = "exact") -> SystolicCounts:
    """Cycles and buffer accesses on systolic arrays, all three dataflows.

    Args:
        layers: tensors ``[L]``.
        machine: shared part.
        rows, cols: ``[..., 1, 1]``.
        rounding: see ``rounding``.

    Returns:
        ``[..., L, 3]`` each.
    """
    product = product_view(layers, machine.depthwise_mode)
    return systolic_counts(product, rows, cols, rounding=rounding, overlap_fill=machine.overlap_fill)


def compute_cycles(layers: LayerTensors, counts: SystolicCounts, cols: Tensor) -> Tensor:
    """``[..., L, 3]`` cycles: the array's for layers with weights, streaming for pools and sums, 0 for fused layers."""
    column = layers.column()
    streaming = torch.where(column.streams, column.outputs * column.R * column.S / cols, torch.zeros_like(column.outputs))
    return torch.where(column.busy, counts.cycles, streaming)


def layer_costs(
    layers: LayerTensors,
    machine: Machine,
    counts: SystolicCounts,
    rows: Tensor,
    cols: Tensor,
    tile: Tiles,
    capacity_bytes: tuple[Tensor, Tensor, Tensor] | None = None,
    ports: tuple[Tensor, Tensor, Tensor] | None = None,
) -> LayerCosts:
    """Full costs of layers on chunks with given buffer tiles.

    Args:
        layers: tensors ``[L]``.
        machine: shared part.
        counts: of the same layers, from :func:`compute_counts` or an engine of another kind.
        rows, cols: ``[..., 1, 1]``.
        tile: buffer tiles ``[..., L]``.
        capacity_bytes: bytes of weight, input and output buffer, ``[..., 1, 1]``, which prices an access; default the
            tile, at least 64 bytes.
        ports: words of weights, inputs and sums that the array takes at once, ``[..., 1, 1]``; default those of a systolic array.

    Returns:
        ``[..., L, 3]`` each, see :class:`LayerCosts`.
    """
    column = layers.column()
    cycles = compute_cycles(layers, counts, cols)
    traffic, sizes = dram_traffic(layers, tile), (machine.weight_bytes, machine.activation_bytes, machine.partial_bytes)
    best = traffic.bytes(*sizes).argmin(-1, keepdim=True)
    nothing = torch.zeros_like(column.inputs)
    streamed = (nothing, column.inputs * machine.activation_bytes, nothing, column.outputs * machine.activation_bytes)
    ways = [
        torch.where(column.busy, way.gather(-1, best), torch.where(column.streams, stream, nothing))
        for way, stream in zip(traffic.ways(*sizes), streamed, strict=True)
    ]
    dram = torch.stack(ways).sum(0)
    moving = dram / machine.dram_bytes_per_cycle
    latency = torch.maximum(cycles, moving) if machine.double_buffered else cycles + moving
    weights, inputs, outputs = buffer_elements(layers, tile.largest)
    held = (
        torch.where(layers.busy, weights * machine.weight_bytes, torch.zeros_like(weights)),
        torch.where(layers.busy, inputs * machine.activation_bytes, torch.zeros_like(inputs)),
        torch.where(layers.busy, outputs * machine.partial_bytes, torch.zeros_like(outputs)),
    )
    dram = dram + torch.zeros_like(cycles)
    parts = None
    if machine.energy is not None:
        weight_room, input_room, output_room = (h.unsqueeze(-1).clamp(min=64.0) for h in held)
        room = capacity_bytes or (weight_room, input_room, output_room)
        parts = _energy(column, machine, machine.energy, counts, ports or (cols, rows, cols), ways, room)
    return LayerCosts(cycles, latency, dram, parts, held)


def _energy(
    layers: LayerTensors,
    machine: Machine,
    table: EnergyTable,
    counts: SystolicCounts,
    ports: tuple[Tensor, Tensor, Tensor],
    ways: Sequence[Tensor],
    room: tuple[Tensor, Tensor, Tensor],
) -> dict[str, Tensor]:
    """Joules by part. A port is as wide as the words that the array takes at once, a systolic one's for each row or column.

    ``ways`` are the bytes from DRAM into the three buffers and back from that of the outputs, each written or read there.
    """
    sizes = (machine.weight_bytes, machine.activation_bytes, machine.partial_bytes)
    widths = [words * 8 * size for words, size in zip(ports, sizes, strict=True)]
    words = (counts.weight_reads, counts.input_reads, (counts.output_writes - layers.outputs).clamp(min=0.0))
    *filled, stored = ways
    dram = stored + sum(filled) + torch.zeros_like(counts.cycles)
    zero = torch.zeros_like(dram)
    read_j, write_j = (
        [sram_j(table, space, width, write) / width * 8 for space, width in zip(room, widths, strict=True)]
        for write in (False, True)
    )
    buffer = counts.output_writes * sizes[2] * write_j[2]
    for size, word, joules in zip(sizes, words, read_j, strict=True):
        buffer = buffer + word * size * joules
    buffer = torch.where(layers.busy, buffer, zero) + stored * read_j[2]
    for moved, joules in zip(filled, write_j, strict=True):
        buffer = buffer + moved * joules
    per_mac = sizes[0] + sizes[1] + 2 * sizes[2]
    loads = counts.weight_reads * sizes[0] + counts.input_reads * sizes[1]
    register = layers.macs * per_mac + torch.where(layers.busy, loads, zero)
    totals = {"macs": layers.macs + zero, "register_bytes": register, "dram_bytes": dram, "buffer_j": buffer}
    return energy_parts(table, totals, machine.multiplier_bits)


def clipped_tiles(layers: LayerTensors, tile: tuple[Tensor, Tensor, Tensor, Tensor], rounding: str = "exact") -> Tiles:
    """A chunk's buffer tile clipped to each layer.

    Args:
        layers: tensors ``[L]``.
        tile: k, c, p, q, each ``[..., 1]``.
        rounding: see ``rounding``.
    """
    return tiles(layers, *tile, rounding=rounding)
