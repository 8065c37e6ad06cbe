"""Exact traffic of one tensor between two memory levels of a loop nest: tiles, visits, halo and partial sums.

A level keeps a tile; the loops outside it, inner to outer, decide how often the tile is replaced. A loop that the tensor
does not depend on costs nothing while it lies below the innermost loop that does (stationarity). The rules are those of
Timeloop and ZigZag (checked against both, see ``references``); ``traffic`` holds the batched form used by searches.

Dimensions: G groups, K output channels per group, C input channels per group, P output rows, Q output columns,
R kernel rows, S kernel columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

DIMENSIONS = "GKCPQRS"
RELEVANT = {"W": frozenset("GKCRS"), "I": frozenset("GCPQRS"), "O": frozenset("GKPQ")}
Loops = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class OutputTraffic:
    """Elements of the output tensor that cross one border of the memory hierarchy.

    Attributes:
        written: elements sent outwards, partial sums and final values together.
        read_back: partial sums fetched again; ``written - read_back`` is the number of final values.
        spills: whether partial sums cross the border at all; if so, they travel at partial-sum width.
    """

    written: float
    read_back: float
    spills: bool


def trimmed(loops: Loops) -> list[tuple[str, float]]:
    """Loops with factor 1 dropped and neighbours over the same dimension merged; inner to outer."""
    out: list[tuple[str, float]] = []
    for name, factor in loops:
        if factor == 1:
            continue
        if out and out[-1][0] == name:
            out[-1] = (name, out[-1][1] * factor)
        else:
            out.append((name, factor))
    return out


def factors(loops: Loops) -> dict[str, float]:
    """Product of the loop factors per dimension; 1 where no loop runs over it."""
    return {d: prod((f for name, f in loops if name == d), start=1) for d in DIMENSIONS}


def touched(outputs: float, kernel: float, stride: int) -> float:
    """Input rows that ``outputs`` rows need: one window, or pieces where the stride skips rows."""
    return min((outputs - 1) * stride + kernel, outputs * kernel)


def tile_elements(tensor: str, inside: Mapping[str, float], stride: tuple[int, int] = (1, 1)) -> float:
    """Elements of one tile; the input tile is the window that the output tile needs.

    Args:
        tensor: ``W``, ``I`` or ``O``.
        inside: factor per dimension inside the level, spatial factors included.
        stride: rows, columns.
    """
    f = inside
    if tensor == "W":
        return f["G"] * f["K"] * f["C"] * f["R"] * f["S"]
    if tensor == "O":
        return f["G"] * f["K"] * f["P"] * f["Q"]
    return f["G"] * f["C"] * ((f["P"] - 1) * stride[0] + f["R"]) * ((f["Q"] - 1) * stride[1] + f["S"])


def multicast_elements(inside: Mapping[str, float], stride: tuple[int, int] = (1, 1)) -> float:
    """Input words that an array needs at once, each read from the buffer once and sent to every element that uses it.

    Unlike a tile in a buffer this is no contiguous window: where the stride exceeds the kernel factor inside, the rows
    between are not read.
    """
    f = inside
    return f["G"] * f["C"] * touched(f["P"], f["R"], stride[0]) * touched(f["Q"], f["S"], stride[1])


def visits(tensor: str, outside: Loops) -> float:
    """How often the tile is exchanged: all loops from the innermost relevant one outwards, relevant or not."""
    loops = trimmed(outside)
    first = next((i for i, (d, _) in enumerate(loops) if d in RELEVANT[tensor]), len(loops))
    return prod((f for _, f in loops[first:]), start=1)


def distinct(tensor: str, outside: Loops) -> float:
    """How many different tiles there are: the product of the relevant loops."""
    return prod((f for d, f in outside if d in RELEVANT[tensor]), start=1)


def fills(
    tensor: str, inside: Mapping[str, float], outside: Loops, stride: tuple[int, int] = (1, 1), *, sliding_window: bool = True
) -> float:
    """Elements brought into the level from outside.

    With a sliding window, a step of the innermost relevant loop fetches only new rows or columns of the input, so that this
    loop costs the union of its tiles; the loops around it fetch everything again.

    Args:
        tensor: ``W`` or ``I``; for ``O`` the number of elements written outwards.
        inside: factor per dimension inside the level.
        outside: temporal loops outside the level, inner to outer.
        stride: rows, columns.
        sliding_window: whether the buffer keeps the overlap of neighbouring tiles (circular addressing).
    """
    loops = trimmed(outside)
    first = next((i for i, (d, _) in enumerate(loops) if d in RELEVANT[tensor]), None)
    if first is None:
        return tile_elements(tensor, inside, stride)
    dimension, factor = loops[first]
    rest = prod((f for _, f in loops[first + 1 :]), start=1)
    overlaps = {"P": inside["R"] >= stride[0], "Q": inside["S"] >= stride[1], "R": True, "S": True}
    if sliding_window and tensor == "I" and overlaps.get(dimension, False):
        union = {**inside, dimension: inside[dimension] * factor}
        return tile_elements("I", union, stride) * rest
    return tile_elements(tensor, inside, stride) * factor * rest


def output_traffic(inside: Mapping[str, float], outside: Loops) -> OutputTraffic:
    """Writes and partial-sum reads of the outputs at one border; the first read of each value is elided."""
    tile, seen, different = tile_elements("O", inside), visits("O", outside), distinct("O", outside)
    return OutputTraffic(tile * seen, tile * (seen - different), seen > different)
