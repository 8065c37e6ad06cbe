"""Timeloop with Accelergy on a Gemmini-like machine, as released with DOSA (MICRO 2023; arXiv 2509.10702).

Registers hold weights, accumulators (one per column, 32 bit) outputs, the scratchpad weights and inputs, DRAM everything;
input channels unroll over rows, output channels over columns. Ports: two words a cycle and column for accumulators and
scratchpad, eight words for DRAM. Energy per 8-bit word in pJ at 40 nm, from DOSA's released tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from accel_models.engines.loopnest import DIMENSIONS, Loops, factors, fills, output_traffic
from accel_models.references.rows import ComparedRow, number, read_rows, whole
from latency_tables.errors import DesignError
from latency_tables.text.reading import shown

NEEDED = (
    "target.cycle",
    "target.energy",
    "mapping.mapping",
    "arch.meshX",
    "arch.mem1_entries",
    "arch.mem2_entries",
    "prob.Wstride",
    "prob.Hstride",
    *(f"prob.{d}" for d in "CKPQRSN"),
)
MAC_PJ, REGISTER_PJ, DRAM_PJ = 0.5608, 0.48746, 100.0
ACCUMULATOR_PJ, ACCUMULATOR_PJ_PER_KB = 1.94, 0.1005  # per kB of one column
SCRATCHPAD_PJ, SCRATCHPAD_PJ_PER_KB = 0.49, 0.02513
DRAM_WORDS_PER_CYCLE, PORT_WORDS_PER_CYCLE = 8, 2


@dataclass(frozen=True)
class Mapping:
    """Loops of the four levels, inner to outer: temporal and spatial."""

    temporal: tuple[Loops, ...]
    spatial: tuple[Loops, ...]


def parse_mapping(text: str) -> Mapping:
    """Read ``L3[WIO] C128 K64 - L2[WI] K2X - L1[O] Q28 - L0[W] N1`` (outer to inner, ``X`` marks spatial loops).

    Raises:
        DesignError: the text is something else.
    """
    levels: dict[int, list[tuple[str, int, bool]]] = {}
    for part in text.split(" - "):
        head = re.fullmatch(r"L([0-3])\[[WIO]*\]((?: [CKPQRSN][1-9][0-9]{0,8}X?)*)", part.strip())
        if not head:
            raise DesignError(f"not a mapping of four levels L3 - L2 - L1 - L0: {shown(text)}")
        loops = [(item[0], int(item[1:].rstrip("X")), item.endswith("X")) for item in head[2].split()]
        levels[int(head[1])] = [loop for loop in loops if loop[0] != "N"]
    if sorted(levels) != [0, 1, 2, 3]:
        raise DesignError(f"not a mapping of four levels L3 - L2 - L1 - L0: {shown(text)}")
    temporal = tuple([(d, f) for d, f, spatial in reversed(levels[n]) if not spatial] for n in range(4))
    return Mapping(temporal, tuple([(d, f) for d, f, spatial in levels[n] if spatial] for n in range(4)))


@dataclass(frozen=True)
class Accesses:
    """Words accessed at each level, and the array in use."""

    macs: float
    register: float
    accumulator: float
    scratchpad: float
    dram: float
    rows: float
    cols: float


def accesses(mapping: Mapping, stride: tuple[int, int]) -> Accesses:
    """Count what the mapping moves.

    Args:
        mapping: of the four levels.
        stride: rows, columns.
    """
    t, s = mapping.temporal, mapping.spatial
    macs = prod(f for loops in (*t, *s) for _, f in loops)
    rows, cols = factors([*s[0], *s[1]])["C"], factors(s[2])["K"]
    everywhere = factors([loop for loops in (*t, *s) for loop in loops])
    outputs = everywhere["K"] * everywhere["P"] * everywhere["Q"]
    scratchpad_inside = factors([*t[0], *t[1], *t[2], *s[0], *s[1], *s[2]])
    register_fills = fills("W", factors(t[0]), [*t[1], *t[2], *t[3]], stride) * rows * cols
    weight_fills, input_fills = (fills(tensor, scratchpad_inside, t[3], stride) for tensor in "WI")
    written = output_traffic(factors([*t[0], *t[1], *s[0], *s[1]]), [*t[2], *t[3]]).written * cols
    updates = macs / rows
    return Accesses(
        macs=macs,
        rows=rows,
        cols=cols,
        register=macs + register_fills,
        accumulator=written + updates + (updates - outputs),
        scratchpad=weight_fills + input_fills + register_fills + macs / cols,
        dram=weight_fills + input_fills + written + (written - outputs),
    )


def compare(path: str | Path) -> list[ComparedRow]:
    """Cycles and energy (uJ) of every row; a row is exact if its whole cycles are equal.

    Args:
        path: rows in the format of DOSA's released Timeloop data.

    Raises:
        DesignError: a column is missing or cannot be read, or a mapping does not cover its layer.
    """
    out = []
    for row in read_rows(path, NEEDED):
        where = f"{path}, line {row.number}"
        sides, entries1, entries2 = (whole(row, n, where) for n in ("arch.meshX", "arch.mem1_entries", "arch.mem2_entries"))
        stride = (whole(row, "prob.Wstride", where), whole(row, "prob.Hstride", where))
        sizes = {d: whole(row, f"prob.{d}", where) for d in DIMENSIONS if d != "G"}
        cycles_ref, energy_ref = (number(row, f"target.{n}", where, low=1e-30) for n in ("cycle", "energy"))
        try:
            mapping = parse_mapping(row["mapping.mapping"])
        except DesignError as error:
            raise DesignError(f"{where}: {error}") from error
        covered = prod(f for loops in (*mapping.temporal, *mapping.spatial) for _, f in loops)
        if covered != prod(sizes.values()):
            raise DesignError(f"{where}: the mapping covers {shown(covered)} operations, the layer has {prod(sizes.values())}")
        count = accesses(mapping, stride)
        cycles = max(
            count.macs / (count.rows * count.cols),
            count.accumulator / (PORT_WORDS_PER_CYCLE * count.cols),
            count.scratchpad / (PORT_WORDS_PER_CYCLE * sides),
            count.dram / DRAM_WORDS_PER_CYCLE,
        )
        accumulator_kb, scratchpad_kb = entries1 * sides * 4 / 1024, entries2 / 1024
        energy = (
            MAC_PJ * count.macs
            + REGISTER_PJ * count.register
            + DRAM_PJ * count.dram
            + (ACCUMULATOR_PJ + ACCUMULATOR_PJ_PER_KB * accumulator_kb / sides) * count.accumulator
            + (SCRATCHPAD_PJ + SCRATCHPAD_PJ_PER_KB * scratchpad_kb) * count.scratchpad
        )
        out.append(
            ComparedRow(
                f"line {row.number}: {row['mapping.mapping']} on {sides}x{sides}",
                round(cycles) == round(cycles_ref),
                cycles,
                cycles_ref,
                energy * 1e-6,
                energy_ref,
            )
        )
    return out
