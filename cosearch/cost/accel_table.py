"""An accelerator design in the role of a device's table: what a network, block by block, costs on it. All of it is modelled.

Differs from a measured table in that nothing is looked up: every block is computed from its layers by ``accel_models``, in the
design's number formats whatever the block's dtype. There is no fixed cost of an inference, and no certificate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from accel_models.design import DESIGNS, AccelDesign, design_names, load_design
from accel_models.evaluate import NetworkResult, block_costs, evaluate
from accel_models.layers import LayerShape, from_blocks
from accel_models.resources import resources
from latency_tables.errors import DesignError, InfeasibleCandidateError
from latency_tables.opspec import Device, OpSpec
from latency_tables.table import Prediction

PROVENANCE = "modelled"
RUNTIME = "accel_models"


def design_records() -> list[dict[str, Any]]:
    """The shipped designs as rows of the list of devices."""
    found = []
    for name in design_names():
        device = device_of(load_design(DESIGNS / f"{name}.json"))
        found.append(
            {
                "name": name,
                "description": device.description,
                "provenance": PROVENANCE,
                "runtime": device.runtime,
                "dtype": device.dtype,
                "threads": None,
            }
        )
    return found


def device_of(design: AccelDesign) -> Device:
    """The device that a design stands for."""
    platform = design.platform
    unit = f"{platform.dsp_limit} DSP" if platform.kind == "fpga" else f"{platform.pe_limit} processing elements"
    return Device(platform.name, f"{platform.description}: accelerator of up to {unit}", RUNTIME, f"int{design.multiplier_bits}")


class AccelTable:
    """A design that answers as ``latency_tables.table.Table`` does.

    Args:
        design: the hardware.
        objective: what the cuts of a pipeline minimise: ``latency`` or ``interval``.

    Raises:
        DesignError: the design exceeds its own platform.
    """

    provenance = PROVENANCE
    path = None
    certificate = None

    def __init__(self, design: AccelDesign, objective: str = "latency") -> None:
        self.base, self.design, self.objective = design, design, objective
        self.device = device_of(design)

    @property
    def table_id(self) -> str:
        """SHA-256 of the design that it began with."""
        return hashlib.sha256(json.dumps(self.base.to_dict(), sort_keys=True).encode()).hexdigest()

    def check_limits(self) -> None:
        """Raise unless the design fits its platform.

        Raises:
            DesignError: it exceeds a limit.
        """
        over = limits_exceeded(self.design)
        if over:
            raise DesignError(
                f"design {self.design.name!r} does not fit its own platform {self.design.platform.name}: "
                f"{'; '.join(over)}. Make its chunks smaller, or raise the platform's limits"
            )

    def cast(self, ops: Sequence[OpSpec]) -> list[OpSpec]:
        """The same blocks: the number format is the design's, whatever a block's dtype."""
        return list(ops)

    def predict(self, ops: Sequence[OpSpec]) -> Prediction:
        """What a network, the list of its blocks, costs: one frame alone.

        Raises:
            DesignError: a block does not fit the design's buffers.
        """
        try:
            found = block_costs(ops, self.design, chunk_of=self.chunks_of(ops))
        except InfeasibleCandidateError as error:
            raise DesignError(f"the network does not fit design {self.design.name!r}: {error}") from error
        known = all(cost.energy_j is not None for cost in found)
        return Prediction(
            latency_s=sum(cost.latency_s for cost in found),
            energy_j=sum(cost.energy_j for cost in found) if known else None,
            operations=tuple((op.key, cost.latency_s, cost.energy_j) for op, cost in zip(ops, found)),
            overhead_s=0.0,
            provenance=PROVENANCE,
            interval=None,
        )

    def chunks_of(self, ops: Sequence[OpSpec]) -> list[int]:
        """Chunk of each block of a network: the best cuts between blocks."""
        return [cost.chunk for cost in block_costs(ops, self.design, self.objective)]

    def network(self, ops: Sequence[OpSpec]) -> NetworkResult:
        """The network layer by layer, cut between blocks.

        Raises:
            InfeasibleCandidateError: a layer does not fit the buffers.
        """
        return network_on(self.design, ops, self.chunks_of(ops))

    def record(self, ops: Sequence[OpSpec]) -> dict[str, Any]:
        """Plain JSON of design, limits and the network on it, for results and reports."""
        platform = self.design.platform
        return {
            "design": self.design.to_dict(),
            "objective": self.objective,
            "network": self.network(ops).to_dict(),
            "limits": {
                "dsp": platform.dsp_limit,
                "bram18": platform.bram18_limit,
                "elements": platform.pe_limit,
                "sram_bytes": platform.sram_limit_bytes,
            },
        }


def layers_of(ops: Sequence[OpSpec]) -> list[LayerShape]:
    """All layers of a network."""
    return [layer for group in from_blocks(ops) for layer in group]


def network_on(design: AccelDesign, ops: Sequence[OpSpec], chunk_of: Sequence[int]) -> NetworkResult:
    """A network on a design, layer by layer.

    Args:
        design: the hardware.
        ops: the network's blocks.
        chunk_of: chunk of each block.

    Raises:
        InfeasibleCandidateError: a layer does not fit the buffers.
    """
    groups = from_blocks(ops)
    flat = [j for j, group in zip(chunk_of, groups) for _ in group]
    return evaluate([layer for group in groups for layer in group], design, chunk_of=flat)


def limits_exceeded(design: AccelDesign) -> list[str]:
    """What a design exceeds of its platform, in words; empty if it fits."""
    return resources(design).over(design.platform)
