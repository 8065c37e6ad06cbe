"""An accelerator design in the role of a device's table: what a network, block by block, costs on it. All of it is modelled.

Differs from a measured table in that nothing is looked up: every block is computed from its layers by ``accel_models``, in the
design's number formats whatever the block's dtype. There is no fixed cost of an inference, and no certificate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from accel_models.design import DESIGNS, AccelDesign, design_names, load_design
from accel_models.evaluation import NetworkResult, block_costs, evaluate
from accel_models.layers import LayerShape, from_blocks
from accel_models.resources import resources
from latency_tables.errors import DesignError, InfeasibleCandidateError
from latency_tables.opspec import Device, OpSpec
from latency_tables.table import Prediction

PROVENANCE = "modelled"
RUNTIME = "accel_models"


def design_records() -> list[dict[str, str | None]]:
    """The shipped designs as rows of the list of devices."""
    records: list[dict[str, str | None]] = []
    for name in design_names():
        device = device_of(load_design(DESIGNS / f"{name}.json"))
        records.append(
            {
                "name": name,
                "description": device.description,
                "provenance": PROVENANCE,
                "runtime": device.runtime,
                "dtype": device.dtype,
                "threads": None,
            }
        )
    return records


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
    """

    provenance = PROVENANCE
    path = None
    certificate = None

    def __init__(self, design: AccelDesign, objective: str = "latency") -> None:
        self.design, self.objective = design, objective
        self.device = device_of(design)

    @property
    def table_id(self) -> str:
        """SHA-256 of the design."""
        return hashlib.sha256(json.dumps(self.design.to_dict(), sort_keys=True).encode()).hexdigest()

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

    def predict(self, ops: Sequence[OpSpec], chunk_of: Sequence[int] | None = None) -> Prediction:
        """What a network, the list of its blocks, costs: one frame alone.

        Args:
            ops: its blocks.
            chunk_of: chunk of each block; None for the best cuts.

        Raises:
            DesignError: a block does not fit the design's buffers.
        """
        try:
            costs = block_costs(ops, self.design, self.objective, chunk_of)
        except InfeasibleCandidateError as error:
            raise DesignError(f"the network does not fit design {self.design.name!r}: {error}") from error
        energies = [cost.energy_j for cost in costs if cost.energy_j is not None]
        return Prediction(
            latency_s=sum(cost.latency_s for cost in costs),
            energy_j=sum(energies) if len(energies) == len(costs) else None,
            operations=tuple((op.key, cost.latency_s, cost.energy_j) for op, cost in zip(ops, costs)),
            overhead_s=0.0,
            provenance=PROVENANCE,
            interval=None,
        )

    def chunks_of(self, ops: Sequence[OpSpec]) -> list[int]:
        """Chunk of each block of a network: the best cuts between blocks."""
        return [cost.chunk for cost in block_costs(ops, self.design, self.objective)]


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
