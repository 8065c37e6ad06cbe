"""ZigZag 3.9.1 on an a x a array: one byte of register for each operand, 64 kB buffers with a words a port, 8 bytes of DRAM.

Units are those of the reference: one MAC costs 1, a byte 1 in a register, 6 in a buffer, 200 in DRAM; operands and final
outputs take one byte, partial sums three. Registers are not double-buffered: a new stationary tile stops the array for its
loading time less the one cycle that overlaps. Conventions of the tool that this comparison follows: no sliding window in the
buffers, all writes of spilled partial sums at partial-sum width, the first read of a partial sum is not elided.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from accel_models.engines.loopnest import (
    DIMENSIONS,
    Loops,
    factors,
    fills,
    multicast_elements,
    output_traffic,
    tile_elements,
    visits,
)
from accel_models.layers import MAX_SIZE, LayerShape, load_layers
from accel_models.references.rows import MAX_NUMBER, ComparedRow, number, read_rows, whole
from latency_tables.errors import DesignError
from latency_tables.text.reading import parse_json, shown

NEEDED = (
    "layer",
    "array",
    "dataflow",
    "mode",
    "latency",
    "energy",
    "temporal_mapping",
    "W_dram_rd_out_to_low_B",
    "I_dram_rd_out_to_low_B",
    "O_dram_wr_in_by_low_B",
    "O_dram_rd_out_to_low_B",
)
NAMES = {"OX": "Q", "OY": "P", "FX": "S", "FY": "R", "K": "K", "C": "C", "G": "G"}
AXES = {"ws": ("K", "C"), "os": ("K", "Q"), "is": ("Q", "C")}
DEPTHWISE_AXES = {"ws": ("G",), "os": ("G", "Q"), "is": ("Q", "G")}
PARTIAL_BYTES, WORD_BYTES = 3, 8
MAC, REGISTER, BUFFER, DRAM = 1.0, 1.0, 6.0, 200.0


@dataclass(frozen=True)
class Nest:
    """One row's loops: the array's spatial factors, and temporal loops per operand and level (register, buffer, DRAM)."""

    layer: LayerShape
    side: int
    spatial: dict[str, int]
    temporal: dict[str, list[Loops]]

    def outside(self, tensor: str, level: int) -> Loops:
        """Temporal loops outside a level (0: all of them), inner to outer."""
        return [loop for loops in self.temporal[tensor][level:] for loop in loops]

    def true_size(self, dimension: str) -> float:
        """Share of a padded dimension that exists: factors that overshoot are scaled back."""
        covered = factors(self.outside("W", 0))[dimension] * self.spatial.get(dimension, 1)
        return getattr(self.layer, dimension) / covered

    def inside(self, tensor: str, level: int) -> dict[str, float]:
        """Factors inside a level over the whole array, scaled back to the true sizes."""
        held = factors([loop for loops in self.temporal[tensor][:level] for loop in loops])
        return {d: held[d] * self.spatial.get(d, 1) * self.true_size(d) for d in DIMENSIONS}

    @property
    def used(self) -> float:
        """Processing elements in use."""
        return prod(factor * self.true_size(d) for d, factor in self.spatial.items())


def parse_nest(row: dict[str, str], layer: LayerShape, where: str) -> Nest:
    """Loops of a row.

    Raises:
        DesignError: the mapping cannot be read, or does not cover the layer.
    """
    raw = parse_json(row["temporal_mapping"], f"{where}: temporal_mapping", DesignError)
    side = whole(row, "array", where)
    axes = (DEPTHWISE_AXES if layer.kind == "dw" else AXES).get(row["dataflow"])
    if axes is None:
        raise DesignError(f"{where}: dataflow must be one of {', '.join(AXES)}, got {shown(row['dataflow'])}")
    try:
        if not isinstance(raw, dict):
            raise TypeError("not an object")
        temporal: dict[str, list[Loops]] = {t: [[(NAMES[d], _factor(f)) for d, f in level] for level in raw[t]] for t in "WIO"}
    except (KeyError, TypeError, ValueError) as error:
        raise DesignError(
            f"{where}: temporal_mapping must have levels of [loop, factor] for W, I and O: {error!r:.99}"
        ) from error
    if any(prod(f for level in levels for _, f in level) > MAX_NUMBER for levels in temporal.values()):
        raise DesignError(f"{where}: the factors of temporal_mapping multiply to more than {MAX_NUMBER:g}")
    nest = Nest(layer, side, {d: min(side, getattr(layer, d)) for d in axes}, temporal)
    short = [d for d in DIMENSIONS if nest.true_size(d) > 1 + 1e-9]
    if short or any(len(levels) != 3 for levels in temporal.values()):
        raise DesignError(f"{where}: the mapping does not cover {', '.join(short) or 'three levels'} of the layer")
    return nest


def _factor(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_SIZE:
        raise ValueError(f"a factor must be an integer from 1 to {MAX_SIZE}, got {shown(value)}")
    return value


def evaluate(nest: Nest) -> tuple[float, float, dict[str, float]]:
    """Latency in cycles, energy in units of one MAC, and DRAM bytes by operand."""
    stride = (nest.layer.stride, nest.layer.stride)
    used, macs, side = nest.used, nest.layer.macs, nest.side
    compute = prod(f for _, f in nest.outside("W", 0))
    energy, reload, ports = MAC * macs, 0.0, []
    dram: dict[str, float] = {}
    for tensor in "WI":
        outer = fills(tensor, nest.inside(tensor, 2), nest.outside(tensor, 2), stride, sliding_window=False)
        inside, changes = nest.inside(tensor, 1), visits(tensor, nest.outside(tensor, 1))
        words = tile_elements("W", inside) if tensor == "W" else multicast_elements(inside, stride)
        energy += REGISTER * used * (visits(tensor, nest.outside(tensor, 0)) + changes)
        energy += BUFFER * (words * changes + outer) + DRAM * outer
        dram[tensor] = outer
        ports.append(words * changes / side)
        if nest.temporal[tensor][0]:
            reload += max(0.0, (changes - 1) * (words / side - 1))
    buffer = output_traffic(nest.inside("O", 1), nest.outside("O", 1))
    off_chip = output_traffic(nest.inside("O", 2), nest.outside("O", 2))
    buffer_bytes, off_chip_bytes = (PARTIAL_BYTES if t.spills else 1 for t in (buffer, off_chip))
    energy += REGISTER * (
        2 * PARTIAL_BYTES * macs + (2 * PARTIAL_BYTES if buffer.spills else 1) * visits("O", nest.outside("O", 1)) * used
    )
    energy += BUFFER * (buffer_bytes + (PARTIAL_BYTES if buffer.spills else 0)) * buffer.written
    energy += (BUFFER + DRAM) * (off_chip_bytes + (PARTIAL_BYTES if off_chip.spills else 0)) * off_chip.written
    dram["O_written"] = off_chip_bytes * off_chip.written
    dram["O_read"] = PARTIAL_BYTES * off_chip.written if off_chip.spills else 0.0
    ports += [buffer_bytes * buffer.written / (PARTIAL_BYTES * side)]
    return max(compute + reload, sum(dram.values()) / WORD_BYTES, *ports), energy, dram


def compare(path: str | Path, layers_file: str | Path) -> list[ComparedRow]:
    """Latency, energy and DRAM bytes of every row; exact means all DRAM counts equal to within one 8-byte word.

    Args:
        path: rows in the format of ``data/oracle_zigzag.csv``.
        layers_file: shapes of the named layers.

    Raises:
        DesignError: a column is missing or cannot be read, or a layer is not in the list.
    """
    rows = read_rows(path, NEEDED)
    shapes = {layer.name: layer for layer in load_layers(layers_file)}
    out = []
    for row in rows:
        where = f"{path}, line {row.number}"
        if row["layer"] not in shapes:
            raise DesignError(f"{where}: layer {shown(row['layer'])} is not in {layers_file}; give a list with it (--layers)")
        cycles, energy, dram = evaluate(parse_nest(row, shapes[row["layer"]], where))
        columns = dict(
            zip(
                dram,
                ("W_dram_rd_out_to_low_B", "I_dram_rd_out_to_low_B", "O_dram_wr_in_by_low_B", "O_dram_rd_out_to_low_B"),
                strict=True,
            )
        )
        details = {f"dram_{key}_bytes": (value, number(row, columns[key], where)) for key, value in dram.items()}
        latency, reference_energy = number(row, "latency", where, low=1), number(row, "energy", where, low=1e-30)
        exact = all(abs(ours - theirs) <= WORD_BYTES for ours, theirs in details.values())
        out.append(
            ComparedRow(
                f"{row['layer']} {row['array']}x{row['array']} {row['dataflow']} {row['mode']}",
                exact,
                cycles,
                latency,
                energy,
                reference_energy,
                details,
            )
        )
    return out
