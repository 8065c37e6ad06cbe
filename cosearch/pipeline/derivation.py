"""The end of a search: the architecture that meets the targets, its file, and what is handed on to the retraining."""

from __future__ import annotations

from typing import Any

import torch

from cosearch.pipeline.co_design import settle
from cosearch.pipeline.session import Session
from cosearch.planning.plan import Plan
from cosearch.space.derive import discretise
from cosearch.space.space import Architecture


def most_likely_feasible(plan: Plan, scores: list[list[float]]) -> Architecture:
    """The architecture with the highest score that meets every target in the table's model.

    Raises:
        InfeasibleTargetError: none does.
    """
    return discretise(plan.space, scores, *(constraint.limit for constraint in plan.constraints))


def meets_targets(plan: Plan, architecture: Architecture) -> bool:
    """Whether an architecture meets every target in the table's model."""
    return all(constraint.met_by(architecture) for constraint in plan.constraints)


def hand_on(
    session: Session, architecture: Architecture, network: torch.nn.Module, derived_by: dict[str, Any], steps: int
) -> None:
    """Write ``architecture.json`` and finish the stage.

    Args:
        session: of the run.
        architecture: what was found.
        network: its derived network, with the weights that it learned in the search.
        derived_by: how it was chosen, for the file.
        steps: environment steps of the search.
    """
    plan = session.plan
    accelerator = {}
    if plan.accelerator is not None:
        accelerator = {"accelerator": settle(plan.accelerator, architecture, session.run)}
    prediction = plan.table.predict(architecture.ops())
    operations = [
        {"key": key, "latency_s": latency, "energy_j": energy, "macs": op.macs, "params": op.params}
        for op, (key, latency, energy) in zip(architecture.ops(), prediction.operations)
    ]
    if architecture.network().wiring is not None:  # the order of the blocks does not tell their choices
        for operation, placed in zip(operations, architecture.placed()):
            operation["choice"] = plan.space.nodes[placed.node].point
    session.run.write_json(
        "architecture.json",
        {
            **architecture.to_dict(),
            "candidate_names": [list(point.candidates) for point in plan.space.points],
            "predicted": {
                "latency_s": prediction.latency_s,
                "energy_j": prediction.energy_j,
                "overhead_s": prediction.overhead_s,
                "interval_s": list(prediction.interval) if prediction.interval else None,
                "provenance": prediction.provenance,
                "device": plan.table.device.name,
                "operations": operations,
                **accelerator,
            },
            "derived_by": derived_by,
        },
    )
    session.progress.note(
        f"derived {'/'.join(architecture.choice_names)}: {prediction.latency_s * 1e3:.3f} ms {prediction.provenance} "
        f"on {plan.table.device.name}"
    )
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    session.finish_stage("retrain", choices=list(architecture.choices), searched_weights=weights, search_steps=steps)
