"""The end of a search: the architecture that meets the targets, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cosearch.pipeline.checkpoint import SearchOutput
from cosearch.pipeline.search.co_design import settle
from cosearch.planning.plan import Plan
from cosearch.record.json_record import Absent
from cosearch.record.results.architecture import ArchitectureRecord, Derivation, OperationRecord, PredictedCosts
from cosearch.record.rundir import RunDir
from cosearch.space.derivation.derive import discretise
from cosearch.space.space import FORMAT, Architecture


@dataclass(frozen=True)
class Found:
    """What a search found for one agent.

    Attributes:
        architecture: that meets its targets.
        derived_by: how it was chosen.
        output: the same for the retraining, with the searched weights.
    """

    architecture: Architecture
    derived_by: Derivation
    output: SearchOutput


def most_likely_feasible(plan: Plan, scores: list[list[float]]) -> Architecture:
    """The architecture with the highest score that meets every target in the table's model.

    Raises:
        InfeasibleTargetError: none does.
    """
    return discretise(plan.space, scores, *(constraint.limit for constraint in plan.constraints))


def write_architecture(plan: Plan, run: RunDir, architecture: Architecture, derived_by: Derivation) -> str:
    """Write ``architecture.json``; on an accelerator its design is searched a last time.

    Args:
        plan: the resolved run.
        run: the run folder.
        architecture: what was found.
        derived_by: how it was chosen.

    Returns:
        One line about it.
    """
    space, blocks = plan.space, architecture.network()
    accelerator = None if plan.accelerator is None else settle(plan.accelerator, architecture, run)
    prediction = plan.hardware.predict(architecture.ops())
    points = [next(iter(space.nodes[placed.node].points[-1:]), None) for placed in architecture.placed()]
    wired = blocks.wiring is not None  # then the order of the blocks does not tell their choices
    operations = tuple(
        OperationRecord(
            key=key, latency_s=latency, energy_j=energy, macs=op.macs, params=op.params, choice=point if wired else Absent.ABSENT
        )
        for op, (key, latency, energy), point in zip(architecture.ops(), prediction.operations, points)
    )
    predicted = PredictedCosts(
        latency_s=prediction.latency_s,
        energy_j=prediction.energy_j,
        overhead_s=prediction.overhead_s,
        interval_s=prediction.interval,
        provenance=prediction.provenance,
        device=plan.hardware.device.table_name,
        operations=operations,
        accelerator=accelerator,
    )
    run.write(
        ArchitectureRecord(
            format=FORMAT,
            space=space.name,
            space_config=space.config,
            frame_shape=tuple(space.frame_shape),
            num_actions=space.num_actions,
            policy=space.policy,
            parts=tuple(part.to_dict() for part in space.parts),
            action_sizes=space.action_sizes,
            choices=tuple(architecture.choices),
            choice_names=tuple(architecture.choice_names),
            operations=tuple(op.to_dict() for op in blocks),
            wiring=blocks.wiring,
            candidate_names=tuple(tuple(point.candidates) for point in space.points),
            predicted=predicted,
            derived_by=derived_by,
        )
    )
    return (
        f"derived {'/'.join(architecture.choice_names)}: {prediction.latency_s * 1e3:.3f} ms {prediction.provenance} "
        f"on {plan.hardware.device.table_name}"
    )


def contiguous(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a checkpoint, in plain memory order whatever the device prefers."""
    return {key: value.contiguous() for key, value in weights.items()}
