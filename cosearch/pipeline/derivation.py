"""The end of a search: the architecture that meets the targets, its file, and what is handed on to the retraining."""

from __future__ import annotations

import torch

from cosearch.pipeline.co_design import settle
from cosearch.pipeline.session import Session
from cosearch.planning.plan import Plan
from cosearch.record.architecture import ArchitectureRecord, Derivation, OperationRecord, PredictedCosts
from cosearch.record.json_record import Absent
from cosearch.space.derive import discretise
from cosearch.space.space import FORMAT, Architecture


def most_likely_feasible(plan: Plan, scores: list[list[float]]) -> Architecture:
    """The architecture with the highest score that meets every target in the table's model.

    Raises:
        InfeasibleTargetError: none does.
    """
    return discretise(plan.space, scores, *(constraint.limit for constraint in plan.constraints))


def meets_targets(plan: Plan, architecture: Architecture) -> bool:
    """Whether an architecture meets every target in the table's model."""
    return all(constraint.met_by(architecture) for constraint in plan.constraints)


def hand_on(session: Session, architecture: Architecture, network: torch.nn.Module, derived_by: Derivation, steps: int) -> None:
    """Write ``architecture.json`` and finish the stage.

    Args:
        session: of the run.
        architecture: what was found.
        network: its derived network, with the weights that it learned in the search.
        derived_by: how it was chosen.
        steps: environment steps of the search.
    """
    plan = session.plan
    space, blocks = plan.space, architecture.network()
    accelerator = None if plan.accelerator is None else settle(plan.accelerator, architecture, session.run)
    prediction = plan.hardware.predict(architecture.ops())
    points = [space.nodes[placed.node].point for placed in architecture.placed()]
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
        device=plan.hardware.device.name,
        operations=operations,
        accelerator=accelerator,
    )
    session.run.write(
        ArchitectureRecord(
            format=FORMAT,
            space=space.name,
            space_config=space.config,
            frame_shape=tuple(space.frame_shape),
            num_actions=space.num_actions,
            policy=space.policy,
            choices=tuple(architecture.choices),
            choice_names=tuple(architecture.choice_names),
            operations=tuple(op.to_dict() for op in blocks),
            wiring=blocks.wiring,
            candidate_names=tuple(tuple(point.candidates) for point in space.points),
            predicted=predicted,
            derived_by=derived_by,
        )
    )
    session.progress.note(
        f"derived {'/'.join(architecture.choice_names)}: {prediction.latency_s * 1e3:.3f} ms {prediction.provenance} "
        f"on {plan.hardware.device.name}"
    )
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    session.finish_stage("retrain", choices=list(architecture.choices), searched_weights=weights, search_steps=steps)
