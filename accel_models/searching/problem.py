"""A design-search problem: knobs, limits, objective, and the exact score of candidate designs.

A candidate has J chunks; each has two array sides, three buffer-tile sizes (k, c, p; whole columns) unless only computing is
modelled, and a dataflow. Layers go to chunks in contiguous runs. Every score counts as one evaluation, with given cuts or with
the best ones (a dynamic programme over the same table of layer costs). For the energy the price of an access depends on the
chunk's buffers, which hold the largest tile of its layers and so depend on the cuts: the cuts are those that are best while each
layer pays for its own tile, then the dataflows and the score are exact for the buffers of these cuts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from accel_models.assignment import OBJECTIVES, best_assignment, chunk_times
from accel_models.cost import LayerCosts, Machine, clipped_tiles, compute_counts, compute_cycles, layer_costs
from accel_models.layers import LayerShape, LayerTensors, check_work, stack
from accel_models.resources import bram18_blocks
from latency_tables.errors import ConfigError

SIDES = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
TILES = tuple(2**e for e in range(11))
WHOLE = 1 << 20  # a tile size that no layer reaches: whole columns


@dataclass(frozen=True)
class Limits:
    """What the chunks may occupy together; None means no limit.

    Attributes:
        elements: processing elements.
        bram18: blocks.
        sram_bytes: bytes, both copies of double buffers counted.
    """

    elements: float
    bram18: int | None = None
    sram_bytes: int | None = None


@dataclass(frozen=True)
class Scores:
    """Exact scores of B candidates.

    Attributes:
        value: ``[B]`` cycles or joules; ``inf`` where a limit is exceeded.
        chunk: ``[B, L]`` chunk of each layer.
        option: ``[B, J]`` dataflow of each chunk.
    """

    value: np.ndarray
    chunk: np.ndarray
    option: np.ndarray

    def only(self, place: int) -> Scores:
        """The scores of one candidate, ``B = 1``."""
        return Scores(*(part[place : place + 1] for part in (self.value, self.chunk, self.option)))


@dataclass
class DesignProblem:
    """One search problem; counts the evaluations that were made on it.

    Attributes:
        layers: the network.
        machine: number formats, DRAM port, energy constants.
        chunks: J.
        limits: resources.
        objective: see ``assignment.OBJECTIVES``.
        model: ``full``, or ``compute`` for the array alone (no DRAM, no buffers, no energy).
        evaluations: exact and relaxed evaluations so far.

    Raises:
        ConfigError: a wrong model, objective or number of chunks.
        ShapeError: no layer takes any time.
    """

    layers: Sequence[LayerShape]
    machine: Machine
    chunks: int
    limits: Limits
    objective: str = "interval"
    model: str = "full"
    evaluations: int = 0
    shapes: LayerTensors = field(init=False)
    pairs: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.model not in ("full", "compute"):
            raise ConfigError(f"model must be full or compute, got {self.model!r}")
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        if self.objective == "energy" and (self.machine.energy is None or self.model == "compute"):
            raise ConfigError("the objective energy needs a platform with energy constants for this width, and model full")
        if not 1 <= self.chunks <= len(self.layers):
            raise ConfigError(f"chunks must be from 1 to the number of layers ({len(self.layers)}), got {self.chunks}")
        check_work(self.layers)
        self.shapes = stack(self.layers)

    @property
    def grid(self) -> tuple[tuple[int, ...], ...]:
        """Allowed values of each knob of a chunk."""
        return (SIDES, SIDES) if self.model == "compute" else (SIDES, SIDES, TILES, TILES, TILES)

    def values(self, index: np.ndarray) -> Tensor:
        """Knob values ``[B, J, N]`` of grid indices ``[B, J, N]``."""
        columns = [np.asarray(options, dtype=float)[index[..., n]] for n, options in enumerate(self.grid)]
        return torch.tensor(np.stack(columns, -1))

    def has_elements(self, index: np.ndarray) -> np.ndarray:
        """Whether candidates ``[B, J, N]`` keep within the processing elements, ``[B]``: no evaluation, sides alone decide it."""
        sides = np.asarray(SIDES)
        return (sides[index[..., 0]] * sides[index[..., 1]]).sum(-1) <= self.limits.elements

    def nearest(self, log2_values: np.ndarray) -> np.ndarray:
        """Grid indices ``[B, J, N]`` nearest to log2 values ``[B, J, N]``."""
        grids = [np.log2(np.asarray(options, dtype=float)) for options in self.grid]
        return np.stack([np.abs(log2_values[..., n, None] - grid).argmin(-1) for n, grid in enumerate(grids)], -1)

    @property
    def copies(self) -> float:
        """Tiles that a buffer holds: two where it loads the next one while the array works."""
        return 2.0 if self.machine.double_buffered else 1.0

    def costs(self, values: Tensor, rounding: str = "exact", held: tuple[Tensor, ...] | None = None) -> LayerCosts:
        """Costs ``[B, J, L, 3]`` of every layer on every chunk with every dataflow.

        Args:
            values: ``[B, J, N]`` knob values.
            rounding: see ``rounding``.
            held: bytes of the weight, input and output tile of each chunk, ``[B, J]`` each, whose buffers price an access;
                without, each layer's own tile does. Energies alone depend on it.
        """
        knob = [values[..., n, None] for n in range(values.shape[-1])]
        rows, cols = knob[0].unsqueeze(-1), knob[1].unsqueeze(-1)
        counts = compute_counts(self.shapes, self.machine, rows, cols, rounding)
        if self.model == "compute":
            cycles = compute_cycles(self.shapes, counts, cols)
            return LayerCosts(cycles, cycles)
        tile = clipped_tiles(self.shapes, (knob[2], knob[3], knob[4], torch.full_like(knob[4], WHOLE)), rounding)
        if held is None:
            return layer_costs(self.shapes, self.machine, counts, rows, cols, tile)
        weights, inputs, outputs = (self.copies * size[..., None, None] for size in held)
        return layer_costs(self.shapes, self.machine, counts, rows, cols, tile, (weights, inputs, outputs))

    def _looked_up(self, index: np.ndarray) -> LayerCosts:
        """Exact costs of the compute model from a table over all pairs of sides; the same numbers as :meth:`costs`."""
        if self.pairs is None:
            both = np.stack(np.meshgrid(np.arange(len(SIDES)), np.arange(len(SIDES)), indexing="ij"), -1)
            self.pairs = self.costs(self.values(both)).compute_cycles
        cycles = self.pairs[index[..., 0], index[..., 1]]
        return LayerCosts(cycles, cycles)

    def exact_costs(self, index: np.ndarray) -> LayerCosts:
        """Exact costs ``[B, J, L, 3]`` of grid indices ``[B, J, N]``; counts nothing."""
        return self._looked_up(index) if self.model == "compute" else self.costs(self.values(index))

    def target(self, costs: LayerCosts) -> Tensor:
        """What is minimised, per layer: joules for ``energy``, cycles otherwise; ``[B, J, L, 3]``."""
        if self.objective != "energy":
            return costs.latency_cycles
        assert costs.energy_j is not None, "the objective energy is refused where the machine has no constants for it"
        return costs.energy_j

    def memory(self, values: Tensor, held: tuple[Tensor, ...], rounding: str = "exact") -> Tensor | None:
        """Share of the memory limit that is in use, ``[B]``; None without a limit.

        Args:
            values: ``[B, J, N]`` knob values.
            held: bytes of the weight, input and output tile of each chunk, ``[B, J]`` each.
            rounding: see ``rounding``.
        """
        if self.limits.bram18 is not None:
            sides = (values[..., 1], values[..., 0], values[..., 1])
            doubled = self.machine.double_buffered
            blocks = (bram18_blocks(h, side, doubled, rounding) for h, side in zip(held, sides, strict=True))
            return _together(blocks).sum(-1) / self.limits.bram18
        if self.limits.sram_bytes is not None:
            return self.copies * _together(held).sum(-1) / self.limits.sram_bytes
        return None

    def score(self, index: np.ndarray, chunk: np.ndarray | None = None, option: np.ndarray | None = None) -> Scores:
        """Exact scores; a candidate beyond a limit scores ``inf``.

        Args:
            index: ``[B, J, N]`` grid indices.
            chunk: ``[B, L]``; with ``option`` ``[B, J]`` the assignment to score; without, the best one is found (for the
                energy, see the top of this file).
            option: see ``chunk``.
        """
        self.evaluations += len(index)
        values = self.values(index)
        costs = self.exact_costs(index)
        table = self.target(costs).numpy()
        found = chunk is None or option is None
        if chunk is None or option is None:
            best = best_assignment(table, self.objective)
            chunk, option = best.chunk, best.option
        if self.objective == "energy":
            table = self.target(self.costs(values, held=self.held(costs, chunk))).numpy()
            if found:
                mine = chunk[:, None, :, None] == np.arange(self.chunks)[:, None, None]
                option = np.where(mine, table, 0.0).sum(2).argmin(-1)
        rows, places = np.arange(len(index))[:, None], np.arange(table.shape[2])[None, :]
        dataflow = option[rows, chunk]
        own = table[rows, chunk, places, dataflow]
        per_chunk = chunk_times(own, chunk, self.chunks)
        value = per_chunk.max(-1) if self.objective == "interval" else per_chunk.sum(-1)
        if self.objective == "interval" and costs.dram_bytes is not None:
            moved = costs.dram_bytes.numpy()[rows, chunk, places, dataflow].sum(-1)
            value = np.maximum(value, moved / self.machine.dram_bytes_per_cycle)
        used = (values[..., 0] * values[..., 1]).sum(-1).numpy()
        fits = used <= self.limits.elements
        if costs.buffer_bytes is not None:
            share = self.memory(values, self.held(costs, chunk))
            fits &= True if share is None else share.numpy() <= 1.0
        return Scores(np.where(fits, value, math.inf), chunk, option)

    def held(self, costs: LayerCosts, chunk: np.ndarray) -> tuple[Tensor, ...]:
        """Bytes of each chunk's weight, input and output buffer, the largest over its layers; ``[B, J]`` each."""
        assert costs.buffer_bytes is not None, "model compute has no buffers"
        mask = torch.tensor(chunk[:, None, :] == np.arange(self.chunks)[None, :, None])
        return tuple(torch.where(mask, h, torch.zeros_like(h)).amax(-1).clamp(min=1.0).ceil() for h in costs.buffer_bytes)


def _together(parts: Iterable[Tensor]) -> Tensor:
    """Weights, inputs and outputs of each chunk added up."""
    weights, inputs, outputs = parts
    return weights + inputs + outputs
