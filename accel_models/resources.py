"""What a design occupies: DSP slices and BRAM blocks on an FPGA; multipliers, SRAM and area on an ASIC.

A DSP48E2 computes two 8-bit products that share an operand, a DSP48E1 is too narrow for that (Xilinx WP486); both do one 16-bit
product. A buffer has one bank for each word that the array takes at once; a bank is at least one block of 18,432 bits.
Left out: depthwise layers in mode ``columns`` read up to rows times cols input words a cycle, as each column streams its own
channel. The input buffer of a systolic array is counted, and an access priced, with a bank for each row all the same; the cycles
do not wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accel_models.design import AccelDesign, Platform
from accel_models.energy import ENERGY_TABLES

BRAM18_BITS = 18_432


@dataclass(frozen=True)
class Resources:
    """What a design occupies; None where the platform has no such resource or its constant is not known."""

    elements: int
    dsp: float | None
    bram18: int | None
    sram_bytes: int | None
    area_mm2: float | None

    def over(self, platform: Platform) -> list[str]:
        """What exceeds the platform, in words; empty if the design fits."""
        pairs = (
            ("DSP", self.dsp, platform.dsp_limit),
            ("BRAM18", self.bram18, platform.bram18_limit),
            ("SRAM bytes", self.sram_bytes, platform.sram_limit_bytes),
            ("processing elements", self.elements, platform.pe_limit),
        )
        return [
            f"{used:g} {name}, the limit is {limit}"
            for name, used, limit in pairs
            if used is not None and limit is not None and used > limit
        ]

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain JSON object."""
        return {
            "elements": self.elements,
            "dsp": self.dsp,
            "bram18": self.bram18,
            "sram_bytes": self.sram_bytes,
            "area_mm2": self.area_mm2,
        }


def dsp_per_multiplier(bits: int, dsp_kind: str | None) -> float:
    """DSP slices of one multiplier.

    Args:
        bits: 8 or 16.
        dsp_kind: ``DSP48E1`` or ``DSP48E2``; any other counts as the narrower ``DSP48E1``.
    """
    return 0.5 if bits <= 8 and dsp_kind == "DSP48E2" else 1.0


def bram18_blocks(buffer_bytes: Tensor, banks: Tensor, double_buffered: bool, rounding: str = "exact") -> Tensor:
    """Blocks of one buffer.

    Args:
        buffer_bytes: bytes of one tile, ``[...]``.
        banks: words taken at once, ``[...]``, broadcast against the buffer.
        double_buffered: two tiles.
        rounding: ``exact`` counts whole blocks; otherwise a smooth lower bound with the same limits.
    """
    bits = buffer_bytes * 8.0
    if rounding == "exact":
        blocks = banks * torch.ceil(bits / banks / BRAM18_BITS)
    else:
        blocks = torch.maximum(banks + torch.zeros_like(bits), bits / BRAM18_BITS)
    return blocks * (2.0 if double_buffered else 1.0)


def resources(design: AccelDesign) -> Resources:
    """What the whole design occupies."""
    platform = design.platform
    elements = sum(chunk.elements for chunk in design.chunks)
    copies = 2 if design.double_buffered else 1
    sram = copies * sum(c.weight_buffer_bytes + c.input_buffer_bytes + c.output_buffer_bytes for c in design.chunks)
    if platform.kind == "fpga":
        blocks = 0
        for c in design.chunks:
            for size, banks in zip((c.weight_buffer_bytes, c.input_buffer_bytes, c.output_buffer_bytes), c.ports, strict=True):
                blocks += int(bram18_blocks(torch.tensor(float(size)), torch.tensor(float(banks)), design.double_buffered))
        dsp = elements * dsp_per_multiplier(design.multiplier_bits, platform.dsp_kind)
        return Resources(elements, dsp, blocks, None, None)
    area = None
    table = ENERGY_TABLES[platform.energy] if platform.energy else None
    if table is not None and table.sram_mm2_per_kb is not None and table.multiply_mm2 is not None:
        element = table.multiply_mm2.get(design.multiplier_bits)
        area = None if element is None else elements * element + sram / 1024 * table.sram_mm2_per_kb
    return Resources(elements, None, None, sram, area)
