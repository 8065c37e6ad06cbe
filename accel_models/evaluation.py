"""A network on a design, exactly: per layer and in total, with the pipeline's interval and the latency of a single frame.

``block_costs`` is what a co-search needs: the cost of each block of a network, or of candidates, on a given design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np
import torch

from accel_models.assignment import best_assignment, chunk_times
from accel_models.cost import LayerCosts, Machine, clipped_tiles, compute_counts, layer_costs, machine_of
from accel_models.design import AccelDesign, Chunk
from accel_models.energy import PARTS, total
from accel_models.engines.mapper import best_tile, tile_limits
from accel_models.engines.rounding import folds
from accel_models.engines.systolic import DATAFLOWS, SystolicCounts
from accel_models.engines.tile_engine import UNROLLED, tile_engine_cycles
from accel_models.layers import LayerShape, LayerTensors, check_work, from_blocks, stack
from accel_models.resources import Resources, resources
from latency_tables.errors import InfeasibleCandidateError, ShapeError
from latency_tables.opspec import OpSpec

MOST_CUTS = 50_000  # contiguous cuts that are tried one by one; a longer pipeline is cut for its slowest chunk alone


@dataclass(frozen=True)
class LayerResult:
    """One layer on its chunk. Energy is None where no constants are known."""

    name: str
    kind: str
    chunk: int
    macs: int
    cycles: float
    latency_s: float
    dram_bytes: float
    energy_j: float | None
    energy_parts: dict[str, float] | None
    utilisation: float


@dataclass(frozen=True)
class NetworkResult:
    """A network on a design.

    Attributes:
        layers: each layer on its chunk.
        latency_s: one frame alone, through all chunks.
        interval_s: time between frames when the pipeline is full: the slowest chunk, or the shared DRAM port.
        chunk_s: time of each chunk.
        energy_j: of one frame, None where unknown; without static power.
        dram_bytes: of one frame.
        resources: what the design occupies.
    """

    layers: tuple[LayerResult, ...]
    latency_s: float
    interval_s: float
    chunk_s: tuple[float, ...]
    energy_j: float | None
    dram_bytes: float
    resources: Resources

    @property
    def frames_per_s(self) -> float:
        """Of a full pipeline."""
        return 1.0 / self.interval_s

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object; SI units."""
        return {
            "latency_s": self.latency_s,
            "interval_s": self.interval_s,
            "frames_per_s": self.frames_per_s,
            "single_frame_per_s": 1.0 / self.latency_s,
            "energy_j": self.energy_j,
            "dram_bytes": self.dram_bytes,
            "chunk_s": list(self.chunk_s),
            "resources": self.resources.to_dict(),
            "provenance": "modelled",
            "layers": [vars(layer) for layer in self.layers],
        }


@dataclass(frozen=True)
class BlockCost:
    """One block of a network on a design."""

    chunk: int
    latency_s: float
    energy_j: float | None


def evaluate(
    layers: Sequence[LayerShape], design: AccelDesign, objective: str = "latency", chunk_of: Sequence[int] | None = None
) -> NetworkResult:
    """Cost of a network, with the best contiguous cuts unless they are given.

    Args:
        layers: in order of execution.
        design: hardware.
        objective: what the cuts minimise, see ``assignment.OBJECTIVES``; ``energy`` needs known constants. With more than
            :data:`MOST_CUTS` cuts those for ``interval`` leave the shared DRAM port out.
        chunk_of: chunk of each layer.

    Raises:
        InfeasibleCandidateError: a layer does not fit the buffers, or the energy is asked for and unknown.
        ShapeError: no layer takes any time, or ``chunk_of`` has another length or an unknown chunk.
        ConfigError: an unknown objective.
    """
    check_work(layers)
    table = _table(layers, design)
    if chunk_of is None:
        chunk = _cuts(table, objective, np.arange(len(layers)), _port(design))
    else:
        chunk = np.asarray(chunk_of)
        if chunk.shape != (len(layers),) or chunk.min() < 0 or chunk.max() >= len(design.chunks):
            raise ShapeError(f"expected a chunk from 0 to {len(design.chunks) - 1} for {len(layers)} layers, got {list(chunk)}")
    table.check(chunk)
    clock, rows = design.platform.clock_hz, []
    for index, layer in enumerate(layers):
        j = int(chunk[index])
        parts = None if table.parts is None else {name: float(v[j, index]) for name, v in table.parts.items()}
        cycles, late = float(table.cycles[j, index]), float(table.latency[j, index])
        busy = layer.macs / (cycles * design.chunks[j].elements) if cycles else 0.0
        rows.append(
            LayerResult(
                layer.name,
                layer.kind,
                j,
                layer.macs,
                cycles,
                late / clock,
                float(table.dram[j, index]),
                None if parts is None else total(parts),
                parts,
                busy,
            )
        )
    own = np.array([[row.latency_s for row in rows]])
    per_chunk = chunk_times(own, chunk[None, :], len(design.chunks))[0]
    dram = sum(row.dram_bytes for row in rows)
    energies = [row.energy_j for row in rows if row.energy_j is not None]
    return NetworkResult(
        layers=tuple(rows),
        latency_s=float(own.sum()),
        chunk_s=tuple(float(t) for t in per_chunk),
        interval_s=max(float(per_chunk.max()), dram / design.platform.dram_bytes_per_s),
        energy_j=None if table.parts is None else sum(energies),
        dram_bytes=dram,
        resources=resources(design),
    )


def block_costs(
    blocks: Sequence[OpSpec], design: AccelDesign, objective: str = "latency", chunk_of: Sequence[int] | None = None
) -> list[BlockCost]:
    """Latency and energy of each block on a design; a block is never cut. A batch runs frame after frame.

    Args:
        blocks: of one network in order, or candidates for places whose chunks are given.
        design: hardware; frozen while an architecture is being updated.
        objective: what the cuts minimise if no chunks are given, see ``assignment.OBJECTIVES``.
        chunk_of: chunk of each block.

    Raises:
        InfeasibleCandidateError: a layer does not fit the buffers, or the energy is to be minimised and unknown.
        ShapeError: no blocks, or ``chunk_of`` has another length or an unknown chunk.
    """
    if not blocks:
        raise ShapeError("expected at least one block, got none")
    grouped = from_blocks(blocks)
    sizes = [len(group) for group in grouped]
    flat = [layer for group in grouped for layer in group]
    table = _table(flat, design)
    owner = np.repeat(np.arange(len(blocks)), sizes)
    if chunk_of is None:
        chunk = _cuts(table, objective, owner, _port(design))
    elif len(chunk_of) != len(blocks) or not all(0 <= c < len(design.chunks) for c in chunk_of):
        raise ShapeError(f"expected a chunk from 0 to {len(design.chunks) - 1} for {len(blocks)} blocks, got {list(chunk_of)}")
    else:
        chunk = np.asarray(chunk_of)
    table.check(chunk[owner])
    energy = None if table.parts is None else total(table.parts)
    out = []
    for index, block in enumerate(blocks):
        mine, j = owner == index, int(chunk[index])
        seconds = float(table.latency[j, mine].sum()) / design.platform.clock_hz * block.batch
        out.append(BlockCost(j, seconds, None if energy is None else float(energy[j, mine].sum()) * block.batch))
    return out


def _port(design: AccelDesign) -> float:
    return design.platform.dram_bytes_per_s / design.platform.clock_hz


@dataclass(frozen=True)
class _Table:
    """Costs of every layer on every chunk, each ``[J, L]``; cycles, bytes, joules. Where ``fits`` is False they mean nothing."""

    cycles: np.ndarray
    latency: np.ndarray
    dram: np.ndarray
    parts: dict[str, np.ndarray] | None
    fits: np.ndarray
    reasons: tuple[str, ...]

    def check(self, chunk: np.ndarray) -> None:
        """Raise unless every layer fits the buffers of its chunk ``[L]``."""
        if not self.fits[chunk, np.arange(len(chunk))].all():
            raise InfeasibleCandidateError(self.reasons[0])


def _table(layers: Sequence[LayerShape], design: AccelDesign) -> _Table:
    machine, shapes = machine_of(design), stack(layers)
    tilings = [_tiling(layers, shapes, machine, chunk) for chunk in design.chunks]
    costs = [
        (_on_chunk(shapes, machine, chunk, tiling.columns), DATAFLOWS.index(chunk.dataflow or DATAFLOWS[0]))
        for chunk, tiling in zip(design.chunks, tilings, strict=True)
    ]

    def gather(values: list[torch.Tensor]) -> np.ndarray:
        return np.stack([value[..., option].numpy() for value, (_, option) in zip(values, costs, strict=True)])

    known = [cost.energy_parts for cost, _ in costs if cost.energy_parts is not None]
    parts = {name: gather([each[name] for each in known]) for name in PARTS} if machine.energy is not None else None
    return _Table(
        gather([c.compute_cycles for c, _ in costs]),
        gather([c.latency_cycles for c, _ in costs]),
        gather([c.dram_bytes for c, _ in costs if c.dram_bytes is not None]),
        parts,
        np.stack([tiling.fits for tiling in tilings]),
        tuple(reason for tiling in tilings for reason in tiling.reasons),
    )


Columns = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class _Tiling:
    """Buffer tile of each layer (k, c, p, q, ``[L]`` each), whether it fits, and why not."""

    columns: Columns
    fits: np.ndarray
    reasons: tuple[str, ...]


def _tiling(layers: Sequence[LayerShape], shapes: LayerTensors, machine: Machine, chunk: Chunk) -> _Tiling:
    sizes = (machine.weight_bytes, machine.activation_bytes, machine.partial_bytes)
    room = (chunk.weight_buffer_bytes, chunk.input_buffer_bytes, chunk.output_buffer_bytes)
    chosen, reasons, fits = [], [], np.ones(len(layers), dtype=bool)
    for index, layer in enumerate(layers):
        try:
            chosen.append(chunk.tile or (best_tile(layer, room, sizes) if layer.macs else (1, 1, 1, 1)))
        except InfeasibleCandidateError as error:  # another chunk may have the room
            reasons.append(str(error))
            chosen.append((1, 1, 1, 1))
            fits[index] = False
    k, c, p, q = (torch.tensor([float(t[i]) for t in chosen], dtype=torch.float64) for i in range(4))
    columns = (k, c, p, q)
    for what, held, size, limit in zip(("weight", "input", "output"), tile_limits(shapes, columns), sizes, room, strict=True):
        over = ((held * size > limit) & shapes.busy).numpy() & fits
        reasons += [
            f"tile {chunk.tile} of layer {layers[i].name!r} exceeds the {what} buffer of {limit} bytes; "
            "leave tile out to choose one for each layer"
            for i in np.flatnonzero(over)
        ]
        fits &= ~over
    return _Tiling(columns, fits, tuple(reasons))


def _on_chunk(shapes: LayerTensors, machine: Machine, chunk: Chunk, columns: Columns) -> LayerCosts:
    rows, cols = (torch.full((1, 1), float(side), dtype=torch.float64) for side in (chunk.rows, chunk.cols))
    room = (chunk.weight_buffer_bytes, chunk.input_buffer_bytes, chunk.output_buffer_bytes)
    counts = compute_counts(shapes, machine, rows, cols) if chunk.unroll is None else _tile_engine_counts(shapes, chunk.unroll)
    copies = 2.0 if machine.double_buffered else 1.0
    weights, inputs, outputs = (torch.full((1, 1), copies * size, dtype=torch.float64) for size in room)
    weight_port, input_port, output_port = (torch.full((1, 1), float(words), dtype=torch.float64) for words in chunk.ports)
    return layer_costs(
        shapes,
        machine,
        counts,
        rows,
        cols,
        clipped_tiles(shapes, columns),
        (weights, inputs, outputs),
        (weight_port, input_port, output_port),
    )


def _tile_engine_counts(shapes: LayerTensors, unroll: tuple[int, int, int, int, int]) -> SystolicCounts:
    """Every cycle reads a word for each weight and input in use; sums stay in the array over one kernel.

    Weights are read again for each step of pixels, inputs for each step of output channels, and sums leave for each step of input
    channels; the steps of a loop add up to its size, so idle multipliers of a ragged edge read nothing. The counts are the same
    for all dataflows: the engine has none.
    """
    cycles = tile_engine_cycles(shapes, unroll)
    _, k, c, p, q = (folds(getattr(shapes, n), torch.as_tensor(float(step))) for n, step in zip(UNROLLED, unroll, strict=True))
    inputs = shapes.G * shapes.C * shapes.P * shapes.Q * shapes.R * shapes.S * k
    counts = (cycles, inputs, shapes.weights * p * q, shapes.outputs * c, torch.ones_like(cycles))
    return SystolicCounts(*(words.unsqueeze(-1).expand(-1, 3) for words in counts))


def _cuts(table: _Table, objective: str, owner: np.ndarray, dram_bytes_per_cycle: float) -> np.ndarray:
    """Chunk of each owner (layer or block) under the best contiguous cuts; an interval is the slowest chunk or the DRAM port."""
    if objective == "energy":
        if table.parts is None:
            raise InfeasibleCandidateError("the energy of this design is not known: its platform has no constants for it")
        costs = total(table.parts)
    else:
        costs = table.latency
    costs = np.where(table.fits, costs, 1e6 * costs.sum())  # finite: prefix sums must keep their digits
    places = _by_owner(costs, owner)
    fewest = best_assignment(places[None, :, :, None], objective).chunk[0]
    chunks, count = places.shape
    if objective != "interval" or chunks == 1 or comb(count + chunks - 1, chunks - 1) > MOST_CUTS:
        return fewest
    moved = _by_owner(table.dram, owner) / dram_bytes_per_cycle
    ends = np.array(list(combinations_with_replacement(range(count + 1), chunks - 1)))
    ends = np.concatenate([np.zeros((len(ends), 1), int), ends, np.full((len(ends), 1), count)], 1)
    busy, port = (
        np.stack([np.diff(np.concatenate([[0.0], row.cumsum()])[ends[:, j : j + 2]], axis=1)[:, 0] for j, row in enumerate(rows)])
        for rows in (places, moved)
    )
    slowest, shared = busy.max(0), port.sum(0)
    best = ends[np.lexsort((slowest, np.maximum(slowest, shared)))[0]]  # where the port decides, still the most even cuts
    return np.searchsorted(best[1:-1], np.arange(count), side="right")


def _by_owner(costs: np.ndarray, owner: np.ndarray) -> np.ndarray:
    places = np.zeros((costs.shape[0], owner[-1] + 1))
    np.add.at(places.T, owner, costs.T)
    return places
