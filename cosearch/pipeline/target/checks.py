"""What is known of each target at the end of a run: measured, or predicted with the probability that it holds."""

from __future__ import annotations

from cosearch.cost.constraint import Constraint
from cosearch.deploy.measure import PERIOD_S
from cosearch.planning.plan import Plan
from cosearch.record.results.summary import TargetCheck
from cosearch.record.results.target_rounds import TargetRound
from cosearch.record.run_record import TargetRecord
from cosearch.space.derive import within
from cosearch.space.space import Architecture
from latency_tables.certificate import chance_within
from latency_tables.table import Table


def checked_targets(plan: Plan, architecture: Architecture, last: TargetRound | None) -> tuple[TargetCheck, ...]:
    """Each target of a run.

    Args:
        plan: the resolved run.
        architecture: of the agent.
        last: what the agent measured; None where it was not.
    """
    figures = {} if last is None else {figure.metric: figure for figure in last.figures}
    found = []
    for target, constraint in zip(plan.targets, plan.constraints):
        predicted, figure = constraint.line.measured(constraint.cost.exact(architecture)), figures.get(target.metric)
        ratios = () if figure is not None else _ratios(plan, target, constraint)
        found.append(
            TargetCheck(
                metric=target.metric,
                statistic=target.statistic,
                at=target.at,
                target=target.value,
                predicted=predicted,
                measured=None if figure is None else figure.measured,
                met=within(predicted if figure is None else figure.measured, target.value),
                probability=chance_within(ratios, target.value / predicted),
                residuals=len(ratios),
            )
        )
    return tuple(found)


def _ratios(plan: Plan, target: TargetRecord, constraint: Constraint) -> tuple[float, ...]:
    """Measured by predicted figures of the certificate's networks."""
    certificate = plan.hardware.certificate if isinstance(plan.hardware, Table) else None
    if certificate is None or target.metric != "latency_s":
        return ()
    known = certificate.residuals(target.statistic, PERIOD_S if target.at == "period" else None)
    return tuple(measured / constraint.line.measured(predicted) for predicted, measured in known)
