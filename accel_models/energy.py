"""Energy and area constants with their sources, and the sum over what a layer does. Joules and square millimetres.

Energy is linear in every constant. Static power is not modelled: no source for it here, so it is left out and said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

PICO = 1e-12
PARTS = ("multiply", "register", "buffer", "dram")
Joules = TypeVar("Joules", float, Tensor, np.ndarray)


@dataclass(frozen=True)
class EnergyTable:
    """Constants of one technology.

    Attributes:
        description, source: what it is and where it comes from.
        multiply_j: multiplier width in bits -> joules of one multiply-accumulate.
        register_j_per_byte: access to a register in the array.
        buffer_j_per_byte: flat cost of a buffer byte, or None: then the SRAM fit below, times ``sram_scale``.
        sram_scale: SRAM energy relative to 45 nm.
        dram_j_per_byte: off-chip access.
        multiply_mm2: multiplier width -> area of one processing element; a missing width has no known area.
        sram_mm2_per_kb: area of buffers, or None.
    """

    description: str
    source: str
    multiply_j: Mapping[int, float]
    register_j_per_byte: float
    dram_j_per_byte: float
    buffer_j_per_byte: float | None = None
    sram_scale: float = 1.0
    multiply_mm2: Mapping[int, float] | None = None
    sram_mm2_per_kb: float | None = None


def _asic(node: int, mac8: float, mac16: float, register: float, sram: float, area8: float, sram_area: float) -> EnergyTable:
    return EnergyTable(
        description=f"{node} nm ASIC, LPDDR4",
        source="HWComponents (int8 and int16 MAC, register), CACTI 64-bit SRAM reads fitted over 1-1024 kB, LPDDR4 64 pJ/byte",
        multiply_j={8: mac8 * PICO, 16: mac16 * PICO},
        register_j_per_byte=register * PICO,
        dram_j_per_byte=64 * PICO,
        sram_scale=sram,
        multiply_mm2={8: area8 * 1e-6},
        sram_mm2_per_kb=sram_area,
    )


ENERGY_TABLES = {
    "asic45": _asic(45, 1.15, 4.01, 0.083, 1.0, 986, 3.3e-3),
    "asic28": _asic(28, 0.59, 2.06, 0.043, 1.2 / 2.9, 369, 1.4e-3),
    "asic16": _asic(16, 0.20, 0.70, 0.014, 0.58 / 2.9, 185, 6.3e-4),
    "eyeriss65": EnergyTable(
        description="65 nm, Eyeriss ratios: MAC 1, register 1, buffer 6, DRAM 200 per 16-bit word, MAC taken as 1 pJ",
        source="ratios: Chen et al., ISCA 2016; scale: presets of DNN-Chip-Predictor (ICASSP 2020)",
        multiply_j={16: 1 * PICO},
        register_j_per_byte=0.5 * PICO,
        buffer_j_per_byte=3 * PICO,
        dram_j_per_byte=100 * PICO,
    ),
}


def sram_j(table: EnergyTable, capacity_bytes: Tensor, width_bits: Tensor, write: bool) -> Tensor:
    """Joules of one access to an SRAM; smooth in capacity and width.

    Fit to CACTI at 45 nm (mean error 21-23 %): ``0.638 kB^0.569 bits^0.312`` pJ a read, ``0.476 kB^0.459 bits^0.500`` a write.

    Args:
        table: constants.
        capacity_bytes: size in bytes, ``[...]``.
        width_bits: of one access, ``[...]``, broadcast against the capacity.
        write: a write, else a read.
    """
    if table.buffer_j_per_byte is not None:
        return table.buffer_j_per_byte * width_bits / 8 + torch.zeros_like(capacity_bytes)
    scale, size, width = (0.476, 0.459, 0.500) if write else (0.638, 0.569, 0.312)
    return table.sram_scale * PICO * scale * (capacity_bytes / 1024) ** size * width_bits**width


def total(parts: Mapping[str, Joules]) -> Joules:
    """The energy: the sum of its parts, in their order."""
    values = iter(parts.values())
    first = next(values)
    return sum(values, first)


def energy_parts(table: EnergyTable, counts: Mapping[str, Tensor], multiplier_bits: int) -> dict[str, Tensor]:
    """Joules by part: multiplications, registers, buffers, DRAM; their sum is the energy.

    Args:
        table: constants; must know ``multiplier_bits`` (``cost`` checks it).
        counts: ``macs``, ``register_bytes``, ``dram_bytes``, and ``buffer_j``, which :func:`sram_j` priced already.
        multiplier_bits: width of the multipliers.
    """
    return {
        "multiply": counts["macs"] * table.multiply_j[multiplier_bits],
        "register": counts["register_bytes"] * table.register_j_per_byte,
        "buffer": counts["buffer_j"],
        "dram": counts["dram_bytes"] * table.dram_j_per_byte,
    }
